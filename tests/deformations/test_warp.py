"""Warping against plain loops and scipy, and what every warp must do."""

import numpy as np
import pytest
import scipy.ndimage
from helpers import loop_warp, needs_double, needs_tensorflow, numpy
from keras import ops

from deformstab.deformations.warp import warp, warp_adjoint


def warped(images, flow, interpolation="bilinear"):
    return numpy(warp(ops.convert_to_tensor(images), ops.convert_to_tensor(flow), interpolation))


def example(batch=2, height=5, width=7, channels=3, reach=9, dtype="float32", seed=0):
    """Images and a flow that leaves them on all sides."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, height, width, channels)).astype(dtype)
    return images, rng.uniform(-reach, reach, (batch, height, width, 2)).astype(dtype)


@pytest.mark.parametrize("reach", [0.7, 9])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_plain_loops(interpolation, reach):
    images, flow = example(reach=reach)
    found = warped(images, flow, interpolation)
    assert found.dtype == images.dtype
    expected = loop_warp(images, flow, interpolation)
    atol = 0 if interpolation == "nearest" else 2e-6
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@needs_double
@pytest.mark.parametrize("reach", [0.7, 9])
def test_map_coordinates_of_scipy(reach):
    images, flow = example(dtype="float64", reach=reach)
    grid = np.indices(images.shape[1:3])
    expected = np.empty_like(images)
    for image in range(len(images)):
        coordinates = grid + np.moveaxis(flow[image], -1, 0)
        for channel in range(images.shape[-1]):
            expected[image, ..., channel] = scipy.ndimage.map_coordinates(
                images[image, ..., channel], coordinates, order=1, mode="nearest"
            )
    np.testing.assert_allclose(warped(images, flow), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("interpolation", "dtype"),
    [
        ("bilinear", "float32"),
        ("nearest", "float32"),
        ("nearest", "int32"),
        ("nearest", "uint8"),
        ("nearest", "bool"),
    ],
)
def test_zero_flow_is_the_identity_bit_for_bit(interpolation, dtype):
    images = np.abs(50 * example()[0]).astype(dtype)
    found = warped(images, np.zeros((2, 5, 7, 2), "float32"), interpolation)
    assert found.dtype == images.dtype
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_constant_images_stay_constant_to_the_last_bit(interpolation):
    images, flow = example(batch=3)
    images[:] = np.array([0.1, -1 / 3, 1e-30], "float32")[:, None, None, None]
    np.testing.assert_array_equal(warped(images, flow, interpolation), images)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (-2, 3), (4, -6), (100, -100)])
def test_integer_translations_are_exact(shift, interpolation):
    images, _ = example()
    flow = np.broadcast_to(np.array(shift, "float32"), (2, 5, 7, 2))
    rows = np.clip(np.arange(5) + shift[0], 0, 4)  # out(p) = image(p + flow), the edge outside
    columns = np.clip(np.arange(7) + shift[1], 0, 6)
    np.testing.assert_array_equal(
        warped(images, flow, interpolation), images[:, rows][:, :, columns]
    )


def test_bilinear_stays_within_the_values_of_the_image():
    images, flow = example(batch=20)
    found = warped(images, flow)
    rounding = 1e-6
    assert (found <= images.max(axis=(1, 2), keepdims=True) + rounding).all()
    assert (found >= images.min(axis=(1, 2), keepdims=True) - rounding).all()


def test_half_way_the_nearest_is_the_higher_coordinate():
    images = np.arange(5, dtype="float32").reshape(1, 1, 5, 1)
    flow = np.zeros((1, 1, 5, 2), "float32")
    for x, expected in ((0.5, [1, 2, 3, 4, 4]), (-0.5, [0, 1, 2, 3, 4])):
        flow[..., 1] = x
        assert warped(images, flow, "nearest").ravel().tolist() == expected


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_one_pixel_images_have_one_colour(interpolation):
    images, flow = example(height=1, width=1)
    np.testing.assert_array_equal(warped(images, flow, interpolation), images)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_nan_in_a_flow_harms_no_other_pixel_and_no_memory(interpolation):
    images, flow = example()
    expected = warped(images, flow, interpolation)
    broken = flow.copy()
    broken[0, 2, 3] = np.nan
    broken[1, 0, 0, 1] = np.nan
    found = warped(images, broken, interpolation)
    harmed = np.isnan(broken).any(axis=-1)
    np.testing.assert_array_equal(found[~harmed], expected[~harmed])
    assert np.isnan(found[harmed]).all()


def test_nan_in_a_flow_of_integers_reads_no_foreign_memory():
    images, flow = example()
    images, broken = (50 * images).astype("int32"), flow.copy()
    broken[0, 2, 3] = np.nan
    expected, found = (warped(images, each, "nearest") for each in (flow, broken))
    harmed = np.isnan(broken).any(axis=-1)
    np.testing.assert_array_equal(found[~harmed], expected[~harmed])
    assert np.isin(found[harmed], images[0]).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_endless_flows_end_at_the_edge(interpolation):
    images, _ = example()
    flow = np.full((2, 5, 7, 2), (np.inf, -np.inf), "float32")
    expected = np.broadcast_to(images[:, -1:, :1], images.shape)
    np.testing.assert_array_equal(warped(images, flow, interpolation), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reach", [0, 0.7, 9])
def test_the_adjoint_is_the_transpose(reach, channels):
    """Of the matrix whose columns are warped images of one pixel."""
    images, flow = example(batch=2, height=4, width=5, channels=channels, reach=reach)
    flow[0, :, 2] = np.round(flow[0, :, 2])  # some exactly on pixels
    pixels = np.eye(20, dtype="float32").reshape(20, 4, 5, 1)
    expected = np.empty(images.shape)
    for number in range(2):
        matrix = loop_warp(pixels, np.broadcast_to(flow[number], (20, 4, 5, 2)))
        for channel in range(channels):
            sums = matrix.reshape(20, 20) @ images[number, ..., channel].ravel()
            expected[number, ..., channel] = sums.reshape(4, 5)
    found = numpy(warp_adjoint(ops.convert_to_tensor(images), ops.convert_to_tensor(flow)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@needs_tensorflow
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("jit", [None, True])
def test_a_graph_gives_the_same_with_every_size_unknown(jit, interpolation):
    import tensorflow as tf

    images, flow = example()
    signature = [tf.TensorSpec((None,) * 4, "float32")] * 2
    function = lambda images, flow: warp(images, flow, interpolation)
    # XLA wants sizes when it compiles; it sees those of the arguments.
    graph = tf.function(function, None if jit else signature, jit_compile=jit)
    found = numpy(graph(tf.constant(images), tf.constant(flow)))
    np.testing.assert_allclose(found, warped(images, flow, interpolation), rtol=0, atol=1e-6)


@needs_tensorflow
def test_gradients_of_finite_differences():
    import tensorflow as tf

    images, flow = example(batch=1, height=4, width=5, channels=2, reach=3, dtype="float64")
    weights = np.random.default_rng(7).normal(size=images.shape)
    value = lambda images, flow: float(np.sum(weights * warped(images, flow)))
    with tf.GradientTape() as tape:
        inputs = tf.constant(images), tf.constant(flow)
        tape.watch(inputs)
        total = tf.reduce_sum(weights * warp(*inputs))
    for number, gradient in enumerate(tape.gradient(total, inputs)):
        expected = np.empty(inputs[number].shape)
        for index in np.ndindex(expected.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [images.copy(), flow.copy()]
                moved[number][index] += step
                ends.append(value(*moved))
            expected[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(numpy(gradient), expected, rtol=1e-6, atol=1e-7)


@needs_tensorflow
def test_gradients_are_finite_on_pixels_and_outside():
    import tensorflow as tf

    images, _ = example()
    for reach in (0, 1, 100, -100):
        flow = tf.fill((2, 5, 7, 2), float(reach))
        with tf.GradientTape() as tape:
            tape.watch(flow)
            total = tf.reduce_sum(warp(tf.constant(images), flow))
        assert np.isfinite(numpy(tape.gradient(total, flow))).all()
