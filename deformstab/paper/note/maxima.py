"""Max pooling and one-pixel shifts: how many windows keep the value they had."""

import itertools

import numpy as np
import pandas as pd
from keras import layers, ops

from deformstab.measurement.intervals import mean_interval
from deformstab.paper.data import bundled

SHIFTS = [shift for shift in itertools.product((-1, 0, 1), repeat=2) if shift != (0, 0)]
WINDOWS = (2, 3)
IMAGES, SIDE = 500, 24  # which both windows divide


def kept_bright(window: int, place: str) -> float:
    """The share of the eight one-pixel shifts under which a window keeps its one bright pixel.

    Args:
        window: 2 or 3 pixels a side.
        place: "corner", "edge" or "centre" of it, or "any": the mean over all its pixels.

    Returns:
        3/8 for a corner, 5/8 for an edge, 1 for a centre.
    """
    share = {"corner": 3 / 8, "edge": 5 / 8, "centre": 1.0}
    if place != "any":
        return share[place]
    pixels = itertools.product(range(window), repeat=2)
    return float(np.mean([share[_place(*pixel, window)] for pixel in pixels]))


def kept_noise(window: int) -> float:
    """The share of windows that keep their maximum, of noise in which no two pixels are equal.

    The maximum is the same if the largest pixel of old and new window together lies in both. Each
    pixel is as likely to be it as any other: |both| / |together|, mean over the eight shifts.
    """
    shared = [(window - abs(y)) * (window - abs(x)) for y, x in SHIFTS]
    return float(np.mean([both / (2 * window**2 - both) for both in shared]))


def kept_shares(images: np.ndarray, window: int, counted: np.ndarray | None = None) -> np.ndarray:
    """The share of the windows whose maximum is the same after a shift, by pooling shifted images.

    Args:
        images: [images, height, width], circles in both directions; sides are multiples of `window`.
        window: pixels a side, and from window to window.
        counted: [images, rows, columns], which windows count; all by default.

    Returns:
        [images], mean over the eight one-pixel shifts.
    """
    pool = layers.MaxPooling2D(window, data_format="channels_last")

    def pooled(values):
        return ops.convert_to_numpy(pool(values[..., None]))[..., 0]

    before = pooled(images)
    counted = np.ones(before.shape, bool) if counted is None else counted
    same = [pooled(np.roll(images, shift, axis=(1, 2))) == before for shift in SHIFTS]
    kept = (np.mean(same, axis=0) * counted).sum(axis=(1, 2))
    return kept / counted.sum(axis=(1, 2))


def maxima(seed: int, images: int = IMAGES) -> pd.DataFrame:
    """Maxima that stay under one-pixel shifts, on images of one bright pixel, noise, photographs.

    Args:
        seed: of the bright pixels' places and the noise.
        images: of each sort.

    Returns:
        A row a `window`, `image` ("bright pixel", "noise", "photograph") and `place` of the bright
        pixel in its window ("corner", "edge", "centre", "any"): `expected` (NaN for photographs),
        the mean over images `kept`, its 95 % interval (Student's t) `low`, `high`, and `count`.
    """
    rng = np.random.default_rng(seed)
    noise = rng.permuted(np.tile(np.arange(SIDE**2, dtype="float32"), (images, 1)), axis=1).reshape(
        -1, SIDE, SIDE
    )
    photographs = bundled.photos(SIDE, images, 1)[0].mean(axis=-1)
    places = rng.integers(SIDE, size=(images, 2))
    bright = np.zeros_like(noise)
    bright[np.arange(images), places[:, 0], places[:, 1]] = 1
    rows = []
    for window in WINDOWS:
        windows = bright.reshape(images, SIDE // window, window, SIDE // window, window)
        shares = kept_shares(bright, window, windows.max(axis=(2, 4)) > 0)
        of = np.array([_place(y % window, x % window, window) for y, x in places])
        for place in ("any", *sorted(set(of))):
            chosen = shares if place == "any" else shares[of == place]
            rows.append(_row(window, "bright pixel", place, kept_bright(window, place), chosen))
        found = kept_shares(noise, window)
        rows.append(_row(window, "noise", "any", kept_noise(window), found))
        rows.append(_row(window, "photograph", "any", np.nan, kept_shares(photographs, window)))
    return pd.DataFrame(rows)


def _place(y, x, window) -> str:
    at_edge = [side in (0, window - 1) for side in (y, x)]
    return "corner" if all(at_edge) else "edge" if any(at_edge) else "centre"


def _row(window, image, place, expected, shares) -> dict:
    mean, low, high = mean_interval(shares)
    row = {"window": window, "image": image, "place": place, "expected": expected}
    return row | {"kept": mean, "low": low, "high": high, "count": len(shares)}
