"""Re-estimated batch statistics against a two-pass NumPy computation."""

import itertools

import keras
import numpy as np
import pytest
from helpers import natural_images, numpy
from keras import layers, ops

import deformstab as ds

EPSILON = 1e-3  # Keras' own


def two_layers(frozen=(), dropout=False):
    """Normalization, a linear map, normalization; gammas and betas that are not 1 and 0."""
    inputs = keras.Input((5, 6, 3))
    tensor = layers.BatchNormalization(name="first", momentum=0.9)(inputs)
    tensor = layers.Conv2D(4, 1, use_bias=False, name="linear")(tensor)
    if dropout:
        tensor = layers.Dropout(0.5, seed=3, name="dropout")(tensor)
    tensor = layers.BatchNormalization(name="second")(tensor)
    model = keras.Model(inputs, tensor)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 2, variable.shape))
    for name in frozen:
        model.get_layer(name).trainable = False
    return model


def values_of(model):
    return {variable.path: np.asarray(variable).copy() for variable in model.variables}


def two_pass(model, batches):
    """{layer: (mean, variance)} weighted by batch size, and the outputs, by the definition."""
    weights = values_of(model)
    statistics, outputs = {"first": [], "second": []}, []

    def normalize(name, tensor):
        mean = tensor.mean(axis=(0, 1, 2))
        variance = ((tensor - mean) ** 2).mean(axis=(0, 1, 2))
        statistics[name].append((len(tensor) * mean, len(tensor) * variance))
        scale = weights[f"{name}/gamma"] / np.sqrt(variance + EPSILON)
        return (tensor - mean) * scale + weights[f"{name}/beta"]

    for batch in batches:
        tensor = normalize("first", batch.astype("float64"))
        outputs.append(normalize("second", tensor @ weights["linear/kernel"][0, 0]))
    total = sum(map(len, batches))
    averages = {name: np.sum(parts, axis=0) / total for name, parts in statistics.items()}
    return averages, np.concatenate(outputs)


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (12, 12, [12]),
        (12, 100, [12]),
        (10, 4, [4, 4, 2]),  # half a batch counts by its size
        (9, 4, [4, 4]),  # less than half is left out
        (7, 2, [2, 2, 2, 1]),
        (1, 4, [1]),
    ],
)
def test_batch_statistics_of_numpy(count, batch_size, sizes):
    model = two_layers()
    images = natural_images(count, 5, 6) + np.linspace(-1, 1, count)[:, None, None, None]
    starts = np.cumsum([0, *sizes])
    batches = [images[start:end] for start, end in itertools.pairwise(starts)]
    expected, outputs = two_pass(model, batches)
    found = ds.reestimate_batch_normalization(model, images, batch_size)
    after = values_of(model)
    for name, (mean, variance) in expected.items():
        np.testing.assert_allclose(after[f"{name}/moving_mean"], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after[f"{name}/moving_variance"], variance, rtol=1e-5, atol=1e-6)
    assert found.shape == (sum(sizes), 5, 6, 4)
    np.testing.assert_allclose(found, outputs, rtol=0, atol=2e-5)


def test_nothing_but_the_statistics_changes():
    model = two_layers(dropout=True)
    model.compile(keras.optimizers.Adam(), "mse")
    before = values_of(model)
    state = model.get_layer("dropout").seed_generator.state
    seeds = np.asarray(state).copy()
    images = natural_images(12, 5, 6)
    ds.reestimate_batch_normalization(model, images, 4)
    after = values_of(model)
    assert set(after) == set(before)
    for path, value in after.items():
        changed = path.endswith(("moving_mean", "moving_variance"))
        assert np.array_equal(value, before[path]) != changed, path
    np.testing.assert_array_equal(np.asarray(state), seeds)
    assert [model.get_layer(name).momentum for name in ("first", "second")] == [0.9, 0.99]


def test_momentum_and_statistics_survive_a_failure():
    model = two_layers()
    before = values_of(model)
    with pytest.raises(ValueError, match="shape"):
        ds.reestimate_batch_normalization(model, np.zeros((4, 5, 6, 2), "float32"))
    assert [model.get_layer(name).momentum for name in ("first", "second")] == [0.9, 0.99]
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[path])


def test_training_goes_on_as_if_nothing_had_been():
    """Momentum is read when Keras traces: it must not be ours then."""
    images = natural_images(8, 5, 6)
    target = np.zeros((8, 5, 6, 4), "float32")
    ours, plain = two_layers(), two_layers()
    for model in (ours, plain):
        model.compile("sgd", "mse")
    ds.reestimate_batch_normalization(ours, images, 4)
    plain.set_weights(ours.get_weights())
    for model in (ours, plain):
        model.fit(images, target, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_outputs_are_those_of_training_mode(images):
    model = ds.vgg((16, 16, 3), 4, ((1, 4), (1, 4)), "strided_relu", seed=0)
    expected = [numpy(model(images[start : start + 4], training=True)) for start in (0, 4, 8)]
    found = ds.reestimate_batch_normalization(model, images, 4)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-5)
    # One batch of all: inference mode then is training mode.
    found = ds.reestimate_batch_normalization(model, images, 12)
    np.testing.assert_allclose(numpy(model(images, training=False)), found, rtol=0, atol=1e-4)


def test_a_second_call_repeats_and_sees_later_weights(images):
    model = two_layers()
    images = natural_images(6, 5, 6)
    first = ds.reestimate_batch_normalization(model, images)
    statistics = values_of(model)
    np.testing.assert_array_equal(ds.reestimate_batch_normalization(model, images), first)
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, statistics[path])
    kernel = model.get_layer("linear").kernel
    kernel.assign(2 * np.asarray(kernel))
    ds.reestimate_batch_normalization(model, images)
    np.testing.assert_allclose(
        values_of(model)["second/moving_variance"],
        4 * statistics["second/moving_variance"],
        rtol=1e-4,
    )


@pytest.mark.parametrize("frozen", [["first"], ["second"], ["first", "second"]])
def test_frozen_layers_keep_their_statistics(frozen):
    """Keras runs them in inference mode, in training too: they have no batch statistics."""
    model = two_layers(frozen=frozen)
    before = values_of(model)
    images = natural_images(8, 5, 6)
    ds.reestimate_batch_normalization(model, images, 4)
    for name in ("first", "second"):
        for part in ("moving_mean", "moving_variance"):
            path = f"{name}/{part}"
            value = values_of(model)[path]
            if name in frozen:
                np.testing.assert_allclose(value, before[path], rtol=1e-6)
            else:
                assert np.isfinite(value).all()
                assert (value != before[path]).all()


def test_layers_that_are_not_called_keep_their_statistics():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.used = layers.BatchNormalization(name="used")
            self.unused = layers.BatchNormalization(name="unused")
            self.unused.build((None, 4))

        def call(self, images, training=None):
            return self.used(images, training=training)

    model = Model()
    images = natural_images(4, 5, 6)
    model(images)
    ds.reestimate_batch_normalization(model, images)
    np.testing.assert_array_equal(np.asarray(model.unused.moving_mean), 0)
    np.testing.assert_array_equal(np.asarray(model.unused.moving_variance), 1)
    np.testing.assert_allclose(
        np.asarray(model.used.moving_mean), images.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6
    )


def test_nested_and_wrapped_normalizations():
    inner = keras.Sequential([keras.Input((5, 6, 3)), layers.BatchNormalization(name="deep")])
    model = keras.Sequential([keras.Input((5, 6, 3)), inner, layers.GroupNormalization(1)])
    images = natural_images(4, 5, 6)
    ds.reestimate_batch_normalization(model, images)
    deep = inner.get_layer("deep")
    np.testing.assert_allclose(
        np.asarray(deep.moving_variance), images.var(axis=(0, 1, 2)), rtol=1e-4
    )


def test_a_model_without_normalization_is_left_alone(images):
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(2, 3)])
    before = model.get_weights()
    found = ds.reestimate_batch_normalization(model, images)
    np.testing.assert_allclose(found, numpy(model(images)), rtol=0, atol=1e-5)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_models_of_several_outputs():
    inputs = keras.Input((5, 6, 3))
    tensor = layers.BatchNormalization(name="only")(inputs)
    model = keras.Model(inputs, [tensor, ops.mean(tensor, axis=(1, 2))])
    images = natural_images(6, 5, 6)
    outputs = ds.reestimate_batch_normalization(model, images, 4)
    assert [np.shape(output) for output in outputs] == [(6, 5, 6, 3), (6, 3)]


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_impossible_batch_sizes(batch_size):
    with pytest.raises(ValueError, match=r"batch_size must be .* at least 1"):
        ds.reestimate_batch_normalization(two_layers(), natural_images(4, 5, 6), batch_size)


def test_no_images():
    with pytest.raises(ValueError, match="need images, received none"):
        ds.reestimate_batch_normalization(two_layers(), np.zeros((0, 5, 6, 3), "float32"))
