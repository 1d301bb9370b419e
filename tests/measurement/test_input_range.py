"""Signs of a wrong range: each rule on the network that it is for, in the right range and in others."""

import keras
import numpy as np
import pytest
from helpers import natural_images, randomize
from keras import layers

import deformstab as ds
from deformstab.measurement.input_range import range_notes

IMAGES = natural_images(8)
PIXELS = 127.5 + 127.5 * IMAGES


def chain(*several):
    inputs = tensor = keras.Input((16, 16, 3))
    for layer in several:
        tensor = layer(tensor)
    return keras.Model(inputs, tensor)


def test_the_variance_that_batch_normalization_knows():
    """By hand: the ratio of variances is that of the ranges, squared."""
    model = chain(layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(name="norm"))
    assert range_notes(model, PIXELS) == {}  # nothing was seen yet
    ds.reestimate_batch_normalization(model, IMAGES)
    assert range_notes(model, IMAGES) == {}
    assert range_notes(model, (IMAGES + 1) / 2) == {}
    note = range_notes(model, PIXELS)["norm"]
    assert f"{127.5**2:.2g} times that which it has from training" in note
    assert note.endswith("are images in the range it was trained on?")
    ds.reestimate_batch_normalization(model, PIXELS)
    assert f"{127.5**-2:.2g} times" in range_notes(model, IMAGES)["norm"]
    assert range_notes(keras.Sequential([model]), IMAGES)  # and deeper in it


@pytest.mark.parametrize("kind", ds.PAPER_KINDS)
def test_untrained_networks_are_left_alone(kind):
    model = ds.vgg((16, 16, 3), 4, ((1, 4), (1, 6)), downsampling=kind, seed=0)
    for images in (IMAGES, (IMAGES + 1) / 2, PIXELS):
        assert range_notes(model, images) == {}


def test_units_at_the_limit_of_an_activation():
    model = chain(layers.Conv2D(8, 3), layers.ReLU(6.0, name="bounded"))
    assert range_notes(model, IMAGES) == {}
    assert "of its units are at their limit" in range_notes(model, PIXELS)["bounded"]
    model = chain(layers.Conv2D(8, 3, activation="tanh", name="bounded"))
    assert range_notes(model, IMAGES) == {}
    assert "of its units are at their limit" in range_notes(model, PIXELS)["bounded"]


def test_channels_that_are_zero_for_all_images():
    model = chain(layers.Conv2D(8, 3, activation="relu", name="dead"))
    assert range_notes(model, IMAGES) == {}
    kernel, bias = model.get_layer("dead").get_weights()
    model.get_layer("dead").set_weights([kernel, bias - 100])
    assert "100% of its channels are zero" in range_notes(model, IMAGES)["dead"]


def test_a_network_that_scales_images_itself():
    model = chain(layers.Rescaling(1 / 255, name="scale"), layers.Conv2D(4, 3))
    assert range_notes(model, PIXELS) == {}
    assert "it scales images by 0.00392 itself" in range_notes(model, IMAGES)["scale"]
    assert range_notes(chain(layers.Rescaling(2.0), layers.Conv2D(4, 3)), IMAGES) == {}


def test_answers_that_are_nearly_alike():
    model = chain(layers.Flatten(), layers.Dense(5, activation="softmax", name="answers"))
    kernel, _ = model.get_layer("answers").get_weights()
    model.get_layer("answers").set_weights([kernel, np.arange(5.0)])
    assert range_notes(model, IMAGES) == {}
    assert "nearly alike for all images" in range_notes(model, 1e-3 * IMAGES)["answers"]
    model = chain(layers.Flatten(), layers.Dense(5, name="logits"))
    randomize(model)
    assert range_notes(model, IMAGES) == {}
    assert "nearly alike" in range_notes(model, 1e-3 * IMAGES)["logits"]
