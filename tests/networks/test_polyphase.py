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


def test_circular_convolutions_by_numpys_padding():
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype("float32")
    circular = ds.vgg((8, 12, 3), 4, ((1, 5),), "max", seed=0, padding="circular")
    layer = circular.get_layer("block1_conv1")
    plain = layers.Conv2D(5, 3, use_bias=False)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    plain.build(padded.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(layer(images)), numpy(plain(padded)), atol=1e-6)


def test_a_component_with_nan_is_chosen_so_that_nan_does_not_vanish():
    images = np.ones((2, 4, 4, 1), "float32")
    images[1, 1, 2] = np.nan
    found = numpy(AdaptivePolyphase2D()(images))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, 0, 1])


def test_gradients_flow_to_what_is_kept():
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(
        inputs, layers.Flatten()(AdaptivePolyphase2D()(layers.Conv2D(1, 1)(inputs)))
    )
    images = np.random.default_rng(0).standard_normal((3, 4, 4, 1)).astype("float32")
    model.layers[1].set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    kept = polyphase(images).reshape(3, 4)
    model.fit(images, np.zeros((3, 4)), batch_size=3, verbose=0)
    # Of the mean of (w x)² the gradient by w is 2 mean x² at w = 1, over the pixels kept.
    expected = 1 - 0.1 * 2 * np.square(kept).mean()
    assert model.layers[1].get_weights()[0].item() == pytest.approx(expected, rel=1e-5)


def residual_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    main = layers.Conv2D(6, 3, strides=2, padding="same", name="main")(x)
    skip = layers.Conv2D(6, 1, strides=2, name="skip")(x)
    return keras.Model(inputs, layers.Add(name="sum")([main, skip]))


def test_branches_that_are_added_keep_the_same_pixels():
    model, images = residual_network(), natural_images(8, 16, 16)
    swapped = ds.swap_downsampling(model, "aps", strided_convolutions=True)
    assert sum("_choice" in layer.name for layer in swapped.layers) == 1
    dense = {
        name: numpy(keras.Model(swapped.input, swapped.get_layer(name).output)(images))
        for name in ("main", "skip")
    }
    assert dense["main"].shape == dense["skip"].shape == (8, 16, 16, 6)
    # 3×3 "same" with stride 2 begins at pixel 1, 1×1 at pixel 0: of the same choice, (i, j).
    chosen = set()
    for image, found in enumerate(numpy(swapped(images))):
        sums = {
            (i, j): np.roll(dense["main"][image], (-1 - i, -1 - j), (0, 1))[::2, ::2]
            + np.roll(dense["skip"][image], (-i, -j), (0, 1))[::2, ::2]
            for i in (0, 1)
            for j in (0, 1)
        }
        # Away from the last row and column, where a component ends with the map.
        matches = [
            key
            for key, each in sums.items()
            if np.allclose(each[:-1, :-1], found[:-1, :-1], atol=1e-5)
        ]
        assert len(matches) == 1
        chosen |= {*matches}
    assert len(chosen) > 1  # images differ in where they begin


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ResNet50"])
def test_networks_of_today_made_dense_and_subsampled_are_themselves(name):
    make = getattr(keras.applications, name)
    options = {"weights": None, "include_top": False, "input_shape": (64, 64, 3)}
    keras.utils.set_random_seed(0)
    model = make(**options)
    images = 50 * natural_images(2, 64, 64)
    swapped = ds.swap_downsampling(model, "subsample", strided_convolutions=True)
    if name == "ResNet50":  # its max pooling is exchanged too, so answers differ
        assert swapped.output_shape == model.output_shape
        assert sum(layer.name.endswith("_sampling") for layer in swapped.layers) >= 6
        return
    features = numpy(model(images))
    scale = np.abs(features).max()
    np.testing.assert_allclose(numpy(swapped(images)) / scale, features / scale, atol=1e-4)
    blurred = ds.swap_downsampling(model, "blur", strided_convolutions=True)
    assert np.abs(numpy(blurred(images)) - features).max() / scale > 0.05  # which would be seen
