"""The parts of a flow: its translation, its affine part, and what remains.

The flow p → f(p) over the pixels of an image is split by orthogonal projection: onto constants
(translation), and onto span{1, y, x} (affine). So mean squares add up: that of the flow is that of a
part and of what is beyond it.
"""

import functools
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled
from deformstab.deformations.splines import control_grid, spline_matrix
from deformstab.deformations.warp import warp

FlowPartName = Literal["full", "translation", "affine", "beyond_translation", "beyond_affine"]
PARTS = get_args(FlowPartName)


def part_of(flow: Any, part: str) -> Any:
    """A part of flows.

    Args:
        flow: [batch, height, width, 2], pixels, (y, x).
        part: one of `PARTS`.

    Returns:
        The same shape.
    """
    flow = ops.convert_to_tensor(flow)
    dtype = keras.backend.standardize_dtype(flow.dtype)
    if part == "full":
        return flow
    height, width = flow.shape[1:3]
    found = ops.mean(flow, axis=(1, 2), keepdims=True)
    if "affine" in part:
        # On a grid of pixels 1, y - middle and x - middle are orthogonal.
        y, x = (np.arange(side) - (side - 1) / 2 for side in (height, width))
        for places in (
            np.broadcast_to(y[:, None], (height, width)),
            np.broadcast_to(x, (height, width)),
        ):
            direction = places / np.sqrt((places**2).sum())
            direction = ops.convert_to_tensor(direction[None, ..., None], dtype)
            along = ops.sum(flow * direction, axis=(1, 2), keepdims=True)
            found = found + along * direction
    if part.startswith("beyond"):
        return flow - found
    return ops.broadcast_to(found, ops.shape(flow))


class FlowPart:
    """A part of another deformation's flows, of the same draws: deforms in every measurement.

    Args:
        deformation: an object with `draw` and `flow`, such as `ds.RandomDeformation`.
        part: "full", "translation", "affine", "beyond_translation" or "beyond_affine".
    """

    def __init__(self, deformation: Any, part: FlowPartName):
        if part not in PARTS:
            raise ValueError(f"unknown part {part!r}; the parts are {', '.join(PARTS)}")
        self.deformation, self.part = deformation, part
        self.data_format = getattr(deformation, "data_format", keras.config.image_data_format())
        self.interpolation = getattr(deformation, "interpolation", "bilinear")
        self.padding = getattr(deformation, "padding", "edge")

    def draw(self, batch_size: Any, seed: Any = None) -> Any:
        """The whole deformation's parameters."""
        return self.deformation.draw(batch_size, seed=seed)

    def flow(self, parameters: Any, height: int, width: int) -> Any:
        """[batch, height, width, 2], pixels, (y, x)."""
        flow = ops.convert_to_tensor(self.deformation.flow(parameters, height, width))
        return part_of(flow, self.part)

    def deform(self, images: Any, parameters: Any) -> Any:
        """The images [batch, height, width, channels] (by `data_format`) along that part."""
        images = ops.convert_to_tensor(images)
        first = self.data_format == "channels_first"
        height, width = images.shape[2:] if first else images.shape[1:3]
        flow = self.flow(parameters, height, width)
        key = tuple(images.shape[1:]), first, self.interpolation, self.padding
        dtypes = (keras.backend.standardize_dtype(each.dtype) for each in (images, flow))
        return _compiled_warp(*key, *dtypes)(images, flow)


@functools.lru_cache(maxsize=64)
def _compiled_warp(shape, channels_first, interpolation, padding, dtype, flow_dtype):
    """(images, flow) → warped images, compiled: a gather that is not fused takes long."""
    height, width = shape[1:] if channels_first else shape[:2]

    def warped(images, flow):
        if channels_first:
            images = ops.transpose(images, (0, 2, 3, 1))
        images = warp(images, flow, interpolation, padding)
        return ops.transpose(images, (0, 3, 1, 2)) if channels_first else images

    return compiled(warped, ((None, *shape), dtype), ((None, height, width, 2), flow_dtype))


def energy_shares(control_points: tuple[int, int], height: int, width: int) -> dict:
    """What share of a random spline's mean square flow each part has, in closed form.

    Displacements of control points are independent and of one variance, so it is that of the squares
    of M, the matrix from them to the flow: ‖P M‖² / ‖M‖², P the projection of pixels onto the part.

    Args:
        control_points: (rows, columns).
        height, width: of the images, in pixels; the matrix has height · width · rows · columns
            entries.

    Returns:
        Part → share, of the parts but "full".
    """
    control_grid(control_points, height, width)
    matrix = spline_matrix(tuple(control_points), height, width)
    y, x = (each.ravel() for each in np.indices((height, width)))
    span, _ = np.linalg.qr(np.stack([np.ones(len(y)), y, x], axis=1).astype("float64"))
    total = (matrix**2).sum()
    squares = ((span.T @ matrix) ** 2).sum(axis=1) / total
    translation, affine = float(squares[0]), float(squares.sum())
    return {
        "translation": translation,
        "affine": affine,
        "beyond_translation": 1 - translation,
        "beyond_affine": 1 - affine,
    }
