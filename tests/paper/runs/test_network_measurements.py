"""What is measured of a run's network, against plain NumPy on the outputs of the model's layers."""

import itertools

import keras
import numpy as np
import pytest

import deformstab as ds
from deformstab.paper.runs import network_measurements, runs
from deformstab.paper.runs.experiments import Experiment
from deformstab.paper.runs.training import Training

VARIANTS = {
    "train_images",
    "before_relu",
    "own_statistics",
    "pairs_between_classes",
    "pairs_within_classes",
}
IMAGES = 24


@pytest.fixture(scope="module")
def training():
    choices = {"blocks": ((1, 4), (1, 6)), "train_images": 60, "batch_size": 20, "epochs": 1}
    this = Experiment(
        "main",
        "digits",
        "average",
        0,
        **choices,
        measured_images=IMAGES,
        variants=True,
        class_pairs=True,
    )
    training = Training(this, runs.dataset_of(this))
    training.run_epoch(lambda: None)  # so that batch normalization is more than the identity
    return training


@pytest.fixture(scope="module")
def variants(training):
    found = {}
    network_measurements.measure(
        training.measured, training.experiment, training.data, "trained", found
    )
    return {table["variant"].iloc[0]: table for table in found["variants"]}


def by_loops(model, images, names, wanted=lambda first, second: True):
    """{name: (distance, baseline)} of layers, image by image and pair by pair."""
    deformation = ds.RandomDeformation(3, 2.0, seed=0)
    deformed = np.asarray(deformation.deform(images, deformation.draw(len(images), seed=0)))

    def apart(a, b):
        a, b = a.ravel().astype("float64"), b.ravel().astype("float64")
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))

    found = {}
    for name in names:
        output = model.input if name == "input" else model.get_layer(name).output
        part = keras.Model(model.input, output)
        plain, moved = (part.predict(x, verbose=0) for x in (images, deformed))
        pairs = itertools.combinations(range(len(images)), 2)
        others = [apart(plain[i], plain[j]) for i, j in pairs if wanted(i, j)]
        found[name] = np.mean([apart(*both) for both in zip(plain, moved)]), np.median(others)
    return found


def assert_agree(table, expected):
    assert set(table["layer"]) == set(expected)
    for row in table.itertuples():
        distance, baseline = expected[row.layer]
        assert row.distance == pytest.approx(distance, rel=1e-4, abs=1e-7)
        assert row.baseline == pytest.approx(baseline, rel=1e-4)
        assert row.sensitivity == pytest.approx(distance / baseline, rel=2e-4)


def test_each_variant_is_measured_once(variants):
    assert set(variants) == VARIANTS


@pytest.mark.parametrize("alike", [True, False])
def test_the_baseline_is_the_median_of_pairs_of_the_classes_asked_for(training, variants, alike):
    data = training.data
    images, labels = data.x_test[:IMAGES], data.y_test[:IMAGES]
    assert 1 < len(set(labels)) < IMAGES
    names = ds.paper_layers(training.measured)
    chosen = by_loops(
        training.measured, images, names, lambda i, j: (labels[i] == labels[j]) == alike
    )
    table = variants["pairs_within_classes" if alike else "pairs_between_classes"]
    assert_agree(table, chosen)
    # It is another number than that of all pairs.
    every = by_loops(training.measured, images, names)
    assert all(abs(np.log(chosen[name][1] / every[name][1])) > 1e-3 for name in names)


def test_train_images_are_the_first_it_was_trained_on(training, variants):
    names = ds.paper_layers(training.measured)
    images = training.data.x_train[:IMAGES]
    assert_agree(variants["train_images"], by_loops(training.measured, images, names))


def test_before_relu_is_the_output_of_batch_normalization(training, variants):
    names = [name.replace("_relu", "_bn") for name in ds.paper_layers(training.measured)]
    assert sum(name.endswith("_bn") for name in names) == 2
    images = training.data.x_test[:IMAGES]
    assert_agree(variants["before_relu"], by_loops(training.measured, images, names))


def test_own_statistics_are_those_of_the_measured_images(training, variants):
    images = training.data.x_test[:IMAGES]
    model = keras.models.clone_model(training.measured)
    model.set_weights(training.measured.get_weights())
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # moving averages become those of the last batch
    model(images, training=True)
    names = ds.paper_layers(model)
    assert_agree(variants["own_statistics"], by_loops(model, images, names))


def test_the_network_is_left_as_it_was(training):
    before = training.measured.get_weights()
    network_measurements.measure(
        training.measured, training.experiment, training.data, "trained", {}
    )
    for old, new in zip(before, training.measured.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_images_of_one_class_have_no_pairs_between_classes(training):
    one = training.data.y_test * 0
    data = training.data.__class__(**{**vars(training.data), "y_test": one})
    found = {}
    network_measurements.measure(training.measured, training.experiment, data, "trained", found)
    kinds = {table["variant"].iloc[0] for table in found["variants"]}
    assert kinds == VARIANTS - {"pairs_between_classes"}
