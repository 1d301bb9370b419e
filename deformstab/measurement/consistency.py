"""prediction_consistency: what deformations do to a classifier's answers."""

from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.answers import answers, classifier, nan_note
from deformstab.measurement.dense_consistency import dense_shares
from deformstab.measurement.distances import Metric
from deformstab.measurement.intervals import proportion_interval
from deformstab.measurement.layer_distances import MEMORY_LIMIT
from deformstab.measurement.passes import planned_passes
from deformstab.measurement.perturbations import Deformation
from deformstab.measurement.sensitivity import check_options, sensitivity_table
from deformstab.measurement.sources import first_images
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import CONSISTENCY_COLUMNS, DENSE_CONSISTENCY_COLUMNS, table


def prediction_consistency(
    model: keras.Model,
    images: Any,
    labels: Any = None,
    deformation: Deformation | None = None,
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

    **Dense answers.** A model that gives a class for each pixel (segmentation) should move its
    answers with the image. So the answer for the deformed image is compared with the *deformed*
    answer for the image (nearest pixel): `consistency` is the share of pixels that agree, `mean_iou`
    the intersection over union of both, mean over classes. `unmoved_consistency` and
    `unmoved_mean_iou` compare it with the answer as it was. Labels are deformed likewise.

    Args:
        model: a Keras model whose output is [images, classes], classes at least two, or
            [images, height, width, classes] of the size of the images.
        images, deformation, metric, deformations, batch_size, seed, deformed_input, max_images,
            memory_limit, progress: as for `ds.measure_sensitivity`.
        labels: [images] or [images, 1] class numbers from 0, or [images, classes] one-hot (of dense
            answers with height and width before the classes); by default those that come with a
            dataset (for this `output`), if any.
        output: of several outputs the one that holds the classes, its key or number.

    Returns:
        A DataFrame of one row: `consistency` (share of images and draws with an unchanged top-1
        class) with its 95 % interval `consistency_low`, `consistency_high` (Wilson's, draws of one
        image not counted as independent), `accuracy`, `deformed_accuracy`, `correct_consistency`
        (the consistency of images that are classified correctly), NaN without labels; `layer`,
        `sensitivity`, `sensitivity_low`, `sensitivity_high` of the layer that the model computes
        last; `images`, `deformations`, `rms_displacement`, `folded_fraction`, `note`. A model that
        answers with NaN has no most probable class: NaN, and a note. Of dense answers the interval
        is Student's, over images, and the table also has `mean_iou`, `unmoved_consistency` and
        `unmoved_mean_iou`.

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
    found, answering, labels = classifier(
        model, prepared, (labels, own_labels), output, max_images, "prediction_consistency"
    )
    last = [each for each in found if not each.repeats][-1]
    if not last.note:
        planned_passes([last], len(prepared), memory_limit)  # refuses before the model answers
    size = answering.shape[:-1]
    options = batch_size, output, answering, memory_limit
    if size:
        row = dense_shares(model, prepared, *options, labels)
    else:
        every = answers(model, prepared, *options)
        row = _shares(np.concatenate(list(every)), labels)
    sensitivity = sensitivity_table(
        model, prepared, last.name, metric, batch_size, True, memory_limit, progress=progress
    )
    columns = DENSE_CONSISTENCY_COLUMNS if size else CONSISTENCY_COLUMNS
    return table([sensitivity.iloc[0].to_dict() | row], columns)


def _shares(answers, labels) -> dict:
    """The columns about answers [images, 1 + draws], the image's own first."""
    note = nan_note(answers, "deformed")
    if note:
        return {"note": note}
    unchanged = answers[:, 1:] == answers[:, :1]
    share, low, high = proportion_interval(unchanged)
    row = {"consistency": share, "consistency_low": low, "consistency_high": high}
    if labels is not None:
        correct = answers == labels[:, None]
        row["accuracy"] = correct[:, 0].mean()
        row["deformed_accuracy"] = correct[:, 1:].mean()
        row["correct_consistency"] = proportion_interval(unchanged[correct[:, 0]])[0]
    return row
