"""What is measured of the network of a run: before training, after it, and on the way."""

import numpy as np
import pandas as pd

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.distances import METRICS
from deformstab.measurement.equivariance import equivariance_table, measure_equivariance
from deformstab.measurement.sensitivity import sensitivity_table
from deformstab.measurement.smoothness import filter_smoothness
from deformstab.measurement.stability import measure_stability, stability_table
from deformstab.measurement.stimuli import deformed_images
from deformstab.networks.normalization import reestimate_batch_normalization
from deformstab.networks.vgg import paper_layers
from deformstab.paper.runs.training import TRACKED_IMAGES

# Of a measurement that has no intervals and is one of many.
_BRIEF = ("layer", "layer_index", "distance", "baseline", "sensitivity")
# Of a measure beside it: by which function, by which during training, and what is noted down then,
# of each metric: column → the name of the quantity.
_MORE = {
    "stability": (
        measure_stability,
        stability_table,
        {"noise_sensitivity": "noise_sensitivity", "relative_stability": "relative_stability"},
    ),
    "equivariance": (
        measure_equivariance,
        equivariance_table,
        {"moves_with": "moves_with", "stays": "stays", "ratio": "moving_ratio"},
    ),
}


def measure(model, experiment, data, phase, found) -> None:
    """Appends what is measured at initialization and after training."""
    deformation = _deformation(experiment)
    images = data.x_test[: experiment.measured_images]
    given = deformed_images(images, deformation)

    def keep(name, table):
        found.setdefault(name, []).append(table.assign(phase=phase))

    layers = paper_layers(model)
    keep("sensitivity", sensitivity_table(model, given, layers, METRICS))
    keep("smoothness", filter_smoothness(model))
    for name in experiment.more_measures:
        keep(name, _MORE[name][0](model, images, deformation, layers))
    if experiment.variants:
        for name, table in _variants(model, experiment, data, given):
            keep("variants", table.assign(variant=name))


def _variants(model, experiment, data, given):
    """The same sensitivities, measured in other ways that the paper leaves open.

    train_images: on images it was trained on; before_relu: of the convolutions' normalized outputs;
    own_statistics: with batch normalization by the statistics of the measured images;
    pairs_between_classes, pairs_within_classes: over the median distance of these pairs only.
    """
    layers = paper_layers(model)
    images = data.x_test[: experiment.measured_images]
    learned = deformed_images(data.x_train[: len(images)], _deformation(experiment))
    yield "train_images", _brief(model, learned, layers)
    before = [name[: -len("relu")] + "bn" if name.endswith("_relu") else name for name in layers]
    yield "before_relu", _brief(model, given, before)
    weights = model.get_weights()
    reestimate_batch_normalization(model, images, len(images))
    yield "own_statistics", _brief(model, given, layers)
    model.set_weights(weights)
    labels = data.y_test[: len(images)]
    alike = labels[:, None] == labels
    for name, pairs in (("pairs_between_classes", ~alike), ("pairs_within_classes", alike)):
        if experiment.class_pairs and np.triu(pairs, 1).any():
            yield name, _brief(model, given, layers, pairs)


def tracked_quantities(measures) -> list[str]:
    """What is noted down of each layer during training, beside sensitivity and smoothness."""
    return [
        f"{name}_{metric}"
        for measure in measures
        for name in _MORE[measure][2].values()
        for metric in METRICS
    ]


def record(training, found) -> None:
    """Appends what is measured now, and how accurate the network is."""
    experiment, data, model = training.experiment, training.data, training.measured
    _, fitted = training.evaluate(TRACKED_IMAGES)
    images, layers = data.x_test[: experiment.measured_images], paper_layers(model)

    def keep(quantity, table, column):
        rows = table[["layer", "layer_index"]].assign(quantity=quantity, value=table[column])
        rows = rows.assign(step=training.step, accuracy_train=fitted)
        found.setdefault("trajectory", []).append(rows)

    given = deformed_images(images, _deformation(experiment))
    keep("sensitivity", _brief(model, given, layers), "sensitivity")
    smoothness = filter_smoothness(model).query("kernel_height == 3")
    keep("smoothness", smoothness, "smoothness")
    for measure in experiment.more_measures:
        _, measured_now, columns = _MORE[measure]
        table = measured_now(model, given, layers, intervals=False, progress=False)
        for column, name in columns.items():
            for metric in METRICS:
                keep(f"{name}_{metric}", table[table["metric"] == metric], column)


def _brief(model, given, layers, pairs=None) -> pd.DataFrame:
    table = sensitivity_table(model, given, layers, intervals=False, chosen=pairs)
    return table[list(_BRIEF)]


def _deformation(experiment) -> RandomDeformation:
    return RandomDeformation(experiment.control_points, experiment.max_displacement, seed=0)
