"""Intervals, and p-values: against leaving out for real, scipy and their rates by simulation."""

import numpy as np
import pytest
import scipy.stats

from deformstab.measurement.intervals import (
    holm,
    jackknife_interval,
    leave_one_out,
    mean_interval,
    mean_p_value,
    paired_ratio,
    proportion_interval,
    ratio_interval,
    sensitivity_interval,
)


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
    assert np.isnan(sensitivity_interval(np.zeros(images), pairs)[3:]).all()
    assert leave_one_out(distances, pairs)[3].shape == (0,)


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


@pytest.mark.parametrize("bound", [0.0, 3.0, -1.5])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_p_value_of_scipy(count, bound):
    values = np.random.default_rng(count).normal(3, 2, count)
    expected = scipy.stats.ttest_1samp(values, bound).pvalue
    assert mean_p_value(values, bound) == pytest.approx(expected, rel=1e-10)


def test_a_bound_is_outside_of_the_interval_where_its_p_value_is_small():
    values = np.random.default_rng(0).normal(1, 1, 6)
    for confidence in (0.8, 0.95, 0.999):
        for bound in mean_interval(values, confidence)[1:]:
            assert mean_p_value(values, bound) == pytest.approx(1 - confidence)


def test_p_value_of_hardly_any_values():
    assert np.isnan(mean_p_value([]))
    assert np.isnan(mean_p_value([3.0]))
    assert mean_p_value([2.0, 2.0]) == 0
    assert mean_p_value([2.0, 2.0], 2.0) == 1


def test_p_values_of_a_mean_at_its_bound_are_uniform():
    values = np.random.default_rng(2).normal(1.0, 3, (4000, 5))
    found = [mean_p_value(row, 1.0) for row in values]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.001


# ---- ratios of two means ----

RATIOS = np.concatenate([[0], np.geomspace(1e-4, 1e6, 1000)])


def not_rejected(numerator, denominator, confidence):
    """Which of `RATIOS` Student's t test does not reject."""
    away = np.asarray(numerator) - RATIOS[:, None] * np.asarray(denominator)
    return scipy.stats.ttest_1samp(away, 0, axis=1).pvalue >= 1 - confidence


@pytest.mark.parametrize("confidence", [0.95, 0.5])
@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [
        ([3.9, 4.0, 4.4], [1.0, 1.2, 0.9]),
        ([3.9, 4.0, 4.4], [0.0, 1.2, 0.7]),  # of 95 %, the denominator may be 0
        ([1.0, 2.0, 3.0, 4.0], [2.0, 4.1, 6.0, 7.7]),  # they go together
        ([-0.1, 0.2, 0.0, -0.05], [1.0, 1.2, 0.9, 1.0]),  # the numerator may be 0
        ([0.1, -0.2, 0.0, 0.05], [1.0, 1.2, 0.9, 1.0]),  # its mean is below 0
        ([1.0, 1.2, 0.9, 1.0], [-0.1, 0.2, 0.0, -0.05]),
        ([1.0, 1.2, 0.9, 1.0], [0.1, -0.2, 0.0, 0.05]),
    ],
)
def test_a_ratio_has_the_interval_that_scanning_all_ratios_gives(
    numerator, denominator, confidence
):
    value, low, high = ratio_interval(numerator, denominator, confidence)
    inside = (low <= RATIOS) & (high >= RATIOS)
    np.testing.assert_array_equal(inside, not_rejected(numerator, denominator, confidence))
    means = np.maximum([np.mean(numerator), np.mean(denominator)], 0)
    assert value == (means[0] / means[1] if means[1] else np.inf)
    assert low <= value <= high
    # The ends are 0 and infinity themselves, not numbers beyond what was scanned.
    assert (low == 0) == inside[0]
    assert np.isinf(high) == inside[-1]


def test_intervals_of_ratios_by_scanning_many():
    """Where both means may be 0, the ratios that are not rejected may come in two parts: their
    interval has what is in between."""
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(600):
        count = rng.integers(2, 8)
        means = rng.normal(size=(2, 1)) * rng.choice([0, 0.3, 1, 5], (2, 1))
        pair = means + rng.normal(size=(2, count)) * rng.choice([0.1, 1, 3])
        pair[1] += rng.normal() * (pair[0] - pair[0].mean())
        value, low, high = ratio_interval(*pair)
        inside = (low <= RATIOS) & (high >= RATIOS)
        allowed = not_rejected(*pair, 0.95)
        assert not (allowed & ~inside).any()
        assert np.isnan(value) or low <= value <= high
        above_zero = pair.mean(axis=1) > 0
        clear = scipy.stats.ttest_1samp(pair, 0, axis=1).pvalue < 0.05
        if above_zero.all() and clear.any():
            np.testing.assert_array_equal(inside, allowed)
            kinds.add((low > 0, bool(np.isfinite(high))))
    assert kinds == {(True, True), (True, False), (False, True)}


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 2), (2.5, 1), (1e-3, 7), (3e4, 1)])
def test_a_ratio_that_is_the_same_for_every_pair_has_an_interval_of_no_width(
    numerator, denominator
):
    rng, ratio = np.random.default_rng(0), numerator / denominator
    for noise in (0, 1e-9, 1e-3, 0.1):
        pairs = 1 + noise * rng.normal(size=5)
        found = ratio_interval(numerator * pairs, denominator * pairs)
        np.testing.assert_allclose(found, ratio, rtol=1e-6)
    # But where the denominator may be 0, so may be the numerator less any number of times it.
    uncertain = np.array([-1.0, 0.0, 1.0, 2.0])
    found = ratio_interval(numerator * uncertain, denominator * uncertain)
    np.testing.assert_allclose(found, (ratio, 0, np.inf))


def test_the_units_of_a_ratio_do_not_matter():
    top, bottom = np.random.default_rng(0).normal([[3.0], [2.0]], 1, (2, 6))
    expected = np.array(ratio_interval(top, bottom))
    for unit in (1e-12, 1e-3, 1e12):
        np.testing.assert_allclose(ratio_interval(unit * top, bottom), unit * expected)
        np.testing.assert_allclose(ratio_interval(unit * top, unit * bottom), expected)


def test_ratio_of_hardly_any_values():
    np.testing.assert_equal(ratio_interval([], []), (np.nan, np.nan, np.nan))
    np.testing.assert_equal(ratio_interval([1.0], [2.0]), (0.5, np.nan, np.nan))
    np.testing.assert_equal(ratio_interval([-1.0], [2.0]), (0, np.nan, np.nan))
    np.testing.assert_equal(ratio_interval([1.0], [-2.0]), (np.inf, np.nan, np.nan))


def test_ratios_of_nothing():
    assert ratio_interval([0.0, 0.0, 0.0], [1.0, 1.2, 0.9]) == (0, 0, 0)
    np.testing.assert_equal(ratio_interval(np.zeros(3), np.zeros(3)), (np.nan, 0, np.inf))
    value, _, high = ratio_interval([1.0, 1.2, 0.9], [0.0, 0.0, 0.0])
    assert value == high == np.inf


@pytest.mark.parametrize("alike", [-0.5, 0.0, 0.9])
@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize(
    ("means", "most"),
    [
        ((4.0, 4.0), 0.95),
        ((1.0, 4.0), 0.97),
        ((4.0, 1.0), 0.97),
        ((0.0, 4.0), 0.975),  # the true ratio is at the end: of misses, one side is left
        ((4.0, 0.0), 0.975),
        ((0.5, 0.5), 1.0),
    ],
)
def test_coverage_of_the_interval_of_a_ratio(means, most, count, alike):
    """95 %, or more where an interval ends at 0 or has no end."""
    rng, runs = np.random.default_rng(count), 2000
    truth = means[0] / means[1] if means[1] else np.inf
    noise = rng.normal(size=(2, runs, count))
    noise[1] = alike * noise[0] + np.sqrt(1 - alike**2) * noise[1]
    intervals = [
        ratio_interval(*pair)[1:] for pair in zip(means[0] + noise[0], means[1] + noise[1])
    ]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    room = 4 * np.sqrt(0.95 * 0.05 / runs)
    assert 0.95 - room < covered < most + room


# ---- p-values of many tests ----


def holm_by_steps(p_values, level):
    """Which tests are rejected: the smallest p-value first, until one is not."""
    rejected, left = set(), sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    while left and left[0][0] <= level / len(left):
        rejected.add(left.pop(0)[1])
    return [i in rejected for i in range(len(p_values))]


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, 0.011, 0.5], [0.03, 0.03, 0.5]),  # never smaller than that of a smaller one
        ([0.6, 0.7, 0.8], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([np.nan, 0.03, np.nan, 0.01], [np.nan, 0.03, np.nan, 0.02]),
        ([np.nan, np.nan], [np.nan, np.nan]),
    ],
)
def test_adjusted_p_values(p_values, adjusted):
    np.testing.assert_allclose(holm(p_values), adjusted, rtol=1e-12)


def test_adjusted_p_values_reject_what_the_steps_reject():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = np.round(rng.uniform(size=14) ** 3, 3)  # with ties
        p_values[rng.uniform(size=14) < 0.2] = np.nan
        adjusted = holm(p_values)
        for level in (0.01005, 0.05005, 0.20005, 0.70005):  # none is a multiple of 0.001
            assert list(adjusted <= level) == holm_by_steps(p_values, level)
        order = rng.permutation(14)
        np.testing.assert_array_equal(holm(p_values[order]), adjusted[order])


@pytest.mark.parametrize("true", [0, 5])
def test_with_holm_one_false_rejection_is_as_rare_as_of_one_test(true):
    """Also beside tests in which there is something to find, which are rejected first."""
    p_values = np.random.default_rng(true).uniform(size=(4000, 14))
    p_values[:, :true] *= 1e-6
    wrong = np.mean([(holm(row)[true:] < 0.05).any() for row in p_values])
    assert abs(wrong - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)


# ---- pairs of models ----


def leave_out(distances, pairs):
    """Log sensitivities without each image, by deleting it: [images]."""
    logs = []
    for i in range(len(distances)):
        kept = np.delete(np.delete(pairs, i, axis=0), i, axis=1)
        median = np.median(kept[np.triu_indices(len(kept), 1)])
        logs.append(np.log(np.delete(distances, i).mean() / median))
    return np.array(logs)


@pytest.mark.parametrize("images", [4, 7, 20])
def test_what_is_left_without_each_image(images):
    distances, pairs = random_case(images, seed=images)
    *_, value, logs = leave_one_out(distances, pairs)
    assert value == sensitivity_interval(distances, pairs)[2]
    np.testing.assert_allclose(logs, leave_out(distances, pairs), rtol=1e-10)


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_jackknife_interval_by_a_loop(confidence):
    replicates = np.random.default_rng(0).normal(size=9)
    squares = sum((each - replicates.mean()) ** 2 for each in replicates)
    half = scipy.stats.t(8).ppf(0.5 + confidence / 2) * np.sqrt(8 / 9 * squares)
    found = jackknife_interval(3.0, replicates, confidence)
    np.testing.assert_allclose(found, (3 - half, 3 + half), rtol=1e-12)


def test_jackknife_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(3, 2, 11)
    without = (values.sum() - values) / 10
    found = jackknife_interval(values.mean(), without)
    np.testing.assert_allclose(found, mean_interval(values)[1:], rtol=1e-12)


@pytest.mark.parametrize(
    "replicates", [[], [1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0, np.nan], [1.0, 2.0, 3.0, -np.inf]]
)
def test_no_jackknife_interval(replicates):
    assert np.isnan(jackknife_interval(2.0, np.array(replicates))).all()


def test_nothing_that_varies_has_an_interval_of_no_width():
    assert jackknife_interval(2.0, np.full(5, 2.0)) == (2, 2)


# Of 5 and of 3 dimensions: see `two_models`.
TRUTHS = [
    scipy.stats.chi(d).mean() * np.exp(0.5**2 / 2) / (2**0.5 * scipy.stats.chi(d).median())
    for d in (5, 3)
]


def two_models(images, likeness, rng):
    """Two models' distances and pairs.

    The first one's representations are points of N(0, I) in 5 dimensions, the second one's are the
    first 3 of these. Each moves by its length times a lognormal variable; the logarithms of the two
    models' have this correlation.
    """
    noise = rng.normal(size=(2, images))
    noise[1] = likeness * noise[0] + np.sqrt(1 - likeness**2) * noise[1]
    points = rng.normal(size=(images, 5))
    cases = []
    for each, dimensions in zip(noise, (5, 3)):
        some = points[:, :dimensions]
        squares = (some**2).sum(axis=1)
        pairs = np.sqrt(np.maximum(squares[:, None] + squares - 2 * some @ some.T, 0))
        cases.append((np.sqrt(squares) * np.exp(0.5 * each), pairs))
    return cases


def paired(cases):
    """(low, high) of the difference, and of the logarithm of the ratio."""
    (*_, first, first_logs), (*_, second, second_logs) = (leave_one_out(*case) for case in cases)
    difference = jackknife_interval(second - first, np.exp(second_logs) - np.exp(first_logs))
    return difference, jackknife_interval(np.log(second / first), second_logs - first_logs)


@pytest.mark.parametrize(("images", "runs"), [(8, 1000), (32, 800), (128, 300)])
@pytest.mark.parametrize("likeness", [0.0, 0.6, 1.0])
def test_coverage_of_the_paired_intervals(images, runs, likeness):
    """At least 95 %. Above it where most of the movement cancels, so that the medians are left.

    The jackknife counts twice what two images do together (Efron & Stein 1981), and never less than
    once: for medians over pairs that shows, the more the fewer images.
    """
    rng = np.random.default_rng(images)
    truths = TRUTHS[1] - TRUTHS[0], np.log(TRUTHS[1] / TRUTHS[0])
    covered = np.zeros(2)
    for _ in range(runs):
        found = paired(two_models(images, likeness, rng))
        covered += [low <= truth <= high for truth, (low, high) in zip(truths, found)]
    room = 4 * np.sqrt(0.95 * 0.05 / runs)
    assert (covered / runs > 0.95 - room).all()
    if likeness < 1:
        most = {8: 0.02, 32: 0.01, 128: 0}[images]
        assert (covered / runs < 0.95 + most + room).all()


@pytest.mark.parametrize("images", [16, 64])
def test_pairing_narrows_intervals_of_models_that_are_alike(images):
    rng = np.random.default_rng(0)
    widths = {"paired": [], "apart": []}
    for _ in range(50):
        cases = two_models(images, 0.9, rng)
        _, (low, high) = paired(cases)
        widths["paired"].append(high - low)
        bounds = [sensitivity_interval(*case)[3:] for case in cases]
        widths["apart"].append(np.hypot(*(np.log(high / low) for low, high in bounds)))
    assert np.median(widths["paired"]) < 0.7 * np.median(widths["apart"])


# ---- shares ----


@pytest.mark.parametrize("confidence", [0.95, 0.8])
@pytest.mark.parametrize("hits", range(0, 13))
def test_wilsons_interval_of_one_draw_an_image(hits, confidence):
    drawn = np.random.default_rng(0).permutation(np.arange(12) < hits)[:, None]
    share, *found = proportion_interval(drawn, confidence)
    assert share == pytest.approx(hits / 12, abs=1e-15)
    expected = scipy.stats.binomtest(hits, 12).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("draws", [2, 5])
def test_draws_that_are_all_alike_count_as_one(draws):
    hits = np.random.default_rng(0).random((20, 1)) < 0.7
    one = proportion_interval(hits)
    np.testing.assert_allclose(proportion_interval(np.repeat(hits, draws, axis=1)), one)


@pytest.mark.parametrize("images", [2, 5, 30])
def test_the_number_of_trials_by_a_loop(images):
    """Wilson's with images · p (1 - p) / variance, the latter with two images more."""
    rng = np.random.default_rng(images)
    hits = rng.random((images, 6)) < rng.beta(2, 1, (images, 1))
    shares = [*(row.sum() / 6 for row in hits), 0.0, 1.0]
    middle = sum(shares) / len(shares)
    variance = sum((each - middle) ** 2 for each in shares) / (len(shares) - 1)
    trials = min(max(images * middle * (1 - middle) / variance, images), 6 * images)
    assert images < trials < 6 * images
    found, p, z = proportion_interval(hits), hits.sum() / hits.size, scipy.stats.norm.ppf(0.975)
    assert found[0] == pytest.approx(p)
    for bound in found[1:]:  # Wilson's bounds solve this equation
        assert (p - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / trials, rel=1e-9)


def test_draws_that_are_independent_nearly_all_count():
    hits = np.random.default_rng(1).random((400, 4)) < 0.7
    share, low, high = proportion_interval(hits)
    all_apart = proportion_interval(hits.reshape(-1, 1))
    assert share == pytest.approx(all_apart[0])
    assert 0.95 < (high - low) / (all_apart[2] - all_apart[1]) < 1.1
    at_most = np.tile([[True, False]], (400, 1))  # each image half: more alike than by chance
    np.testing.assert_allclose(
        proportion_interval(at_most), proportion_interval(at_most.reshape(-1, 1))
    )


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("images", [1, 2, 3, 7, 49, 1000])
def test_shares_stay_between_zero_and_one(images, draws):
    for value in (0, 1):
        share, low, high = proportion_interval(np.full((images, draws), value))
        assert share == value
        assert 0 <= low <= share <= high <= 1
        assert high - low > 0
        width = scipy.stats.norm.ppf(0.975) ** 2
        assert high - low == pytest.approx(width / (images + width))  # images count, not draws
    one = np.zeros((images, draws))
    one[0, 0] = 1
    for hits in (one, 1 - one):
        share, low, high = proportion_interval(hits)
        assert 0 <= low <= share <= high <= 1


def test_a_share_of_no_images():
    assert np.isnan(proportion_interval(np.zeros((0, 3), bool))).all()


@pytest.mark.parametrize("images", [16, 64])
@pytest.mark.parametrize("draws", [1, 4, 16])
@pytest.mark.parametrize("alike", [0.02, 0.3, 0.8])
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95])
def test_coverage_of_shares(images, draws, alike, truth):
    """Each image has a probability of its own, by a beta distribution of this mean.

    `alike` is the correlation of two draws of one image. Wilson's own coverage moves up and down
    with the share by some points: 92 % is the least of it here, at one draw an image.
    """
    rng = np.random.default_rng(int(1000 * alike) + draws)
    spread = 1 / alike - 1
    own = rng.beta(truth * spread, (1 - truth) * spread, (600, images))
    intervals = [proportion_interval(rng.random((images, draws)) < row[:, None])[1:] for row in own]
    low, high = np.transpose(intervals)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert covered > 0.92 - 3 * np.sqrt(0.92 * 0.08 / 600)


def test_a_paired_ratio_by_a_plain_loop():
    rng = np.random.default_rng(0)
    top, bottom = rng.exponential(1, (9, 3)), rng.exponential(2, (9, 2))
    ratio, low, high = paired_ratio(top, bottom)
    assert ratio == pytest.approx(top.mean() / bottom.mean())
    logs = []
    for image in range(9):
        rest = [number for number in range(9) if number != image]
        logs.append(np.log(top[rest].mean() / bottom[rest].mean()))
    deviation = np.sqrt(8 / 9 * np.square(logs - np.mean(logs)).sum())
    half = scipy.stats.t.ppf(0.975, 8) * deviation
    assert low == pytest.approx(ratio * np.exp(-half))
    assert high == pytest.approx(ratio * np.exp(half))
    assert np.isnan(paired_ratio(top, bottom, intervals=False)[1:]).all()
    assert paired_ratio(0 * top, bottom) == (0, 0, 0)
    assert np.isnan(paired_ratio(top[:3], bottom[:3])[1:]).all()


def test_a_paired_ratio_covers_its_true_value():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        hardness = rng.normal(0, 0.6, 40)  # what is hard about an image moves both
        top, bottom = (np.exp(hardness + rng.normal(0, 0.3, 40)) for _ in range(2))
        _, low, high = paired_ratio(top, bottom)
        inside += low < 1 < high
    assert 0.93 < inside / 2000 < 0.97
