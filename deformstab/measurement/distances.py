"""Distances between representations: of pairs given row by row, and of all pairs of a set.

Rows are flattened representations. A distance is a distance: `cosine_distance` is 1 - similarity,
from 0 (same direction) over 1 (orthogonal) to 2. All sums are written as sums of squares of
differences: 1 - x·y/(|x||y|) in float32 would lose the leading digits of a small distance.
"""

import functools
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled

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
    return cosine_distance_of_scaled(x, y, x_squares, y_squares)


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


def pairwise_distances(x, metric: str) -> np.ndarray:
    """Distances between all pairs of rows.

    Args:
        x: [rows, features], float32 or better.
        metric: "cosine" or "euclidean".

    Returns:
        float64 [rows, rows], symmetric; the diagonal is zero.
    """
    if metric == "cosine":
        return 0.5 * pair_squares(unit(x))
    scale = float(ops.max(_largest(x)))
    return np.sqrt(pair_squares(x, scale)) * scale


def pair_squares(x, scales=1.0, memory: float = 1 << 28) -> np.ndarray:
    """Squared Euclidean distances between all pairs of rows, each over its scale.

    From inner products of rows that were centred first: distances do not depend on a common shift,
    and inner products of what is left cancel less. Pairs that are close all the same (a tenth of
    their squares, or less) are computed again from their difference, which is exactly zero for
    equal rows.

    Args:
        x: [rows, features], float32 or better.
        scales: a number or [rows, 1] that brings rows to a size whose squares neither over- nor
            underflow.
        memory: bytes that close pairs may take.

    Returns:
        float64 [rows, rows], symmetric; the diagonal is zero.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    x, products = _centred(dtype)(x, ops.broadcast_to(ops.cast(scales, dtype), (x.shape[0], 1)))
    products = ops.convert_to_numpy(products).astype("float64")
    squares = np.diagonal(products)
    both = squares[:, None] + squares
    squared = both - 2 * products
    first, second = np.nonzero(np.triu(squared < 0.1 * both, 1))
    step = max(1, int(memory / (4 * 4 * x.shape[1])))  # pairs at once; four tensors of four bytes
    for start in range(0, len(first), step):
        i, j = first[start : start + step], second[start : start + step]
        apart = ops.sum(ops.square(ops.take(x, i, axis=0) - ops.take(x, j, axis=0)), axis=-1)
        squared[i, j] = ops.convert_to_numpy(apart)
    squared = np.triu(squared, 1)
    return squared + squared.T


@functools.cache
def _centred(dtype):
    """(rows over scales less their mean, inner products of all pairs), compiled for any shape."""

    def centred(x, scales):
        x = x / scales
        x = x - ops.mean(x, axis=0, keepdims=True)
        return x, x @ ops.transpose(x)  # ops.matmul computes float64 in float32 on PyTorch

    return compiled(centred, ((None, None), dtype), ((None, 1), dtype), jit=False)


def unit(x):
    """Rows scaled to length one, without overflow; a row of zeros becomes NaN."""
    x = x / _largest(x)[..., None]
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def scaled(x):
    """(x over a scale of each row, those scales, the squares of the scaled rows).

    What distances and lengths are computed from without over- or underflow. A row of zeros stays
    one; of a row with an entry that is not finite the squares are not either.
    """
    largest = _largest(x)
    x = x / largest[..., None]
    return x, largest, sum_of_squares(x)


def cosine_distance_of_scaled(x, y, x_squares, y_squares):
    """`cosine_distance` of rows that `scaled` gave, with their squares."""
    ratio = ops.sqrt(x_squares / y_squares)
    return 0.5 * sum_of_squares(x - ratio[..., None] * y) / x_squares


def sum_of_squares(x):
    """Of the entries of each row."""
    return ops.sum(ops.square(x), axis=-1)


def _norm(x):
    scale = _largest(x)
    return scale * ops.sqrt(sum_of_squares(x / scale[..., None]))


def _largest(x):
    """The largest absolute entry of each row, to divide by.

    Within bounds whose inverse is a normal number (XLA multiplies by it, and flushes others to
    zero), and not too far from any entry for its square.
    """
    bound = 1e300 if keras.backend.standardize_dtype(x.dtype) == "float64" else 1e30
    largest = ops.maximum(ops.max(x, axis=-1), -ops.min(x, axis=-1))
    return ops.clip(largest, 1 / bound, bound)
