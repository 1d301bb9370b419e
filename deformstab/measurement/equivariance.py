"""measure_equivariance: whether layers move with the image, or ignore that it moves."""

from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.distances import METRICS
from deformstab.measurement.grids import Grid
from deformstab.measurement.intervals import paired_ratio
from deformstab.measurement.layer_distances import MEMORY_LIMIT
from deformstab.measurement.moving_maps import margins_of, measured_maps, moving_and_staying
from deformstab.measurement.perturbations import Deformation, Drawn
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.sensitivity import check_options, layer_columns, sensitivity_columns
from deformstab.measurement.stimuli import deformed_images, refuse_videos
from deformstab.tables import EQUIVARIANCE_COLUMNS, table

ALL_BORDER = "the border covers the map: whole map"
UNCHANGED = "no deformation changes it: there is no ratio"
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
    map does not survive unharmed. Two controls tell how much that is: `floor`, of the map moved
    there and back, r against τ_l⁻¹ τ_l r, which interpolates twice; and shifts by whole strides
    (`ds.RandomTranslation` with `integer=True`), which interpolate nothing. In layer pixels the
    same flow is smaller the deeper the layer, so compare layers of one stride.

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
        logarithm over images), `ratio_with_border`, `floor` (as `moves_with`), `stride`, `offset`
        in pixels (NaN and a note where they differ between y and x), `border` (units left out at
        each edge, the larger of y and x), `images`, `deformations`, `rms_displacement`,
        `folded_fraction`, `note`. A layer whose units do not lie on a map of the image keeps its
        row, with NaN and a note.

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
    check_flows(prepared)
    options = border, batch_size, intervals, memory_limit, progress
    return equivariance_table(model, prepared, layers, *options)


def check_flows(images) -> None:
    """Refuses `DeformedImages` of which no one knows how a map would have to move."""
    refuse_videos(images, "measure_equivariance")
    (drawn,) = images.perturbations
    if not isinstance(drawn, Drawn):
        raise ValueError(
            "whether a map moves depends on the image's flow, and a function has none that is "
            "known: pass a layer such as ds.RandomDeformation, or an object with draw, flow, deform"
        )


def equivariance_table(
    model,
    images,
    layers=None,
    border: bool = True,
    batch_size: int = 32,
    intervals: bool = True,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """`measure_equivariance` with `DeformedImages`, whose deformations are drawn already."""
    flow_columns = {
        "rms_displacement": images.rms_displacement,
        "folded_fraction": images.folded_fraction,
    }
    options = border, batch_size, memory_limit, progress
    rows = []
    for place, layer, grid in measured_maps(model, images, layers, METRICS, *options):
        row = {**layer_columns(place, layer, images, layer.metric), **flow_columns}
        rows.append(row | _columns(layer, grid, border, intervals))
    rows.sort(key=lambda row: (METRICS.index(row["metric"]), row["layer_index"]))
    return table(rows, EQUIVARIANCE_COLUMNS)


def _columns(layer, grid, border, intervals) -> dict:
    """The numbers of one layer by one metric, or the note that says why there are none."""
    if not isinstance(grid, Grid):
        return {"note": layer.note or grid}
    same = all(np.isclose(*pair) for pair in (grid.stride, grid.offset))
    margins = margins_of(grid) if border else (0, 0)
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
    with_it, stays = moving_and_staying(layer)
    floor = layer.others[f"floor/{layer.metric}"].astype("float64") ** power
    row |= {"moves_with": with_it.mean() / baseline, "stays": stays.mean() / baseline}
    row["floor"] = floor.mean() / baseline
    if not stays.any() and not with_it.any():
        return {**row, "note": UNCHANGED}
    ratio, low, high = paired_ratio(with_it, stays, intervals)
    row |= {"ratio": ratio, "ratio_low": low, "ratio_high": high}
    row["ratio_with_border"] = ratio
    if any(margins):
        whole = (
            layer.others[f"{what}/{layer.metric}"].astype("float64") ** power
            for what in ("moves_with_border", "stays_with_border")
        )
        row["ratio_with_border"], *_ = paired_ratio(*whole, intervals=False)
    return row
