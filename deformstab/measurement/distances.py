"""Distances between representations, given row by row.

Rows are flattened representations. A distance is a distance: `cosine_distance` is 1 - similarity,
from 0 (same direction) over 1 (orthogonal) to 2. All sums are written as sums of squares of
differences: 1 - x·y/(|x||y|) in float32 would lose the leading digits of a small distance.
"""

from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from deformstab.backend_tensors import row_products

Metric = Literal["cosine", "euclidean"]
METRICS = get_args(Metric)


def check_metric(metric) -> Metric:
    """The metric itself; an unknown one is refused with the list of known ones."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; the known metrics are {', '.join(METRICS)}")
    return metric


def cosine_distance(x: Any, y: Any) -> Any:
    """1 - cosine similarity of each row of x with the same row of y.

    By |x̂ - ŷ|² = 2 - 2 x̂·ŷ for unit vectors: exactly 0 for equal rows, with no epsilon. A row of
    zeros has no direction: NaN.

    Args:
        x, y: [rows, features], float32 or better.

    Returns:
        [rows], from 0 to 2.

    Example:

    ```python
    ds.cosine_distance(x, y)
    ```
    """
    (x, _, x_squares), (y, _, y_squares) = (scaled(ops.convert_to_tensor(each)) for each in (x, y))
    return _cosine_distance_of_scaled(x, y, x_squares, y_squares)


def euclidean_distance(x: Any, y: Any) -> Any:
    """Euclidean distance of each row of x to the same row of y.

    Args:
        x, y: [rows, features], float32 or better.

    Returns:
        [rows], at least 0.

    Example:

    ```python
    ds.euclidean_distance(x, y)
    ```
    """
    return _norm(ops.convert_to_tensor(x) - ops.convert_to_tensor(y))


def three_sums(x, y) -> tuple:
    """What `quick_distances` takes: Σ x², Σ d² and Σ x·d over entries, of d = x - y.

    Args:
        x, y: [images, 1 or draws, entries] and [images, draws, entries].

    Returns:
        Tensors of [images, 1 or draws] and twice [images, draws] numbers, with more axes of one.
    """
    d = x - y
    return row_products((x, x), (d, d), (x, d))


def quick_distances(sums, metrics) -> tuple:
    """Of images and deformed selves, from three sums over their entries.

    Outside of the compiled step: these are few numbers, and each operation in it takes time to trace.

    Args:
        sums: of `three_sums`, computed.
        metrics: which.

    Returns:
        Distances [images, draws] by each metric; squares of lengths [images, 1 + draws], the image's
        own first, as a tuple of one; whether numbers are so ordinary that this holds. Where they are
        not, the same comes of `careful_distances`, which takes several times as long.
    """
    sums = (ops.convert_to_numpy(each) for each in sums)
    own, apart, along = (x.reshape(len(x), -1).astype("float64") for x in sums)
    with np.errstate(all="ignore"):  # where they are not ordinary
        moved = own - 2 * along + apart
        found = {
            "cosine": lambda: _cosine_distance_by_difference(own, apart, along),
            "euclidean": lambda: np.sqrt(apart),
        }
        distances = [found[metric]() for metric in metrics]
        alike = (moved > 0.01 * own) & (moved < 100 * own)  # not so for NaN
        ordinary = bool((alike & (own > 1e-20) & (own < 1e30)).all())
    return distances, (np.concatenate([own, moved], axis=1),), ordinary


def careful_distances(x, y, metrics):
    """The same of any numbers; with the squares the scales that rows were divided by."""
    (x_shares, *x_lengths), (y_shares, *y_lengths) = scaled(x), scaled(y)
    found = {
        "cosine": lambda: _cosine_distance_of_scaled(
            x_shares, y_shares, x_lengths[1], y_lengths[1]
        ),
        "euclidean": lambda: euclidean_distance(x, y),
    }
    scales, squares = (ops.concatenate(both, axis=1) for both in zip(x_lengths, y_lengths))
    return [found[metric]() for metric in metrics], (squares, scales)


def unit(x):
    """Rows scaled to length one, without overflow; a row of zeros becomes NaN."""
    x = x / largest_entries(x)[..., None]
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def scaled(x):
    """(x over a scale of each row, those scales, the squares of the scaled rows).

    What distances and lengths are computed from without over- or underflow. A row of zeros stays
    one; of a row with an entry that is not finite the squares are not either.
    """
    largest = largest_entries(x)
    x = x / largest[..., None]
    return x, largest, sum_of_squares(x)


def _cosine_distance_of_scaled(x, y, x_squares, y_squares):
    """`cosine_distance` of rows that `scaled` gave, with their squares."""
    ratio = ops.sqrt(x_squares / y_squares)
    return 0.5 * sum_of_squares(x - ratio[..., None] * y) / x_squares


def _cosine_distance_by_difference(squares, apart, along):
    """1 - cosine similarity of x and y = x - d, from sums that one pass over them gives.

    ‖d‖² is made of what lies along and what lies across: with |x|² - |y|² = 2 x·d - ‖d‖² no small
    number is a difference of large ones, unless |y| is far from |x|.

    Args:
        squares: |x|², not 0.
        apart: ‖d‖².
        along: x·d.
    """
    difference = 2 * along - apart  # |x|² - |y|²
    x, y = np.sqrt(squares), np.sqrt(squares - difference)
    longer = difference / (x + y)  # |x| - |y|
    return np.maximum(apart - np.square(longer), 0) / (2 * x * y)


def sum_of_squares(x):
    """Of the entries of each row."""
    (found,) = row_products((x, x))
    return found if len(found.shape) < len(x.shape) else ops.squeeze(found, (-2, -1))


def _norm(x):
    scale = largest_entries(x)
    return scale * ops.sqrt(sum_of_squares(x / scale[..., None]))


def largest_entries(x):
    """The largest absolute entry of each row, to divide by.

    Within bounds whose inverse is a normal number (XLA multiplies by it, and flushes others to
    zero), and not too far from any entry for its square.
    """
    bound = 1e300 if keras.backend.standardize_dtype(x.dtype) == "float64" else 1e30
    largest = ops.maximum(ops.max(x, axis=-1), -ops.min(x, axis=-1))
    return ops.clip(largest, 1 / bound, bound)
