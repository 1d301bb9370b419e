"""What is measured of the network of a run: before training, after it, and on the way."""

import numpy as np
import pandas as pd

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.sensitivity import measure_sensitivity, sensitivity_table
from deformstab.measurement.smoothness import filter_smoothness
from deformstab.measurement.stimuli import deformed_images
from deformstab.networks.normalization import reestimate_batch_normalization
from deformstab.networks.vgg import paper_layers
from deformstab.paper.runs.training import TRACKED_IMAGES

# Of a measurement that has no intervals and is one of many.
_BRIEF = ("layer", "layer_index", "distance", "baseline", "sensitivity")


def measure(model, experiment, data, phase, found) -> None:
    """Appends what is measured at initialization and after training."""
    deformation = _deformation(experiment)
    images = data.x_test[: experiment.measured_images]

    def keep(name, table):
        found.setdefault(name, []).append(table.assign(phase=phase))

    for metric in ("cosine", "euclidean"):
        layers = paper_layers(model)
        keep("sensitivity", measure_sensitivity(model, images, deformation, layers, metric))
    keep("smoothness", filter_smoothness(model))
    if experiment.variants:
        for name, table in _variants(model, experiment, data, deformation):
            keep("variants", table.assign(variant=name))


def _variants(model, experiment, data, deformation):
    """The same sensitivities, measured in other ways that the paper leaves open.

    train_images: on images it was trained on; before_relu: of the convolutions' normalized outputs;
    own_statistics: with batch normalization by the statistics of the measured images;
    pairs_between_classes, pairs_within_classes: over the median distance of these pairs only.
    """
    layers = paper_layers(model)
    images = data.x_test[: experiment.measured_images]
    yield "train_images", _brief(model, data.x_train[: len(images)], deformation, layers)
    before = [name[: -len("relu")] + "bn" if name.endswith("_relu") else name for name in layers]
    yield "before_relu", _brief(model, images, deformation, before)
    weights = model.get_weights()
    reestimate_batch_normalization(model, images, len(images))
    yield "own_statistics", _brief(model, images, deformation, layers)
    model.set_weights(weights)
    labels = data.y_test[: len(images)]
    alike = labels[:, None] == labels
    for name, pairs in (("pairs_between_classes", ~alike), ("pairs_within_classes", alike)):
        if experiment.class_pairs and np.triu(pairs, 1).any():
            yield name, _brief(model, images, deformation, layers, pairs)


def record(training, found) -> None:
    """Appends the sensitivities and the smoothness of now, and how accurate the network is."""
    experiment, data = training.experiment, training.data
    _, fitted = training.evaluate(TRACKED_IMAGES)
    images = data.x_test[: experiment.measured_images]
    layers = paper_layers(training.measured)
    sensitivity = _brief(training.measured, images, _deformation(experiment), layers)
    smoothness = filter_smoothness(training.measured).query("kernel_height == 3")
    for name, table in (("sensitivity", sensitivity), ("smoothness", smoothness)):
        rows = table[["layer", "layer_index"]].assign(quantity=name, value=table[name])
        rows = rows.assign(step=training.step, accuracy_train=fitted)
        found.setdefault("trajectory", []).append(rows)


def _brief(model, images, deformation, layers, pairs=None) -> pd.DataFrame:
    given = deformed_images(images, deformation)
    table = sensitivity_table(model, given, layers, intervals=False, chosen=pairs)
    return table[list(_BRIEF)]


def _deformation(experiment) -> RandomDeformation:
    return RandomDeformation(experiment.control_points, experiment.max_displacement, seed=0)
