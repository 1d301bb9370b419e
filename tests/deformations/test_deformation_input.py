"""RandomDeformation refuses what it cannot do, and says how to mend it."""

import keras
import numpy as np
import pytest
from helpers import numpy

import deformstab as ds


@pytest.mark.parametrize(
    "control_points", [1, 0, -2, (1, 3), (3, 1), 2.5, 3.0, (3, 3, 3), "3", True, None]
)
def test_impossible_grids(control_points):
    with pytest.raises(ValueError, match=r"control_points must be .* at least 2.*received"):
        ds.RandomDeformation(control_points)


@pytest.mark.parametrize(
    "max_displacement",
    [-1, (-0.1, 2), (2, -0.1), np.nan, np.inf, (1, np.nan), (1, 2, 3), None, True, "2", "two"],
)
def test_impossible_displacements(max_displacement):
    with pytest.raises(ValueError, match=r"max_displacement must be .* at least 0.*received"):
        ds.RandomDeformation(3, max_displacement)


@pytest.mark.parametrize("interpolation", ["cubic", None, "Bilinear", 1])
def test_unknown_interpolations_list_the_known_ones(interpolation):
    with pytest.raises(ValueError, match=r"one of bilinear, nearest, received"):
        ds.RandomDeformation(interpolation=interpolation)


@pytest.mark.parametrize("data_format", ["NHWC", "channels", 3])
def test_unknown_data_formats_list_the_known_ones(data_format):
    with pytest.raises(ValueError, match=r"channels_last or channels_first, received"):
        ds.RandomDeformation(data_format=data_format)


@pytest.mark.parametrize("seed", [1.5, np.float32(2), "1", np.array([1, 2])])
def test_seeds_that_are_no_integers(seed):
    with pytest.raises(ValueError, match="seed"):
        ds.RandomDeformation().draw(2, seed=seed)


@pytest.mark.parametrize("shape", [(16,), (16, 16), (2, 3, 16, 16, 3)])
def test_what_is_no_image(shape):
    with pytest.raises(ValueError, match=r"expected images .*\(.*16"):
        ds.RandomDeformation()(np.zeros(shape, "float32"))


@pytest.mark.parametrize("shape", [(2, 1, 16, 3), (2, 16, 1, 3), (1, 16, 3)])
def test_images_of_a_single_row_or_column(shape):
    with pytest.raises(ValueError, match=r"at least 2 pixels, received height=\d+, width=\d+"):
        ds.RandomDeformation()(np.zeros(shape, "float32"))


def test_images_of_unknown_size():
    with pytest.raises(ValueError, match=r"height and width are known.*height=None"):
        ds.RandomDeformation()(keras.Input((None, 16, 3)))


def test_channels_first_images_are_read_so():
    # 3 channels of 1×16 pixels, though (3, 1, 16) would do as channels_last.
    with pytest.raises(ValueError, match=r"height=1, width=16"):
        ds.RandomDeformation(data_format="channels_first")(np.zeros((2, 3, 1, 16), "float32"))


@pytest.mark.parametrize("shape", [(2, 9), (2, 8, 2), (2, 9, 3), (9, 2), (2, 3, 3, 2)])
def test_displacements_of_another_grid(images, shape):
    layer, displacements = ds.RandomDeformation(3), np.zeros(shape, "float32")
    for call in (
        lambda: layer.flow(displacements, 16, 16),
        lambda: layer.deform(images[:2], displacements),
    ):
        with pytest.raises(ValueError, match=r"\[batch, 9, 2\] for 3×3 control points, received"):
            call()


@pytest.mark.parametrize("count", [1, 3, 13])
def test_as_many_deformations_as_images(images, count):
    layer = ds.RandomDeformation()
    with pytest.raises(ValueError, match=rf"12 images and {count} deformations"):
        layer.deform(images, layer.draw(count, seed=0))


def test_deform_takes_a_batch(images):
    layer = ds.RandomDeformation()
    with pytest.raises(ValueError, match=r"a batch of images .* received shape \(16, 16, 3\)"):
        layer.deform(images[0], layer.draw(1, seed=0))


def test_a_flow_of_an_impossible_size():
    layer = ds.RandomDeformation()
    with pytest.raises(ValueError, match=r"at least 2 pixels, received height=1"):
        layer.flow(layer.draw(1, seed=0), 1, 16)


def test_refusals_leave_the_generator_where_it_was(images):
    layer, undisturbed = (ds.RandomDeformation(seed=1) for _ in range(2))
    layer(images, training=False)  # built
    with pytest.raises(ValueError, match="expected images"):
        layer(images[None])
    np.testing.assert_array_equal(numpy(layer.draw(1)), numpy(undisturbed.draw(1)))


def test_folding_is_warned_of_with_its_rate():
    images = np.zeros((2, 28, 28, 1), "float32")
    with pytest.warns(UserWarning, match=r"\d+% of the deformations .*\(8.0, 8.0\).* fold"):
        ds.RandomDeformation(3, 8.0)(images)
    with pytest.warns(UserWarning, match=r"\d+% of the deformations .*\(0.0, 12.0\).* fold"):
        ds.RandomDeformation(3, (0, 12.0))(keras.Input((28, 28, 1)))
    ds.RandomDeformation(3, 2.0)(images)  # silent
