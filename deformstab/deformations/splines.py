"""The control grid and its thin plate spline as one constant matrix. Pure NumPy.

Convention: points and flows are in pixels, (y, x), corner pixels at 0 and height - 1. A flow is a
backward map, out(p) = image(p + flow(p)), and the control points are fixed in the *output* image.
They are therefore the same for every draw, and so is the linear map from the displacements of the
control points to the flow at every pixel: flow = matrix @ displacements, with nothing to solve.
"""

import functools
import math
import warnings
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 16  # pixels evaluated at once: bounds the memory of a large image's matrix
_ENTRIES = 1 << 21  # of a matrix, before a lattice takes its place


def control_grid(control_points, height: int, width: int) -> np.ndarray:
    """Evenly spaced control points over an image, corners included, row by row.

    Args:
        control_points: points per side, an int or (rows, columns), each at least 2.
        height, width: of the image, in pixels, each at least 2.

    Returns:
        float64 [rows · columns, 2], pixels, (y, x).
    """
    rows, columns = check_control_points(control_points)
    if height is None or width is None or min(height, width) < 2:
        raise ValueError(
            "a deformation needs images whose height and width are known and at least 2 pixels, "
            f"received height={height}, width={width}; resize or crop the images first"
        )
    y, x = np.linspace(0, height - 1, rows), np.linspace(0, width - 1, columns)
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def check_control_points(control_points) -> tuple[int, int]:
    """(rows, columns) of a control grid given as an int or a pair; refuses less than 2×2."""
    sides = np.asarray(control_points)
    if sides.shape not in ((), (2,)) or sides.dtype.kind not in "iu" or sides.min() < 2:
        raise ValueError(
            "control_points must be an int of at least 2, or two of them (rows, columns): fewer do "
            f"not determine a thin plate spline; received {control_points!r}"
        )
    rows, columns = np.broadcast_to(sides, 2)
    return int(rows), int(columns)


def check_max_displacement(max_displacement) -> tuple[float, float]:
    """(y, x) of a reach given as a number or a pair; refuses what is negative or not finite."""
    try:
        reach = np.broadcast_to(np.asarray(max_displacement), 2)
    except ValueError:  # neither one nor two
        reach = np.array([np.nan])
    numbers = reach.dtype.kind in "iuf"
    if not numbers or not np.isfinite(reach).all() or (reach < 0).any():
        raise ValueError(
            "max_displacement must be a finite number of pixels of at least 0, or two of them "
            f"(y, x); received {max_displacement!r}"
        )
    return float(reach[0]), float(reach[1])


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
    control, queries = np.asarray(control, "float64"), np.asarray(queries, "float64")
    # The spline does not depend on translation and scale of the plane (log s · r² is affine once
    # Σ w = 0 and Σ w c = 0 hold); in units of the grid the system is well conditioned.
    centre = control.mean(axis=0)
    scale = np.abs(control - centre).max() or 1.0
    control, queries = (control - centre) / scale, (queries - centre) / scale
    points = len(control)
    affine = np.concatenate([np.ones((points, 1)), control], axis=1)
    if len(np.unique(control, axis=0)) < points or np.linalg.matrix_rank(affine) < 3:
        raise ValueError(
            "a thin plate spline needs distinct control points that are not all on one line, "
            f"received {points} points that are not"
        )
    system = np.zeros((points + 3, points + 3))
    system[:points, :points] = _kernel(control, control)
    system[:points, points:], system[points:, :points] = affine, affine.T
    weights = np.linalg.solve(system, np.eye(points + 3, points))
    matrix = np.empty((len(queries), points), dtype)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        terms = [_kernel(block, control), np.ones((len(block), 1)), block]
        matrix[start : start + _BLOCK] = np.concatenate(terms, axis=1) @ weights
    return matrix


def _kernel(queries, control):
    """φ(r) = r² log r = ½ r² log r² of every pair; 0 at r = 0, its limit."""
    squared = ((queries[:, None] - control) ** 2).sum(axis=-1)
    return 0.5 * squared * np.log(np.where(squared > 0, squared, 1.0))


@functools.lru_cache(maxsize=16)
def spline_matrix(
    control_points: tuple, height: int, width: int, dtype="float64", step: int = 1
) -> np.ndarray:
    """The matrix from a grid's displacements to the flow at pixels, computed once and kept.

    Args:
        control_points: (rows, columns).
        height, width: of the image, in pixels.
        dtype: of the result; everything is computed in float64.
        step: 1 for every pixel; or a lattice of pixels so far apart, which reaches over the image:
            rows -step, 0, step, … to the second that is not in it, columns likewise.

    Returns:
        [pixels, rows · columns], read-only: `flow = matrix @ displacements`.
    """
    pixels = np.stack(np.indices(_lattice_size(height, width, step)), axis=-1).reshape(-1, 2)
    pixels = pixels if step == 1 else (pixels - 1) * step
    matrix = thin_plate_spline_matrix(control_grid(control_points, height, width), pixels, dtype)
    matrix.setflags(write=False)
    return matrix


def _lattice_size(height, width, step) -> tuple[int, int]:
    return (height, width) if step == 1 else (-(-height // step) + 3, -(-width // step) + 3)


class Lattice(NamedTuple):
    """Where a flow is evaluated: [rows · columns, points] `matrix`, pixels `step` apart."""

    matrix: np.ndarray
    rows: int
    columns: int
    step: int


def flow_lattice(control_points: tuple, height: int, width: int, dtype="float32") -> Lattice:
    """Every pixel of an image, or of a large one a lattice that is dense enough.

    The matrix of an image of 2048×2048 pixels and 5×5 control points has 105 million entries; a
    flow is so smooth that cubic interpolation between every eighth pixel is within 0.002 px of it
    for displacements of 40 px. The lattice is no coarser than it need be for 2²¹ entries, and never
    than a 40th of the spacing of the control points.
    """
    sides = np.array([height, width])
    spacing = ((sides - 1) / (np.array(control_points) - 1)).min()
    needed = math.ceil(math.sqrt(height * width * math.prod(control_points) / _ENTRIES))
    step = max(1, min(needed, int(spacing / 40)))
    matrix = spline_matrix(control_points, height, width, dtype, step)
    return Lattice(matrix, *_lattice_size(height, width, step), step)


def flow_statistics(displacements, control_points: tuple, height: int, width: int):
    """How far each deformation moves pixels, and whether it folds the image over itself.

    Args:
        displacements: [deformations, rows · columns, 2], pixels, (y, x).
        control_points: (rows, columns).
        height, width: of the image, in pixels.

    Returns:
        (mean_square, folded), each [deformations]: the mean over pixels of the squared length of
        the flow, px²; and whether the Jacobian determinant of p → p + flow(p), by forward
        differences, is ≤ 0 somewhere. Of a large image from the points of its lattice within it,
        the mean square to 1 %.
    """
    displacements = np.asarray(displacements, "float32")
    matrix, rows, columns, apart = flow_lattice(control_points, height, width)
    if apart > 1:  # without what reaches over the image
        inside = 1 + (height - 1) // apart, 1 + (width - 1) // apart
        matrix = matrix.reshape(rows, columns, -1)[1 : 1 + inside[0], 1 : 1 + inside[1]]
        matrix, (rows, columns) = matrix.reshape(-1, matrix.shape[-1]), inside
    step = max(1, (1 << 22) // (rows * columns))
    mean_square, folded = [], []
    for start in range(0, len(displacements), step):
        block = displacements[start : start + step]
        flow = block.transpose(2, 0, 1) @ matrix.T
        mean_square.append((flow**2).sum(axis=0).mean(axis=-1, dtype="float64"))
        y, x = flow.reshape(2, len(block), rows, columns)
        along = (np.s_[:, 1:, :-1], np.s_[:, :-1, 1:])  # one point further in y, in x
        here = np.s_[:, :-1, :-1]
        (dy_dy, dy_dx), (dx_dy, dx_dx) = (
            [(f[there] - f[here]) / apart for there in along] for f in (y, x)
        )
        determinant = (1 + dy_dy) * (1 + dx_dx) - dy_dx * dx_dy
        folded.append((determinant <= 0).any(axis=(1, 2)))
    return np.concatenate(mean_square), np.concatenate(folded)


@functools.lru_cache(maxsize=64)
def fold_rate(control_points: tuple, max_displacement: tuple, height: int, width: int) -> float:
    """The share of random deformations that fold an image of this size, from 256 draws.

    Large images are scaled to at most 64 pixels a side, with the displacements: folding depends on
    displacement relative to the spacing of the control points.
    """
    scale = min(1.0, 64 / max(height, width))
    sizes = tuple(max(2, round(scale * side)) for side in (height, width))
    reach = np.array(max_displacement) * (np.array(sizes) - 1) / (height - 1, width - 1)
    points = control_points[0] * control_points[1]
    draws = np.random.default_rng(0).uniform(-1, 1, (256, points, 2)) * reach
    return float(flow_statistics(draws, control_points, *sizes)[1].mean())


def warn_if_folding(control_points: tuple, max_displacement: tuple, height: int, width: int):
    """Warns when such deformations fold the image: they are no longer changes of pose."""
    rate = fold_rate(control_points, max_displacement, height, width)
    if rate > 0:
        warnings.warn(
            f"{rate:.0%} of the deformations with max_displacement={max_displacement} and "
            f"{control_points[0]}×{control_points[1]} control points fold an image of "
            f"{height}×{width} pixels over itself; use a smaller max_displacement or fewer "
            "control_points",
            stacklevel=3,
        )
