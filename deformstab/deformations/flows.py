"""Flows of control grids, and deformed images of any family in one compiled call."""

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled
from deformstab.backend_tensors import kept_constants
from deformstab.deformations.fine_grids import flow_product
from deformstab.deformations.seeds import DrawnSeed
from deformstab.deformations.splines import check_fit, control_grid, flow_lattice, is_fine
from deformstab.deformations.thin_plates import spline_with_derivatives, thin_plate_spline
from deformstab.deformations.warp import warp, warp_adjoint


@dataclass(frozen=True)
class UniformDisplacements:
    """Draws displacements [batch, points, 2] in [-max, max), pixels, (y, x)."""

    control_points: tuple[int, int]
    max_displacement: tuple[float, float]

    def __call__(self, batch_size, dtype, seed):
        shape = batch_size, self.control_points[0] * self.control_points[1], 2
        unit = keras.random.uniform(shape, -1.0, 1.0, dtype=dtype, seed=seed)
        return unit * ops.convert_to_tensor(np.array(self.max_displacement, dtype))


class Field(Protocol):
    """What the parameters of a family mean. Hashable: what is compiled is kept by it.

    Attributes:
        name: what the parameters are called.
        shape: of the parameters of one deformation.
        whole: whether flows are whole pixels, so that no pixel is interpolated.
        grid: (rows, columns) of a grid as fine as the flows vary.
        linear: whether parameters are [..., 2], and a flow in y (x) the sum of given flows, each times
            the parameter of y (x): so it has a derivative by each, and a largest one at a strength.
    """

    name: str
    shape: tuple
    whole: bool
    grid: tuple
    linear: bool

    def check(self, height, width) -> None:
        """Refuses sizes that do not fit."""

    def flow(self, parameters, height: int, width: int) -> Any:
        """[batch, height, width, 2] of parameters [batch, *shape], tensors."""

    def at(self, parameters, positions, height: int, width: int) -> tuple:
        """Of one deformation at positions [n, 2]: the flow and its derivatives by y and by x, each
        float64 [n, 2]. NumPy."""


@dataclass(frozen=True)
class SplineField:
    """Flows are thin plate splines through displacements of a control grid."""

    control_points: tuple[int, int]
    name = "displacements"
    whole = False
    linear = True

    def __str__(self):
        return f"{self.control_points[0]}×{self.control_points[1]} control points"

    @property
    def grid(self):
        return self.control_points

    @property
    def shape(self):
        return self.control_points[0] * self.control_points[1], 2

    def check(self, height, width):
        check_fit(self.control_points, height, width)

    def flow(self, parameters, height, width):
        return flow_of(parameters, self.control_points, height, width)

    def at(self, parameters, positions, height, width):
        spline = _spline(self.control_points, height, width)
        return spline_with_derivatives(spline, spline.weights @ parameters, positions)


@functools.lru_cache(maxsize=4)
def _spline(control_points, height, width):
    return thin_plate_spline(control_grid(control_points, height, width))


def flow_of(displacements, control_points, height, width):
    """The flow through displacements of the control points.

    One product with a constant matrix; of a large image at the points of a lattice, with cubic
    interpolation between them; of a fine control grid a product of thin matrices.

    Args:
        displacements: [batch, points, 2], pixels, (y, x).
        control_points: (rows, columns).
        height, width: of the images, in pixels.

    Returns:
        [batch, height, width, 2], pixels, (y, x).
    """
    dtype = keras.backend.standardize_dtype(displacements.dtype)
    if is_fine(control_points, height, width):
        return _flow_of_fine(displacements, control_points, height, width, dtype)
    lattice = flow_lattice(control_points, height, width, dtype)
    matrix = ops.convert_to_tensor(lattice.matrix)
    # [batch · 2, points] @ [points, pixels]: a single product of large matrices. Not ops.matmul,
    # which computes float64 in float32 on PyTorch.
    planes = ops.reshape(ops.transpose(displacements, (0, 2, 1)), (-1, matrix.shape[1]))
    flow = ops.reshape(planes @ ops.transpose(matrix), (-1, 2, lattice.rows, lattice.columns))
    flow = ops.transpose(flow, (0, 2, 3, 1))
    if lattice.step == 1:
        return flow
    flow = _between(flow, 1, lattice.step)[:, :height]
    return _between(flow, 2, lattice.step)[:, :, :width]


def _flow_of_fine(displacements, control_points, height, width, dtype):
    """`flow_of` by the factors of a `FlowProduct`, one image's plane of y and of x at a time."""
    key = control_points, height, width, dtype
    of_rows, of_columns, down, along = kept_constants(_thin_matrices, *key)
    nodes = of_rows.shape[0] // flow_product(*key).of_rows.shape[1]
    # The errors of an entry would add up in what all points have in common.
    mean = ops.mean(displacements, axis=1, keepdims=True)
    planes = ops.transpose(displacements - mean, (0, 2, 1))
    planes = ops.reshape(planes, (-1, *control_points))
    terms = of_rows @ planes  # [planes, nodes of y · terms, columns]
    terms = ops.reshape(terms, (-1, of_columns.shape[1]))
    flow = terms @ ops.transpose(of_columns)
    if along is not None:
        flow = flow @ ops.transpose(along)
    flow = ops.reshape(flow, (-1, nodes, width))
    if down is not None:
        flow = down @ flow
    flow = ops.transpose(ops.reshape(flow, (-1, 2, height, width)), (0, 2, 3, 1))
    return flow + mean[:, :, None]


def _thin_matrices(control_points, height, width, dtype):
    """[nodes of y · terms, rows], [nodes of x, terms · columns], interpolation along y and x."""
    of_rows, of_columns, y, x = flow_product(control_points, height, width, dtype)
    of_rows = of_rows.reshape(-1, of_rows.shape[2])
    return of_rows, of_columns.reshape(len(of_columns), -1), y.interpolation, x.interpolation


def _between(x, axis, step):
    """Cubic interpolation (Catmull-Rom, Keys 1981): n + 3 along an axis become n · step."""
    cells = x.shape[axis] - 3
    t = np.arange(step) / step
    weights = (
        0.5 * t * (-1 + t * (2 - t)),
        1 + 0.5 * t * t * (3 * t - 5),
        0.5 * t * (1 + t * (4 - 3 * t)),
        0.5 * t * t * (t - 1),
    )
    between = 0.0
    for k, weight in enumerate(weights):
        tap = x[(slice(None),) * axis + (slice(k, k + cells), None)]
        weight = weight.reshape((-1,) + (1,) * (len(x.shape) - 1 - axis))
        between = between + tap * ops.convert_to_tensor(weight, x.dtype)
    return ops.reshape(between, (-1, *x.shape[1:axis], cells * step, *x.shape[axis + 1 :]))


@functools.lru_cache(maxsize=64)
def compiled_deform(
    image_shape,
    image_dtype,
    output_dtype,
    geometry_dtype,
    field,
    interpolation,
    data_format,
    padding="edge",
):
    """(images, parameters) → deformed images, compiled once a kind of image: the one entry."""
    channels_first = data_format == "channels_first"
    height, width = image_shape[1:] if channels_first else image_shape[:2]

    sampling = "nearest" if field.whole else interpolation

    def flow_by(parameters):
        # An endless displacement would drag every pixel to an edge, and look like a deformation.
        nan = ops.cast(np.nan, parameters.dtype)
        return field.flow(ops.where(ops.isfinite(parameters), parameters, nan), height, width)

    def deform(images, parameters):
        if channels_first:
            images = ops.transpose(images, (0, 2, 3, 1))
        if interpolation == "bilinear":
            images = ops.cast(images, geometry_dtype)
        deformed = warp(images, flow_by(parameters), sampling, padding)
        deformed = ops.cast(deformed, output_dtype)
        return ops.transpose(deformed, (0, 3, 1, 2)) if channels_first else deformed

    def adjoint(gradient, parameters):
        if channels_first:
            gradient = ops.transpose(gradient, (0, 2, 3, 1))
        gradient = warp_adjoint(ops.cast(gradient, geometry_dtype), flow_by(parameters))
        gradient = ops.cast(gradient, image_dtype)
        return ops.transpose(gradient, (0, 3, 1, 2)) if channels_first else gradient

    differentiable = sampling == "bilinear" and keras.backend.is_float_dtype(image_dtype)
    return compiled(
        deform,
        ((None, *image_shape), image_dtype),
        ((None, *field.shape), geometry_dtype),
        adjoint=adjoint if differentiable and padding == "edge" else None,
    )


@functools.lru_cache(maxsize=64)
def compiled_random_deform(draws, image_shape, image_dtype, *key):
    """(images, what a seed generator's `next` gave) → deformed images, each by a draw of its own.

    Draws are not under XLA, whose numbers for a seed are others.
    """
    deform = compiled_deform(image_shape, image_dtype, *key)
    geometry_dtype = key[1]

    def random_deform(images, seed):
        return deform(images, draws(ops.shape(images)[0], geometry_dtype, DrawnSeed(seed)))

    dtype = "uint32" if keras.backend.backend() == "jax" else "int64"
    return compiled(random_deform, ((None, *image_shape), image_dtype), ((2,), dtype), jit=False)
