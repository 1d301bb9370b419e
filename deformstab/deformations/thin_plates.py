"""Thin plate splines through given points, in float64. Pure NumPy."""

from typing import NamedTuple

import numpy as np

_PAIRS = 1 << 22  # of positions and control points, computed at once
_BLOCK = 1 << 16  # queries evaluated at once: bounds the memory of a large image's matrix


class Spline(NamedTuple):
    """A thin plate spline whose values at its control points are still open.

    Attributes:
        control: [points, 2], in units of the grid: (point - centre) / scale.
        weights: [points + 3, points], from values to kernel weights and affine part.
        centre: [2].
        scale: one number for both axes.
    """

    control: np.ndarray
    weights: np.ndarray
    centre: np.ndarray
    scale: float


def thin_plate_spline(control) -> Spline:
    """The system of a thin plate spline, solved for every value at once.

    Args:
        control: [points, 2], distinct and not all on one line.
    """
    control = np.asarray(control, "float64")
    # The spline does not depend on translation and scale of the plane (log s · r² is affine once
    # Σ w = 0 and Σ w c = 0 hold); in units of the grid the system is well conditioned.
    centre = control.mean(axis=0)
    scale = np.abs(control - centre).max() or 1.0
    control = (control - centre) / scale
    points = len(control)
    affine = np.concatenate([np.ones((points, 1)), control], axis=1)
    if len(np.unique(control, axis=0)) < points or np.linalg.matrix_rank(affine) < 3:
        raise ValueError(
            "a thin plate spline needs distinct control points that are not all on one line, "
            f"received {points} points that are not"
        )
    system = np.zeros((points + 3, points + 3))
    squared = ((control[:, None] - control) ** 2).sum(axis=-1)
    system[:points, :points] = thin_plate_kernel(squared)
    system[:points, points:], system[points:, :points] = affine, affine.T
    weights = np.linalg.solve(system, np.eye(points + 3, points))
    return Spline(control, weights, centre, scale)


def thin_plate_spline_matrix(control, queries, dtype="float64") -> np.ndarray:
    """The matrix that takes values at control points to their thin plate spline at query points.

    The spline of Duchon (1977): f(q) = Σ_j w_j φ(|q - c_j|) + a + b·q with φ(r) = r² log r,
    Σ w_j = 0, Σ w_j c_j = 0 and f(c_j) = value_j. Linear in the values, hence a matrix.

    Args:
        control: [points, 2], distinct and not all on one line.
        queries: [queries, 2], in the same unit.
        dtype: of the result; everything is computed in float64.

    Returns:
        [queries, points]. Its rows sum to one (a translation is reproduced exactly).
    """
    control, weights, centre, scale = thin_plate_spline(control)
    queries = (np.asarray(queries, "float64") - centre) / scale
    matrix = np.empty((len(queries), len(control)), dtype)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        squared = ((block[:, None] - control) ** 2).sum(axis=-1)
        terms = [thin_plate_kernel(squared), np.ones((len(block), 1)), block]
        matrix[start : start + _BLOCK] = np.concatenate(terms, axis=1) @ weights
    return matrix


def spline_with_derivatives(spline: Spline, weights, positions):
    """A spline at given positions, with its derivatives.

    Args:
        spline: the system that it is of.
        weights: [points + 3, values], `spline.weights` times the values at the control points.
        positions: [n, 2], in the unit of the control points, (y, x).

    Returns:
        (values, derivatives by y, by x), each float64 [n, values].
    """
    points = len(spline.control)
    values, by_y, by_x = (np.empty((len(positions), weights.shape[1])) for _ in range(3))
    block = max(1, _PAIRS // points)
    for start in range(0, len(positions), block):
        part = slice(start, start + block)
        centred = (positions[part] - spline.centre) / spline.scale
        y, x = (centred[:, None, axis] - spline.control[:, axis] for axis in (0, 1))
        squared = y**2 + x**2
        affine = np.concatenate([np.ones((len(centred), 1)), centred], axis=1)
        values[part] = thin_plate_kernel(squared) @ weights[:points] + affine @ weights[points:]
        # φ = ½ s log s of s = y² + x²: ∂φ/∂y = y (log s + 1).
        slope = np.log(np.where(squared > 0, squared, 1.0)) + 1
        by_y[part] = ((y * slope) @ weights[:points] + weights[points + 1]) / spline.scale
        by_x[part] = ((x * slope) @ weights[:points] + weights[points + 2]) / spline.scale
    return values, by_y, by_x


def thin_plate_kernel(squared):
    """φ(r) = r² log r = ½ r² log r² of squared distances; 0 at r = 0, its limit."""
    return 0.5 * squared * np.log(np.where(squared > 0, squared, 1.0))
