"""Equivariance of convolution: exactly to translations, and to rotation and scale not at all."""

import numpy as np
import pandas as pd
from keras import ops

from deformstab.measurement.intervals import mean_interval
from deformstab.paper.data import bundled

KERNELS, IMAGES, SIDE = 400, 16, 32  # white images a kernel; photographs, one a kernel
# What is done to an image, and, as the layer should, to its map.
TRANSFORMS = {
    "translation": lambda maps: np.roll(maps, (2, -3), axis=(1, 2)),
    "rotation": lambda maps: np.rot90(maps, axes=(1, 2)),
    "scale": lambda maps: maps[:, ::2, ::2],
}
# Of i.i.d. kernels on white images. Of nine taps a quarter turn and a scaling by 2 keep one where it
# was, the middle; the other eight meet another weight, and 2 (1 - 1/9) = 16/9 is left.
EXPECTED = {"translation": 0.0, "rotation": 16 / 9, "scale": 16 / 9}


def symmetric(kernels: np.ndarray) -> np.ndarray:
    """The sum of each kernel's four quarter turns, which a quarter turn leaves as it is: [3, 3, …]."""
    return sum(np.rot90(kernels, turns) for turns in range(4))


def relative_errors(transform, images: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Σ ‖conv(T x) - T conv(x)‖² / Σ ‖T conv(x)‖² over images, of each kernel on images of its own.

    Args:
        transform: T, of [images, height, width, kernels].
        images: x, [images, height, width, kernels], circles in both directions.
        kernels: [3, 3, kernels].

    Returns:
        [kernels]; NaN where the map is 0, as that of a black image is.
    """
    moved, expected = _convolved(transform(images), kernels), transform(_convolved(images, kernels))
    return _relative(moved, expected)


def _relative(moved, expected) -> np.ndarray:
    axes = tuple(range(moved.ndim - 1))
    with np.errstate(invalid="ignore"):
        return ((moved - expected) ** 2).sum(axis=axes) / (expected**2).sum(axis=axes)


def _convolved(images, kernels) -> np.ndarray:
    around = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "wrap")
    kernels = np.ascontiguousarray(kernels)[..., None]
    maps = ops.depthwise_conv(around, kernels, padding="valid", data_format="channels_last")
    return ops.convert_to_numpy(maps).astype("float64")


def symmetries(seed: int, kernels: int = KERNELS, images: int = IMAGES) -> pd.DataFrame:
    """How far random 3×3 convolutions are from moving, turning and shrinking with their image.

    Kernels and white images are whole numbers from -8 to 8, so that sums are exact in any order and
    0 is 0. Photographs are 8-bit grey, one for each kernel. No two kernels share an image, so that
    their errors are independent.

    Args:
        seed: of both.
        kernels: their number.
        images: white ones a kernel.

    Returns:
        A row for each of translation (by 2 and 3 pixels), rotation (a quarter turn), scale (every
        second pixel), of `filters` "any" or "turned alike" (`symmetric`), on `image` "white" or
        "photograph": `expected` (NaN where nothing follows on paper), the mean over kernels
        `error`, its 95 % interval (Student's t) `low`, `high`, and `count` of kernels, those on black
        photographs left out.
    """
    rng = np.random.default_rng(seed)
    white = rng.integers(-8, 9, (images, SIDE, SIDE, kernels)).astype("float32")
    grey = bundled.photos(SIDE, kernels, 1)[0].mean(axis=-1)
    photographs = np.round(127.5 * (np.moveaxis(grey, 0, -1)[None] + 1)).astype("float32")
    drawn = rng.integers(-8, 9, (3, 3, kernels)).astype("float32")
    rows = []
    for image, values in (("white", white), ("photograph", photographs)):
        for filters, weights in (("any", drawn), ("turned alike", symmetric(drawn))):
            for name, transform in TRANSFORMS.items():
                expected = EXPECTED[name] if image == "white" else np.nan
                if name == "translation" or (name, filters) == ("rotation", "turned alike"):
                    expected = 0.0
                elif filters == "turned alike":
                    expected = np.nan
                errors = relative_errors(transform, values, weights)
                errors = errors[~np.isnan(errors)]
                mean, low, high = mean_interval(errors)
                row = {"transform": name, "filters": filters, "image": image}
                row |= {"expected": expected, "error": mean, "low": low, "high": high}
                rows.append(row | {"count": len(errors)})
    return pd.DataFrame(rows)


def maximum_over_turns(seed: int, kernels: int = 50, images: int = IMAGES) -> pd.DataFrame:
    """A filter, and the maximum over its four quarter turns, when the image is turned.

    Args:
        seed: of kernels and images, whole numbers as for `symmetries`.
        kernels: their number.
        images: of each.

    Returns:
        A row for each of `filters` "one filter", "maximum over its turns" and `output` "map", "maximum
        of the map": `error`, relative as in `relative_errors` (of a maximum of the map: its change),
        mean over kernels, with `low`, `high` and `count`.
    """
    rng = np.random.default_rng([seed, 1])
    values = rng.integers(-8, 9, (images, SIDE, SIDE, kernels)).astype("float32")
    drawn = rng.integers(-8, 9, (3, 3, kernels)).astype("float32")
    turn = TRANSFORMS["rotation"]
    rows = []
    for filters, turns in (("one filter", 1), ("maximum over its turns", 4)):
        before, after = (
            np.max([_convolved(each, np.rot90(drawn, k)) for k in range(turns)], axis=0)
            for each in (values, turn(values))
        )
        pairs = {
            "map": (after, turn(before)),
            "maximum of the map": (after.max(axis=(1, 2)), before.max(axis=(1, 2))),
        }
        for output, pair in pairs.items():
            mean, low, high = mean_interval(_relative(*pair))
            row = {"filters": filters, "output": output, "error": mean, "low": low, "high": high}
            rows.append(row | {"count": kernels})
    return pd.DataFrame(rows)
