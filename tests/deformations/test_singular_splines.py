"""Points that define no spline: refused eagerly, NaN in graphs, and never a plausible number."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_double, numpy
from scipy.interpolate import RBFInterpolator

from deformstab.deformations import addons

QUERIES = np.random.default_rng(7).uniform(0, 60, (1, 6, 2))


def compiled(function):
    """`function` of tensors as a graph of its own, where the backend has graphs; else `None`."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return lambda *arrays: numpy(tf.function(function)(*map(tf.constant, arrays)))
    if BACKEND == "jax":
        import jax

        return lambda *arrays: np.asarray(jax.jit(function)(*arrays))
    return None


def repeated(seed):
    points = np.random.default_rng(seed).uniform(0, 60, (20, 2))
    points[19] = points[3]
    return points


def nearly_repeated(seed):
    """As float32 rounds one place that was computed in two ways."""
    points = repeated(seed)
    points[19] = np.nextafter(points[3].astype("float32"), np.float32(np.inf))
    return points


def on_a_line(seed):
    along = np.random.default_rng(seed).uniform(0, 1, (20, 1))
    return np.array([3.0, 7.0]) + along * np.array([50.0, 17.3])


def rounded_line(seed):
    return on_a_line(seed).astype("float32").astype("float64")


SINGULAR = {
    repeated: "points 3 and 19 are in the same place",
    nearly_repeated: "points 3 and 19 are in the same place",
    on_a_line: "all 20 points lie on one line",
    rounded_line: "all 20 points lie on one line",
}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("points_of", SINGULAR)
@pytest.mark.parametrize("conflicting", [False, True], ids=["equal values", "conflicting values"])
def test_every_draw_is_refused_and_the_points_are_named(points_of, order, conflicting):
    for seed in range(12):
        points = points_of(seed)
        values = np.random.default_rng(seed + 100).normal(size=(20, 2))
        if not conflicting:
            values[19] = values[3]
        with pytest.raises(ValueError, match=SINGULAR[points_of]):
            addons.interpolate_spline(points[None], values[None], QUERIES, order)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no graphs")
@pytest.mark.parametrize("points_of", SINGULAR)
def test_in_a_graph_the_answer_is_nan_for_that_element_alone(points_of):
    good = np.random.default_rng(5).uniform(0, 60, (20, 2))
    values = np.random.default_rng(6).normal(size=(2, 20, 2))
    graph = compiled(lambda p, v, q: addons.interpolate_spline(p, v, q, 2))
    for seed in range(12):
        found = graph(np.stack([points_of(seed), good]), values, np.repeat(QUERIES, 2, axis=0))
        assert np.isnan(found[0]).all()
        expected = RBFInterpolator(good, values[1], kernel="thin_plate_spline", degree=1)(
            QUERIES[0]
        )
        np.testing.assert_allclose(found[1], expected, rtol=0, atol=2e-3)


def test_boundary_points_count():
    """A landmark in a corner, where a boundary point is as well."""
    image = natural_images(1, 16, 16)
    landmarks = np.array([[[0.0, 0.0], [5.0, 5.0], [9.0, 3.0], [4.0, 11.0]]], "float32")

    def warp(image, source, dest):
        return addons.sparse_image_warp(image, source, dest, num_boundary_points=1)

    with pytest.raises(ValueError, match=r"points 0 and 4 are in the same place \(boundary points"):
        warp(image, landmarks + 1, landmarks)
    if BACKEND != "torch":
        for part in (0, 1):
            graph = compiled(lambda *arrays, part=part: warp(*arrays)[part])
            assert np.isnan(graph(image, landmarks + np.float32(1), landmarks)).all()


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_dimensions(dimensions):
    points = np.random.default_rng(0).uniform(size=(1, 12, dimensions))
    values = np.random.default_rng(1).normal(size=(1, 12, 1))
    flat = points.copy()
    flat[..., -1] = flat[..., :-1].sum(axis=-1) if dimensions > 1 else 0.3
    with pytest.raises(ValueError, match=r"fewer than their|in the same place"):
        addons.interpolate_spline(flat, values, points, 2)
    assert np.isfinite(numpy(addons.interpolate_spline(points, values, points, 2))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite(bad):
    points = np.random.default_rng(0).uniform(size=(1, 12, 2))
    points[0, 5, 1] = bad
    with pytest.raises(ValueError, match="element 0 of the batch: points must be finite"):
        addons.interpolate_spline(points, points[..., :1] * 0, QUERIES, 2)


# ---- what is not singular ----


@needs_double
@pytest.mark.parametrize(
    ("case", "atol"),
    [("random 400", 1e-6), ("near each other", 1e-4), ("a narrow strip", 1e-4), ("grid", 1e-9)],
)
def test_difficult_sets_are_answered_as_scipy_answers_them(case, atol):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, (20, 2))
    if case == "random 400":
        points = rng.uniform(0, 60, (400, 2))
    elif case == "near each other":
        points[19] = points[3] + 1e-3
    elif case == "a narrow strip":
        points = on_a_line(0) + rng.uniform(0, 0.05, (20, 2))
    elif case == "grid":
        points = np.stack(np.meshgrid(*[np.linspace(0, 60, 10)] * 2), axis=-1).reshape(-1, 2)
    values = np.sin(points / 9)  # smooth: near points have like values
    queries = points + 0.5
    expected = RBFInterpolator(points, values, kernel="thin_plate_spline", degree=1)(queries)
    found = numpy(addons.interpolate_spline(points[None], values[None], queries[None], 2))[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@needs_double
def test_regularization_lets_points_repeat():
    points, values = repeated(0), np.random.default_rng(1).normal(size=(20, 2))
    found = addons.interpolate_spline(points[None], values[None], QUERIES, 2, 0.5)
    scipys = RBFInterpolator(points, values, kernel="thin_plate_spline", degree=1, smoothing=0.5)
    np.testing.assert_allclose(numpy(found)[0], scipys(QUERIES[0]), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="on one line"):  # which no regularization helps
        addons.interpolate_spline(on_a_line(0)[None], values[None], QUERIES, 2, 0.5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="gradients by TensorFlow's tape")
def test_gradients_of_good_points_are_finite():
    import tensorflow as tf

    points = tf.Variable(np.random.default_rng(5).uniform(0, 60, (1, 20, 2)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(addons.interpolate_spline(points, tf.sin(points), QUERIES, 2))
    assert np.isfinite(tape.gradient(loss, points)).all()
    assert keras.backend.standardize_dtype(loss.dtype) == "float64"
