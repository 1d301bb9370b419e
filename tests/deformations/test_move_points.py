"""Where landmarks lie in a deformed image: p with p + flow(p) = landmark."""

import numpy as np
import pytest
import scipy.optimize
from helpers import BACKEND, grid_points, needs_tensorflow, numpy
from scipy.interpolate import RBFInterpolator

import deformstab as ds


def oracle(displacements, grid, height, width):
    """scipy's spline as a function of one position."""
    points = grid_points(*grid, height, width)
    spline = RBFInterpolator(points, displacements, kernel="thin_plate_spline", degree=1)
    return lambda position: spline(np.asarray(position, "float64").reshape(-1, 2))


def solutions(flow, landmark, height, width, each=12):
    """All p in the image with p + flow(p) = landmark that scipy's root finds from a grid of starts."""
    found = []
    for y in np.linspace(0, height - 1, each):
        for x in np.linspace(0, width - 1, each):
            result = scipy.optimize.root(
                lambda p: p + flow(p)[0] - landmark, (y, x), method="hybr", tol=1e-10
            )
            p = result.x
            right = np.abs(p + flow(p)[0] - landmark).max() < 1e-6
            inside = (p > -1e-6).all() and (p < (height - 1 + 1e-6, width - 1 + 1e-6)).all()
            if right and inside and all(np.abs(p - other).max() > 1e-3 for other in found):
                found.append(p)
    return found


@pytest.mark.parametrize(
    ("grid", "reach", "height", "width"),
    [((3, 3), 2.0, 32, 32), ((4, 3), (3.0, 2.0), 40, 25), ((5, 5), 10.0, 224, 224)],
)
def test_roots_of_scipy(grid, reach, height, width):
    layer = ds.RandomDeformation(grid, reach)
    displacements = numpy(layer.draw(3, seed=1))
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(0, 1, (3, 12, 2)) * (height - 1, width - 1)
    landmarks[:, :4] = landmarks[:, :4].round()
    landmarks[:, 0] = 0, 0
    found = numpy(layer.move_points(landmarks, displacements, height, width))
    assert found.shape == (3, 12, 2)
    lost = 0
    for image in range(3):
        flow = oracle(displacements[image], grid, height, width)
        for place in range(12):
            expected = solutions(flow, landmarks[image, place], height, width, each=4)
            assert len(expected) <= 1
            lost += not expected
            expected = expected[0] if expected else (np.nan, np.nan)
            np.testing.assert_allclose(found[image, place], expected, rtol=0, atol=1e-3)
    assert lost < 12


@pytest.mark.parametrize("reach", [5.0, 8.0])
def test_where_the_map_folds_there_is_no_answer_and_elsewhere_it_is_right(reach):
    grid, side = (3, 3), 28
    layer = ds.RandomDeformation(grid, reach)
    displacements = numpy(layer.draw(4, seed=5))
    landmarks = np.random.default_rng(1).uniform(2, side - 3, (4, 8, 2))
    found = numpy(layer.move_points(landmarks, displacements, side, side))
    counts = []
    for image in range(4):
        flow = oracle(displacements[image], grid, side, side)
        for place in range(8):
            expected = solutions(flow, landmarks[image, place], side, side)
            counts.append(len(expected))
            if len(expected) == 1:
                np.testing.assert_allclose(found[image, place], expected[0], rtol=0, atol=1e-3)
            else:
                assert np.isnan(found[image, place]).all()
    assert counts.count(1) > 10
    assert reach < 8 or max(counts) > 1 or 0 in counts


def test_a_fold_by_hand():
    """Rows 0, 11, 22, 33 come from 0, 27, 22, 33: between them, what was at 24 lies three times."""
    layer = ds.RandomDeformation((4, 3), 1.0)
    displacements = np.zeros((2, 12, 2), "float32")
    displacements[0, 3:6, 0] = 16.0
    landmarks = np.array([[[24.0, 10.0], [3.0, 10.0]]] * 2)
    flow = oracle(displacements[0], (4, 3), 34, 21)
    assert len(solutions(flow, landmarks[0, 0], 34, 21)) == 3
    found = numpy(layer.move_points(landmarks, displacements, 34, 21))
    assert np.isnan(found[0, 0]).all()
    (unfolded,) = solutions(flow, landmarks[0, 1], 34, 21)  # beside the fold it is right
    np.testing.assert_allclose(found[0, 1], unfolded, atol=1e-3)
    np.testing.assert_allclose(found[1], landmarks[1], atol=1e-5)  # the other image stays as it is


def test_a_bright_dot_is_found_where_it_is_said_to_be():
    height, width = 48, 56
    layer = ds.RandomDeformation(4, 4.0)
    displacements = layer.draw(6, seed=2)
    landmarks = np.random.default_rng(0).uniform(12, 36, (6, 1, 2))
    y, x = np.indices((height, width))
    squares = (y - landmarks[..., :1]) ** 2 + (x - landmarks[..., 1:]) ** 2
    dots = np.exp(-squares / (2 * 1.5**2))[..., None].astype("float32")
    deformed = numpy(layer.deform(dots, displacements))[..., 0]
    found = numpy(layer.move_points(landmarks, displacements, height, width))[:, 0]
    for image in range(6):
        brightest = np.unravel_index(deformed[image].argmax(), (height, width))
        assert np.abs(found[image] - brightest).max() < 1.0
        wrong_sign = 2 * landmarks[image, 0] - found[image]
        if np.abs(found[image] - landmarks[image, 0]).max() > 1.5:
            assert np.abs(wrong_sign - brightest).max() > 1.0


def test_translations_by_hand():
    layer = ds.RandomDeformation(4, 3.0)
    displacements = np.broadcast_to(np.array([2, -1], "float32"), (1, 16, 2))
    # out(p) = image(p + (2, -1)): what was at (5, 5) is at (3, 6) now; (1, 5) would be above.
    landmarks = np.array([[[5, 5], [1, 5], [2, 5], [11, 9], [5, 8.5]]])
    found = numpy(layer.move_points(landmarks, displacements, 12, 10))[0]
    lost = (np.nan, np.nan)
    np.testing.assert_allclose(found, [(3, 6), lost, (0, 6), lost, lost], atol=1e-4)


def test_no_displacement_moves_nothing_and_nan_stays_nan():
    layer = ds.RandomDeformation()
    landmarks = np.random.default_rng(0).uniform(0, 15, (2, 5, 2)).astype("float32")
    landmarks[0, 0], landmarks[0, 1], landmarks[1, 2, 0] = (0, 0), (15, 15), np.nan
    still = np.zeros((2, 9, 2), "float32")
    expected = np.where(np.isnan(landmarks).any(axis=-1, keepdims=True), np.nan, landmarks)
    found = numpy(layer.move_points(landmarks, still, 16, 16))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    still[1, 3, 0] = np.nan
    found = numpy(layer.move_points(landmarks, still, 16, 16))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-5)
    assert np.isnan(found[1]).all()


def test_a_fine_grid_is_solved_as_well():
    grid, side = (16, 16), 128
    layer = ds.RandomDeformation(grid, 2.0)
    displacements = numpy(layer.draw(1, seed=3))
    landmarks = np.random.default_rng(0).uniform(5, 120, (1, 20, 2))
    found = numpy(layer.move_points(landmarks, displacements, side, side))
    flow = oracle(displacements[0], grid, side, side)
    np.testing.assert_allclose(found[0] + flow(found[0]), landmarks[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(0, 4, 2), (2, 0, 2)])
def test_no_points(shape):
    layer = ds.RandomDeformation()
    found = layer.move_points(np.zeros(shape), layer.draw(shape[0]), 16, 16)
    assert tuple(found.shape) == shape


@pytest.mark.parametrize("shape", [(3, 4, 2), (2, 4, 3), (4, 2), (2, 2)])
def test_points_of_another_shape_are_refused(shape):
    layer = ds.RandomDeformation()
    with pytest.raises(ValueError, match=r"points must be \[batch, n, 2\].*received shape"):
        layer.move_points(np.zeros(shape), layer.draw(2), 16, 16)


@needs_tensorflow
def test_inside_tf_data():
    import tensorflow as tf

    layer = ds.RandomDeformation(3, 2.0)
    landmarks = np.random.default_rng(0).uniform(4, 11, (5, 3, 2)).astype("float32")

    def moved(number, points):
        return layer.move_points(points[None], layer.draw(1, seed=number), 16, 16)[0]

    dataset = tf.data.Dataset.from_tensor_slices(landmarks).enumerate().map(moved)
    assert dataset.element_spec.shape == (3, 2)
    found = np.stack(list(dataset.as_numpy_iterator()))
    expected = [numpy(moved(number, points)) for number, points in enumerate(landmarks)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own way")
def test_under_jit():
    import jax

    layer = ds.RandomDeformation(3, 2.0)
    landmarks = np.random.default_rng(0).uniform(4, 11, (2, 3, 2)).astype("float32")
    displacements = layer.draw(2, seed=1)
    found = jax.jit(lambda *tensors: layer.move_points(*tensors, 16, 16))(landmarks, displacements)
    expected = layer.move_points(landmarks, displacements, 16, 16)
    np.testing.assert_array_equal(numpy(found), numpy(expected))
