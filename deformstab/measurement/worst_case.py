"""worst_deformation: the deformation within a set that moves a layer furthest, image by image."""

import math
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from deformstab.checks import check_whole
from deformstab.deformations.families import RandomDiffeomorphism, RandomTranslation
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.answers import answering_output, classes_of
from deformstab.measurement.ascent import draws_of, passes_of, random_draws, search
from deformstab.measurement.displacement_sets import displacement_set, points_of
from deformstab.measurement.distances import Metric
from deformstab.measurement.layer_distances import (
    MEMORY_LIMIT,
    build,
    layer_distances,
    progress_bar,
)
from deformstab.measurement.objectives import PREDICTION, Objective
from deformstab.measurement.representations import LayerSelector, representations, select
from deformstab.measurement.sensitivity import check_options
from deformstab.measurement.sources import first_images
from deformstab.measurement.stimuli import deformed_images, refuse_videos
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
        seed: of the draws, made by `deformation.draw(images · passes, seed=seed)`, and of corners.
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
        representation is zero or not finite has NaN, a note and displacements of 0.

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
    check_options(metric, batch_size, memory_limit)
    steps, starts = check_whole("steps", steps), check_whole("starts", starts)
    deformations = check_whole("deformations", deformations)
    inputs, own_labels = first_images(images, max_images)
    prepared = _prepared(inputs, deformation, within, seed, deformed_input)
    build(model, prepared)
    chosen = _chosen(representations(model, prepared), layer)
    predicts = layer == PREDICTION
    deformation = prepared.deformation
    size = prepared.size
    within_set = displacement_set(deformation, within, *size)
    passes = passes_of(points_of(deformation), steps, starts)
    count = len(prepared)
    draws = draws_of(deformation, count, passes, seed)
    kind = PREDICTION if predicts else metric
    rows = {name: np.full(count, np.nan) for name in ("mean", "best_of_k", "search", "worst")}
    worst, broken = np.zeros((count, *draws.shape[2:])), np.zeros(count, bool)
    answers = np.zeros(count, int)
    at_once = _images_at_once(chosen, batch_size, memory_limit, points_of(deformation), count)
    with progress_bar(progress, "worst deformation") as bar:
        for start in range(0, count, at_once):
            now = np.arange(start, min(count, start + at_once))
            few, which = len(now), np.arange(start, start + at_once) % count
            objective = Objective(model, prepared, chosen, kind, which)

            def tick(number, share=50 / (count * passes), few=few):
                bar.update(min(share * few * number, bar.total - bar.n))

            by_chance = random_draws(objective, within_set, draws[which], deformations, tick)
            found = search(objective, within_set, draws[which], steps, starts, seed, which, tick)
            best, value = found.displacements, found.values
            better = by_chance.values > value  # not where either is NaN
            best[better] = by_chance.displacements[better]
            rows["mean"][now] = by_chance.mean[:few]
            rows["best_of_k"][now] = by_chance.values[:few]
            rows["search"][now] = value[:few]
            rows["worst"][now] = np.fmax(value, by_chance.values)[:few]
            worst[now], broken[now] = best[:few], objective.broken[:few]
            if predicts:
                answers[now] = objective.answers[:few]
    worst = worst.reshape(count, *deformation.field.shape)
    columns = _columns(prepared, chosen, worst, broken, rows, passes, within, kind)
    worst = worst.astype("float32")
    if predicts:
        labels = own_labels if labels is None else labels
        labels = classes_of(labels, (count,), chosen.features, max_images)
        unchanged = ~(rows["worst"] > 0)
        right = np.nan if labels is None else (unchanged & (answers == labels)).astype(float)
        columns |= {"unchanged": unchanged, "accuracy": right}
        return table(columns, WORST_PREDICTION_COLUMNS), worst
    columns |= _baselines(model, prepared, chosen, metric, batch_size, memory_limit, rows)
    return table(columns, WORST_COLUMNS), worst


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


def _chosen(found, layer):
    """The one representation that is meant."""
    if isinstance(layer, str) and layer == PREDICTION:
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


def _images_at_once(chosen, batch_size, memory_limit, points, count) -> int:
    """Images a forward pass: their representations under all steps of a point are held at once."""
    room = memory_limit / 2
    each = max(4 * chosen.peak_bytes, 3 * 2 * points * chosen.features * chosen.itemsize)
    most = int(min(batch_size, count, max(1, room // each)))
    return math.ceil(count / math.ceil(count / most))


def _columns(images, chosen, worst, broken, rows, passes, within, kind) -> dict:
    """What every table says of every image."""
    deformation = images.deformation
    height, width = images.size
    mean_square, folded = deformation.flow_statistics(worst, height, width)
    longest = []
    for start in range(0, len(worst), 64):
        few = worst[start : start + 64].astype(deformation.geometry_dtype)
        flow = keras.ops.convert_to_numpy(deformation.flow(few, height, width))
        longest.append(np.sqrt((flow**2).sum(axis=-1)).max(axis=(1, 2)))
    note = (
        "no finite representation of the image"
        if kind != "cosine"
        else ("zero or non-finite representation of the image: it has no direction")
    )
    return {
        "layer": chosen.name,
        "metric": "margin" if kind == PREDICTION else kind,
        "within": within,
        "image": np.arange(len(worst)),
        **rows,
        "baseline": np.nan,
        "mean_sensitivity": np.nan,
        "worst_sensitivity": np.nan,
        "passes": passes,
        "rms_displacement": np.sqrt(mean_square),
        "max_displacement": np.concatenate(longest),
        "folded": folded,
        "note": np.where(broken, note, ""),
    }


def _baselines(model, images, chosen, metric, batch_size, memory_limit, rows) -> dict:
    """The median distance between images, and distances over it."""
    options = (metric,), batch_size, memory_limit, lambda share: None
    ((_, layer),) = layer_distances(model, images, [chosen], *options)
    if layer.pairs is None:
        return {}
    baseline = np.median(layer.pairs[np.triu_indices(len(layer.pairs), 1)])
    if baseline <= 0:
        return {"baseline": baseline}
    return {
        "baseline": baseline,
        "mean_sensitivity": rows["mean"] / baseline,
        "worst_sensitivity": rows["worst"] / baseline,
    }
