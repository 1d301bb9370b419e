"""prediction_consistency: what deformations do to a classifier's answers."""

import functools
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from deformstab.backend import compiled_model_step, kept_with
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.distances import Metric
from deformstab.measurement.forward import joined, parts
from deformstab.measurement.intervals import proportion_interval
from deformstab.measurement.layer_distances import MEMORY_LIMIT, build
from deformstab.measurement.representations import representations
from deformstab.measurement.sensitivity import check_options, sensitivity_table
from deformstab.measurement.sources import first_images, to_numpy
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import CONSISTENCY_COLUMNS, table


def prediction_consistency(
    model: keras.Model,
    images: Any,
    labels: Any = None,
    deformation: RandomDeformation | None = None,
    metric: Metric = "cosine",
    deformations: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    *,
    output: int | str | None = None,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """Measures how often a classifier gives a deformed image the class it gives the image.

    That is the invariance P(Y | τ(X)) = P(Y | X) itself, by its most probable class, under the same
    deformations as `ds.measure_sensitivity` with the same arguments. The sensitivity of the last
    layer stands beside it; so do accuracies where labels are known, since a model that always gives
    one answer is consistent (Zhang 2019).

    Args:
        model: a Keras model whose output is [images, classes], classes at least two.
        images, deformation, metric, deformations, batch_size, seed, deformed_input, max_images,
            memory_limit, progress: as for `ds.measure_sensitivity`.
        labels: [images] or [images, 1] class numbers, or [images, classes] one-hot; by default
            those that come with a dataset (for this `output`), if any.
        output: of several outputs the one that holds the classes, its key or number.

    Returns:
        A DataFrame of one row: `consistency` (share of images and draws with an unchanged top-1
        class) with its 95 % interval `consistency_low`, `consistency_high` (Wilson's, draws of one
        image not counted as independent), `accuracy`, `deformed_accuracy`, `correct_consistency`
        (the consistency of images that are classified correctly), NaN without labels; `layer`,
        `sensitivity`, `sensitivity_low`, `sensitivity_high` of the layer that the model computes
        last; `images`, `deformations`, `rms_displacement`, `folded_fraction`, `note`. A model that
        answers with NaN has no most probable class: NaN, and a note.

    Raises:
        ValueError: the output holds no classes, or labels do not fit; else as
            `ds.measure_sensitivity`.

    Example:

    ```python
    row = ds.prediction_consistency(model, images, labels=np.arange(len(images)) % 10)
    ```
    """
    check_options(metric, batch_size, memory_limit)
    inputs, own_labels = first_images(images, max_images)
    prepared = deformed_images(inputs, deformation, deformations, seed, deformed_input)
    labels = _one_of(own_labels, output) if labels is None else labels
    labels = _classes(labels, len(prepared), max_images)
    build(model, prepared)
    row = _shares(np.concatenate(list(_answers(model, prepared, batch_size, output))), labels)
    found = representations(model, prepared)
    sensitivity = sensitivity_table(
        model, prepared, found[-1].name, metric, batch_size, True, memory_limit, progress=progress
    )
    last = sensitivity.iloc[0].to_dict()
    return table([last | row], CONSISTENCY_COLUMNS)


def _shares(answers, labels) -> dict:
    """The columns about answers [images, 1 + draws], the image's own first; -1 is none."""
    if (answers < 0).any():
        none = f"{(answers < 0).sum()} of {answers.size} images, deformed or not"
        return {"note": f"the model answers with NaN for {none}"}
    unchanged = answers[:, 1:] == answers[:, :1]
    share, low, high = proportion_interval(unchanged)
    row = {"consistency": share, "consistency_low": low, "consistency_high": high}
    if labels is not None:
        correct = answers == labels[:, None]
        row["accuracy"] = correct[:, 0].mean()
        row["deformed_accuracy"] = correct[:, 1:].mean()
        row["correct_consistency"] = proportion_interval(unchanged[correct[:, 0]])[0]
    return row


def _answers(model, images, batch_size, output):
    """The most probable class of each image and of its deformed selves: [b, 1 + draws] each.

    -1 where an answer is NaN: the largest of NaNs is the same one for every image.
    """
    collected = []
    for part in parts(images, batch_size, 2 * batch_size):
        sizes = tuple(
            (tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in part.inputs
        )
        step = kept_with(
            model,
            ("answers", images.place, sizes, part.draws_at_once, output),
            functools.partial(_step, model, images.pack, images.place, part, output),
        )
        top = ops.convert_to_numpy(step(*part.inputs, *part.moved))
        count = len(part.inputs[0])
        clean, moved = top[:count, None], part.cut(top[count:])
        if part.first:
            collected.append(clean[: len(part.images)])
        collected.append(moved)
        if part.last:
            yield np.concatenate(collected, axis=1)
            collected.clear()


def _step(model, pack, place, part, output):
    def top(*tensors):
        *inputs, moved = tensors
        found = model(pack(joined(inputs, moved, place)), training=False)
        chosen = _one_of(found, output)
        if len(getattr(chosen, "shape", ())) != 2 or chosen.shape[1] < 2:
            shapes = keras.tree.map_structure(lambda x: tuple(x.shape), found)
            raise ValueError(
                "prediction_consistency needs an output [images, classes] with two classes or more "
                f"(of several outputs, name one with output=); this model gives {shapes}"
            )
        broken = ops.any(ops.isnan(chosen), axis=-1)
        return ops.where(broken, -1, ops.argmax(chosen, axis=-1))

    tensors = (*part.inputs, *part.moved)
    sizes = [(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in tensors]
    return compiled_model_step(top, model, *sizes)


def _one_of(several, output):
    """One of several outputs, or of the labels for them; `None` if it is not among them."""
    if output is None or not isinstance(several, (dict, list, tuple)):
        return several
    try:
        return several[output]
    except (KeyError, IndexError, TypeError):
        return None


def _classes(labels, count, max_images):
    if labels is None:
        return None
    labels = np.atleast_1d(to_numpy(labels))[:max_images]
    if labels.ndim == 2:
        labels = labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
    if labels.shape != (count,):
        raise ValueError(
            f"labels must be [images] or one-hot [images, classes] of {count} images, received "
            f"shape {labels.shape}"
        )
    return labels
