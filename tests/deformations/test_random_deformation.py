"""RandomDeformation: its draws, its flow, what it does to images."""

import functools

import numpy as np
import pytest
import scipy.stats
from helpers import (
    DATA,
    grid_points,
    loop_warp,
    natural_images,
    needs_double,
    needs_tensorflow,
    numpy,
    scipy_flow,
)
from scipy.interpolate import RBFInterpolator

import deformstab as ds
from deformstab.deformations import splines


@functools.cache
def recorded():
    """What tensorflow-addons 0.23.0 computed (data/README.md)."""
    with np.load(DATA / "tfa_reference.npz") as archive:
        return dict(archive)


# ---- the geometry ----


@pytest.mark.parametrize("case", range(4))
def test_tensorflow_addons(case):
    points, displacements, image, flow, warped = (
        recorded()[f"{case}/{key}"] for key in ("grid", "displacement", "image", "flow", "warped")
    )
    layer = ds.RandomDeformation(int(points), 2.0)
    found = numpy(layer.flow(displacements, *image.shape[1:3]))
    # Its own float32 error: exact float64 differs from it by up to 8.5e-4 px. Its sign is minus.
    np.testing.assert_allclose(found, -flow, rtol=0, atol=1e-3)
    np.testing.assert_allclose(numpy(layer.deform(image, displacements)), warped, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("grid", "reach", "height", "width"),
    [((3, 3), 2, 32, 32), ((2, 5), (3, 1), 20, 33), ((4, 3), (0, 2.5), 17, 9)],
)
def test_flow_of_scipy_and_warp_of_plain_loops(grid, reach, height, width):
    layer = ds.RandomDeformation(grid, reach)
    images = natural_images(2, height, width)
    displacements = numpy(layer.draw(2, seed=1))
    flow = np.stack([scipy_flow(one, *grid, height, width) for one in displacements])
    np.testing.assert_allclose(
        numpy(layer.flow(displacements, height, width)), flow, rtol=0, atol=1e-5
    )
    found = numpy(layer.deform(images, displacements))
    np.testing.assert_allclose(found, loop_warp(images, flow), rtol=0, atol=1e-5)


@needs_double
def test_float64_is_exact():
    layer = ds.RandomDeformation((3, 4), 3.0, dtype="float64")
    images = natural_images(1, 14, 11).astype("float64")
    displacements = numpy(layer.draw(1, seed=2))
    assert displacements.dtype == "float64"
    flow = scipy_flow(displacements[0], 3, 4, 14, 11)[None]
    np.testing.assert_allclose(numpy(layer.flow(displacements, 14, 11)), flow, rtol=0, atol=1e-12)
    found = numpy(layer.deform(images, displacements))
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, loop_warp(images, flow), rtol=0, atol=1e-12)


def test_a_control_point_takes_the_colour_at_its_source():
    # By hand: 3×3 points on a 9×13 image are every 4th row and every 6th column.
    layer = ds.RandomDeformation(3, 4.0)
    image = np.arange(9 * 13, dtype="float32").reshape(1, 9, 13, 1)  # 13 y + x
    displacements = np.zeros((1, 9, 2), "float32")
    displacements[0, 4] = 2, -3  # the centre (4, 6) comes from (6, 3)
    displacements[0, 1] = 1, 5  # the top (0, 6) from (1, 11)
    flow, deformed = (
        numpy(layer.flow(displacements, 9, 13))[0],
        numpy(layer.deform(image, displacements))[0, ..., 0],
    )
    np.testing.assert_allclose(flow[4, 6], [2, -3], atol=1e-5)
    np.testing.assert_allclose(flow[0, 6], [1, 5], atol=1e-5)
    assert deformed[4, 6] == pytest.approx(13 * 6 + 3, abs=1e-3)
    assert deformed[0, 6] == pytest.approx(13 * 1 + 11, abs=1e-3)


def test_equal_displacements_translate():
    layer = ds.RandomDeformation(4, 3.0)
    images = natural_images(2, 12, 10)
    displacements = np.broadcast_to(np.array([2, -1], "float32"), (2, 16, 2))
    rows, columns = np.clip(np.arange(12) + 2, 0, 11), np.clip(np.arange(10) - 1, 0, 9)
    expected = images[:, rows][:, :, columns]
    found = numpy(layer.deform(images, displacements))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_channels_move_together_and_images_apart():
    layer = ds.RandomDeformation(3, 2.0)
    one = natural_images(1, channels=1)
    images = np.tile(one, (5, 1, 1, 4))
    images[..., 3] *= 0.5
    found = numpy(layer(images, seed=3))
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    np.testing.assert_array_equal(0.5 * found[..., 0], found[..., 3])
    for first in range(5):
        for second in range(first):  # the same image, five different deformations
            assert np.abs(found[first] - found[second]).max() > 0.05


def test_an_image_is_deformed_without_regard_to_its_neighbours(images):
    layer = ds.RandomDeformation(3, 2.0)
    displacements = numpy(layer.draw(12, seed=0))
    together = numpy(layer.deform(images, displacements))
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(
        numpy(layer.deform(images[order], displacements[order])), together[order]
    )
    for index in (0, 5, 11):
        alone = numpy(layer.deform(images[index, None], displacements[index, None]))
        np.testing.assert_allclose(alone[0], together[index], rtol=0, atol=1e-6)


def test_no_vertical_reach_moves_nothing_vertically():
    layer = ds.RandomDeformation(3, (0, 3))
    displacements = layer.draw(10, seed=4)
    flow = numpy(layer.flow(displacements, 16, 16))
    assert not flow[..., 0].any()
    assert np.abs(flow[..., 1]).max() > 1


# ---- the draws ----


@pytest.fixture(scope="module")
def draws():
    """4000 draws on 3×3 points, 1.5 px in y and 4 px in x."""
    return numpy(ds.RandomDeformation(3, (1.5, 4)).draw(4000, seed=0))


def test_draws_fill_their_range_uniformly(draws):
    assert draws.shape == (4000, 9, 2)
    for axis, reach in enumerate((1.5, 4)):
        values = draws[..., axis]
        assert np.abs(values).max() <= reach
        test = scipy.stats.kstest(values.ravel(), scipy.stats.uniform(-reach, 2 * reach).cdf)
        assert test.pvalue > 1e-3
        for point in range(9):
            test = scipy.stats.kstest(values[:, point], scipy.stats.uniform(-reach, 2 * reach).cdf)
            assert test.pvalue > 1e-4


def test_draws_are_independent_in_y_and_x_and_between_points_and_images(draws):
    correlations = np.corrcoef(draws.reshape(4000, 18).T)
    off_diagonal = correlations[~np.eye(18, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(4000)  # five standard errors of 153 pairs
    y, x = draws[..., 0].ravel(), draws[..., 1].ravel()
    assert abs(np.corrcoef(y, x)[0, 1]) < 4 / np.sqrt(len(y))
    neighbours = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(draws.size)
    assert len(np.unique(draws.reshape(4000, 18), axis=0)) == 4000  # each image has its own


def test_layers_of_one_seed_draw_the_same_sequence():
    first, second, other = (ds.RandomDeformation(3, 2.0, seed=seed) for seed in (5, 5, 6))
    sequence = [numpy(first.draw(3)) for _ in range(3)]
    np.testing.assert_array_equal(sequence, [numpy(second.draw(3)) for _ in range(3)])
    assert not np.isin(sequence, numpy(other.draw(100))).all()
    assert len(np.unique(sequence)) == 3 * 3 * 9 * 2  # no draw comes twice


def test_layers_without_a_seed_differ():
    first, second = (numpy(ds.RandomDeformation().draw(1)) for _ in range(2))
    assert (first != second).all()


def test_calls_of_one_seed_give_the_same_bits(images):
    first, second = (ds.RandomDeformation(3, 2.0, seed=5) for _ in range(2))
    for _ in range(2):
        np.testing.assert_array_equal(numpy(first(images)), numpy(second(images)))


def test_an_explicit_seed_leaves_the_generator_alone(images):
    layer, undisturbed = (ds.RandomDeformation(3, 2.0, seed=5) for _ in range(2))
    layer.draw(4, seed=9)
    layer(images, seed=9)
    layer(images, training=False)
    np.testing.assert_array_equal(numpy(layer.draw(2)), numpy(undisturbed.draw(2)))


@pytest.mark.parametrize(
    "seed",
    [
        *(0, 7, 2**31 - 1, 2**31 + 5),
        # Keras makes no seeds of these on JAX.
        *(pytest.param(seed, marks=needs_tensorflow) for seed in (2**32 + 5, -1)),
    ],
)
def test_an_int_and_a_tensor_are_the_same_seed(seed):
    layer = ds.RandomDeformation(3, 2.0)
    expected = numpy(layer.draw(2, seed=seed))
    np.testing.assert_array_equal(numpy(layer.draw(2, seed=seed)), expected)
    np.testing.assert_array_equal(numpy(layer.draw(2, seed=np.int64(seed))), expected)
    np.testing.assert_array_equal(numpy(layer.draw(2, seed=np.array(seed))), expected)
    assert (numpy(layer.draw(2, seed=seed + 1)) != expected).all()


def test_a_call_is_a_draw_and_a_deformation(images):
    layer = ds.RandomDeformation(3, 2.0)
    expected = numpy(layer.deform(images, layer.draw(12, seed=8)))
    np.testing.assert_array_equal(numpy(layer(images, seed=8)), expected)
    assert np.abs(expected - images).max() > 0.1


# ---- identities, layouts ----


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_inference_is_the_identity_bit_for_bit(images, interpolation):
    layer = ds.RandomDeformation(3, 2.0, interpolation)
    np.testing.assert_array_equal(numpy(layer(images, training=False)), images)
    np.testing.assert_array_equal(numpy(layer(images[0], training=False)), images[0])


def test_images_without_a_batch(images):
    layer = ds.RandomDeformation(3, 2.0)
    expected = numpy(layer(images[:1], seed=1))[0]
    np.testing.assert_array_equal(numpy(layer(images[0], seed=1)), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_channels_first(interpolation):
    images = natural_images(3, 9, 14)
    last, first = (
        ds.RandomDeformation((3, 2), (1, 3), interpolation, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    expected = numpy(last(images, seed=2)).transpose(0, 3, 1, 2)
    found = numpy(first(images.transpose(0, 3, 1, 2), seed=2))
    np.testing.assert_array_equal(found, expected)
    alone = numpy(first(images[0].transpose(2, 0, 1), seed=2))
    np.testing.assert_array_equal(alone, numpy(last(images[0], seed=2)).transpose(2, 0, 1))


def test_grid_points_of_the_oracle_by_hand():
    expected = [[0, 0], [0, 2], [0, 4], [3, 0], [3, 2], [3, 4]]
    np.testing.assert_allclose(grid_points(2, 3, 4, 5), expected)


@pytest.mark.parametrize(
    ("grid", "height", "width", "reach"),
    [((5, 5), 2048, 2048, 40), ((10, 10), 1024, 1030, 20), ((3, 3), 1500, 2211, 80)],
)
def test_the_flow_of_a_large_image(grid, height, width, reach):
    """Within 0.01 px of the exact one, at control points too, where it is least smooth."""
    layer = ds.RandomDeformation(grid, reach)
    displacements = layer.draw(2, seed=0)
    flow = numpy(layer.flow(displacements, height, width))
    assert flow.shape == (2, height, width, 2)
    points = grid_points(*grid, height, width)
    rng = np.random.default_rng(0)
    near = (points.round()[:, None] + rng.integers(-6, 7, (len(points), 40, 2))).reshape(-1, 2)
    pixels = np.concatenate([near, rng.uniform(0, max(height, width), (4000, 2))])
    pixels = np.clip(pixels, 0, (height - 1, width - 1)).astype(int)
    for found, given in zip(flow, numpy(displacements)):
        spline = RBFInterpolator(points, given, kernel="thin_plate_spline", degree=1)
        exact = spline(pixels.astype("float64"))
        assert np.abs(found[tuple(pixels.T)] - exact).max() < 0.01


def test_a_large_image_is_warped_along_its_flow():
    layer = ds.RandomDeformation((5, 5), 30, "nearest")
    displacements = layer.draw(1, seed=1)
    position = np.stack(np.indices((1200, 1100)), axis=-1)[None].astype("float32")
    flow = numpy(layer.flow(displacements, 1200, 1100))
    sources = np.clip(position + flow, 0, (1199, 1099))
    found = numpy(layer.deform(position, displacements))
    assert splines.flow_lattice((5, 5), 1200, 1100).step > 1
    assert np.abs(found - sources).max() < 0.51
