"""The flow of a fine control grid as a product of thin matrices. Pure NumPy.

One matrix from 32×32 control points to 2048×2048 pixels has 4 billion entries. Two things make it
small. A flow is smooth, so it is computed at the nodes of a lattice, some to a cell of the control
grid, and interpolated between them. And what control point (r, c) adds at node (y, x),

    matrix[y, r; x, c] = Σ_k of_rows[y, k, r] · of_columns[x, k, c],

has few terms k, because a cardinal spline is nearly a function of y times one of x. The terms are
found by adaptive cross approximation (Bebendorf 2000), which computes single rows and columns of
the matrix, and shortened by a singular value decomposition.
"""

import functools
from typing import NamedTuple

import numpy as np

from deformstab.deformations.thin_plates import thin_plate_kernel, thin_plate_spline

# Nodes to a cell of n pixels: 3.3 √n. Near a control point the spline is like r² log r, so what
# interpolation misses goes with the square of the distance of nodes: with moves of a quarter of a
# cell, it is within 0.005 px, whatever the cell.
_NODES = 3.3
_TAPS = 6  # nodes that a pixel is interpolated from
_TOLERANCE = 1e-5  # of an entry of the matrix, whose largest are 1


class Axis(NamedTuple):
    """Where a flow is computed along one side of an image.

    Attributes:
        nodes: [nodes] positions in pixels; those beyond the image are there to interpolate from.
        inside: the slice of nodes within the image.
        apart: pixels from one node to the next.
        interpolation: [pixels, nodes], or `None` where the nodes are the pixels.
    """

    nodes: np.ndarray
    inside: slice
    apart: float
    interpolation: np.ndarray | None


class FlowProduct(NamedTuple):
    """The map from a grid's displacements to a flow: [nodes of y, terms, rows] and so on."""

    of_rows: np.ndarray
    of_columns: np.ndarray
    y: Axis
    x: Axis


@functools.lru_cache(maxsize=4)
def flow_product(control_points: tuple, height: int, width: int, dtype="float32") -> FlowProduct:
    """The product for a control grid over an image, computed once and kept.

    Args:
        control_points: (rows, columns).
        height, width: of the image, in pixels.
        dtype: of the result; everything is computed in float64.
    """
    sides = zip((height, width), control_points)
    cells = [(side - 1) / (points - 1) for side, points in sides]
    finest = np.sqrt(min(cells)) / _NODES
    y, x = (_axis(side, cell, finest, dtype) for side, cell in zip((height, width), cells))
    of_rows, of_columns = _cross_approximation(
        _CardinalSplines(control_points, height, width, y, x)
    )
    return FlowProduct(of_rows.astype(dtype), of_columns.astype(dtype), y, x)


def _axis(side: int, cell: float, finest: float, dtype) -> Axis:
    if finest <= 1:
        return Axis(np.arange(side, dtype="float64"), slice(None), 1.0, None)
    apart = cell / np.ceil(cell / finest)  # control points are nodes
    before, after = _TAPS // 2 - 1, _TAPS // 2
    last = round((side - 1) / apart)
    nodes = np.arange(-before, last + after + 1)
    # Lagrange's polynomial through the nodes around each pixel.
    position = np.arange(side) / apart
    first = np.minimum(np.floor(position).astype(int), last) - before
    interpolation = np.zeros((side, len(nodes)), dtype)
    for tap in range(_TAPS):
        others = [other for other in range(_TAPS) if other != tap]
        weight = np.prod([(position - first - o) / (tap - o) for o in others], axis=0)
        interpolation[np.arange(side), first + before + tap] = weight
    return Axis(nodes * apart, slice(before, before + last + 1), apart, interpolation)


class _CardinalSplines:
    """Rows and columns of matrix[y, r; x, c], each computed when it is asked for."""

    def __init__(self, control_points, height, width, y, x):
        self.rows, self.columns = control_points
        places = [np.linspace(0, side - 1, n) for side, n in zip((height, width), control_points)]
        grid = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 2)
        spline = thin_plate_spline(grid)
        self.y, self.x = ((a.nodes - o) / spline.scale for a, o in zip((y, x), spline.centre))
        centred = [(place - o) / spline.scale for place, o in zip(places, spline.centre)]
        self._down = (self.y[:, None] - centred[0]) ** 2  # [nodes of y, rows]
        self._along = (self.x[:, None] - centred[1]) ** 2  # [nodes of x, columns]
        points = len(grid)
        self._kernel = spline.weights[:points].reshape(points, self.rows, self.columns)
        self._affine = spline.weights[points:].reshape(3, self.rows, self.columns)

    def row(self, number) -> np.ndarray:
        """All (x, c) for one (y, r)."""
        y, r = divmod(number, self.rows)
        squared = self._down[y][None, :, None] + self._along[:, None, :]
        found = thin_plate_kernel(squared).reshape(len(self.x), -1) @ self._kernel[:, r]
        constant, of_y, of_x = self._affine[:, r]
        return (found + constant + self.y[y] * of_y + self.x[:, None] * of_x).ravel()

    def column(self, number) -> np.ndarray:
        """All (y, r) for one (x, c)."""
        x, c = divmod(number, self.columns)
        squared = self._down[:, :, None] + self._along[x]
        found = thin_plate_kernel(squared).reshape(len(self.y), -1) @ self._kernel[:, :, c]
        constant, of_y, of_x = self._affine[:, :, c]
        return (found + constant + self.y[:, None] * of_y + self.x[x] * of_x).ravel()


def _cross_approximation(splines):
    """(of_rows [nodes of y, terms, rows], of_columns [nodes of x, terms, columns])."""
    rows, columns = len(splines.y) * splines.rows, len(splines.x) * splines.columns
    # float32 holds what is needed, and these are the largest arrays here.
    left, right = np.empty((0, rows), "float32"), np.empty((0, columns), "float32")
    seen = np.zeros(rows, bool)
    row = (len(splines.y) // 2) * splines.rows + splines.rows // 2
    checked = iter(np.random.default_rng(0).permutation(rows)[:32])
    small = 0
    while len(left) < min(rows, columns):
        seen[row] = True
        residual = splines.row(row) - left[:, row] @ right
        pivot = np.abs(residual).argmax()
        if np.abs(residual[pivot]) > 0.01 * _TOLERANCE:
            of_column = splines.column(pivot) - right[:, pivot] @ left
            left = _with_row(left, of_column / residual[pivot])
            right = _with_row(right, residual)
            candidates = np.abs(of_column)
            small = small + 1 if candidates.max() < _TOLERANCE / 3 else 0
            row = np.where(seen, -1, candidates).argmax()
        else:
            small = 3
        if small < 3:
            continue
        # Three small terms are a sign, not a proof: rows at random decide.
        row = next(
            (r for r in checked if np.abs(splines.row(r) - left[:, r] @ right).max() > _TOLERANCE),
            None,
        )
        small = 0
        if row is None:
            break
    left, right = _shortened(left, right)
    return (
        left.reshape(len(left), -1, splines.rows).transpose(1, 0, 2),
        right.reshape(len(right), -1, splines.columns).transpose(1, 0, 2),
    )


def _with_row(matrix, row):
    return np.concatenate([matrix, row[None].astype(matrix.dtype)])


def _shortened(left, right):
    """The same product in the fewest terms: a singular value decomposition, cut off."""
    (q_left, r_left), (q_right, r_right) = np.linalg.qr(left.T), np.linalg.qr(right.T)
    u, singular, v = np.linalg.svd(r_left @ r_right.T)
    left, right = (q_left @ u).T, v @ q_right.T
    # What leaving out a term can change in an entry; of many left out, their errors add like noise.
    change = singular * np.abs(left).max(axis=1) * np.abs(right).max(axis=1)
    rest = np.sqrt(np.cumsum(change[::-1] ** 2)[::-1])
    terms = max(1, int((rest > _TOLERANCE).sum()))
    root = np.sqrt(singular[:terms, None])
    return left[:terms] * root, right[:terms] * root
