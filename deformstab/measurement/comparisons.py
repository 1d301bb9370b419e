"""What people do with sensitivities next: other strengths, other models, and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from deformstab.checks import check_model
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.deformations.splines import check_max_displacement
from deformstab.measurement.distances import Metric
from deformstab.measurement.intervals import jackknife_interval, leave_one_out
from deformstab.measurement.layer_distances import MEMORY_LIMIT, measured_layers
from deformstab.measurement.perturbations import Deformation
from deformstab.measurement.representations import INPUT, LayerSelection
from deformstab.measurement.sensitivity import (
    check_options,
    layer_columns,
    sensitivity_columns,
)
from deformstab.measurement.sources import first_images
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import COMPARISON_COLUMNS, SENSITIVITY_COLUMNS, STRENGTH_COLUMNS, table


def sensitivity_by_strength(
    model: keras.Model,
    images: Any,
    max_displacements: Sequence[float | tuple[float, float]],
    deformation: RandomDeformation | None = None,
    layers: LayerSelection = None,
    metric: Metric = "cosine",
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
    """Measures each layer's sensitivity to deformations of several strengths.

    Each row is what `ds.measure_sensitivity` gives for that strength, from the same seed: the same
    deformations, scaled. Distances between images do not depend on the strength, and are computed
    once.

    Args:
        model, images: as for `ds.measure_sensitivity`.
        max_displacements: the strengths, in pixels, each a number or (y, x).
        deformation: of the control points and interpolation; its own strength does not matter.
        layers, metric, deformations, batch_size, intervals, seed, deformed_input, max_images,
            memory_limit, progress: as for `ds.measure_sensitivity`.

    Returns:
        The DataFrame of `ds.measure_sensitivity`, with `max_displacement` before its columns (of a
        pair the larger one): all layers of the first strength, then those of the next.
        `ds.plot_sensitivity` draws it.

    Raises:
        ValueError: as `ds.measure_sensitivity` does, and without strengths.

    Example:

    ```python
    table = ds.sensitivity_by_strength(model, images, [0.5, 1, 2])
    figure = ds.plot_sensitivity(table)
    ```
    """
    check_options(metric, batch_size, memory_limit)
    given = max_displacements if np.iterable(max_displacements) else [max_displacements]
    strengths = [check_max_displacement(each) for each in given]
    if not strengths:
        raise ValueError("max_displacements is empty: pass some strengths in pixels")
    if all(y == x for y, x in strengths):
        strengths = [y for y, _ in strengths]
    prepared = deformed_images(
        images, deformation, deformations, seed, deformed_input, max_images, strengths
    )
    mean_square, folded = prepared.flow_statistics
    rows = []
    found = measured_layers(model, prepared, layers, metric, batch_size, memory_limit, progress)
    for place, layer in found:
        for number, strength in enumerate(strengths):
            own = slice(number * deformations, (number + 1) * deformations)
            rows.append(
                {
                    **layer_columns(place, layer, prepared, metric),
                    "number": number,
                    "max_displacement": np.max(strength),
                    "deformations": deformations,
                    "rms_displacement": np.sqrt(mean_square[:, own].mean()),
                    "folded_fraction": folded[:, own].mean(),
                    **sensitivity_columns(layer, metric, intervals, own),
                }
            )
    rows.sort(key=lambda row: (row["number"], row["layer_index"]))
    return table(rows, {**STRENGTH_COLUMNS, **SENSITIVITY_COLUMNS})


def compare_sensitivity(
    models: Mapping[str, keras.Model],
    images: Any,
    deformation: Deformation | None = None,
    layers: LayerSelection = None,
    metric: Metric = "cosine",
    deformations: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    *,
    by: Literal["layer", "depth"] = "layer",
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """Compares models layer by layer, under the same deformations of the same images.

    The first model is the reference; every other one is compared with it, by difference and by
    ratio. Intervals are paired: an image is left out of both models at once (delete-one jackknife),
    so what is hard about an image cancels.

    Args:
        models: {name: model}, at least two, of the same inputs.
        images, deformation, layers, metric, deformations, batch_size, seed, deformed_input,
            max_images, memory_limit, progress: as for `ds.measure_sensitivity`.
        by: which layers are compared. "layer": those of the same name. "depth": of models that are
            built otherwise; a layer of the reference at relative depth t (0 the first row of
            `ds.measure_sensitivity`, 1 the last) with the other model's log sensitivity at t,
            interpolated linearly between its layers, or at the nearest one where there are none
            before or after; those that cannot be measured are passed over.

    Returns:
        A DataFrame, a row for each model but the first and each layer: `model`, `reference`,
        `layer`, `layer_index`, `depth` (of the reference's layer), `metric`, `sensitivity`,
        `reference_sensitivity`, `difference` and `ratio` (of these two), each with its 95 %
        interval as `_low` and `_high`, `images`, `deformations`, `note`. A layer that the other one
        does not have, or that one of the two cannot measure, keeps its row, with NaN and a note.
        Between models that are alike, and of few images, the intervals are wider than they need be.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; fewer than two models; no layer in common but
            the input.

    Example:

    ```python
    models = {"before": model, "after": ds.swap_downsampling(model, "average")}
    table = ds.compare_sensitivity(models, images)
    ```
    """
    check_options(metric, batch_size, memory_limit)
    if by not in ("layer", "depth"):
        raise ValueError(f'by must be "layer" or "depth", received {by!r}')
    if not isinstance(models, dict) or len(models) < 2:
        raise ValueError(
            f"models must be a dict of at least two, {{name: model}}, received {models!r}"
        )
    for model in models.values():
        check_model(model)
    # Generators cannot be read again, neither of images nor of layers.
    inputs, _ = first_images(images, max_images)
    layers = layers if layers is None or callable(layers) or isinstance(layers, str) else [*layers]
    prepared = deformed_images(inputs, deformation, deformations, seed, deformed_input)
    summaries = {}
    for name, model in models.items():
        found = measured_layers(model, prepared, layers, metric, batch_size, memory_limit, progress)
        summaries[name] = sorted(
            (_summary(*each, metric) for each in found), key=lambda each: each.place
        )
    reference, *others = models
    rows = []
    for other in others:
        rows += _compared(summaries[reference], summaries[other], by, (other, reference))
    for row in rows:
        row |= {"metric": metric, "images": len(prepared), "deformations": deformations}
    return table(rows, COMPARISON_COLUMNS)


def _pairs(reference, other) -> list:
    """(layer of the reference, the same layer of the other model or `None`) for each.

    Layers are the same by name. Automatic names count the layers that Keras has made so far: they
    tell which layer it is only in a model and its copies, whose automatic names are all the same.
    Of two models that one code made, the order in which such layers are called tells.
    """
    automatic = {each.name for each in (*reference, *other) if each.automatic}
    copies = [x.name for x in reference if x.name in automatic] == [
        x.name for x in other if x.name in automatic
    ]

    def identity(each):
        return each.name if copies or each.name not in automatic else (each.key,)

    there = {identity(each): each for each in other}
    return [(each, there.get(identity(each))) for each in reference]


@dataclass
class _Summary:
    """One layer's log sensitivity, and its values without each image: all a comparison needs."""

    place: int
    name: str
    note: str
    log: float = np.nan
    logs: np.ndarray = field(default_factory=lambda: np.empty(0))
    key: str = ""
    automatic: bool = False


def _summary(place, layer, metric) -> _Summary:
    columns = sensitivity_columns(layer, metric, intervals=False)
    note = layer.note or columns.get("note", "")
    named = layer.representation
    identity = {"key": named.key, "automatic": named.automatic}
    if note:
        return _Summary(place, named.name, note, **identity)
    *_, value, logs = leave_one_out(layer.apart.mean(axis=1), layer.pairs)
    with np.errstate(divide="ignore"):  # a layer that no deformation moves has sensitivity zero
        return _Summary(place, named.name, "", np.log(value), logs, **identity)


def _compared(reference, other, by, names) -> list[dict]:
    depths = [_depth(each, reference) for each in reference]
    if by == "depth":
        pairs = [(each, _at_depth(other, depth)) for each, depth in zip(reference, depths)]
    else:
        pairs = _pairs(reference, other)
        # Every model has an input, whose sensitivity is the same.
        if not any(match for here, match in pairs if here.name != INPUT or len(pairs) == 1):
            raise ValueError(
                f"models {names[0]!r} and {names[1]!r} have no layer name in common: pass "
                'by="depth" to compare layers at the same relative depth'
            )
    rows = []
    for (here, match), depth in zip(pairs, depths):
        match = match or _Summary(0, here.name, f"no layer of this name in {names[0]}")
        row = {"model": names[0], "reference": names[1], "layer": here.name}
        row |= {"layer_index": here.place, "depth": depth, "note": here.note or match.note}
        row |= {"sensitivity": np.exp(match.log), "reference_sensitivity": np.exp(here.log)}
        if not row["note"]:
            row |= _difference(here, match)
        rows.append(row)
    return rows


def _depth(summary, summaries) -> float:
    return summary.place / max(1, len(summaries) - 1)


def _difference(here, match) -> dict:
    """Difference and ratio of two layers with paired intervals."""
    with np.errstate(invalid="ignore"):  # both may be zero, or infinite without some image
        difference = np.exp(match.log) - np.exp(here.log)
        low, high = jackknife_interval(difference, np.exp(match.logs) - np.exp(here.logs))
        log = match.log - here.log
        bounds = jackknife_interval(log, match.logs - here.logs)
    return {
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "ratio": np.exp(log),
        "ratio_low": np.exp(bounds[0]),
        "ratio_high": np.exp(bounds[1]),
    }


def _at_depth(summaries, depth) -> _Summary:
    """The log sensitivity at a relative depth, between the two measured layers around it."""
    measured = [each for each in summaries if not each.note]
    if not measured:
        return summaries[-1]
    at = np.array([_depth(each, summaries) for each in measured])
    above = min(int(np.searchsorted(at, depth)), len(at) - 1)
    below = max(0, above - 1)
    low, high = measured[below], measured[above]
    gap = at[above] - at[below]
    weight = float(np.clip((depth - at[below]) / gap, 0, 1)) if gap else 1.0  # of the one above
    if weight in (0, 1):  # also where the logarithm of the other one is not finite
        return high if weight else low
    return _Summary(
        low.place,
        low.name,
        "",
        (1 - weight) * low.log + weight * high.log,
        (1 - weight) * low.logs + weight * high.logs,
    )
