"""Intervals: against leaving out for real, and their coverage by simulation."""

import numpy as np
import pytest
import scipy.stats

from deformstab.intervals import mean_interval, sensitivity_interval


def random_case(images, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(images, 3))
    pairs = np.linalg.norm(points[:, None] - points, axis=-1)
    distances = rng.lognormal(size=images)
    if ties:
        pairs, distances = np.round(pairs), np.round(distances) + 1
    return distances, pairs


def brute_force(distances, pairs, confidence):
    """The delete-one jackknife by deleting one."""

    def sensitivity(distances, pairs):
        return distances.mean() / np.median(pairs[np.triu_indices(len(pairs), 1)])

    images = len(distances)
    logs = []
    for i in range(images):
        kept = np.delete(np.delete(pairs, i, axis=0), i, axis=1)
        logs.append(np.log(sensitivity(np.delete(distances, i), kept)))
    logs = np.array(logs)
    error = np.sqrt((images - 1) / images * ((logs - logs.mean()) ** 2).sum())
    factor = np.exp(scipy.stats.t(images - 1).ppf(0.5 + confidence / 2) * error)
    value = sensitivity(distances, pairs)
    return value, value / factor, value * factor


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("images", [4, 5, 6, 7, 20, 33])  # odd and even numbers of pairs
def test_leaving_out_for_real(images, ties):
    distances, pairs = random_case(images, seed=images, ties=ties)
    for confidence in (0.95, 0.5):
        mean, median, *found = sensitivity_interval(distances, pairs, confidence)
        assert mean == pytest.approx(distances.mean(), rel=1e-12)
        assert median == np.median(pairs[np.triu_indices(images, 1)])
        np.testing.assert_allclose(found, brute_force(distances, pairs, confidence), rtol=1e-10)


def test_only_pairs_of_different_images_count_once():
    distances, pairs = random_case(9)
    expected = sensitivity_interval(distances, pairs)
    spoiled = np.where(np.triu(np.ones((9, 9), bool), 1), pairs, 1e6)
    assert sensitivity_interval(distances, spoiled) == expected


def test_order_and_scale_of_images_do_not_matter():
    distances, pairs = random_case(12)
    expected = sensitivity_interval(distances, pairs)
    order = np.random.default_rng(0).permutation(12)
    shuffled = sensitivity_interval(distances[order], pairs[np.ix_(order, order)])
    np.testing.assert_allclose(shuffled, expected, rtol=1e-12)
    scaled = sensitivity_interval(5 * distances, 5 * pairs)
    np.testing.assert_allclose(scaled[2:], expected[2:], rtol=1e-12)


@pytest.mark.parametrize(("images", "runs"), [(8, 2000), (32, 2000), (128, 1000)])
def test_coverage_of_the_sensitivity_interval(images, runs):
    """Images are points of N(0, I) in 5 dimensions: the truth is known without simulation.

    |x - y| is √2 times a chi variable of 5 degrees; an image moves by its length times a lognormal
    variable, so that numerator and denominator depend on the same images, as they do in use.
    """
    rng = np.random.default_rng(images)
    truth = scipy.stats.chi(5).mean() * np.exp(0.5**2 / 2) / (2**0.5 * scipy.stats.chi(5).median())
    covered = 0
    for _ in range(runs):
        points = rng.normal(size=(images, 5))
        squares = (points**2).sum(axis=1)
        pairs = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
        distances = np.sqrt(squares) * rng.lognormal(0, 0.5, images)
        *_, low, high = sensitivity_interval(distances, pairs)
        covered += low <= truth <= high
    # Four binomial standard errors of 95 % in so many runs: ± 2 points (± 2.8 at 128 images).
    assert abs(covered / runs - 0.95) < 4 * np.sqrt(0.95 * 0.05 / runs)


def test_intervals_narrow_with_more_images():
    widths = []
    for images in (16, 64, 256):
        cases = [sensitivity_interval(*random_case(images, seed)) for seed in range(20)]
        widths.append(np.mean([np.log(high / low) for *_, low, high in cases]))
    # As 1/√n: a factor of 2 for 4 times as many, with room for a sample of 20.
    assert 1.6 < widths[0] / widths[1] < 2.6
    assert 1.6 < widths[1] / widths[2] < 2.5


@pytest.mark.parametrize("images", [2, 3])
def test_too_few_images_for_an_interval(images):
    distances, pairs = random_case(images)
    mean, median, value, low, high = sensitivity_interval(distances, pairs)
    assert value == mean / median
    assert np.isnan([low, high]).all()


def test_deformations_that_move_nothing():
    _, pairs = random_case(10)
    assert sensitivity_interval(np.zeros(10), pairs)[2:] == (0, 0, 0)


def test_images_that_are_all_the_same():
    distance, baseline, value, low, high = sensitivity_interval(np.ones(10), np.zeros((10, 10)))
    assert (distance, baseline, value) == (1, 0, np.inf)
    assert np.isnan([low, high]).all()
    values = sensitivity_interval(np.zeros(10), np.zeros((10, 10)))
    assert np.isnan(values[2:]).all()


def test_leaving_one_image_out_may_leave_nothing():
    distances = np.zeros(10)
    distances[4] = 1  # without it there is no log of the mean
    _, pairs = random_case(10)
    *_, value, low, high = sensitivity_interval(distances, pairs)
    assert value > 0
    assert np.isnan([low, high]).all()


# ---- means ----


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_mean_interval_of_scipy(confidence):
    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = scipy.stats.t.interval(
        confidence, 6, loc=values.mean(), scale=scipy.stats.sem(values)
    )
    mean, *found = mean_interval(values, confidence)
    assert mean == values.mean()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_mean_interval_of_hardly_any_values():
    np.testing.assert_equal(mean_interval([3.0]), (3.0, np.nan, np.nan))
    np.testing.assert_equal(mean_interval([]), (np.nan, np.nan, np.nan))
    assert mean_interval([2.0, 2.0]) == (2, 2, 2)


def test_coverage_of_the_mean_interval():
    values = np.random.default_rng(1).normal(1.0, 1, (4000, 5))
    intervals = np.array([mean_interval(row) for row in values])
    covered = ((intervals[:, 1] <= 1) & (intervals[:, 2] >= 1)).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)
