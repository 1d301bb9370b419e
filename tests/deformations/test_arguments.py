"""What a user gets wrong is answered in one line that says what is expected."""

import keras
import numpy as np
import pytest
from helpers import natural_images, needs_tensorflow, numpy

import deformstab as ds


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_a_compute_dtype_that_holds_no_fractions(dtype, interpolation):
    with pytest.raises(ValueError, match=rf"dtype must be a float.*received '{dtype}'"):
        ds.RandomDeformation(3, 1.0, interpolation, dtype=dtype)


@pytest.mark.parametrize("control_points", [1000, (2, 4000), 65, (64, 65)])
def test_more_control_points_than_can_be_solved_for(control_points):
    with pytest.raises(ValueError, match=r"control_points must be at most 4096 in all"):
        ds.RandomDeformation(control_points)


def test_more_control_points_than_pixels():
    layer = ds.RandomDeformation((3, 20))
    images = np.zeros((2, 16, 16, 1), "float32")
    displacements = np.zeros((2, 60, 2), "float32")
    for call in (
        lambda: layer(images),
        lambda: layer(keras.Input((16, 16, 1))),
        lambda: layer.deform(images, displacements),
        lambda: layer.flow(displacements, 16, 16),
        lambda: layer.move_points(np.zeros((2, 1, 2)), displacements, 16, 16),
    ):
        with pytest.raises(ValueError, match=r"3×20 control points are more than the pixels on a"):
            call()
    assert tuple(layer.flow(displacements, 16, 20).shape) == (2, 16, 20, 2)


@pytest.mark.parametrize("max_displacement", [(True, 2.0), (2, np.True_), [False, 1]])
def test_booleans_are_no_displacements(max_displacement):
    with pytest.raises(ValueError, match=r"max_displacement must be .* received"):
        ds.RandomDeformation(3, max_displacement)


@pytest.mark.parametrize(
    "size", [("a", 16), (16, 16.0), (True, 16), (16, np.float32(16)), ([16], 16)]
)
def test_sizes_that_are_no_integers(size):
    layer = ds.RandomDeformation()
    displacements = np.zeros((1, 9, 2), "float32")
    with pytest.raises(ValueError, match=r"height and width must be ints"):
        layer.flow(displacements, *size)
    with pytest.raises(ValueError, match=r"height and width must be ints"):
        layer.move_points(np.zeros((1, 1, 2)), displacements, *size)


def test_sizes_of_numpy_are_integers():
    layer = ds.RandomDeformation()
    assert tuple(layer.flow(layer.draw(1), np.int64(16), np.uint8(12)).shape) == (1, 16, 12, 2)


@pytest.mark.parametrize("given", [None, "a", ["a"], object()])
def test_what_is_no_tensor(given):
    layer = ds.RandomDeformation()
    images = np.zeros((1, 16, 16, 1), "float32")
    with pytest.raises(ValueError, match=r"displacements must be an array .*received"):
        layer.flow(given, 16, 16)
    with pytest.raises(ValueError, match=r"displacements must be an array .*received"):
        layer.deform(images, given)
    with pytest.raises(ValueError, match=r"images must be an array .*received"):
        layer.deform(given, layer.draw(1))
    with pytest.raises(ValueError, match=r"points must be an array .*received"):
        layer.move_points(given, layer.draw(1), 16, 16)


def test_images_of_other_kinds_of_numbers():
    layer = ds.RandomDeformation()
    for images in (np.zeros((1, 16, 16, 1), "complex64"), np.full((1, 16, 16, 1), "a")):
        with pytest.raises(ValueError, match="images must be floats, integers or booleans"):
            layer(images)


def test_methods_and_symbolic_tensors():
    """They are for tensors; in a functional model it is the layer that is called."""
    layer = ds.RandomDeformation()
    for call in (
        lambda: layer.flow(keras.Input((9, 2)), 16, 16),
        lambda: layer.deform(keras.Input((16, 16, 3)), layer.draw(1)),
        lambda: layer.deform(np.zeros((1, 16, 16, 3), "float32"), keras.Input((9, 2))),
        lambda: layer.move_points(keras.Input((4, 2)), layer.draw(1), 16, 16),
    ):
        with pytest.raises(ValueError, match=r"symbolic keras.Input .* layer\(inputs\)"):
            call()
    assert tuple(layer(keras.Input((16, 16, 3))).shape) == (None, 16, 16, 3)


@pytest.mark.parametrize("interpolation", ["cubic", "Nearest", 1])
def test_deform_knows_its_interpolations(interpolation):
    layer = ds.RandomDeformation()
    with pytest.raises(ValueError, match="one of bilinear, nearest, received"):
        layer.deform(np.zeros((1, 16, 16, 1), "float32"), layer.draw(1), interpolation)


# ---- shapes that are unknown in tf.data ----


def of_unknown_shape(x):
    import tensorflow as tf

    return tf.numpy_function(lambda x: x, [x], x.dtype)


@needs_tensorflow
@pytest.mark.parametrize("key", [None, "images", "segmentation_masks"])
def test_an_unknown_rank_is_answered_with_set_shape(key):
    import tensorflow as tf

    layer = ds.RandomDeformation(seed=0)
    images = natural_images(3)

    def lost(x):
        if key is None:
            return layer(of_unknown_shape(x))
        data = {"images": x, "segmentation_masks": x[..., :1]}
        return layer({**data, key: of_unknown_shape(data[key])})

    with pytest.raises(ValueError, match=rf"{key or 'images'} must have a known rank.*set_shape"):
        tf.data.Dataset.from_tensor_slices(images).map(lost)

    def found(x):
        x = of_unknown_shape(x)
        x.set_shape([16, 16, 3])
        return layer(x)

    assert len(list(tf.data.Dataset.from_tensor_slices(images).map(found))) == 3


@needs_tensorflow
def test_unknown_ranks_of_other_arguments():
    import tensorflow as tf

    layer = ds.RandomDeformation()
    for call in (
        lambda x: layer.flow(of_unknown_shape(x), 16, 16),
        lambda x: layer.deform(tf.zeros((1, 16, 16, 1)), of_unknown_shape(x)),
        lambda x: layer.move_points(of_unknown_shape(x), layer.draw(1), 16, 16),
    ):
        with pytest.raises(ValueError, match=r"must have a known rank.*set_shape"):
            tf.data.Dataset.from_tensors(np.zeros((1, 9, 2), "float32")).map(call)


@needs_tensorflow
def test_an_unknown_size_is_answered_with_set_shape():
    import tensorflow as tf

    def lost(x):
        x = of_unknown_shape(x)
        x.set_shape([None, None, 3])
        return ds.RandomDeformation()(x)

    with pytest.raises(ValueError, match=r"height and width are known.*set_shape"):
        tf.data.Dataset.from_tensor_slices(natural_images(1)).map(lost)


# ---- displacements that are no numbers ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_a_displacement_that_is_not_finite_makes_its_image_nan(interpolation, value):
    layer = ds.RandomDeformation(3, 2.0, interpolation)
    images = natural_images(3)
    displacements = np.array(numpy(layer.draw(3, seed=1)))
    expected = numpy(layer.deform(images, displacements))
    displacements[1, 4, 0] = value
    found = numpy(layer.deform(images, displacements))
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_have_no_nan_and_are_refused(dtype, value):
    layer = ds.RandomDeformation(3, 2.0)
    displacements = np.array(numpy(layer.draw(2, seed=1)))
    displacements[1, 4, 0] = value
    with pytest.raises(ValueError, match="displacements of integer images must be finite"):
        layer.deform(np.ones((2, 16, 16, 1), dtype), displacements, "nearest")


@needs_tensorflow
def test_inside_tf_data_integers_are_refused_when_it_runs():
    import tensorflow as tf

    layer = ds.RandomDeformation(3, 2.0, "nearest")
    displacements = np.full((1, 9, 2), np.nan, "float32")
    dataset = tf.data.Dataset.from_tensors(np.ones((1, 16, 16, 1), "int32"))
    dataset = dataset.map(lambda x: layer.deform(x, tf.constant(displacements)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be finite"):
        list(dataset)


# ---- nothing at all ----


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_empty_batches_stay_empty(interpolation):
    layer = ds.RandomDeformation(3, 2.0, interpolation)
    images = natural_images(1)[:0]
    for found in (layer(images), layer(images, seed=1), layer.deform(images, layer.draw(0))):
        assert tuple(found.shape) == (0, 16, 16, 3)
    assert tuple(layer.flow(layer.draw(0), 16, 16).shape) == (0, 16, 16, 2)
    masks = np.zeros((0, 16, 16), "int32")
    found = layer({"images": images, "segmentation_masks": masks})
    assert tuple(found["segmentation_masks"].shape) == (0, 16, 16)
