"""Distances between representations: of pairs given row by row, and of all pairs of a set.

Rows are flattened representations. A distance is a distance: `cosine_distance` is 1 - similarity,
from 0 (same direction) over 1 (orthogonal) to 2. All sums are written as sums of squares of
differences: 1 - x·y/(|x||y|) in float32 would lose the leading digits of a small distance.
"""

from keras import ops

METRICS = ("cosine", "euclidean")


def check_metric(metric) -> str:
    """The metric itself; an unknown one is refused with the list of known ones."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; the known metrics are {', '.join(METRICS)}")
    return metric


def cosine_distance(x, y):
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
    return 0.5 * ops.sum(ops.square(unit(x) - unit(y)), axis=-1)


def euclidean_distance(x, y):
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
    return _norm(x - y)[:, 0]


def pairwise_distances(x, metric: str):
    """Distances between all pairs of rows.

    From inner products of rows that were centred first: distances do not depend on a common shift,
    and inner products of what is left do not cancel. The first row is the first shift, so that
    equal rows become exactly zero; their mean is the second, which is the best one.

    Args:
        x: [rows, features], float32 or better.
        metric: "cosine" or "euclidean".

    Returns:
        [rows, rows], symmetric up to rounding, the diagonal not to be used.
    """
    x = unit(x) if metric == "cosine" else x
    x = x - x[:1]
    x = x - ops.mean(x, axis=0, keepdims=True)
    scale = _safe(ops.max(ops.abs(x)))
    x = x / scale
    squares = ops.sum(ops.square(x), axis=-1)
    squared = squares[:, None] + squares - 2 * ops.matmul(x, ops.transpose(x))
    squared = ops.maximum(squared, 0)
    if metric == "cosine":
        return 0.5 * squared * scale * scale
    return ops.sqrt(squared) * scale


def unit(x):
    """Rows scaled to length one, without overflow; a row of zeros becomes NaN."""
    x = x / ops.max(ops.abs(x), axis=-1, keepdims=True)
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def _norm(x):
    scale = _safe(ops.max(ops.abs(x), axis=-1, keepdims=True))
    return scale * ops.sqrt(ops.sum(ops.square(x / scale), axis=-1, keepdims=True))


def _safe(scale):
    return ops.where(scale == 0, ops.ones_like(scale), scale)
