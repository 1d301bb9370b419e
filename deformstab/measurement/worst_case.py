"""worst_deformation: the deformation within a set that moves a layer furthest, image by image."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from deformstab.checks import check_whole
from deformstab.deformations.families import RandomDiffeomorphism, RandomTranslation
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.deformations.seeds import checked_seed
from deformstab.measurement.answers import answering_output, classes_of
from deformstab.measurement.ascent import draws_of, images_at_once, passes_of, random_draws, search
from deformstab.measurement.displacement_sets import displacement_set, points_of
from deformstab.measurement.distances import Metric
from deformstab.measurement.layer_distances import (
    MEMORY_LIMIT,
    build,
    layer_distances,
    progress_bar,
)
from deformstab.measurement.objectives import PREDICTION, Objective, gives_probabilities
from deformstab.measurement.passes import planned_passes
from deformstab.measurement.representations import LayerSelector, representations, select
from deformstab.measurement.sensitivity import check_options
from deformstab.measurement.sources import first_images
from deformstab.measurement.stimuli import deformed_images, refuse_videos
from deformstab.measurement.worst_rows import Rows, columns_of
from deformstab.tables import WORST_COLUMNS, WORST_PREDICTION_COLUMNS, table

_MOST_POINTS = 256  # of a control grid: its displacements are searched one by one
_WITHIN = ("box", "rms")


def worst_deformation(
    model: keras.Model,
    images: Any,
    layer: LayerSelector,
    deformation: RandomDeformation | RandomDiffeomorphism | RandomTranslation | None = None,
    within: Literal["box", "rms"] = "box",
    steps: int = 20,
    starts: int = 4,
    seed: int = 0,
    *,
    metric: Metric = "cosine",
    labels: Any = None,
    deformations: int = 16,
    batch_size: int = 32,
    max_images: int | None = None,
    deformed_input: int | str | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Looks for the deformation that moves a layer furthest, for each image by itself.

    `ds.measure_sensitivity` is about the mean over random deformations. Here displacements d of the
    control points are sought that maximize d(r(x), r(τ_d x)) within a set:

    - "box": |d| ≤ `max_displacement`, in which random draws are uniform. Its corners move pixels √3
      times as far as draws do, so much of what it gives is strength;
    - "rms": flows whose root mean square over pixels is at most that of the draws on average
      (in closed form; 1.25 px for 3×3 points and 2 px on 32×32 pixels). The comparison at equal
      strength.

    Gradient ascent with projection: steps of 2.5 / `steps` of the set's half width, by the sign of
    the gradient in the box and along the steepest direction in the norm of the flow in the other,
    from several starts: the largest value of the quadratic form that central differences of ±0.5 px
    give (a spectral start), a random corner, random draws. The largest value seen counts, of a
    forward pass. Images do not influence each other, as long as a model in inference mode keeps
    them apart.

    **What it is not.** An ascent that finds little is no certificate. So the best of k random draws
    stands beside it, at equal cost: k = `passes`, where a step with its gradient counts as three
    forward passes. Of k values the largest rises with k: compare the same `steps` and `starts`.

    **The prediction.** With `layer="prediction"` the margin max_{c≠y} z_c - z_y is maximized, y the
    answer for the image as it is: above 0 the answer changes. If the outputs are probabilities, z
    are their logarithms.

    Args:
        model, images, deformed_input, max_images, memory_limit: as for `ds.measure_sensitivity`.
        layer: one layer, as there; or "prediction", for a model with one output of class scores.
        deformation: a `ds.RandomDeformation` with bilinear interpolation and at most 256 control
            points; by default the paper's. Within "rms" also a `ds.RandomDiffeomorphism`, whose
            coefficients are then sought, or a `ds.RandomTranslation`: any shift up to its length.
        within: "box" or "rms".
        steps: of each ascent.
        starts: how many ascents: spectral, from a corner, then from draws.
        seed: of the draws, made by `deformation.draw(images · k, seed=seed)`, k the larger of
            `passes` and `deformations`; and of corners.
        metric: "cosine" or "euclidean".
        labels: of the prediction, [images] or one-hot; by default those of a dataset, if any.
        deformations: draws an image that `mean` is over.
        batch_size: images a forward pass.
        progress: whether a bar may appear when it takes more than a few seconds.

    Returns:
        A pair. A DataFrame, a row an image: `layer`, `metric` ("margin" of the prediction),
        `within`, `image`, `mean` (over random draws), `best_of_k` (the best of as many draws as
        `passes`; within "rms" brought to that strength), `search` (the best of the ascents),
        `worst` (of both), `baseline` (the median distance between images), `mean_sensitivity` and
        `worst_sensitivity` (over it), `passes`, `rms_displacement` and `max_displacement` (root mean
        square and largest length of the worst flow, pixels), `folded` (whether it folds the image),
        `note`. Of the prediction also `unchanged` (whether the answer is that for the image) and
        `accuracy` (1 where it is the label too, 0 where not; NaN without labels), no baseline. And
        the worst displacements, float32 [images, points, 2], pixels, (y, x), for
        `deformation.deform` (coefficients of diffeomorphisms; shifts [images, 2]). An image whose
        representation is zero or not finite has NaN, a note and displacements of 0; one for which
        that comes with some deformations only, a note. Where `ds.measure_sensitivity` gives a layer
        no baseline, every row has its note. An answer with NaN is not `unchanged`, and of NaN
        accuracy, unless another deformation is known to change it.

    Raises:
        ValueError: as `ds.measure_sensitivity`; not one layer, or one that has no row for each
            image; an unknown `within`; a deformation that is none of these, or has no box.

    Example:

    ```python
    table, displacements = ds.worst_deformation(
        model, images, "block1_conv1", within="rms", steps=5, starts=2
    )
    (table["worst"] / table["mean"]).median()
    ```
    """
    (found,) = worst_deformations(
        model,
        images,
        [layer],
        deformation,
        within,
        steps,
        starts,
        seed,
        metric=metric,
        labels=labels,
        deformations=deformations,
        batch_size=batch_size,
        max_images=max_images,
        deformed_input=deformed_input,
        memory_limit=memory_limit,
        progress=progress,
    )
    return found


def worst_deformations(
    model: keras.Model,
    images: Any,
    layers: Sequence[LayerSelector],
    deformation: RandomDeformation | RandomDiffeomorphism | RandomTranslation | None = None,
    within: Literal["box", "rms"] = "box",
    steps: int = 20,
    starts: int = 4,
    seed: int = 0,
    *,
    metric: Metric = "cosine",
    labels: Any = None,
    deformations: int = 16,
    batch_size: int = 32,
    max_images: int | None = None,
    deformed_input: int | str | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """`ds.worst_deformation` of several layers, which share the forward passes of random draws.

    Args:
        layers: a list of what `ds.worst_deformation` takes as `layer`.
        model, images, deformation, within, steps, starts, seed, metric, labels, deformations,
            batch_size, max_images, deformed_input, memory_limit, progress: as there.

    Returns:
        Of each layer, the pair that `ds.worst_deformation` gives.

    Raises:
        ValueError: as there.
    """
    check_options(metric, batch_size, memory_limit)
    steps, starts = check_whole("steps", steps), check_whole("starts", starts)
    deformations, seed = check_whole("deformations", deformations), checked_seed(seed)
    inputs, own_labels = first_images(images, max_images)
    prepared = _prepared(inputs, deformation, within, seed, deformed_input)
    build(model, prepared)
    available = representations(model, prepared)
    chosen = [_chosen(available, layer) for layer in layers]
    kinds = [PREDICTION if _is_prediction(layer) else metric for layer in layers]
    measured = {x.name: x for x, kind in zip(chosen, kinds) if kind != PREDICTION}.values()
    count, deformation = len(prepared), prepared.deformation
    planned_passes(measured, count, memory_limit)  # for baselines: refused before the search
    labels = own_labels if labels is None else labels
    if PREDICTION in kinds:
        labels = classes_of(labels, (count,), chosen[kinds.index(PREDICTION)].features, max_images)
    within_set = displacement_set(deformation, within, *prepared.size)
    passes = passes_of(points_of(deformation), steps, starts)
    draws = draws_of(deformation, count, max(passes, deformations), seed)
    every = [Rows(count, draws.shape[2:]) for _ in chosen]
    # Of all draws a pass each, and a search for each layer.
    work = count * (draws.shape[1] + passes * len(chosen))
    at_once = images_at_once(chosen, batch_size, memory_limit, points_of(deformation), count)
    batches = [np.arange(start, start + at_once) % count for start in range(0, count, at_once)]
    probabilities = PREDICTION in kinds and gives_probabilities(
        model, prepared, chosen[kinds.index(PREDICTION)], batches
    )
    with progress_bar(progress, "worst deformation") as bar:
        for number, which in enumerate(batches):
            now = which[: count - number * at_once]  # without those that fill up the last one

            def tick(number, now=now):
                bar.update(min(100 * len(now) * number / work, bar.total - bar.n))

            objectives = [
                Objective(model, prepared, each, kind, which, probabilities)
                for each, kind in zip(chosen, kinds)
            ]
            some = draws[which]
            by_chance = random_draws(objectives, within_set, some, passes, deformations, tick)
            for rows, objective, chance in zip(every, objectives, by_chance):
                found = search(objective, within_set, some, steps, starts, seed, which, tick)
                rows.keep(now, objective, chance, found)
    options = (metric,), batch_size, memory_limit, lambda share: None
    found = layer_distances(model, prepared, [*measured], *options) if measured else ()
    pairs, distances = [], {layer.representation.name: layer for _, layer in found}
    for each, rows, kind in zip(chosen, every, kinds):
        worst = rows.worst.reshape(count, *deformation.field.shape)
        columns = columns_of(prepared, each, worst, rows, passes, within, kind)
        if kind == PREDICTION:
            columns |= rows.answered(labels)
            frame = table(columns, WORST_PREDICTION_COLUMNS)
        else:
            columns |= rows.over(distances[each.name], kind, columns["note"])
            frame = table(columns, WORST_COLUMNS)
        pairs.append((frame, worst.astype("float32")))
    return pairs


def _prepared(inputs, deformation, within, seed, deformed_input):
    """`DeformedImages` with one draw each, everything checked."""
    if within not in _WITHIN:
        raise ValueError(f"within must be one of {', '.join(_WITHIN)}, received {within!r}")
    if deformation is not None:
        _check_searchable(deformation, within)
    prepared = deformed_images(inputs, deformation, 1, seed, deformed_input)
    refuse_videos(prepared, "worst_deformation")
    return prepared


def _check_searchable(deformation, within):
    """Refuses deformations without parameters that an ascent could move, or without this set."""
    field = getattr(deformation, "field", None)
    if not getattr(field, "linear", False):
        raise ValueError(
            "a worst deformation is sought among displacements of a control grid, or others that "
            "pixels follow linearly: deformation must be a ds.RandomDeformation or None, or within "
            '"rms" a ds.RandomDiffeomorphism or a ds.RandomTranslation (integer=False), received '
            f"{deformation!r}"
        )
    if within == "box" and not isinstance(deformation, RandomDeformation):
        raise ValueError(
            f'draws of {type(deformation).__name__} fill no box: pass within="rms", or a '
            "ds.RandomDeformation"
        )
    if deformation.interpolation != "bilinear":
        raise ValueError(
            "a worst deformation needs gradients, which nearest interpolation has not: pass "
            'interpolation="bilinear" to the deformation'
        )
    if points_of(deformation) > _MOST_POINTS:
        raise ValueError(
            f"at most {_MOST_POINTS} control points (or modes) can be searched, received "
            f"{points_of(deformation)}: take a coarser grid (the paper: 3×3 and 5×5) or a lower cutoff"
        )


def _is_prediction(layer) -> bool:
    return isinstance(layer, str) and layer == PREDICTION


def _chosen(found, layer):
    """The one representation that is meant."""
    if _is_prediction(layer):
        chosen = answering_output(found, None, "worst_deformation")
        if len(chosen.shape) != 1:
            raise ValueError(
                'layer="prediction" needs an output [images, classes], this one has '
                f"[images, {', '.join(map(str, chosen.shape))}]"
            )
        return chosen
    several = select(found, layer)
    if layer is None or len(several) != 1:
        raise ValueError(
            f"layer must be a single layer, received {layer!r}, which are {len(several)}: the worst "
            "deformation is another one for each"
        )
    if several[0].note:
        raise ValueError(f"layer {several[0].name!r} has no worst deformation: {several[0].note}")
    return several[0]
