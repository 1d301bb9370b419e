"""measure_sensitivity: how far deformations move each layer of a model, as a table."""

import functools
import warnings

import keras
import numpy as np
import pandas as pd
from keras import ops

from deformstab.backend import compiled_model_step, kept_with
from deformstab.deformation import RandomDeformation
from deformstab.distances import (
    check_metric,
    cosine_distance,
    euclidean_distance,
    pairwise_distances,
)
from deformstab.intervals import sensitivity_interval
from deformstab.representations import representations, select
from deformstab.splines import flow_statistics
from deformstab.tables import SENSITIVITY_COLUMNS, table

# Below this the distances between images are rounding: float32 unit vectors have an error of 1e-7,
# which is 1e-14 in squares; Euclidean distances are compared with the largest entry.
_COSINE_RESOLUTION = 1e-12
_EUCLIDEAN_RESOLUTION = 1e-6


def measure_sensitivity(
    model,
    images,
    deformation=None,
    layers=None,
    metric: str = "cosine",
    deformations: int = 1,
    batch_size: int = 32,
    intervals: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Measures the normalized deformation sensitivity of each layer of a model.

    Of a representation r (one layer's output, flattened), for images x, y and deformations τ
    (Ruderman et al. 2018):

        mean_x d(r(x), r(τ(x))) / median_{x≠y} d(r(x), r(y)),   d(a, b) = 1 - a·b / (|a| |b|)

    The mean runs over all images, the median over all their pairs. The paper takes 128 images. The
    model runs in inference mode: batch normalization uses its moving averages, which are stale
    after short training; `ds.reestimate_batch_normalization` mends that.

    Deformed activations are reduced to distances inside the compiled call, batch by batch. Of the
    undeformed images one row an image and layer stays with the backend until the layer's pairs are
    counted, images × activations × 4 bytes in all (the paper's CIFAR-10 network: 0.55 MB an image
    with `layers=ds.paper_layers(model)`). What is compiled is kept with the model: it sees new
    weights and added or removed layers, but no other attribute that is changed later.

    Args:
        model: a Keras model of one input of images. Functional, Sequential, nested, subclassed.
        images: [images, height, width, channels] (by the deformation's data format), an array or a
            tensor, scaled as the model wants them; at least two.
        deformation: a `ds.RandomDeformation`; by default the paper's, `ds.paper_deformation`.
        layers: names of the layers to measure, by default all, the input first. Layers inside other
            layers are named by path, `backbone/block1_conv1`; a second call of a layer has "#2".
            For the paper's 13 representations: `ds.paper_layers(model)`.
        metric: "cosine" or "euclidean" (distance in place of 1 - similarity).
        deformations: draws an image.
        batch_size: images a forward pass (as many deformed ones beside them). The result does not
            depend on it beyond float32 rounding.
        intervals: whether to compute the 95 % intervals over images (delete-one jackknife of the
            log sensitivity; see `deformstab.intervals`).
        seed: of the draws, all made once by `deformation.draw(images · deformations, seed=seed)`;
            image i gets the draws i · deformations, …, (i + 1) · deformations - 1.

    Returns:
        A DataFrame, a row a layer, in the order in which the model computes them: `layer`,
        `layer_index` (number of the row), `layer_type`, `metric`, `distance` (the mean),
        `baseline` (the median), `sensitivity` (their ratio), `sensitivity_low`, `sensitivity_high`,
        `images`, `deformations` (an image), `rms_displacement` (root mean square length of the flow
        over pixels and draws, in pixels), `folded_fraction` (share of draws that fold the image),
        `note`. A layer that cannot be measured keeps its row, with NaN and a note that says why.

    Raises:
        ValueError: for unknown layers or metric, fewer than two images, or images of a wrong rank.

    Example:

    ```python
    table = ds.measure_sensitivity(model, images[:128])
    table.plot(x="layer", y="sensitivity")
    ```
    """
    images = check_measurement(images, deformation, metric, deformations, batch_size)
    if deformation is None:
        deformation = paper_deformation(images.shape)
    draws = deformation.draw(len(images) * deformations, seed=seed)
    draws = ops.convert_to_numpy(draws)
    height, width = deformation.image_size(images.shape)
    mean_square, folded = flow_statistics(draws, deformation.control_points, height, width)
    if folded.any():
        warnings.warn(
            f"{folded.mean():.1%} of the deformations fold the image over itself "
            f"(max_displacement={deformation.max_displacement}): use a smaller max_displacement",
            stacklevel=2,
        )

    if not model.built:  # by a call: not every model can be built from a shape
        model(ops.convert_to_tensor(images[:1], "float32"), training=False)
    layers = layers if layers is None or isinstance(layers, str) else tuple(layers)
    batch = max(1, batch_size // deformations)
    results = []
    for start in range(0, len(images), batch):
        part = ops.convert_to_tensor(images[start : start + batch], "float32")
        moves = draws[start * deformations : (start + batch) * deformations]
        copies = ops.repeat(part, deformations, axis=0)
        deformed = ops.cast(deformation.deform(copies, moves), "float32")
        # The last batch may be smaller; a step's sizes are static, which tells what is a row.
        arguments = (tuple(part.shape), layers, metric, deformations)
        step = kept_with(
            model,
            ("sensitivity", *arguments),
            functools.partial(_Step, model, *arguments),
        )
        results.append(step(part, deformed))
    results = list(zip(*results))  # from batches of layers to layers of batches

    rows = []
    for index, (name, layer_type, measurable) in enumerate(step.plan):
        row = {
            "layer": name,
            "layer_index": index,
            "layer_type": layer_type,
            "metric": metric,
            "images": len(images),
            "deformations": deformations,
            "rms_displacement": np.sqrt(mean_square.mean()),
            "folded_fraction": folded.mean(),
            "note": "" if measurable else "the output has no row for each image",
        }
        if measurable:  # popped: a layer's activations are freed once its pairs are counted
            row |= _layer_row(results.pop(0), metric, deformations, intervals)
        rows.append(row)
    return table(rows, SENSITIVITY_COLUMNS)


def paper_deformation(image_shape) -> RandomDeformation:
    """The paper's deformation for images of a shape.

    Up to 64 pixels a side 3×3 control points and 1/16 of the shorter side (2 px at 32 px, as on
    CIFAR-10); beyond, 5×5 control points and 10/224 of it (10 px at 224 px, as on ImageNet).

    Args:
        image_shape: [batch, height, width, channels], by Keras' data format.

    Returns:
        A `ds.RandomDeformation`, of float32 whatever the dtype policy.

    Example:

    ```python
    deformation = ds.paper_deformation(images.shape)
    deformed = deformation(images)
    ```
    """
    channels_first = keras.config.image_data_format() == "channels_first"
    size = image_shape[2:] if channels_first else image_shape[1:3]
    if max(size) <= 64:
        return RandomDeformation(3, min(size) / 16, seed=0, dtype="float32")
    return RandomDeformation(5, min(size) * 10 / 224, seed=0, dtype="float32")


def check_measurement(images, deformation, metric, deformations, batch_size) -> np.ndarray:
    """The images as an array; what `measure_sensitivity` cannot measure is refused."""
    check_metric(metric)
    for name, value in {"deformations": deformations, "batch_size": batch_size}.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, received {value!r}")
    if deformation is not None and not isinstance(deformation, RandomDeformation):
        raise ValueError(
            f"deformation must be a ds.RandomDeformation or None, received {deformation!r}"
        )
    images = ops.convert_to_numpy(images)
    if images.ndim != 4:
        raise ValueError(
            "images must be a batch [images, height, width, channels] (by data_format), received "
            f"shape {images.shape}"
        )
    if len(images) < 2:
        raise ValueError(
            "a sensitivity compares images with each other: pass at least two (the paper takes "
            f"128), received {len(images)}"
        )
    return images


class _Step:
    """One model's compiled step, and what its trace found: (name, type, measurable) of each layer.

    Called with images [b, …] and their deformed copies [b · deformations, …] it gives, for each
    measurable layer, the distances [b · deformations], the largest entry of each row of both, and
    the rows of the images [b, features].
    """

    def __init__(self, model, images_shape, layers, metric, deformations):
        self.plan = []
        distance = {"cosine": cosine_distance, "euclidean": euclidean_distance}[metric]

        def step(images, deformed):
            # One forward pass for both: they go through the same kernels.
            both = ops.concatenate([images, deformed])
            found = representations(model, both)
            chosen = [found[i] for i in select([each.name for each in found], layers)]
            rows = [each.rows(both.shape[0]) for each in chosen]
            self.plan[:] = [
                (each.name, each.layer_type, row is not None) for each, row in zip(chosen, rows)
            ]
            count = images.shape[0]
            results = []
            for row in rows:
                if row is not None:
                    clean, moved = row[:count], row[count:]
                    apart = distance(ops.repeat(clean, deformations, axis=0), moved)
                    results.append((apart, _largest(row), clean))
            return results

        count, *image_shape = images_shape
        self._function = compiled_model_step(
            step,
            model,
            ((count, *image_shape), "float32"),
            ((count * deformations, *image_shape), "float32"),
        )

    def __call__(self, images, deformed):
        return self._function(images, deformed)


def _largest(rows):
    """The largest absolute entry of each row; NaN if one is not finite, which a maximum may miss."""
    finite = ops.all(ops.isfinite(rows), axis=-1)
    return ops.where(finite, ops.max(ops.abs(rows), axis=-1), float("nan"))


def _layer_row(batches, metric, deformations, intervals) -> dict:
    """The columns of one layer from its batches of (distances, largest entries, rows)."""
    apart, largest, rows = zip(*batches)
    apart, largest = (
        np.concatenate([ops.convert_to_numpy(x) for x in y]) for y in (apart, largest)
    )
    images = len(apart) // deformations
    broken = f"representation for {{}} of {images * (1 + deformations)} images, deformed or not"
    if not np.isfinite(largest).all():
        return {"note": "non-finite " + broken.format((~np.isfinite(largest)).sum())}
    if metric == "cosine" and (largest == 0).any():
        note = "zero " + broken.format((largest == 0).sum()) + ": it has no direction"
        return {"note": note}
    pairs = pairwise_distances(ops.concatenate(rows), metric)
    apart = apart.astype("float64").reshape(images, deformations).mean(axis=1)
    if intervals:
        values = sensitivity_interval(apart, pairs)
    else:
        baseline = np.median(pairs[np.triu_indices(images, 1)])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = apart.mean(), baseline, apart.mean() / baseline, np.nan, np.nan
    resolution = _COSINE_RESOLUTION
    if metric == "euclidean":
        resolution = _EUCLIDEAN_RESOLUTION * largest.max()
    if values[1] <= resolution:
        what = "constant up to a factor" if metric == "cosine" else "constant"
        return {"note": f"{what} representation: the median distance between images is zero"}
    names = ("distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high")
    return dict(zip(names, values))
