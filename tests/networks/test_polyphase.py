"""Adaptive polyphase sampling, circular padding, strided convolutions exchanged: exact cases."""

import itertools

import keras
import numpy as np
import pytest
from helpers import natural_images, numpy
from keras import layers

import deformstab as ds
from deformstab.networks.adaptive import AdaptivePolyphase2D

BLOCKS = ((1, 6), (1, 8))


def polyphase(images):
    """The component of the largest norm, by a plain loop."""
    found = []
    for image in images.astype("float64"):
        components = [image[i::2, j::2] for i in (0, 1) for j in (0, 1)]
        norms = [np.square(each).sum() for each in components]
        found.append(components[int(np.argmax(norms))])
    return np.array(found)


def test_adaptive_sampling_by_a_plain_loop():
    images = np.random.default_rng(0).standard_normal((9, 8, 10, 3)).astype("float32")
    np.testing.assert_array_equal(numpy(AdaptivePolyphase2D()(images)), polyphase(images))
    first = images.transpose(0, 3, 1, 2)
    found = numpy(AdaptivePolyphase2D(data_format="channels_first")(first))
    np.testing.assert_array_equal(found.transpose(0, 2, 3, 1), polyphase(images))


def test_of_a_map_of_zeros_the_first_component_is_kept():
    assert not numpy(AdaptivePolyphase2D()(np.zeros((2, 6, 6, 1), "float32"))).any()
    same = np.tile(np.arange(4, dtype="float32").reshape(2, 2).repeat(2, 0).repeat(2, 1), (2, 2))
    found = numpy(AdaptivePolyphase2D()(same[None, ..., None]))[0, ..., 0]
    np.testing.assert_array_equal(found, same[::2, ::2])


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (3, 5), (-2, 1)])
def test_a_rolled_map_gives_a_rolled_output(shift):
    images = np.random.default_rng(1).standard_normal((5, 8, 8, 2)).astype("float32")
    layer = AdaptivePolyphase2D()
    own = numpy(layer(images))
    moved = numpy(layer(np.roll(images, shift, axis=(1, 2))))
    for a, b in zip(own, moved):
        rolls = (np.roll(a, each, axis=(0, 1)) for each in np.ndindex(4, 4))
        assert any(np.array_equal(each, b) for each in rolls)


def spread(model, images, offsets):
    """The largest difference between logits of an image at its offsets."""
    answers = [numpy(model(np.roll(images, each, axis=(1, 2)), training=False)) for each in offsets]
    return np.ptp(answers, axis=0).max() / np.abs(answers).max()


@pytest.mark.parametrize("kind", ["aps", "max_aps"])
def test_circular_networks_with_adaptive_sampling_ignore_shifts(kind):
    images = natural_images(6, 16, 16)
    offsets = list(itertools.product(range(-3, 3), repeat=2))
    circular = ds.vgg((16, 16, 3), 10, BLOCKS, kind, seed=0, padding="circular")
    assert spread(circular, images, offsets) < 1e-5
    zeros = ds.vgg((16, 16, 3), 10, BLOCKS, kind, seed=0)
    assert spread(zeros, images, offsets) > 1e-3  # a border is no torus


@pytest.mark.parametrize("kind", ds.DOWNSAMPLING_KINDS)
def test_every_circular_kind_ignores_shifts_by_the_total_stride(kind):
    images = natural_images(4, 16, 16)
    model = ds.vgg((16, 16, 3), 10, BLOCKS, kind, seed=0, padding="circular")
    assert spread(model, images, [(0, 0), (4, 0), (8, 12)]) < 1e-5
    if "aps" not in kind:
        assert spread(model, images, [(0, 0), (1, 0)]) > 1e-4


def test_weights_are_those_of_other_kinds_and_paddings(tmp_path):
    plain = ds.vgg((16, 16, 3), 10, BLOCKS, "max", seed=0)
    other = ds.vgg((16, 16, 3), 10, BLOCKS, "max_aps", seed=0, padding="circular")
    assert [x.name for x in plain.layers] == [x.name for x in other.layers]
    for a, b in zip(plain.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(a, b)
    other.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = natural_images(2, 16, 16)
    np.testing.assert_array_equal(numpy(loaded(images)), numpy(other(images)))
    with pytest.raises(ValueError, match="padding must be 'zeros' or 'circular', received 'same'"):
        ds.vgg((16, 16, 3), 10, BLOCKS, padding="same")


def strided_network(padding):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((17, 20, 3))
    x = inputs
    if padding == "padded":
        x = layers.ZeroPadding2D(((0, 1), (1, 1)), name="pad")(x)
    conv = {"padding": "valid" if padding == "padded" else padding}
    x = layers.Conv2D(5, 3, strides=2, name="conv", activation="relu", **conv)(x)
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise", padding="same")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("padding", ["same", "valid", "padded"])
def test_a_strided_convolution_made_dense_and_subsampled_is_itself(padding):
    model, images = strided_network(padding), natural_images(3, 17, 20)
    with pytest.raises(ValueError, match="strided_convolutions=True"):
        ds.swap_downsampling(model, "blur")
    same = ds.swap_downsampling(model, "subsample", strided_convolutions=True)
    np.testing.assert_allclose(numpy(same(images)), numpy(model(images)), atol=1e-6)
    for kind in ("blur", "aps"):
        swapped = ds.swap_downsampling(model, kind, strided_convolutions=True)
        assert swapped.output_shape == model.output_shape
        for a, b in zip(model.get_weights(), swapped.get_weights()):
            np.testing.assert_array_equal(a, b)
        assert np.abs(numpy(swapped(images)) - numpy(model(images))).max() > 1e-4
