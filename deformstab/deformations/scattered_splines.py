"""The polyharmonic spline through scattered points, and whether there is one.

Two things make a spline meaningless: points that coincide, and points that all lie on one line (of
a plane; on one plane of a space). In exact arithmetic the linear system is then singular. In floats
it hardly ever is, and its solution looks like an answer. So both are looked for in the points
themselves, and what is solved must give back the values at the points.
"""

import keras
import numpy as np
from keras import ops

from deformstab.backend_tensors import concrete

# In units of the points' extent. Points further apart, or further from a line, than this are what a
# user means; nearer ones are what rounding to float32 leaves of equal ones.
_APART = 1e-6
_APART_ON_A_LINE = 1e-9  # in one dimension many points are near each other, and need not be further
# A larger error at the points, of the values' spread, is a sign of a system that was not solved. In
# float32, which JAX computes in without x64, rounding alone may reach it, and nothing can be told.
_RESIDUAL = {"float64": 1e-3, "float32": np.inf}


def spline_through(points, values, queries, order: int, weight):
    """f(queries) for the spline f with f(point) + weight · w = value; NaN where there is none.

    Args:
        points: [batch, points, dimensions].
        values: [batch, points, values].
        queries: [batch, queries, dimensions]; all of one float dtype, float64 where there is one.
        order: of the kernel, r^order (odd) or r^order log r (even).
        weight: of the regularization, a scalar tensor.

    Returns:
        [batch, queries, values]. An element of the batch whose points define no spline is NaN.

    Raises:
        ValueError: eagerly, such an element; with the points that are at fault.
    """
    # A translation changes neither distances nor the space of affine functions: only rounding, and
    # so no gradient either.
    centre = ops.stop_gradient(ops.mean(points, axis=1, keepdims=True))
    points, queries = points - centre, queries - centre
    fixed, smooths = ops.stop_gradient(points), weight > 0
    extent = _largest(fixed)
    repeats = ops.logical_and(_repeats(fixed, extent), ops.logical_not(smooths))
    flat = _is_flat(fixed, extent)
    broken = ops.logical_not(ops.isfinite(extent))
    _refuse(fixed, extent, broken, repeats, flat)
    affine = _affine(points)
    extra = affine.shape[-1]
    identity = ops.eye(ops.shape(points)[1], dtype=points.dtype)
    kernel = _kernel(points, points, order) + weight * identity
    constraints = ops.pad(ops.transpose(affine, (0, 2, 1)), ((0, 0), (0, 0), (0, extra)))
    system = ops.concatenate([ops.concatenate([kernel, affine], axis=2), constraints], axis=1)
    # Where there is no spline another system is solved, for a singular one is an error in a graph.
    impossible = ops.logical_or(broken, ops.logical_or(repeats, flat))[:, None, None]
    system = ops.where(impossible, ops.eye(ops.shape(system)[1], dtype=system.dtype), system)
    weights = ops.solve(system, ops.pad(values, ((0, 0), (0, extra), (0, 0))))
    # Not `ops.matmul`, which rounds float64 to float32 on PyTorch.
    at_points = kernel @ weights[:, :-extra] + affine @ weights[:, -extra:]
    unsolved = _is_unsolved(ops.stop_gradient(at_points), ops.stop_gradient(values))
    _refuse_unsolved(unsolved, impossible)
    result = _kernel(queries, points, order) @ weights[:, :-extra]
    result = result + _affine(queries) @ weights[:, -extra:]
    none = ops.logical_or(impossible, unsolved[:, None, None])
    return ops.where(none, ops.cast(np.nan, result.dtype), result)


def _kernel(queries, points, order):
    """φ of every distance, [batch, queries, points]."""
    squared = _squared_distances(queries, points)
    half, odd = divmod(order, 2)
    # tensorflow-addons' bound: where points coincide, φ is finite and without a slope.
    safe = ops.clip(squared, 1e-10, np.inf)
    kernel = ops.sqrt(safe) if odd else 0.5 * ops.log(safe)
    for _ in range(half):
        kernel = kernel * squared
    return kernel


def _squared_distances(queries, points):
    first, *others = (
        ops.square(queries[:, :, None, axis] - points[:, None, :, axis])
        for axis in range(points.shape[-1])
    )
    return sum(others, first)


def _affine(points):
    return ops.concatenate([points, ops.ones_like(points[..., :1])], axis=-1)


def _largest(points):
    """The largest distance from the centre, [batch]."""
    return ops.sqrt(ops.max(ops.sum(ops.square(points), axis=-1), axis=-1))


def _least_apart(points, extent):
    least = _APART if points.shape[-1] > 1 else _APART_ON_A_LINE
    return max(least, 4 * _epsilon(points)) * extent


def _repeats(points, extent):
    """Whether two of the points are one, to rounding: [batch]."""
    squared = _squared_distances(points, points)
    count = ops.shape(points)[1]
    squared = ops.where(ops.eye(count, dtype="bool"), np.inf, squared)
    return ops.min(squared, axis=(1, 2)) <= ops.square(_least_apart(points, extent))


def _is_flat(points, extent):
    """Whether the centred points span fewer dimensions than they have, to rounding: [batch].

    Gram and Schmidt's way, the longest vector first: what is left of the last one is the width.
    """
    left = points
    for _ in range(points.shape[-1]):
        squared = ops.sum(ops.square(left), axis=-1)
        longest = ops.take_along_axis(left, ops.argmax(squared, axis=1)[:, None, None], axis=1)
        width = ops.sqrt(ops.max(squared, axis=1))
        unit = longest / ops.where(width > 0, width, 1.0)[:, None, None]
        left = left - ops.sum(left * unit, axis=-1, keepdims=True) * unit
    return width <= max(_APART, 8 * _epsilon(points)) * extent


def _epsilon(x) -> float:
    return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)


def _is_unsolved(at_points, values):
    """Whether the solution misses the values by more than rounding explains: [batch]."""
    spread = ops.max(ops.abs(values - ops.mean(values, axis=1, keepdims=True)), axis=(1, 2))
    scale = ops.maximum(spread, 1e-6 * ops.max(ops.abs(values), axis=(1, 2)))
    error = ops.max(ops.abs(at_points - values), axis=(1, 2))
    bound = _RESIDUAL[keras.backend.standardize_dtype(values.dtype)] * scale
    return ops.logical_and(error > bound, ops.isfinite(scale))


def _refuse(points, extent, broken, repeats, flat) -> None:
    """Says eagerly which points are at fault."""
    broken, repeats, flat = (concrete(each) for each in (broken, repeats, flat))
    if broken is None or not (broken | repeats | flat).any():
        return
    (element,) = np.flatnonzero(broken | repeats | flat)[:1]
    where, points = f"element {element} of the batch: ", concrete(points)[element]
    if broken[element]:
        raise ValueError(f"{where}points must be finite, received NaN or infinity among them")
    what = (
        f"all {len(points)} points lie on one line"
        if points.shape[-1] == 2
        else (f"all {len(points)} points lie in fewer than their {points.shape[-1]} dimensions")
    )
    if repeats[element]:
        apart = np.sqrt(((points[:, None] - points) ** 2).sum(axis=-1))
        least = float(concrete(_least_apart(ops.convert_to_tensor(points[None]), extent))[element])
        pairs = np.argwhere(np.triu(apart <= least, 1))
        named = ", ".join(f"{i} and {j}" for i, j in pairs[:5])
        what = f"points {named}{', …' if len(pairs) > 5 else ''} are in the same place"
    raise ValueError(
        f"there is no such spline: {where}{what} (boundary points count, after the others). Remove "
        "or move some; a regularization_weight above 0 lets points repeat"
    )


def _refuse_unsolved(unsolved, impossible) -> None:
    unsolved = concrete(unsolved)
    if unsolved is not None and (unsolved & ~concrete(impossible)[:, 0, 0]).any():
        raise ValueError(
            "there is no such spline: points are so near each other, or so nearly on one line, that "
            "it cannot be computed. Remove or move some, take a lower order, or a "
            "regularization_weight above 0"
        )
