"""measure_equivariance: whether layers move with the image, or ignore that it moves."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from deformstab.deformations.flows import SplineField
from deformstab.deformations.splines import control_grid
from deformstab.deformations.thin_plates import thin_plate_spline_matrix
from deformstab.deformations.warp import warp
from deformstab.measurement.distances import METRICS, cosine_distance, euclidean_distance
from deformstab.measurement.grids import Grid, layer_grids
from deformstab.measurement.intervals import paired_ratio
from deformstab.measurement.layer_distances import MEMORY_LIMIT, measured_layers
from deformstab.measurement.perturbations import Deformation, Drawn
from deformstab.measurement.representations import LayerSelection, Representation
from deformstab.measurement.sensitivity import check_options, layer_columns, sensitivity_columns
from deformstab.measurement.stimuli import deformed_images, refuse_videos
from deformstab.tables import EQUIVARIANCE_COLUMNS, table

ALL_BORDER = "the border covers the map: whole map"
AXES_DIFFER = "stride or offset differ between y and x"


def measure_equivariance(
    model: keras.Model,
    images: Any,
    deformation: Deformation | None = None,
    layers: LayerSelection = None,
    border: bool = True,
    deformations: int = 1,
    batch_size: int = 32,
    intervals: bool = True,
    seed: int = 0,
    *,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """Measures whether each layer's map moves with the image, or stays as it was.

    Sensitivity merges two opposites: a map that moves along with its image, and one that changes
    into something else. So the map of the deformed image, r(τx), is compared with the *moved* map of
    the image, τ_l r(x), and with the map as it was:

        moves_with = mean ‖r(τx) - τ_l r(x)‖² / median ‖r(x) - r(y)‖²
        stays      = mean ‖r(τx) - r(x)‖² / the same,      ratio = moves_with / stays

    A ratio below 1: the layer moves with the image. Above 1: it stays. Unit (i, j) of a layer lies at
    pixel offset + stride · (i, j) of the image, as follows from what the layer sees; there the flow
    is evaluated, and divided by the stride. The moved map is interpolated bilinearly, which a rough
    map does not survive unharmed: shifts by whole strides (`ds.RandomTranslation` with
    `integer=True`) are the control. In layer pixels the same flow is smaller the deeper the layer,
    so compare layers of one stride.

    Args:
        model, images, layers, deformations, batch_size, intervals, seed, deformed_input, max_images,
            memory_limit, progress: as for `ds.measure_sensitivity`.
        deformation: as there, but one whose flow is known: no function.
        border: whether to leave out ⌈receptive field / (2 · stride)⌉ units at each edge, which see
            beyond the image. Where that is all of a map, the whole map is measured, and `note` says
            so. Either way `ratio_with_border` is that of the whole map.

    Returns:
        A DataFrame, for each metric a row a layer: `layer`, `layer_index`, `layer_type`, `metric`
        ("cosine": cosine distances in place of squared Euclidean ones), `moves_with`, `stays`,
        `ratio` with its 95 % interval `ratio_low`, `ratio_high` (delete-one jackknife of its
        logarithm over images), `ratio_with_border`, `stride`, `offset` in pixels (NaN and a note
        where they differ between y and x), `border` (units left out at each edge, the larger of y
        and x), `images`, `deformations`, `rms_displacement`, `folded_fraction`, `note`. A layer
        whose units do not lie on a map of the image keeps its row, with NaN and a note.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; the deformation is a function.

    Example:

    ```python
    table = ds.measure_equivariance(model, images)
    table.query("metric == 'euclidean'")[["layer", "ratio", "note"]]
    ```
    """
    check_options("cosine", batch_size, memory_limit)
    prepared = deformed_images(images, deformation, deformations, seed, deformed_input, max_images)
    refuse_videos(prepared, "measure_equivariance")
    (drawn,) = prepared.perturbations
    if not isinstance(drawn, Drawn):
        raise ValueError(
            "whether a map moves depends on the image's flow, and a function has none that is "
            "known: pass a layer such as ds.RandomDeformation, or an object with draw, flow, deform"
        )
    grids = {}

    def moving(chosen):
        grids.update(layer_grids(model, prepared, chosen))
        cropped = [_cropped(each, grids[each.name], border) for each in chosen]
        return cropped, Moving(prepared, cropped, grids)

    flow_columns = {
        "rms_displacement": prepared.rms_displacement,
        "folded_fraction": prepared.folded_fraction,
    }
    options = METRICS, batch_size, memory_limit / 2, progress, moving  # predicted maps, as large
    rows = []
    for place, layer in measured_layers(model, prepared, layers, *options):
        row = {**layer_columns(place, layer, prepared, layer.metric), **flow_columns}
        rows.append(row | _columns(layer, grids[layer.representation.name], border, intervals))
    rows.sort(key=lambda row: (METRICS.index(row["metric"]), row["layer_index"]))
    return table(rows, EQUIVARIANCE_COLUMNS)


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
    margins = _margins(grid) if border and isinstance(grid, Grid) else (0, 0)
    if not any(margins):
        return _Cropped(**fields)
    crop = [slice(None)] * 4
    kept = 1
    for axis, margin, side in zip(grid.axes, margins, grid.size):
        crop[axis] = slice(margin, side - margin)
        kept *= side - 2 * margin
    fields["features"] = each.features * kept // (grid.size[0] * grid.size[1])
    return _Cropped(**fields, crop=tuple(crop))


def _margins(grid) -> tuple[int, int]:
    """Units to leave out at each edge; none if nothing were left, or it is not known."""
    margins = grid.border or (0, 0)
    fits = all(side > 2 * margin for side, margin in zip(grid.size, margins))
    return tuple(margins) if fits else (0, 0)


class Moving:
    """Distances of the maps of deformed images to moved maps, reduced within the forward pass.

    Attributes:
        places: name → (number of its grid, slices of what is compared).
        grids: the different grids, in the order of the flows that the pass takes.
    """

    def __init__(self, images, chosen, grids):
        self.grids, self.places = [], {}
        self.padding = getattr(images.deformation, "padding", "edge")
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
        """Of what `distances` gives."""
        return tuple(
            f"{what}/{metric}"
            for metric in metrics
            for what in ("moves_with", "moves_with_border", "stays_with_border")
        )

    def flows(self, images, numbers, draws) -> list:
        """For each grid the flows at its units, in units: [images · draws, rows, columns, 2]."""
        (drawn,) = images.perturbations
        parameters = drawn.chosen(numbers, draws)
        return [
            ops.convert_to_tensor(_flow_at(drawn, parameters, grid, images.size).astype("float32"))
            for grid in self.grids
        ]

    def distances(self, name, output, count: int, flows, metrics) -> dict:
        """Key → [images, draws]: from moved maps, all and without the border, and from maps."""
        number, crop = self.places[name]
        grid, flow = self.grids[number], flows[number]
        first = grid.axes == (2, 3)
        maps = ops.transpose(output, (0, 2, 3, 1)) if first else output
        maps = ops.cast(maps, "float32")
        draws = flow.shape[0] // count
        clean, moved = ops.repeat(maps[:count], draws, axis=0), maps[count:]
        expected = warp(clean, flow, "bilinear", self.padding)
        if crop:
            crop = (crop[0], *(crop[axis] for axis in grid.axes), slice(None))
        found = {}
        for metric in metrics:
            measure = cosine_distance if metric == "cosine" else euclidean_distance

            def apart(x, y, crop=(), measure=measure):
                if crop:
                    x, y = x[crop], y[crop]
                rows = (ops.reshape(each, (count, draws, -1)) for each in (x, y))
                return measure(*rows)

            whole = apart(expected, moved)
            found[f"moves_with_border/{metric}"] = whole
            found[f"moves_with/{metric}"] = apart(expected, moved, crop) if crop else whole
            found[f"stays_with_border/{metric}"] = apart(clean, moved)
        return found


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


def _columns(layer, grid, border, intervals) -> dict:
    """The numbers of one layer by one metric, or the note that says why there are none."""
    if not isinstance(grid, Grid):
        return {"note": layer.note or grid}
    same = all(np.isclose(*pair) for pair in (grid.stride, grid.offset))
    margins = _margins(grid) if border else (0, 0)
    row = {
        "stride": grid.stride[0] if same else np.nan,
        "offset": grid.offset[0] if same else np.nan,
        "border": max(margins),
        "note": "" if same else AXES_DIFFER,
    }
    note = sensitivity_columns(layer, layer.metric, intervals=False).get("note", "")
    if note:
        return {**row, "note": note}
    if border and grid.border and any(grid.border) and not any(margins):
        row["note"] = "; ".join(filter(None, [row["note"], ALL_BORDER]))
    power = 2 if layer.metric == "euclidean" else 1
    baseline = np.median(layer.pairs[np.triu_indices(len(layer.pairs), 1)] ** power)
    with_it, whole, stays_whole = (
        layer.others[f"{what}/{layer.metric}"].astype("float64") ** power
        for what in ("moves_with", "moves_with_border", "stays_with_border")
    )
    stays = layer.apart.astype("float64") ** power
    row |= {"moves_with": with_it.mean() / baseline, "stays": stays.mean() / baseline}
    if not stays.any() and not with_it.any():
        return {**row, "note": "no deformation changes it: there is no ratio"}
    ratio, low, high = paired_ratio(with_it, stays, intervals)
    row |= {"ratio": ratio, "ratio_low": low, "ratio_high": high}
    row["ratio_with_border"], *_ = paired_ratio(whole, stays_whole, intervals=False)
    return row
