"""compare_sensitivity: two models, layer by layer, under the same deformations."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from deformstab.checks import check_model
from deformstab.measurement.distances import Metric
from deformstab.measurement.equivariance import check_flows
from deformstab.measurement.intervals import jackknife_interval
from deformstab.measurement.layer_distances import MEMORY_LIMIT, build
from deformstab.measurement.perturbations import Deformation, NoiseKind
from deformstab.measurement.representations import (
    INPUT,
    LayerSelection,
    matching,
    read_once,
    representations,
    select,
)
from deformstab.measurement.sensitivity import check_options
from deformstab.measurement.sources import first_images
from deformstab.measurement.stability import check_noise
from deformstab.measurement.stimuli import deformed_images
from deformstab.measurement.summaries import MEASURES, Measure, Summary, layer_summaries
from deformstab.tables import COMPARISON_COLUMNS, table


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
    measure: Measure = "sensitivity",
    noise: NoiseKind = "gaussian",
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
        images, deformation, metric, deformations, batch_size, seed, deformed_input, max_images,
            memory_limit, progress: as for `ds.measure_sensitivity`.
        layers: of the reference, as for `ds.measure_sensitivity`; another model need not have all.
        by: which layers are compared. "layer": those of the same name. "depth": of models that are
            built otherwise; a layer of the reference at relative depth t (0 the first row of
            `ds.measure_sensitivity`, 1 the last) with the other model's log sensitivity at t,
            interpolated linearly between its layers, or at the nearest one where there are none
            before or after; those that cannot be measured are passed over.
        measure: what is compared: "sensitivity"; "stability", the `relative_stability` of
            `ds.measure_stability`; "equivariance", the ratio of `ds.measure_equivariance`, without
            the border; or "smoothness", that of `ds.filter_smoothness`, of convolutions only, which
            depends on no image and so has no interval.
        noise: of "stability", as for `ds.measure_stability`.

    Returns:
        A DataFrame, a row for each model but the first and each layer: `model`, `reference`,
        `layer`, `layer_index`, `depth` (of the reference's layer), `metric`, `sensitivity`,
        `reference_sensitivity`, `difference` and `ratio` (of these two), each with its 95 %
        interval as `_low` and `_high`, `images`, `deformations`, `note`. Of another measure the
        two are `relative_stability`, `moving_ratio` or `smoothness`, and the same behind
        `reference_`. A layer that the other one does not have, or that one of the two cannot
        measure, keeps its row, with NaN and a note. Between models that are alike, and of few
        images, the intervals are wider than they need be.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; fewer than two models; no layer in common but
            the input; by depth, a model that has none of the `layers`.

    Example:

    ```python
    models = {"before": model, "after": ds.swap_downsampling(model, "average")}
    table = ds.compare_sensitivity(models, images)
    moving = ds.compare_sensitivity(models, images, measure="equivariance")
    ```
    """
    check_options(metric, batch_size, memory_limit)
    if by not in ("layer", "depth"):
        raise ValueError(f'by must be "layer" or "depth", received {by!r}')
    if measure not in MEASURES:
        known = ", ".join(MEASURES)
        raise ValueError(f"unknown measure {measure!r}; the known ones are {known}")
    check_noise(noise)
    if not isinstance(models, dict) or len(models) < 2:
        raise ValueError(
            f"models must be a dict of at least two, {{name: model}}, received {models!r}"
        )
    for model in models.values():
        check_model(model)
    # Generators cannot be read again, neither of images nor of layers.
    inputs, _ = first_images(images, max_images)
    layers = read_once(layers)
    prepared = deformed_images(inputs, deformation, deformations, seed, deformed_input)
    if measure == "equivariance":
        check_flows(prepared)
    options = metric, batch_size, memory_limit, progress
    # Filters depend on no deformation, nor on the dtype of the input.
    probed = prepared.with_perturbations() if measure == "smoothness" else prepared
    chosen = _layers_of_each(models, probed, layers, by)
    summaries = {
        name: layer_summaries(model, prepared, chosen[name], measure, noise, seed, *options)
        for name, model in models.items()
    }
    reference, *others = models
    value = MEASURES[measure]
    rows = []
    for other in others:
        rows += _compared(summaries[reference], summaries[other], by, (other, reference), value)
    for row in rows:
        row |= {"metric": metric, "images": len(prepared), "deformations": deformations}
    names = {"sensitivity": value, "reference_sensitivity": f"reference_{value}"}
    return table(rows, {names.get(key, key): kind for key, kind in COMPARISON_COLUMNS.items()})


def _layers_of_each(models, images, layers, by) -> dict:
    """Which layers to measure of each model; all are checked before any is measured, which is long.

    Of another model than the reference: what the selectors match, and, by layer, the partners of
    what they match in the reference, whose automatic names may be others.
    """
    reference, *others = models
    for model in models.values():
        build(model, images)
    found = {name: representations(model, images) for name, model in models.items()}
    selected = select(found[reference], layers)
    chosen = {reference: layers}
    for other in others:
        chosen[other] = layers
        if layers is not None:
            selectors = layers if isinstance(layers, list) else [layers]
            chosen[other] = matching(found[other], selectors)
            if by == "layer":
                names = {each.name for each in selected}
                pairs = _pairs(found[reference], found[other])
                chosen[other] += [
                    match.name for here, match in pairs if match and here.name in names
                ]
        if by == "layer":
            there = select(found[other], chosen[other]) if chosen[other] != [] else []
            _check_common(_pairs(selected, there), (other, reference))
        elif chosen[other] == []:
            raise ValueError(
                f"model {other!r} has none of the layers {[each.name for each in selected]} of "
                f"{reference!r}: pass layers that match in both, such as a pattern or a class, or None"
            )
    return chosen


def _check_common(pairs, names) -> None:
    """Refuses models that have nothing in common but an input, whose sensitivity is the same."""
    if not any(match for here, match in pairs if here.name != INPUT or len(pairs) == 1):
        raise ValueError(
            f"models {names[0]!r} and {names[1]!r} have no layer name in common: pass "
            'by="depth" to compare layers at the same relative depth'
        )


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


def _compared(reference, other, by, names, value) -> list[dict]:
    depths = [_depth(each, reference) for each in reference]
    if by == "depth":
        pairs = [
            (each, _at_depth(other, depth, each.kernel)) for each, depth in zip(reference, depths)
        ]
    else:
        pairs = _pairs(reference, other)
        _check_common(pairs, names)  # again: of smoothness, only convolutions are left
    rows = []
    for (here, match), depth in zip(pairs, depths):
        match = match or Summary(0, here.name, f"no layer of this name in {names[0]}")
        row = {"model": names[0], "reference": names[1], "layer": here.name}
        row |= {"layer_index": here.place, "depth": depth, "note": here.note or match.note}
        if not row["note"] and here.kernel != match.kernel:
            row["note"] = "kernels of different sizes: their smoothness cannot be compared"
        row |= {value: np.exp(match.log), f"reference_{value}": np.exp(here.log)}
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


def _at_depth(summaries, depth, kernel) -> Summary:
    """The logarithm at a relative depth, between the two measured layers around it."""
    measured = [each for each in summaries if not each.note and each.kernel == kernel]
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
    return Summary(
        low.place,
        low.name,
        "",
        (1 - weight) * low.log + weight * high.log,
        (1 - weight) * low.logs + weight * high.logs,
        kernel=kernel,
    )
