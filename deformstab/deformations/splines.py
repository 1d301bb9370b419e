"""The control grid and its thin plate spline as one constant matrix. Pure NumPy.

Convention: points and flows are in pixels, (y, x), corner pixels at 0 and height - 1. A flow is a
backward map, out(p) = image(p + flow(p)), and the control points are fixed in the *output* image.
They are therefore the same for every draw, and so is the linear map from the displacements of the
control points to the flow at every pixel: flow = matrix @ displacements, with nothing to solve.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from deformstab.deformations.fine_grids import flow_product
from deformstab.deformations.flow_statistics import folds, warn_of_folding
from deformstab.deformations.thin_plates import thin_plate_spline_matrix

_ENTRIES = 1 << 21  # of a matrix, before a lattice takes its place
_LARGEST = 1 << 22  # entries of a lattice's matrix; beyond, a product of thin ones takes its place
_POINTS = 1 << 12  # of a control grid: their spline is a dense system of as many equations


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
        check_fit((rows, columns), height, width)
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
    rows, columns = (int(side) for side in np.broadcast_to(sides, 2))
    if rows * columns > _POINTS:
        raise ValueError(
            f"control_points must be at most {_POINTS} in all, for example 64 or (32, 128): their "
            f"spline is a dense system of as many equations; received {control_points!r}, which are "
            f"{rows * columns}"
        )
    return rows, columns


def check_max_displacement(max_displacement) -> tuple[float, float]:
    """(y, x) of a reach given as a number or a pair; refuses what is negative or not finite."""
    try:
        reach = np.broadcast_to(np.asarray(max_displacement), 2)
    except ValueError:  # neither one nor two
        reach = np.array([np.nan])
    # NumPy makes a number of a boolean beside a number.
    numbers = reach.dtype.kind in "iuf" and not any(
        isinstance(each, (bool, np.bool_)) for each in np.asarray(max_displacement, object).ravel()
    )
    if not numbers or not np.isfinite(reach).all() or (reach < 0).any():
        raise ValueError(
            "max_displacement must be a finite number of pixels of at least 0, or two of them "
            f"(y, x); received {max_displacement!r}"
        )
    return float(reach[0]), float(reach[1])


def check_fit(control_points: tuple, height, width):
    """Refuses sizes that are no sizes, and more control points on a side than it has pixels."""
    for side in (height, width):
        if side is not None and (
            isinstance(side, (bool, np.bool_)) or not isinstance(side, (int, np.integer))
        ):
            raise ValueError(
                "height and width must be ints, the size of the images in pixels, received "
                f"height={height!r}, width={width!r}"
            )
    if height is None or width is None or min(height, width) < 2:
        raise ValueError(
            "a deformation needs images whose height and width are known and at least 2 pixels, "
            f"received height={height}, width={width}; resize or crop the images first (inside "
            "tf.data, image.set_shape says a size that is known)"
        )
    if control_points[0] > height or control_points[1] > width:
        raise ValueError(
            f"{control_points[0]}×{control_points[1]} control points are more than the pixels on a "
            f"side of an image of {height}×{width}: take fewer control_points (paper: 3 at 32 "
            "pixels, 5 at 224)"
        )


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
    step = _lattice_step(control_points, height, width)
    matrix = spline_matrix(control_points, height, width, dtype, step)
    return Lattice(matrix, *_lattice_size(height, width, step), step)


def _lattice_step(control_points, height, width) -> int:
    sides = np.array([height, width])
    spacing = ((sides - 1) / (np.array(control_points) - 1)).min()
    needed = math.ceil(math.sqrt(height * width * math.prod(control_points) / _ENTRIES))
    return max(1, min(needed, int(spacing / 40)))


def is_fine(control_points: tuple, height: int, width: int) -> bool:
    """Whether a control grid is too fine for the matrix of a lattice: its flow is a product."""
    step = _lattice_step(control_points, height, width)
    size = _lattice_size(height, width, step)
    return math.prod(size) * math.prod(control_points) > _LARGEST


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
    check_fit(control_points, height, width)
    return _statistics(displacements, control_points, height, width)


def _statistics(displacements, control_points, height, width):
    displacements = np.asarray(displacements, "float32")
    flow_at_nodes, rows, columns, apart, size = _flow_at_nodes(control_points, height, width)
    step = max(1, (1 << 22) // size)
    mean_square, folded = [], []
    for start in range(0, len(displacements), step):
        block = displacements[start : start + step]
        flow = flow_at_nodes(block.transpose(2, 0, 1))
        mean_square.append((flow**2).sum(axis=0).mean(axis=-1, dtype="float64"))
        y, x = flow.reshape(2, len(block), rows, columns)
        folded.append(folds(y, x, apart))
    return np.concatenate(mean_square), np.concatenate(folded)


def _flow_at_nodes(control_points, height, width):
    """([2, draws, points] → flow [2, draws, rows · columns]), rows, columns, pixels between them,
    and how many numbers a draw takes on the way."""
    if is_fine(control_points, height, width):
        of_rows, of_columns, y, x = flow_product(control_points, height, width)
        of_rows, of_columns = of_rows[y.inside], of_columns[x.inside]
        rows, columns = len(of_rows), len(of_columns)
        of_rows = of_rows.reshape(-1, control_points[0])
        of_columns = of_columns.reshape(columns, -1).T

        def product(displacements):
            mean = displacements.mean(axis=-1, keepdims=True)
            planes = (displacements - mean).reshape(-1, *control_points)
            terms = (of_rows @ planes).reshape(len(planes) * rows, -1)
            return mean + (terms @ of_columns).reshape(*displacements.shape[:2], -1)

        size = max(rows * columns, len(of_rows) * control_points[1])
        return product, rows, columns, (y.apart, x.apart), size
    matrix, rows, columns, apart = flow_lattice(control_points, height, width)
    if apart > 1:  # without what reaches over the image
        inside = 1 + (height - 1) // apart, 1 + (width - 1) // apart
        matrix = matrix.reshape(rows, columns, -1)[1 : 1 + inside[0], 1 : 1 + inside[1]]
        matrix, (rows, columns) = matrix.reshape(-1, matrix.shape[-1]), inside
    size = rows * columns
    return lambda displacements: displacements @ matrix.T, rows, columns, (apart, apart), size


@functools.lru_cache(maxsize=64)
def fold_rate(control_points: tuple, max_displacement: tuple, height: int, width: int) -> float:
    """The share of random deformations that fold an image of this size, from 256 draws.

    Large images are scaled to at most 64 pixels a side, with the displacements: folding depends on
    displacement relative to the spacing of the control points. A fine grid (more than 9 points on a
    side) keeps 8 pixels to a cell, and is drawn 64 times.
    """
    largest = max(64, 8 * (max(control_points) - 1))
    scale = min(1.0, largest / max(height, width))
    sizes = tuple(max(2, round(scale * side)) for side in (height, width))
    reach = np.array(max_displacement) * (np.array(sizes) - 1) / (height - 1, width - 1)
    points = control_points[0] * control_points[1]
    count = 256 if largest == 64 else 64
    draws = np.random.default_rng(0).uniform(-1, 1, (count, points, 2)) * reach
    return float(_statistics(draws, control_points, *sizes)[1].mean())


def warn_if_folding(control_points: tuple, max_displacement: tuple, height: int, width: int):
    """Warns when such deformations fold the image: they are no longer changes of pose."""
    check_fit(control_points, height, width)
    warn_of_folding(
        fold_rate(control_points, max_displacement, height, width),
        f"max_displacement={max_displacement} and {control_points[0]}×{control_points[1]} control "
        "points",
        (height, width),
        "a smaller max_displacement or fewer control_points",
    )


@functools.lru_cache(maxsize=64)
def mean_square_of_weights(control_points: tuple, height: int, width: int) -> float:
    """‖M‖² / (height · width) of the matrix M from displacements to the flow at every pixel.

    What independent displacements of variance 1 make of the mean square of a flow, along one axis.
    Of a fine grid from the product of thin matrices.
    """
    check_fit(control_points, height, width)
    if is_fine(control_points, height, width):
        of_rows, of_columns, y, x = flow_product(control_points, height, width, "float64")
        grams = []
        for factor, axis in ((of_rows, y), (of_columns, x)):
            whole = factor.reshape(len(factor), -1)
            whole = whole[axis.inside] if axis.interpolation is None else axis.interpolation @ whole
            whole = whole.reshape(len(whole), *factor.shape[1:])
            grams.append(np.einsum("ntc,nsc->ts", whole, whole))
        return float((grams[0] * grams[1]).sum() / (height * width))
    total, control = 0.0, control_grid(control_points, height, width)
    step = max(1, (1 << 16) // width)
    for start in range(0, height, step):
        rows = np.arange(start, min(height, start + step))
        pixels = np.stack(np.meshgrid(rows, np.arange(width), indexing="ij"), axis=-1)
        total += np.square(thin_plate_spline_matrix(control, pixels.reshape(-1, 2))).sum()
    return float(total / (height * width))
