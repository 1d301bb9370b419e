"""RandomDeformation: dtypes of images, masks and policies."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_double, needs_tensorflow, numpy
from keras import ops

import deformstab as ds

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]
WIDE = [pytest.param(dtype, marks=needs_double) for dtype in ("int64", "float64")]
DTYPES = ["bool", *INTEGERS, "float16", "bfloat16", "float32", *WIDE]
if BACKEND == "torch":  # it has no gather for these
    DTYPES = [dtype for dtype in DTYPES if dtype not in ("uint16", "uint32")]
LABELS = ("bool", "int32", "int64", "uint32")  # what bilinear interpolation would mix
INTENSITIES = [each for each in DTYPES if getattr(each, "values", (each,))[0] not in LABELS]
HALVES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def typed(dtype, height=11, width=14):
    """A batch of two images whose values (small integers) every dtype holds exactly."""
    values = np.random.default_rng(0).integers(
        0, 2 if dtype == "bool" else 100, (2, height, width, 2)
    )
    return ops.cast(ops.convert_to_tensor(values.astype("int32")), dtype)


def exact(tensor):
    return numpy(ops.cast(tensor, "float32"))


@pytest.mark.parametrize("dtype", INTENSITIES)
def test_bilinear_gives_the_compute_dtype_whatever_comes_in(dtype):
    layer = ds.RandomDeformation(3, 1.2)
    images = typed(dtype)
    found = layer(images, seed=1)
    assert dtype_of(found) == "float32"
    np.testing.assert_array_equal(numpy(found), numpy(layer(exact(images), seed=1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_keeps_the_dtype_and_picks_pixels(dtype):
    layer = ds.RandomDeformation(3, 1.2, "nearest")
    places = np.broadcast_to(np.arange(11 * 14).reshape(1, 11, 14, 1), (2, 11, 14, 1))
    sources = numpy(layer(places.astype("int32"), seed=1))[..., 0]  # where each pixel comes from
    assert (sources != places[..., 0]).mean() > 0.3
    images = typed(dtype)
    found = layer(images, seed=1)
    assert dtype_of(found) == dtype
    flat = exact(images).reshape(2, 11 * 14, 2)
    expected = np.stack([flat[image][sources[image]] for image in range(2)])
    np.testing.assert_array_equal(exact(found), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_zero_reach_is_the_identity_bit_for_bit(interpolation, dtype):
    if interpolation == "bilinear" and dtype in LABELS:
        pytest.skip("refused")
    images = typed(dtype)
    if dtype in ("float16", "bfloat16", "float32", "float64"):
        images = images / 7  # not representable in fewer bits
    found = ds.RandomDeformation(3, 0, interpolation)(images)
    expected = "float32" if interpolation == "bilinear" else dtype
    assert dtype_of(found) == expected
    np.testing.assert_array_equal(
        numpy(ops.cast(found, "float32")), numpy(ops.cast(ops.cast(images, expected), "float32"))
    )
    if expected == dtype == "float64":
        np.testing.assert_array_equal(numpy(found), numpy(images))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_zero_reach_keeps_missing_pixels_where_they_are(interpolation):
    images = natural_images(1)
    images[0, 3, 4], images[0, 9, 9, 1] = np.nan, np.inf
    found = numpy(ds.RandomDeformation(3, 0, interpolation)(images))
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("policy", HALVES)
def test_sixteen_bits_have_the_geometry_of_float32(policy):
    images = natural_images(3, 20, 20)
    exact_layer, half_layer = (
        ds.RandomDeformation(4, 2.0),
        ds.RandomDeformation(4, 2.0, dtype=policy),
    )
    half = policy.removeprefix("mixed_")
    displacements = half_layer.draw(3, seed=1)
    assert dtype_of(displacements) == "float32"
    np.testing.assert_array_equal(numpy(displacements), numpy(exact_layer.draw(3, seed=1)))
    flow = half_layer.flow(displacements, 20, 20)
    assert dtype_of(flow) == "float32"
    np.testing.assert_array_equal(numpy(flow), numpy(exact_layer.flow(displacements, 20, 20)))
    found = half_layer(images, seed=1)
    assert dtype_of(found) == half
    # The very last step is the rounding: images come in with all their bits.
    expected = ops.cast(exact_layer(images, seed=1), half)
    np.testing.assert_array_equal(exact(found), exact(expected))
    # Images of 16 bits are blended in 32.
    rounded = ops.cast(ops.convert_to_tensor(images), half)
    expected = ops.cast(exact_layer(ops.cast(rounded, "float32"), seed=1), half)
    np.testing.assert_array_equal(exact(half_layer(rounded, seed=1)), exact(expected))


@pytest.mark.parametrize("policy", ["float32", *HALVES])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_labels_above_256_survive_every_policy(dtype, policy):
    labels = np.random.default_rng(0).integers(256, 70_000, (3, 11, 11, 1)).astype(dtype)
    layer = ds.RandomDeformation(3, 1.2, "nearest", dtype=policy)
    found = layer(labels, seed=1)
    assert dtype_of(found) == dtype
    found = numpy(found)
    assert (found != labels).any()
    for image in range(3):
        assert np.isin(found[image], labels[image]).all()
    expected = ds.RandomDeformation(3, 1.2, "nearest")(labels, seed=1)
    np.testing.assert_array_equal(found, numpy(expected))
    np.testing.assert_array_equal(numpy(layer(labels, training=False)), labels)


def test_a_mask_moves_with_its_image():
    image = natural_images(1, 24, 24, 1)
    mask = (image > 0.1).astype("int32")
    layer = ds.RandomDeformation(3, 2.0)
    displacements = layer.draw(1, seed=3)
    nearest = ds.RandomDeformation(3, 2.0, "nearest")
    moved_mask = numpy(nearest.deform(mask, displacements))
    moved_image = numpy(nearest.deform(image, displacements))
    np.testing.assert_array_equal(moved_mask, moved_image > np.float32(0.1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_symbolic_dtypes_are_the_eager_ones(policy, interpolation, dtype):
    layer = ds.RandomDeformation(3, 1.0, interpolation, dtype=policy)
    symbolic = layer(keras.Input((8, 9, 3), dtype=dtype))
    assert symbolic.shape == (None, 8, 9, 3)
    for training in (True, False):
        eager = layer(ops.ones((2, 8, 9, 3), dtype), training=training)
        assert dtype_of(eager) == dtype_of(symbolic)


@needs_tensorflow
def test_a_global_policy_is_taken_up():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((8, 8, 1)), ds.RandomDeformation(3, 1.0)])
    assert dtype_of(model(np.ones((2, 8, 8, 1), "float32"), training=True)) == "bfloat16"
