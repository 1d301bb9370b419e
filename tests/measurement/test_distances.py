"""Distances against float64 loops and scipy; small ones, large ones, none at all."""

import numpy as np
import pytest
import scipy.spatial.distance
from helpers import needs_double, numpy
from keras import ops

import deformstab as ds
from deformstab.measurement.distances import (
    METRICS,
    careful_distances,
    check_metric,
    quick_distances,
    three_sums,
)
from deformstab.measurement.pairs import pairwise_distances

ROWWISE = {"cosine": ds.cosine_distance, "euclidean": ds.euclidean_distance}


def between(metric, x, y):
    return numpy(ROWWISE[metric](ops.convert_to_tensor(x), ops.convert_to_tensor(y)))


def pairwise(metric, x):
    return numpy(pairwise_distances(ops.convert_to_tensor(x), metric))


def loop_distance(metric, x, y):
    """By the definition, in float64."""
    if metric == "euclidean":
        return sum((a - b) ** 2 for a, b in zip(x, y)) ** 0.5
    product = sum(a * b for a, b in zip(x, y))
    return 1 - product / (sum(a * a for a in x) ** 0.5 * sum(b * b for b in y) ** 0.5)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 9, 50)).astype("float32")


@pytest.mark.parametrize("metric", METRICS)
def test_definition_by_loops(metric, rows):
    found = between(metric, *rows)
    expected = [loop_distance(metric, x.tolist(), y.tolist()) for x, y in zip(*rows)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_pairs_of_scipy(metric, offset, rows):
    rows = rows.reshape(18, 50) + np.float32(offset)
    found = pairwise(metric, rows)
    expected = scipy.spatial.distance.cdist(rows.astype("float64"), rows.astype("float64"), metric)
    upper = np.triu_indices(18, 1)
    # With an offset of 100 unit vectors differ by a hundredth of their coordinates, which float32
    # knows to 6e-8.
    rtol = 1e-5 if offset == 0 or metric == "euclidean" else 1e-4
    np.testing.assert_allclose(found[upper], expected[upper], rtol=rtol)
    np.testing.assert_allclose(found, found.T, rtol=1e-4, atol=1e-9)


@needs_double
@pytest.mark.parametrize("metric", METRICS)
def test_float64_stays_float64(metric, rows):
    rows = rows.astype("float64").reshape(18, 50)
    expected = scipy.spatial.distance.cdist(rows, rows, metric)
    upper = np.triu_indices(18, 1)
    np.testing.assert_allclose(pairwise(metric, rows)[upper], expected[upper], rtol=1e-12)
    found = between(metric, rows[upper[0]], rows[upper[1]])
    np.testing.assert_allclose(found, expected[upper], rtol=1e-12)


def test_cosine_of_known_angles():
    angles = np.array([0, 30, 60, 90, 120, 180]) * np.pi / 180
    turned = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    fixed = np.broadcast_to(np.array([2, 0], "float32"), turned.shape)
    expected = [0, 1 - 3**0.5 / 2, 0.5, 1, 1.5, 2]
    np.testing.assert_allclose(between("cosine", fixed, turned), expected, rtol=1e-6, atol=1e-14)


def test_euclidean_of_known_triangles():
    x = np.array([[0, 0], [1, 1], [5, 5]], "float32")
    y = np.array([[3, 4], [6, 13], [5, 5]], "float32")
    assert between("euclidean", x, y).tolist() == [5, 13, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_are_exactly_at_zero(metric, rows):
    assert not between(metric, rows[0], rows[0]).any()
    same = np.repeat(rows[0, :1], 7, axis=0)
    assert not pairwise(metric, same)[np.triu_indices(7, 1)].any()


@pytest.mark.parametrize("features", [7, 50, 300, 768, 4000, 30_000])
@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_among_others_are_exactly_at_zero_too(metric, features):
    """A layer that is dead for most images has a median of zero, not of rounding."""
    rows = np.random.default_rng(features).normal(size=(40, features)).astype("float32")
    rows[4:38] = rows[4]
    found = pairwise(metric, rows)
    assert not found[4:38, 4:38][np.triu_indices(34, 1)].any()
    assert (found[:4, 4:] > 0).all()


@pytest.mark.parametrize("angle", [1e-1, 1e-2, 1e-3])
def test_small_cosine_distances_keep_their_leading_digits(angle):
    """1 - x·y/(|x||y|) in float32 is a multiple of 6e-8; these distances start at 5e-7."""
    rng = np.random.default_rng(1)
    x, z = np.linalg.qr(rng.normal(size=(400, 2)))[0].T
    y = np.cos(angle) * x + np.sin(angle) * z
    x, y = x.astype("float32"), y.astype("float32")
    expected = scipy.spatial.distance.cosine(x.astype("float64"), y.astype("float64"))
    # Each unit coordinate is rounded to 2⁻²⁴ of itself, the difference therefore to 2⁻²⁴ / angle.
    rounding = 4 * 2**-24 / angle
    assert between("cosine", x[None], y[None])[0] == pytest.approx(expected, rel=rounding)
    three = np.stack([x, y, x])
    assert pairwise("cosine", three)[0, 1] == pytest.approx(expected, rel=rounding)
    assert pairwise("cosine", three)[0, 2] == pytest.approx(0, abs=1e-14)


def test_small_euclidean_distances_keep_their_leading_digits():
    """Of rows that are far from zero: inner products alone would lose all digits."""
    rng = np.random.default_rng(2)
    rows = (1000 + 0.01 * rng.normal(size=(6, 300))).astype("float32")
    expected = scipy.spatial.distance.cdist(rows.astype("float64"), rows.astype("float64"))
    upper = np.triu_indices(6, 1)
    np.testing.assert_allclose(pairwise("euclidean", rows)[upper], expected[upper], rtol=1e-3)
    found = between("euclidean", rows[upper[0]], rows[upper[1]])
    np.testing.assert_allclose(found, expected[upper], rtol=1e-5)


def test_an_outlier_in_front_does_not_cost_the_others_their_digits():
    rng = np.random.default_rng(3)
    rows = 0.1 * rng.normal(size=(64, 300)).astype("float32")
    rows[0] += 10
    expected = scipy.spatial.distance.cdist(rows.astype("float64"), rows.astype("float64"))
    upper = np.triu_indices(64, 1)
    np.testing.assert_allclose(pairwise("euclidean", rows)[upper], expected[upper], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_scales_of_every_size(scale, rows):
    scaled = rows * np.float32(scale)
    np.testing.assert_allclose(between("cosine", *scaled), between("cosine", *rows), rtol=1e-5)
    np.testing.assert_allclose(
        between("euclidean", *scaled), between("euclidean", *rows) * scale, rtol=1e-5
    )
    upper = np.triu_indices(9, 1)
    for metric, factor in (("cosine", 1), ("euclidean", scale)):
        np.testing.assert_allclose(
            pairwise(metric, scaled[0])[upper], pairwise(metric, rows[0])[upper] * factor, rtol=1e-4
        )


def test_cosine_does_not_see_the_length_of_a_row(rows):
    lengths = np.geomspace(1e-6, 1e6, 9).astype("float32")[:, None]
    expected = between("cosine", *rows)
    np.testing.assert_allclose(between("cosine", rows[0] * lengths, rows[1]), expected, rtol=1e-5)
    upper = np.triu_indices(9, 1)
    np.testing.assert_allclose(
        pairwise("cosine", rows[0] * lengths)[upper], pairwise("cosine", rows[0])[upper], rtol=1e-5
    )


def test_a_row_of_zeros_has_no_direction(rows):
    x, y = rows.copy()
    x[0], y[1], x[2], y[2] = 0, 0, 0, 0
    assert np.isnan(between("cosine", x, y)).tolist() == [True] * 3 + [False] * 6
    assert np.isfinite(between("euclidean", x, y)).all()
    assert between("euclidean", x, y)[2] == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_rows_are_nan_and_alone(metric, value, rows):
    x, y = rows.copy()
    x[3, 5] = value
    found = between(metric, x, y)
    assert not np.isfinite(found[3])
    assert np.isfinite(np.delete(found, 3)).all()


@pytest.mark.parametrize("metric", ["Cosine", "l2", None, 3])
def test_unknown_metrics_list_the_known_ones(metric):
    with pytest.raises(ValueError, match=r"unknown metric .*cosine, euclidean") as error:
        check_metric(metric)
    assert repr(metric) in str(error.value)


# ---- what a forward pass reduces rows to ----


@pytest.mark.parametrize("entries", [10, 1000, 30_000])
@pytest.mark.parametrize("longer", [0, 1e-4, 0.5, -0.5, 3])
@pytest.mark.parametrize("apart", [0, 1e-6, 1e-3, 0.1, 1, 30])
def test_distances_from_three_sums(apart, longer, entries):
    """Far, close, of other length: all in float32, against float64. Equal rows are at exactly 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 1, entries)).astype("float32") + 1
    y = (x * (1 + longer) + apart * rng.normal(size=(5, 3, entries))).astype("float32")
    given = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    (cosine, euclidean), (squares,), ordinary = quick_distances(three_sums(*given), METRICS)
    a, b = x.astype("float64"), y.astype("float64")
    lengths = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    ratio = lengths[1] / lengths[0]
    assert bool(ordinary) == bool(((ratio > 0.1) & (ratio < 10)).all())
    careful, (shares, scales) = careful_distances(*given, METRICS)
    exact = np.linalg.norm(a / lengths[0][..., None] - b / lengths[1][..., None], axis=-1) ** 2 / 2
    # What lies along x cancels, in sums whose order is the processor's; x - y is exact where close.
    along = 3e-6 * (ratio - 1) ** 2 / ratio
    if ordinary:
        assert (np.abs(numpy(cosine) - exact) <= 3e-6 * exact + along).all()
        np.testing.assert_allclose(numpy(squares), np.concatenate(lengths, axis=1) ** 2, rtol=3e-5)
        distance = np.linalg.norm(a - b, axis=-1)
        np.testing.assert_allclose(numpy(euclidean), distance, rtol=1e-6)
    rounded = 1e-6 * np.sqrt(exact / entries)  # entries that are scaled before they are compared
    assert (np.abs(numpy(careful[0]) - exact) <= 3e-6 * exact + rounded + 1e-13).all()
    found = numpy(scales) * numpy(shares) ** 0.5
    np.testing.assert_allclose(found, np.concatenate(lengths, axis=1), rtol=1e-6)
    if apart == longer == 0:
        assert not numpy(cosine).any()
        assert not numpy(euclidean).any()


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 1e-30, 1e30])
@pytest.mark.parametrize("place", [(0, 0), (1, 1)])
def test_rows_that_three_sums_would_get_wrong_are_told(value, place, rows):
    x, y = rows.reshape(2, 3, 3, 50)[:, :, :1].copy()
    (x, y)[place[0]][place[1]] = value
    given = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    *_, ordinary = quick_distances(three_sums(*given), METRICS)
    assert not bool(ordinary)
