"""measure_sensitivity: how far deformations move each layer of a model, as a table."""

from typing import Any, Literal, overload

import keras
import numpy as np
import pandas as pd

from deformstab.checks import check_whole
from deformstab.measurement.distances import Metric, check_metric
from deformstab.measurement.intervals import sensitivity_interval
from deformstab.measurement.layer_distances import MEMORY_LIMIT, measured_layers
from deformstab.measurement.perturbations import Deformation
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import DISTANCE_COLUMNS, SENSITIVITY_COLUMNS, table

# Below this the distances between images are rounding: float32 unit vectors have an error of 1e-7,
# which is 1e-14 in squares; Euclidean distances are compared with the longest representation.
_COSINE_RESOLUTION = 1e-12
_EUCLIDEAN_RESOLUTION = 1e-6


@overload
def measure_sensitivity(
    model: keras.Model,
    images: Any,
    deformation: Deformation | None = None,
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
    return_distances: Literal[False] = False,
    progress: bool = True,
) -> pd.DataFrame: ...


@overload
def measure_sensitivity(
    model: keras.Model,
    images: Any,
    deformation: Deformation | None = None,
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
    return_distances: Literal[True],
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]: ...


def measure_sensitivity(
    model: keras.Model,
    images: Any,
    deformation: Deformation | None = None,
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
    return_distances: bool = False,
    progress: bool = True,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Measures the normalized deformation sensitivity of each layer of a model.

    Of a representation r (one layer's output, flattened), for images x, y and deformations τ
    (Ruderman et al. 2018):

        mean_x d(r(x), r(τ(x))) / median_{x≠y} d(r(x), r(y)),   d(a, b) = 1 - a·b / (|a| |b|)

    The mean runs over all images, the median over all their pairs. The paper takes 128 images. The
    model runs in inference mode: batch normalization uses its moving averages, which are stale
    after short training; `ds.reestimate_batch_normalization` mends that.

    Any Keras model will do: functional, Sequential, subclassed, nested, of several inputs and
    outputs, of any precision. Layers called inside traced control flow (a loop, the steps of an
    RNN) keep a row without numbers; loops on PyTorch are Python's, with a row for each call.

    **Memory.** Deformed activations are reduced to distances inside the compiled call, batch by
    batch. All pairs need all images' activations of a layer, images × activations × 4 bytes. As
    many layers as fit most of `memory_limit`, from the last one backwards, keep theirs during the
    pass over all images; the others get passes of their own over the undeformed images, which end
    at their layer; a layer that does not fit comes in parts, since squares of distances add up.
    The rest bounds what a forward pass holds, if need be by fewer than `batch_size` images.
    The result does not depend on it. Weights and the images themselves are not counted, nor is the
    matrix of pairs, images² × 8 bytes and a few copies of it.

    What is compiled is kept with the model: it sees new weights, and layers and variables that were
    added or removed (LoRA, quantization), but no other attribute that is changed later.

    Args:
        model: a Keras model that takes images, alone or beside other inputs.
        images: [images, height, width, channels] (by the deformation's data format), scaled as the
            model wants them; at least two. An array, a tensor, or a source that `fit` takes:
            `tf.data.Dataset`, `keras.utils.PyDataset`, generator (labels are passed over). For a
            model of several inputs a list or dict of arrays.
        deformation: by default the paper's, `ds.paper_deformation`. A layer of this package
            (`ds.RandomDeformation`, `ds.RandomRotation`, …); any object with `draw(n, seed)` →
            parameters, `flow(parameters, height, width)` and `deform(images, parameters)`; or a
            function (images, seed) → images, which is called once, with each image repeated
            `deformations` times, and whose `rms_displacement` and
            `folded_fraction` are NaN (`folded` of a single draw: False).
        layers: which layers to measure, by default all, the input first. A name, a pattern
            (`"block*_conv?"`), a layer, a layer class (`keras.layers.Conv2D`), a function of a
            layer that returns whether to take it, or a list of these. Layers inside other layers
            are named by path, `backbone/block1_conv1`; a second call of a layer has "#2". For the
            paper's 13 representations: `ds.paper_layers(model)`.
        metric: "cosine" or "euclidean" (distance in place of 1 - similarity).
        deformations: draws an image.
        batch_size: images a forward pass (as many deformed ones beside them). The result does not
            depend on it beyond float32 rounding.
        intervals: whether to compute the 95 % intervals over images (delete-one jackknife of the
            log sensitivity; see `deformstab.measurement.intervals`).
        seed: of the draws, all made once by `deformation.draw(images · deformations, seed=seed)`;
            image i gets the draws i · deformations, …, (i + 1) · deformations - 1.
        deformed_input: of several inputs the one to deform, its key in the dict or its number in
            the list; by default the only one with four axes. The others stay as they are.
        max_images: the first so many; by default all of an array, 128 of a dataset or generator.
        memory_limit: bytes of activations in memory at once.
        return_distances: whether to return the distance of every image and draw as well.
        progress: whether a bar may appear when it takes more than a few seconds.

    Returns:
        A DataFrame, a row a layer, in the order in which the model computes them: `layer`,
        `layer_index` (number of the row), `layer_type`, `metric`, `distance` (the mean),
        `baseline` (the median), `sensitivity` (their ratio), `sensitivity_low`, `sensitivity_high`,
        `images`, `deformations` (an image), `rms_displacement` (root mean square length of the flow
        over pixels and draws, in pixels), `folded_fraction` (share of draws that fold the image),
        `note`. A layer that cannot be measured keeps its row, with NaN and a note that says why.

        With `return_distances` a pair, that table and a long one: a row for each measured layer,
        image and draw, with `layer`, `layer_index`, `metric`, `image`, `deformation` (its number),
        `distance`, `baseline`, `rms_displacement` (of this draw), `folded`.

    Raises:
        ValueError: for unknown layers, input or metric, fewer than two images, images of a wrong
            rank, or a model that takes images as integers, or batches of one size only.

    Example:

    ```python
    table = ds.measure_sensitivity(model, images[:128])
    table.plot(x="layer", y="sensitivity")
    ```
    """
    check_options(metric, batch_size, memory_limit)
    prepared = deformed_images(images, deformation, deformations, seed, deformed_input, max_images)
    options = metric, batch_size, intervals, memory_limit, return_distances, progress
    return sensitivity_table(model, prepared, layers, *options)


def sensitivity_table(
    model,
    images,
    layers=None,
    metric: str | tuple = "cosine",
    batch_size: int = 32,
    intervals: bool = True,
    memory_limit: float = MEMORY_LIMIT,
    return_distances: bool = False,
    progress: bool = True,
    chosen=None,
):
    """`measure_sensitivity` with `DeformedImages`, whose deformations are drawn already.

    Of several metrics, the rows of one come after those of another: they share the passes.
    `chosen` [images, images]: which pairs the baseline is the median of, where it is not all;
    only i < j is read, and there are no intervals then.
    """
    found = measured_layers(model, images, layers, metric, batch_size, memory_limit, progress)
    mean_square, folded = images.flow_statistics
    rows, distances = {}, {}
    metrics = (metric,) if isinstance(metric, str) else metric
    for place, layer in found:
        by = layer.metric
        key = metrics.index(by), place
        rows[key] = {
            **layer_columns(place, layer, images, by),
            "rms_displacement": images.rms_displacement,
            "folded_fraction": images.folded_fraction,
            **sensitivity_columns(layer, by, intervals and chosen is None, chosen=chosen),
        }
        if return_distances and layer.pairs is not None:
            distances[key] = _distance_rows(rows[key], layer.apart, mean_square, folded)
    result = table([rows[key] for key in sorted(rows)], SENSITIVITY_COLUMNS)
    if not return_distances:
        return result
    long = [distances[key] for key in sorted(distances)] or [table([], DISTANCE_COLUMNS)]
    return result, pd.concat(long, ignore_index=True)


def check_options(metric, batch_size, memory_limit) -> None:
    """Refuses what cannot be measured with, before any work is done."""
    check_metric(metric)
    check_whole("batch_size", batch_size)
    number = isinstance(memory_limit, (int, float, np.number)) and not isinstance(
        memory_limit, bool
    )
    if not number or not memory_limit > 0:
        raise ValueError(
            f"memory_limit must be a positive number of bytes, received {memory_limit!r}"
        )


def layer_columns(place, layer, images, metric) -> dict:
    """What a row of any table of sensitivities says about its layer and its measurement."""
    return {
        "layer": layer.representation.name,
        "layer_index": place,
        "layer_type": layer.representation.layer_type,
        "metric": metric,
        "images": len(images),
        "deformations": images.draws,
        "note": "",
    }


def sensitivity_columns(layer, metric, intervals, draws=slice(None), chosen=None) -> dict:
    """The numbers of one layer, or the note that says why there are none.

    Args:
        layer: `LayerDistances`.
        metric, intervals: as for `measure_sensitivity`.
        draws: which of them to take.
        chosen: as for `sensitivity_table`; read without intervals only.
    """
    if layer.note:
        return {"note": layer.note}
    apart, pairs = layer.apart[:, draws].mean(axis=1), layer.pairs
    if intervals:
        values = sensitivity_interval(apart, pairs)
    else:
        upper = np.triu(np.ones(pairs.shape, bool) if chosen is None else chosen, 1)
        baseline = np.median(pairs[upper])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = apart.mean(), baseline, apart.mean() / baseline, np.nan, np.nan
    resolution = _COSINE_RESOLUTION
    if metric == "euclidean":
        resolution = _EUCLIDEAN_RESOLUTION * layer.length
    if values[1] <= resolution:
        return {"note": _unresolved(values[1], metric, layer.length)}
    if not np.isfinite(values[:3]).all():
        return {"note": "distances that are not finite: the representation is too large for them"}
    names = ("distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high")
    return dict(zip(names, values))


def _unresolved(baseline, metric, length) -> str:
    """Why the median distance between images is none to divide by."""
    if metric == "euclidean" and baseline > 0:
        return (
            f"the median distance between images, {baseline:.4g}, is below what float32 resolves "
            f"beside the longest representation, of length {length:.4g}"
        )
    what = "constant up to a factor" if metric == "cosine" else "constant"
    return f"{what} representation: the median distance between images is zero"


def _distance_rows(row, apart, mean_square, folded) -> pd.DataFrame:
    """The long table of one layer: a row for each image and draw."""
    images, draws = apart.shape
    columns = {
        **{name: row.get(name) for name in ("layer", "layer_index", "metric", "baseline")},
        "image": np.repeat(np.arange(images), draws),
        "deformation": np.tile(np.arange(draws), images),
        "distance": apart.ravel(),
        "rms_displacement": np.sqrt(mean_square).ravel(),
        "folded": folded.ravel(),
    }
    return table(columns, DISTANCE_COLUMNS)
