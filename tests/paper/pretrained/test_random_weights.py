"""Random weights are those of a network before training; layers looked at are the paper's."""

import keras
import numpy as np
import pytest
from helpers import randomize
from keras import layers

import deformstab as ds
from deformstab.paper.pretrained.random_weights import (
    has_normalization,
    is_shown,
    side,
    with_random_weights,
)


def trained_network():
    images = tensor = keras.Input((16, 16, 16), name="input")
    tensor = layers.Conv2D(64, 3, padding="same", use_bias=True, name="plain")(tensor)
    tensor = layers.BatchNormalization(name="bn")(tensor)
    tensor = layers.ReLU(name="relu")(tensor)
    tensor = layers.DepthwiseConv2D(5, strides=2, padding="same", name="depthwise")(tensor)
    tensor = layers.Activation("tanh", name="tanh")(tensor)
    before = tensor
    tensor = layers.SeparableConv2D(64, 3, padding="same", activation="relu", name="sep")(tensor)
    tensor = layers.Add(name="sum")([before, tensor])
    tensor = layers.MaxPooling2D(name="pool")(tensor)
    tensor = layers.Flatten(name="flat")(tensor)
    tensor = layers.Dense(32, name="dense")(tensor)
    model = keras.Model(images, layers.Activation("softmax", name="answers")(tensor))
    randomize(model)
    return model


@pytest.mark.parametrize(
    ("layer", "kernel", "seen"),
    [
        ("plain", "kernel", 9 * 16),
        ("depthwise", "kernel", 25),
        ("sep", "depthwise_kernel", 9),
        ("sep", "pointwise_kernel", 64),
        ("dense", "kernel", 4 * 4 * 64),
    ],
)
def test_kernels_have_the_deviation_of_what_an_output_sees(layer, kernel, seen):
    model = with_random_weights(trained_network(), 3)
    values = np.asarray(keras.ops.convert_to_numpy(getattr(model.get_layer(layer), kernel)))
    deviation, count = 1 / np.sqrt(seen), values.size
    assert abs(values.std() / deviation - 1) < 4 / np.sqrt(2 * count)  # four standard errors
    assert abs(values.mean()) < 4 * deviation / np.sqrt(count)
    assert np.abs(values).max() < 2.3 * deviation  # cut at two deviations of the uncut normal


def test_everything_else_is_as_before_training_and_the_network_stays():
    model = trained_network()
    kept = model.get_weights()
    fresh = with_random_weights(model, 0)
    for before, after in zip(kept, model.get_weights()):
        np.testing.assert_array_equal(before, after)
    zeros = ["plain/bias", "depthwise/bias", "sep/bias", "dense/bias", "bn/beta", "bn/moving_mean"]
    found = {variable.path: keras.ops.convert_to_numpy(variable) for variable in fresh.weights}
    for name in zeros:
        assert not found[name].any(), name
    for name in ("bn/gamma", "bn/moving_variance"):
        assert (found[name] == 1).all()


def test_a_seed_decides_the_weights():
    model = trained_network()
    first, again, other = (with_random_weights(model, seed).get_weights() for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other):
        np.testing.assert_array_equal(a, b)
        assert not a.any() or np.ptp(a) == 0 or (a != c).any()
    assert not np.array_equal(first[0], other[0])


def test_random_filters_have_the_smoothness_of_initialization():
    table = ds.filter_smoothness(with_random_weights(trained_network(), 0))
    values = table.set_index("layer")["smoothness"]
    assert values["plain"] == pytest.approx(1.856, abs=0.05)  # of a truncated normal
    # k×k: 2k(k-1) neighbours, k² weights: 40/25 where 3×3 have 12/9
    assert values["depthwise"] == pytest.approx(1.856 * (40 / 25) / (12 / 9), abs=0.25)


def test_layers_looked_at_follow_a_nonlinearity_a_pooling_or_a_sum():
    model = trained_network()
    shown = [layer.name for layer in model.layers if is_shown(layer)]
    assert shown == ["relu", "tanh", "sep", "sum", "pool"]
    sides = {layer.name: side(layer) for layer in model.layers}
    assert [sides[name] for name in shown] == [16, 8, 8, 8, 4]
    assert np.isnan(sides["answers"])


def test_normalization_is_found():
    assert has_normalization(trained_network())
    assert not has_normalization(keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3)]))


def test_a_model_that_cannot_be_copied_is_refused():
    class Own(keras.Model):
        def __init__(self, inner):
            super().__init__(name="own")
            self.inner = inner

        def call(self, inputs):
            return self.inner(inputs)

    with pytest.raises(ValueError, match="own cannot be copied with random weights"):
        with_random_weights(Own(layers.Dense(2)), 0)
