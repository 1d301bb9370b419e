"""Layers with a pooling layer's window: against plain loops, scipy, and Keras' own pooling."""

import json
import math

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_double, numpy, randomize
from keras import layers
from scipy.signal import correlate2d

from deformstab.networks.downsampling import BlurPooling2D, MaxBlurPooling2D, Subsample2D
from deformstab.networks.strided import (
    AverageKernel,
    StridedConvolution2D,
    StridedConvolutionReLU2D,
)

FIXED = (Subsample2D, BlurPooling2D, MaxBlurPooling2D)
LEARNED = (StridedConvolution2D, StridedConvolutionReLU2D)
BINOMIAL = {  # rows of Pascal's triangle, as Zhang's paper and antialiased-cnns have them
    3: [1, 2, 1],
    4: [1, 3, 3, 1],
    5: [1, 4, 6, 4, 1],
    6: [1, 5, 10, 10, 5, 1],
    7: [1, 6, 15, 20, 15, 6, 1],
}
WINDOWS = [  # window, strides, padding
    (2, None, "valid"),
    (2, 2, "same"),
    (3, 2, "valid"),
    (3, 2, "same"),
    (2, 3, "valid"),
    (2, 3, "same"),
    (4, 3, "same"),
    (5, 2, "same"),
    (1, 2, "valid"),
    (1, 2, "same"),
    ((3, 2), (1, 2), "valid"),
    ((2, 3), (2, 1), "same"),
    ((1, 2), (1, 2), "valid"),
    ((2, 4), (3, 2), "same"),
]
SIZES = [(8, 8), (9, 12), (10, 7), (5, 6)]
# Pooling and convolution; oneDNN or a GPU could, plain TensorFlow on a CPU cannot.
needs_channels_first = pytest.mark.skipif(
    BACKEND == "tensorflow", reason="TensorFlow's CPU cannot pool or convolve channels_first"
)


def pair(value):
    return (value, value) if isinstance(value, int) else value


def starts(size, window, stride, padding):
    """Where the windows of a pooling layer begin, as TensorFlow documents "valid" and "same"."""
    if padding == "valid":
        return list(range(0, size - window + 1, stride))
    count = math.ceil(size / stride)
    outside = max((count - 1) * stride + window - size, 0)
    return [place * stride - outside // 2 for place in range(count)]


def centres(size, window, stride, padding):
    return [start + (window - 1) // 2 for start in starts(size, window, stride, padding)]


def reflected(place, size):
    """The pixel that stands for one outside: walking back and forth, edges not repeated."""
    step, position = (1 if place >= 0 else -1), 0
    for _ in range(abs(place)):
        if size == 1:
            return 0
        if not 0 <= position + step < size:
            step = -step
        position += step
    return position


def loop_subsample(images, window, strides, padding):
    rows, columns = (
        centres(size, *axis, padding)
        for size, axis in zip(images.shape[1:3], zip(pair(window), pair(strides)))
    )
    found = np.empty((len(images), len(rows), len(columns), images.shape[-1]), images.dtype)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            found[:, i, j] = images[:, row, column]
    return found


def loop_filter(images, rows, columns, filters):
    """The weighted sum around some pixels, in float64."""
    weights = np.outer(*filters) / np.outer(*filters).sum()
    height, width = images.shape[1:3]
    found = np.zeros((len(images), len(rows), len(columns), images.shape[-1]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for (a, b), weight in np.ndenumerate(weights):
                y = reflected(row - (weights.shape[0] - 1) // 2 + a, height)
                x = reflected(column - (weights.shape[1] - 1) // 2 + b, width)
                found[:, i, j] += weight * images[:, y, x]
    return found


def filters_of(window, strides, blur_size):
    """An axis that pooling leaves as it is is not blurred."""
    return [
        [1] if axis == (1, 1) else BINOMIAL[blur_size] for axis in zip(pair(window), pair(strides))
    ]


def loop_blur(images, window, strides, padding, blur_size):
    rows, columns = (
        centres(size, *axis, padding)
        for size, axis in zip(images.shape[1:3], zip(pair(window), pair(strides)))
    )
    return loop_filter(images, rows, columns, filters_of(window, strides, blur_size))


def loop_max_blur(images, window, strides, padding, blur_size):
    batch, height, width, channels = images.shape
    dense = [starts(s, w, 1, padding) for s, w in zip((height, width), pair(window))]
    maxima = np.empty((batch, len(dense[0]), len(dense[1]), channels))
    for i, top in enumerate(dense[0]):
        for j, left in enumerate(dense[1]):
            bottom, right = top + pair(window)[0], left + pair(window)[1]
            part = images[:, max(top, 0) : bottom, max(left, 0) : right]
            maxima[:, i, j] = part.max(axis=(1, 2))
    # Each window that pooling has is among the dense ones: the blur is centred on that.
    rows, columns = (
        [every.index(start) for start in starts(size, *axis, padding)]
        for every, size, axis in zip(dense, (height, width), zip(pair(window), pair(strides)))
    )
    return loop_filter(maxima, rows, columns, filters_of(window, strides, blur_size))


def layer_and_oracle(kind, window, strides, padding, blur_size=3):
    sizes = (window, window if strides is None else strides, padding)
    if kind is Subsample2D:
        return Subsample2D(window, strides, padding), lambda x: loop_subsample(x, *sizes)
    oracle = loop_blur if kind is BlurPooling2D else loop_max_blur
    layer = kind(window, strides, padding, blur_size=blur_size)
    return layer, lambda x: oracle(x, *sizes, blur_size)


# ---- values ----


@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
@pytest.mark.parametrize("kind", FIXED)
def test_windows_of_plain_loops(kind, window, strides, padding):
    layer, oracle = layer_and_oracle(kind, window, strides, padding)
    for height, width in SIZES:
        images = natural_images(2, height, width)
        found = numpy(layer(images))
        expected = oracle(images)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        if kind is Subsample2D:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("blur_size", BINOMIAL)
@pytest.mark.parametrize("kind", FIXED[1:])
def test_filters_of_every_size_on_maps_of_every_size(kind, blur_size):
    for window, strides, padding in ((2, 2, "valid"), (3, 2, "same"), (2, 1, "same")):
        layer, oracle = layer_and_oracle(kind, window, strides, padding, blur_size)
        for height, width in ((2, 2), (3, 4), (2, 9), (7, 3), (6, 6)):
            images = natural_images(2, height, width)
            np.testing.assert_allclose(numpy(layer(images)), oracle(images), rtol=0, atol=1e-6)


def test_a_blur_by_hand():
    row = np.array([0, 0, 4, 0, 0, 0], "float32")
    image = np.broadcast_to(row, (1, 6, 6))[..., None]
    # Centres 0, 2, 4 of [1, 2, 1] / 4; reflected, the pixel left of the first is the second.
    found = numpy(BlurPooling2D(2)(image))[0, :, :, 0]
    np.testing.assert_array_equal(found, np.broadcast_to([0, 2, 0], (3, 3)))
    # Of [1, 3, 3, 1] / 8 taps lie at -1, 0, 1, 2 from the centre.
    found = numpy(BlurPooling2D(2, blur_size=4)(image))[0, 0, :, 0]
    np.testing.assert_array_equal(found, [0.5, 1.5, 0])
    # Maxima of windows of two: 0 4 4 0 0, blurred at 0, 2, 4.
    found = numpy(MaxBlurPooling2D(2)(image))[0, 0, :, 0]
    np.testing.assert_array_equal(found, [2, 3, 0])


@pytest.mark.parametrize("blur_size", BINOMIAL)
def test_two_by_two_is_the_blur_pool_of_antialiased_cnns(blur_size):
    # Their definition: reflection of (f - 1) // 2 and ⌈(f - 1) / 2⌉ pixels, filter, every second.
    images = natural_images(1, 12, 10)
    before, after = (blur_size - 1) // 2, math.ceil((blur_size - 1) / 2)
    kernel = np.outer(BINOMIAL[blur_size], BINOMIAL[blur_size])
    kernel = kernel / kernel.sum()
    for layer, dense in (
        (BlurPooling2D(2, blur_size=blur_size), images),
        (
            MaxBlurPooling2D(2, blur_size=blur_size),
            np.stack([images[:, i : i + 11, j : j + 9] for i in (0, 1) for j in (0, 1)]).max(0),
        ),
    ):
        found = numpy(layer(images))
        for channel in range(3):
            padded = np.pad(dense[0, :, :, channel], [(before, after)] * 2, mode="reflect")
            expected = correlate2d(padded, kernel, mode="valid")[::2, ::2]
            np.testing.assert_allclose(found[0, :, :, channel], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", FIXED)
@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
def test_constant_images_stay_constant(kind, window, strides, padding):
    found = numpy(kind(window, strides, padding)(np.full((1, 9, 8, 2), 0.7, "float32")))
    np.testing.assert_array_equal(found, np.float32(0.7))


@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
def test_the_average_kernel_is_average_pooling(window, strides, padding):
    images = natural_images(2, 9, 12)
    layer = StridedConvolution2D(window, strides, padding, kernel_initializer=AverageKernel())
    found = numpy(layer(images))
    if padding == "valid":
        pooled = layers.AveragePooling2D(window, strides, padding)(images)
        np.testing.assert_allclose(found, numpy(pooled), rtol=0, atol=1e-6)
    # What lies outside the image counts as zero (Keras' average pooling leaves it out; not so on
    # PyTorch, where it repeats the edge).
    for place in np.ndindex(found.shape[1:3]):
        part = images
        for axis in (0, 1):
            side, step = pair(window)[axis], pair(strides or window)[axis]
            start = starts(images.shape[axis + 1], side, step, padding)[place[axis]]
            part = np.take(part, range(max(start, 0), min(start + side, (9, 12)[axis])), axis + 1)
        expected = part.sum(axis=(1, 2)) / math.prod(pair(window))
        np.testing.assert_allclose(found[:, *place], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
def test_learned_layers_are_what_keras_layers_do_one_by_one(window, strides, padding):
    images = natural_images(2, 9, 12)
    layer = StridedConvolutionReLU2D(window, strides, padding)
    model = keras.Sequential([keras.Input((9, 12, 3)), layer])
    randomize(model)
    convolution = layers.Conv2D(3, window, strides or window, padding, use_bias=False)
    parts = keras.Sequential(
        [keras.Input((9, 12, 3)), convolution, layers.BatchNormalization(), layers.ReLU()]
    )
    parts.set_weights(model.get_weights())
    for training in (False, True):
        found = numpy(model(images, training=training))
        np.testing.assert_allclose(found, numpy(parts(images, training=training)), atol=1e-6)
        assert (found > 0).any()
    for ours, theirs in zip(model.get_weights(), parts.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # moving averages have moved alike
    assert not layer.use_bias


# ---- shapes, formats, dtypes ----


@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
@pytest.mark.parametrize("kind", [*FIXED, *LEARNED])
def test_shapes_are_those_of_pooling(kind, window, strides, padding):
    layer, pool = kind(window, strides, padding), layers.MaxPooling2D(window, strides, padding)
    for height in range(5, 13):
        shape = (2, height, 17 - height, 3)
        assert tuple(layer.compute_output_shape(shape)) == tuple(pool.compute_output_shape(shape))
        assert layer(np.ones(shape, "float32")).shape == pool.compute_output_shape(shape)
    unknown = layer(keras.Input((None, 7, 3))).shape
    assert unknown == pool(keras.Input((None, 7, 3))).shape


@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
@pytest.mark.parametrize("kind", FIXED)
def test_sizes_unknown_beforehand(kind, window, strides, padding):
    layer, oracle = layer_and_oracle(kind, window, strides, padding)
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    for height, width in SIZES[:3]:
        images = natural_images(2, height, width)
        found = model.predict_on_batch(images)
        np.testing.assert_allclose(found, oracle(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        Subsample2D,
        BlurPooling2D,
        *(pytest.param(kind, marks=needs_channels_first) for kind in (MaxBlurPooling2D, *LEARNED)),
    ],
)
@pytest.mark.parametrize(("window", "strides", "padding"), WINDOWS)
def test_channels_first_is_channels_last(kind, window, strides, padding):
    images = natural_images(2, 9, 12)
    last = kind(window, strides, padding, "channels_last")
    first = kind(window, strides, padding, "channels_first")
    expected = numpy(last(images))
    transposed = images.transpose(0, 3, 1, 2)
    first.build(transposed.shape)
    first.set_weights(last.get_weights())
    found = numpy(first(transposed))
    assert tuple(first.compute_output_shape(transposed.shape)) == found.shape
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "policy", ["float32", "mixed_float16", "bfloat16", pytest.param("float64", marks=needs_double)]
)
@pytest.mark.parametrize("kind", [*FIXED, *LEARNED])
def test_policies_and_configurations(kind, policy):
    layer = kind((2, 3), 2, "SAME", dtype=policy, name="mine", trainable=False)
    images = keras.ops.cast(natural_images(2, 8, 8), layer.compute_dtype)
    found = layer(images)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    assert {v.dtype for v in layer.weights} <= {layer.variable_dtype}
    config = json.loads(json.dumps(layer.get_config()))
    again = kind.from_config(config)
    assert again.get_config() == layer.get_config()
    assert (again.name, again.trainable, again.dtype_policy.name) == ("mine", False, policy)
    assert (again.pool_size, again.strides, again.padding) == ((2, 3), (2, 2), "same")
    again.build(images.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(
        numpy(keras.ops.cast(again(images), "float32")), numpy(keras.ops.cast(found, "float32"))
    )


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
@pytest.mark.parametrize("kind", FIXED[1:])
def test_whole_numbers_are_blurred_as_floats(kind, dtype):
    images = np.random.default_rng(0).integers(0, 2, (1, 6, 6, 2)).astype(dtype)
    found = kind()(images)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(numpy(found), numpy(kind()(images.astype("float32"))))
    assert kind()(keras.Input((6, 6, 2), dtype=dtype)).dtype == "float32"


@pytest.mark.parametrize("kind", [*FIXED, *LEARNED])
def test_gradients_pass(kind):
    images = natural_images(4, 8, 8)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 1, name="first"), kind(3, 2, "same")]
    )
    randomize(model)
    before = model.get_layer("first").get_weights()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(images, np.ones(model.output_shape[1:], "float32") + images[:, :4, :4])
    for old, new in zip(before, model.get_layer("first").get_weights()):
        assert (old != new).all()


def test_the_configuration_that_earlier_versions_saved():
    layer = Subsample2D.from_config({"name": "old", "data_format": "channels_last"})
    assert (layer.pool_size, layer.strides, layer.padding) == ((2, 2), (2, 2), "valid")
    images = natural_images(1, 5, 7)
    np.testing.assert_array_equal(numpy(layer(images)), images[:, 0:4:2, 0:6:2])
    assert tuple(layer.compute_output_shape((1, 1, 3, 2))) == (1, 0, 1, 2)
    assert layer(images[:, :1]).shape == (1, 0, 3, 3)


# ---- bad input ----


@pytest.mark.parametrize("size", [2, 8, 0, 3.5, None, "3", True])
@pytest.mark.parametrize("kind", FIXED[1:])
def test_filters_of_impossible_sizes(kind, size):
    with pytest.raises(ValueError, match="blur_size must be an int from 3 to 7"):
        kind(blur_size=size)


@pytest.mark.parametrize("kind", LEARNED)
def test_a_convolution_must_know_its_channels(kind):
    with pytest.raises(ValueError, match=r"'mine'.*must know its number of channels"):
        kind(name="mine")(keras.Input((8, 8, None)))
