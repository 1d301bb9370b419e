"""Maps of deformed images beside moved maps of images, on the grid of each layer."""

import dataclasses
import functools

import numpy as np
from keras import ops

from deformstab.backend import compiled
from deformstab.backend_tensors import split_rows
from deformstab.deformations.flows import SplineField
from deformstab.deformations.splines import control_grid
from deformstab.deformations.thin_plates import thin_plate_spline_matrix
from deformstab.deformations.warp import warp
from deformstab.measurement.grids import Grid, layer_grids
from deformstab.measurement.layer_distances import check_takes, measured_layers
from deformstab.measurement.representations import Representation

_INSERTIONS = 8


def measured_maps(model, images, layers, metric, border, batch_size, memory_limit, progress):
    """`measured_layers`, with what `Moving` reduces, and the grid of each or why it has none.

    Yields:
        (number of the row, `LayerDistances`, `Grid` or note), for each metric, in any order.
    """
    check_takes(model, images, whole=False)  # what is probed to find the grid of a layer is not
    grids = {}

    def moving(chosen):
        grids.update(layer_grids(model, images, chosen))
        cropped = [_cropped(each, grids[each.name], border) for each in chosen]
        return cropped, Moving(images, cropped, grids)

    options = metric, batch_size, memory_limit, progress, moving
    for place, layer in measured_layers(model, images, layers, *options):
        yield place, layer, grids[layer.representation.name]


def moving_and_staying(layer):
    """Distances (squares of Euclidean ones) from moved maps and from maps: [images, draws] each.

    Args:
        layer: `LayerDistances` of `measured_maps`, of a layer that has a grid.
    """
    power = 2 if layer.metric == "euclidean" else 1
    moving = layer.others[f"moves_with/{layer.metric}"]
    return [each.astype("float64") ** power for each in (moving, layer.apart)]


@dataclasses.dataclass(frozen=True)
class _Cropped(Representation):
    """A representation without units at the edges of its map.

    Attributes:
        crop: slices of the output, its batch included.
    """

    crop: tuple = ()

    def flat_rows(self, output, batch: int):
        return super().flat_rows(output[self.crop] if self.crop else output, batch)


def _cropped(each, grid, border) -> _Cropped:
    fields = {x.name: getattr(each, x.name) for x in dataclasses.fields(Representation)}
    margins = margins_of(grid) if border and isinstance(grid, Grid) else (0, 0)
    if not any(margins):
        return _Cropped(**fields)
    crop = [slice(None)] * 4
    kept = 1
    for axis, margin, side in zip(grid.axes, margins, grid.size):
        crop[axis] = slice(margin, side - margin)
        kept *= side - 2 * margin
    fields["features"] = each.features * kept // (grid.size[0] * grid.size[1])
    return _Cropped(**fields, crop=tuple(crop))


def margins_of(grid) -> tuple[int, int]:
    """Units to leave out at each edge; none if nothing were left, or it is not known."""
    margins = grid.border or (0, 0)
    fits = all(side > 2 * margin for side, margin in zip(grid.size, margins))
    return tuple(margins) if fits else (0, 0)


class Moving:
    """Distances of the maps of deformed images to moved maps, reduced within the forward pass.

    Attributes:
        places: name → (number of its grid, slices of what is compared).
        grids: the different grids, in the order of the flows that the pass takes.
        copies: of what is measured, held at once: the predicted maps are as large.
    """

    copies = 2

    def __init__(self, images, chosen, grids):
        self.grids, self.places = [], {}
        self.padding = images.padding
        for each in chosen:
            grid = grids[each.name]
            if not isinstance(grid, Grid) or each.note:
                continue
            if grid not in self.grids:
                self.grids.append(grid)
            self.places[each.name] = self.grids.index(grid), each.crop
        self.key = (tuple(self.grids), str(self.places), self.padding)

    @staticmethod
    def keys(metrics) -> tuple:
        """Of what `compared` gives, by each metric."""
        return tuple(
            f"{what}/{metric}"
            for metric in metrics
            for what in ("moves_with", "moves_with_border", "stays_with_border", "floor")
        )

    def flows(self, images, numbers, draws) -> list:
        """For each grid the flows at its units, and back: [images · draws, rows, columns, 2 · 2]."""
        (drawn,) = images.perturbations
        parameters = drawn.chosen(numbers, draws)
        found = []
        for grid in self.grids:
            flow = _flow_at(drawn, parameters, grid, images.size).astype("float32")
            found.append(_and_back(flow.shape[1:], self.padding)(ops.convert_to_tensor(flow)))
        return found

    def compared(self, name, output, count: int, flows) -> dict:
        """What is compared → two tensors, [images, 1 or draws, entries] and [images, draws, entries].

        Moved maps and maps, with maps of deformed images, with the border and without; and maps with
        themselves moved there and back.
        """
        number, crop = self.places[name]
        grid, (flow, back) = self.grids[number], ops.split(flows[number], 2, axis=-1)
        first = grid.axes == (2, 3)
        maps = ops.transpose(output, (0, 2, 3, 1)) if first else output
        maps = ops.cast(maps, "float32")
        draws = flow.shape[0] // count
        clean, moved = split_rows(maps, count)
        clean = ops.repeat(clean, draws, axis=0)
        move = _moved(tuple(clean.shape[1:]), self.padding)
        expected = move(clean, flow)
        returned = move(expected, back)

        def rows(*maps):
            return [ops.reshape(each, (count, draws, -1)) for each in maps]

        found = {}
        if crop:  # else the border is none, and both are the same
            found["moves_with_border"] = rows(expected, moved)
            found["stays_with_border"] = rows(clean, moved)
            crop = (crop[0], *(crop[axis] for axis in grid.axes), slice(None))
            expected, moved, clean, returned = (x[crop] for x in (expected, moved, clean, returned))
        found["moves_with"] = rows(expected, moved)
        found["floor"] = rows(clean, returned)
        return found


@functools.lru_cache(maxsize=64)
def _moved(shape, padding):
    """(maps [n, *shape], flows) → bilinearly warped maps, compiled."""
    flow = (None, *shape[:2], 2), "float32"
    return compiled(
        lambda maps, flow: warp(maps, flow, "bilinear", padding), ((None, *shape), "float32"), flow
    )


@functools.lru_cache(maxsize=32)
def _and_back(shape, padding):
    """Flows [n, *shape] → those and their inverses, [n, rows, columns, 4], compiled.

    The inverse g of a flow f has g(p) = -f(p + g(p)), found by inserting it: each time the error is
    multiplied by at most the largest slope of the flow, which is below 1 where nothing folds.
    """

    # Each insertion is a call of its own: in one, XLA would compute positions anew for each tap.
    inserted = _moved(shape, padding)

    def both(flow):
        back = -flow
        for _ in range(_INSERTIONS):
            back = -inserted(flow, back)
        return ops.concatenate([flow, back], axis=-1)

    return both


def _flow_at(drawn, parameters, grid, size) -> np.ndarray:
    """The flows at the units of a grid, in units: [n, rows, columns, 2]."""
    field = getattr(drawn.deformation, "field", None)
    if (grid.stride, grid.offset, grid.size) == ((1, 1), (0, 0), tuple(size)):  # bit for bit
        return ops.convert_to_numpy(drawn.deformation.flow(parameters, *size))
    if isinstance(field, SplineField):
        matrix = _spline_at(field.control_points, *size, grid)
        flow = np.einsum("qp,npk->nqk", matrix, np.asarray(parameters, "float64"), optimize=True)
    elif field is not None:
        places = _positions(grid)
        flow = np.stack([field.at(each, places, *size)[0] for each in np.asarray(parameters)])
    else:
        pixels = ops.convert_to_numpy(drawn.deformation.flow(parameters, *size))
        flow = _between_pixels(pixels, _positions(grid))
    flow = flow.reshape(-1, *grid.size, 2)
    return flow / np.array(grid.stride)


def _positions(grid) -> np.ndarray:
    """Where units lie: float64 [rows · columns, 2], pixels, (y, x)."""
    units = np.stack(np.indices(grid.size), axis=-1).reshape(-1, 2)
    return units * np.array(grid.stride) + np.array(grid.offset)


@functools.lru_cache(maxsize=32)
def _spline_at(control_points, height, width, grid) -> np.ndarray:
    return thin_plate_spline_matrix(control_grid(control_points, height, width), _positions(grid))


def _between_pixels(flows, positions) -> np.ndarray:
    """Flows [n, height, width, 2] between pixels, bilinearly: [n, positions, 2]."""
    last = np.array(flows.shape[1:3]) - 1
    positions = np.clip(positions, 0, last)
    first = np.minimum(np.floor(positions).astype(int), np.maximum(last - 1, 0))
    weight = (positions - first)[None]
    found = 0.0
    for down in (0, 1):
        for along in (0, 1):
            share = np.abs(1 - down - weight[..., 0]) * np.abs(1 - along - weight[..., 1])
            y, x = np.minimum(first + (down, along), last).T
            found = found + share[..., None] * flows[:, y, x]
    return found
