"""Claims: values in their units, p-values of scipy, verdicts by the rule, no data no verdict."""

import math
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_result_tables import KERNELS, LAYERS, drawn, made_results, small_preset
from test_statistics import (
    ORACLES,
    POOLING,
    RATIOS_OF_SPREADS,
    TRAINED,
    Rows,
    fast_variances,
    made_logs,
    plausible,
    unmeasured,
)

from deformstab.paper.verdicts import claims
from deformstab.paper.verdicts.result_tables import Results

IDS = (
    "pooling-stabilizes-init training-changes-stability kinds-converge smooth-filters-stabilize "
    "stronger-task-smoother training-smooths smoothness-converges depth-trend "
    "labels-decide-smoothness labels-decide-stability euclidean-agrees init-smoothness-constant"
).split()
COLUMNS = (
    "claim sentence figure statistic claimed value low high seeds p p_holm verdict note".split()
)
# What is claimed, in the unit of the value.
CLAIMED = {
    ("pooling-stabilizes-init", "2c"): "< 1",
    ("pooling-stabilizes-init", "2a"): "< 1",
    ("training-changes-stability", "2d"): "> 1",
    ("kinds-converge", "2d"): "< 0.5",
    ("smooth-filters-stabilize", "5a"): "< 1",
    ("stronger-task-smoother", "3b"): "< 1",
    ("training-smooths", "4b"): "< 1",
    ("smoothness-converges", "4b"): "< 0.5",
    ("depth-trend", "4b"): "> 1",
    ("depth-trend", "4a"): "< 1",
    ("labels-decide-smoothness", "4c"): "> 1",
    ("labels-decide-stability", "5b"): "> 1",
    ("euclidean-agrees", "text"): "> 0.8",
    ("init-smoothness-constant", "text"): "< 0.05",
}
JUDGED = ("main", "large", "tasks", "filters")  # studies that claims are about


@pytest.fixture(scope="module")
def results():
    return made_results(small_preset(seeds=5), plausible, JUDGED)


@pytest.fixture(scope="module")
def table(results):
    return claims.evaluate(results)


def row_of(table, identity, figure):
    (found,) = [row for row in table.itertuples() if (row.claim, row.figure) == (identity, figure)]
    return found


def test_every_claim_of_the_paper_has_a_row(table):
    assert list(table.columns) == COLUMNS
    assert list(dict.fromkeys(table["claim"])) == IDS
    assert list(claims.CLAIM_IDS) == IDS
    rows = [(row.claim, row.figure) for row in table.itertuples()]
    assert len(set(rows)) == len(rows)
    assert {key: row_of(table, *key).claimed for key in rows} == CLAIMED


# ---- numbers ----


@pytest.mark.parametrize(
    ("identity", "figure"), [key for key in CLAIMED if key not in RATIOS_OF_SPREADS]
)
def test_a_mean_is_in_the_unit_of_what_is_claimed(results, table, identity, figure):
    number, natural = math.log, np.exp
    if identity == "euclidean-agrees":
        number, natural = math.atanh, np.tanh
    if identity == "init-smoothness-constant":
        number, natural = float, float
    found = row_of(table, identity, figure)
    by_seed = ORACLES[identity, figure](Rows(results), range(5))
    test = stats.ttest_1samp(by_seed, number(float(found.claimed[2:])))
    interval = test.confidence_interval(0.95)
    expected = [natural(each) for each in (np.mean(by_seed), interval.low, interval.high)]
    assert (found.value, found.low, found.high) == pytest.approx(tuple(expected))
    assert found.p == pytest.approx(test.pvalue)
    assert found.seeds == 5


@pytest.mark.parametrize(("identity", "figure"), RATIOS_OF_SPREADS)
def test_a_ratio_of_spreads_has_the_interval_that_its_t_test_gives(
    results, table, identity, figure
):
    found = row_of(table, identity, figure)
    variance, reference = np.transpose(ORACLES[identity, figure](Rows(results), range(5)))
    p = lambda ratio: stats.ttest_1samp(variance - ratio**2 * reference, 0).pvalue
    assert found.p == pytest.approx(p(float(found.claimed[2:])))
    assert found.value == pytest.approx(math.sqrt(variance.mean() / reference.mean()))
    assert 0 < found.low < found.value < found.high < np.inf
    assert (p(found.low), p(found.high)) == pytest.approx((0.05, 0.05))
    assert found.seeds == 5


def stepwise(p_values):
    """Holm's procedure itself: reject the smallest, then the next, until one is not to be."""
    rejected, left = set(), sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    while left and left[0][0] < 0.05 / len(left):
        rejected.add(left.pop(0)[1])
    return [i in rejected for i in range(len(p_values))]


def test_the_adjusted_p_values_decide(table):
    clear = table["verdict"].isin(["reproduced", "not reproduced"])
    assert list(clear) == stepwise(table["p"])
    assert list(clear) == list(table["p_holm"] < 0.05)
    assert 0 < clear.sum() < len(table)
    for row in table[clear].itertuples():
        bound = float(row.claimed[2:])
        above = row.value > bound
        assert row.verdict == (
            "reproduced" if above == (row.claimed[0] == ">") else "not reproduced"
        )
        assert not row.low < bound < row.high
        assert row.note == ""
    for row in table[~clear].itertuples():
        assert row.verdict == "inconclusive"
        assert row.note == ("on its own it would be clear" if row.p < 0.05 else "")
    assert (table[~clear]["p"] < 0.05).any()


# ---- worlds in which the paper is right, and wrong ----


def world(sign):
    """Every claim holds, for sign +1, and its opposite, for sign -1; seeds differ a little."""

    def value(experiment, quantity, phase, metric, layer):
        kind, seed = experiment.downsampling, experiment.seed
        depth = LAYERS if quantity == "sensitivity" else KERNELS + ["block1_downsample"] * 2
        depth = list(depth).index(layer) if layer in depth else 0
        trained, pooled = phase == "trained", kind in POOLING
        # Two kinds of each study stand in between, so that kinds are spread in every layer.
        offset = {"max": -1.0, "average": -0.8, "subsample": 0.8, "strided": 0.9}.get(kind, 1.0)
        text = repr((experiment, quantity, phase, layer))  # both metrics see the same network
        noise = 0.01 * np.random.default_rng(zlib.crc32(text.encode())).normal() + 0.01 * seed
        if quantity == "sensitivity":
            log = -2 + 0.05 * depth + noise - sign * 0.3 * experiment.sigma
            size = 0.5
            if trained:
                size = 0.5 * math.exp(-sign * (1 if experiment.task == "true_labels" else -1))
                log += sign * (0.8 if pooled else 0.1)
            log += sign * size * offset if not trained else size * offset
            if metric == "euclidean" and sign < 0:
                log = -log
            return math.exp(log)
        if phase == "initial":
            return 1.87 * (1 + (0.001 if sign > 0 else 0.2) * (1 + seed / 100))
        log = math.log(1.87) + noise
        if experiment.study == "tasks":
            return math.exp(log - sign * 0.2 * experiment.class_displacement)
        size = {"true_labels": 0.05, "random_labels": 0.3}[experiment.task]
        if sign < 0:
            size = {"true_labels": 1.0, "random_labels": 0.05}[experiment.task]
        deeper = 0.02 if experiment.study == "main" else -0.02
        return math.exp(log - sign * 0.5 + size * offset + sign * deeper * depth)

    return value


@pytest.mark.parametrize(("sign", "verdict"), [(1, "reproduced"), (-1, "not reproduced")])
def test_the_verdicts_know_a_world_that_is_as_claimed_from_its_opposite(sign, verdict):
    table = claims.evaluate(made_results(small_preset(seeds=5), world(sign), JUDGED))
    wrong = table[table["verdict"] != verdict]
    assert wrong.empty, wrong[["claim", "figure", "value", "low", "high", "p_holm"]].to_string()
    assert (table["note"] == "").all()
    for row in table.itertuples():
        bound = float(row.claimed[2:])
        assert row.low <= row.high < bound or bound < row.low <= row.high


# ---- the rule ----


def series(values):
    return pd.Series(values, dtype=float)


def pairs(variance, reference):
    return pd.DataFrame({"variance": variance, "reference": reference}, dtype=float)


def evaluate(cases, results):
    """The table of claims made of (values, fields)."""
    made = [
        claims.Claim(f"id{i}", "sentence", "1", "statistic", lambda _, v=v: v, **fields)
        for i, (v, fields) in enumerate(cases)
    ]
    return claims.evaluate(results, made)


def evaluate_one(values, results, **fields):
    return evaluate([(series(values), fields)], results).iloc[0]


@pytest.mark.parametrize(
    ("values", "bounds", "verdict"),
    [
        ([1.0, 1.1, 1.2], {"above": 1}, "reproduced"),  # logs: of factors above 1
        ([-1.0, -1.1, -1.2], {"above": 1}, "not reproduced"),
        ([-1.0, 1.1, 1.2], {"above": 1}, "inconclusive"),
        ([1.0, 1.1, 1.2], {"below": 1}, "not reproduced"),
        ([-1.0, -1.1, -1.2], {"below": 1}, "reproduced"),
        ([0.5, 2.0], {"above": 1}, "inconclusive"),  # both above, their mean may not be
        ([0.0, 0.0, 0.0], {"above": 1}, "inconclusive"),  # on the bound is on no side
        ([-1.0, -1.1, -1.2], {"below": 0.5}, "reproduced"),  # log 0.5 = -0.69
        ([-0.3, -0.4, -0.35], {"below": 0.5}, "not reproduced"),
        ([-0.6, -0.7, -0.8], {"below": 0.5}, "inconclusive"),
        ([1.0, np.nan, 1.1, 1.2], {"above": 1}, "reproduced"),  # a seed that has no number
        ([1.0], {"above": 1}, "inconclusive"),
        ([1.0, np.nan], {"above": 1}, "inconclusive"),
        ([], {"above": 1}, "not tested"),
    ],
)
def test_the_verdict_follows_the_test(results, values, bounds, verdict):
    row = evaluate_one(values, results, **bounds)
    assert row["verdict"] == verdict
    finite = [value for value in values if np.isfinite(value)]
    assert row["seeds"] == len(finite)
    if len(finite) > 1 and np.ptp(finite) > 0:
        ((side, bound),) = bounds.items()
        assert row["claimed"] == f"{'>' if side == 'above' else '<'} {bound}"
        test = stats.ttest_1samp(finite, math.log(bound))
        interval = [math.exp(end) for end in test.confidence_interval(0.95)]
        assert [row["low"], row["high"]] == pytest.approx(interval)
        assert row["p"] == row["p_holm"] == pytest.approx(test.pvalue)
        assert (bound < row["low"] or row["high"] < bound) == (verdict != "inconclusive")
    if len(finite) == 1:
        assert row["value"] == math.e
        assert np.isnan([row["low"], row["high"], row["p"], row["p_holm"]]).all()
        assert row["note"] == "too few seeds for an interval"
    if verdict == "not tested":
        assert np.isnan([row["value"], row["p"], row["p_holm"]]).all()
        assert row["note"] == "the runs it needs are missing, or could not be measured"


@pytest.mark.parametrize(
    ("scale", "values", "bounds", "verdict"),
    [
        ((float, float), [0.01, 0.02, 0.015], {"below": 0.05}, "reproduced"),
        ((float, float), [0.2, 0.21, 0.19], {"below": 0.05}, "not reproduced"),
        ((float, float), [0.045, 0.05, 0.04], {"below": 0.05}, "inconclusive"),
        ((np.arctanh, np.tanh), [1.5, 1.6, 1.7], {"above": 0.8}, "reproduced"),  # atanh .8 = 1.1
        ((np.arctanh, np.tanh), [0.8, 0.9, 0.85], {"above": 0.8}, "not reproduced"),
    ],
)
def test_a_claim_may_have_a_scale_of_its_own(results, scale, values, bounds, verdict):
    scale = dict(zip(("to_scale", "from_scale"), scale))
    row = evaluate_one(values, results, **bounds, **scale)
    assert row["verdict"] == verdict
    assert row["value"] == pytest.approx(scale["from_scale"](np.mean(values)))
    assert 0 < row["low"] < row["value"] < row["high"] < 1


VARIANCES = [3.9, 4.0, 4.1], [1.0, 1.1, 0.9]  # of a ratio of spreads of 2


@pytest.mark.parametrize(
    ("values", "bounds", "verdict", "ends"),
    [
        (VARIANCES, {"above": 1}, "reproduced", "finite"),
        (VARIANCES, {"below": 1}, "not reproduced", "finite"),
        (VARIANCES, {"above": 2.1}, "inconclusive", "finite"),
        (VARIANCES, {"below": 3}, "reproduced", "finite"),
        (VARIANCES, {"above": 3}, "not reproduced", "finite"),
        (([-0.05, 0.05, 0.02], [1, 1.1, 0.9]), {"below": 0.5}, "reproduced", "from 0"),
        (([-0.05, 0.05, -0.02], [1, 1.1, 0.9]), {"below": 0.5}, "reproduced", "from 0"),
        (([1, 1.1, 0.9], [-0.1, 0.1, 0.05]), {"above": 1}, "reproduced", "to inf"),
        (([1, 1.1, 0.9], [-0.1, 0.1, -0.05]), {"above": 1}, "reproduced", "to inf"),
        (([-1, 1, 0.1], [-1, 1, 0.1]), {"below": 0.5}, "inconclusive", "all"),
    ],
)
def test_the_verdict_on_a_ratio_of_spreads(results, values, bounds, verdict, ends):
    (row,) = evaluate([(pairs(*values), bounds)], results).itertuples()
    assert row.verdict == verdict
    ((_, bound),) = bounds.items()
    away = np.array(values[0]) - bound**2 * np.array(values[1])
    assert row.p == pytest.approx(stats.ttest_1samp(away, 0).pvalue)
    means = np.maximum(np.mean(values, axis=1), 0)
    assert row.value == (np.inf if means[1] == 0 else pytest.approx(math.sqrt(means[0] / means[1])))
    assert (row.low == 0) == (ends in ("from 0", "all"))
    assert np.isinf(row.high) == (ends in ("to inf", "all"))
    assert row.low <= row.value <= row.high


def test_variances_that_are_both_below_zero_have_no_ratio_and_no_verdict(results):
    """By chance they are so, also clearly, where kinds do nothing: 0 / 0 is neither side."""
    none = pairs([-1.0, -1.1, -0.9], [-0.1, -0.11, -0.09])
    for bounds in ({"below": 0.5}, {"above": 0.5}):
        (row,) = evaluate([(none, bounds)], results).itertuples()
        assert np.isnan(row.value)
        assert row.verdict == "inconclusive"


def test_holm_counts_what_is_tested_and_nothing_else():
    """Eight rows of p = 0.02: one alone is clear, and so it is beside rows that are not tested."""
    one = np.arange(-2.0, 3.0)
    one = series(one / stats.sem(one) + stats.t(4).isf(0.01))
    assert stats.ttest_1samp(one, 0).pvalue == pytest.approx(0.02)
    above, untrusted = {"above": 1}, {"above": 1, "trained": (("main", "true_labels"),)}
    results = with_gap(0.06)
    others = [(series([]), above), (series([3.0]), above), (one, untrusted)] * 2
    found = evaluate([(one, above), *others], results)
    assert list(found["verdict"]) == (
        ["reproduced"] + ["not tested", "inconclusive", "not tested"] * 2
    )
    assert found["p_holm"][0] == found["p"][0] == pytest.approx(0.02)
    assert found["p_holm"][1:].isna().all()
    assert found["p"][3] == pytest.approx(0.02)  # shown, and not used

    found = evaluate([(one, above)] * 8, results)
    assert found["p_holm"].to_numpy() == pytest.approx(0.16)
    assert set(found["verdict"]) == {"inconclusive"}
    assert set(found["note"]) == {"on its own it would be clear"}


def test_of_fourteen_claims_that_are_on_their_bounds_hardly_ever_one_has_a_verdict():
    """5 % of reproductions may have any false verdict, however many claims there are."""
    runs, rng = 400, np.random.default_rng(0)
    bounds = [1, 1, 0.5, 0.5]
    spreads = [
        [fast_variances(made_logs(rng, runs, size, 0.4 * size, 10, 0.5)) for size in (bound, 1.0)]
        for bound in bounds
    ]
    deviations = rng.normal(size=(runs, 10, 5))
    results, wrong, alone = Results(small_preset(), {}), 0, 0
    for run in range(runs):
        cases = [(series(each), {"above": 1}) for each in deviations[run]]
        for bound, (variance, reference) in zip(bounds, spreads):
            cases.append((pairs(variance[run], reference[run]), {"below": bound}))
        found = evaluate(cases, results)
        wrong += (found["verdict"] != "inconclusive").any()
        alone += (found["p"] < 0.05).any()
    assert wrong / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert alone / runs > 0.4  # without Holm: 1 - 0.95¹⁴ is a half


# ---- what stands beside a verdict ----


def with_gap(gap, study="main", task="true_labels", kind="max", seed=1):
    """Results in which one network's accuracies differ by so much."""
    results = made_results(small_preset(), studies=JUDGED)
    table = results.tables["training"]
    which = {"study": study, "task": task, "downsampling": kind, "seed": seed}
    chosen = np.logical_and.reduce([table[column] == value for column, value in which.items()])
    assert chosen.any()
    table.loc[~chosen, "accuracy_train"] = table.loc[~chosen, "accuracy_batch_statistics"]
    table.loc[chosen, "accuracy_batch_statistics"] = 0.5
    table.loc[chosen, "accuracy_train"] = 0.5 + gap
    return results


@pytest.mark.parametrize("sign", [1, -1])
def test_networks_whose_accuracies_differ_by_over_5_percent_carry_no_verdict(sign):
    trained = {"above": 1, "trained": (("main", "true_labels"),)}
    row = evaluate_one([1.0, 1.1, 1.2], with_gap(0.06 * sign), **trained)
    assert row["verdict"] == "not tested"
    assert "0.06" in row["note"]
    assert row["value"] == pytest.approx(math.exp(1.1))  # the number itself is still shown
    assert np.isnan(row["p_holm"])
    row = evaluate_one([1.0, 1.1, 1.2], with_gap(0.04 * sign), **trained)
    assert row["verdict"] == "reproduced"
    for elsewhere in (("main", "random_labels"), ("large", "true_labels")):
        elsewhere = with_gap(0.06 * sign, *elsewhere)
        assert evaluate_one([1.0, 1.1, 1.2], elsewhere, **trained)["verdict"] == ("reproduced")
    row = evaluate_one([], with_gap(0.06 * sign), **trained)
    assert row["verdict"] == "not tested"


TRUE = {
    ("training-changes-stability", "2d"),
    ("kinds-converge", "2d"),
    ("training-smooths", "4b"),
    ("smoothness-converges", "4b"),
    ("depth-trend", "4b"),
    ("labels-decide-smoothness", "4c"),
    ("labels-decide-stability", "5b"),
    ("euclidean-agrees", "text"),
}
LABELS = {("labels-decide-smoothness", "4c"), ("labels-decide-stability", "5b")}
BUILT_ON = [  # a network → the claims that are built on it
    (("main", "true_labels", "max"), TRUE),
    (("main", "true_labels", "strided"), TRUE - {("training-changes-stability", "2d")}),
    (("main", "random_labels", "strided"), LABELS),
    (("large", "true_labels", "max"), {("depth-trend", "4a")}),
    (("tasks", "deformed_classes", "max"), {("stronger-task-smoother", "3b")}),
]


@pytest.mark.parametrize(("where", "concerned"), BUILT_ON)
def test_the_gap_concerns_every_claim_about_trained_networks_and_no_other(where, concerned):
    table = claims.evaluate(with_gap(0.2, *where))
    untested = table[table["verdict"] == "not tested"]
    assert set(zip(untested["claim"], untested["figure"])) == concerned
    tested = table[table["verdict"] != "not tested"]
    assert untested["p_holm"].isna().all()
    assert tested["p_holm"].min() == pytest.approx(min(1, len(tested) * tested["p"].min()))


def stopped(preset, **where):
    """Results of networks that all fit, but those."""
    results = made_results(preset, studies=JUDGED)
    training = results.tables["training"]
    training["fits"] = True
    chosen = np.logical_and.reduce([training[column] == value for column, value in where.items()])
    training.loc[chosen, "fits"] = False
    return results


TO_FIT = {"stop_accuracy": 0.99, "random_stop_accuracy": 0.95}


@pytest.mark.parametrize(("where", "concerned"), BUILT_ON)
def test_networks_that_stopped_before_they_fitted_are_told_of(where, concerned):
    where = dict(zip(("study", "task", "downsampling"), where)) | {"seed": 1}
    table = claims.evaluate(stopped(small_preset(**TO_FIT), **where))
    told = {}
    for row in table.itertuples():
        few = "3 seeds describe, evidence needs 5"
        assert row.note.endswith(few) == (row.verdict in ("reproduced", "not reproduced"))
        note = row.note.removesuffix("on its own it would be clear").removesuffix(few)
        note = note.removesuffix("; ")
        assert row.note.endswith("clear") == (row.verdict == "inconclusive" and row.p < 0.05)
        if note:
            told[row.claim, row.figure] = note
    # Of one seed: the tasks have a network for each of two strengths.
    count = 2 if where["study"] == "tasks" else 1
    # Three seeds, of five kinds, two labels; of two kinds; of two strengths; of two poolings.
    of = {key: 15 for key in concerned} | {key: 30 for key in LABELS} | {("depth-trend", "4a"): 6}
    of |= {("stronger-task-smoother", "3b"): 6, ("training-changes-stability", "2d"): 6}
    assert told == {
        key: f"{count} of {of[key]} networks stopped before they fitted" for key in concerned
    }


def test_nobody_is_told_of_networks_that_were_not_to_fit():
    """Neither of those that train for their epochs, nor where only one kind of labels is to fit."""
    for changes, where in [
        ({}, {"epochs": 1}),  # all of them
        ({"stop_accuracy": 0.99}, {"task": "random_labels"}),
        ({"random_stop_accuracy": 0.95}, {"task": "true_labels"}),
    ]:
        notes = claims.evaluate(stopped(small_preset(**changes), **where))["note"]
        assert not notes.str.contains("fitted").any(), changes


def test_networks_with_random_labels_alone_may_have_been_to_fit():
    results = stopped(small_preset(random_stop_accuracy=0.95), task="random_labels", seed=0)
    notes = claims.evaluate(results).set_index("claim")["note"]
    told = notes[notes.str.contains("stopped before they fitted")]
    assert set(told.index) == {"labels-decide-smoothness", "labels-decide-stability"}
    assert told.str.startswith("5 of ").all()


def test_a_claim_about_all_kinds_says_of_which_it_is_judged():
    preset = small_preset(downsampling=("strided", "max"))
    notes = claims.evaluate(made_results(preset)).set_index(["claim", "figure"])["note"]
    told = notes[notes.str.contains("of .* only")]
    both = told.str.startswith("of max, strided only")
    assert not both["training-changes-stability", "2d"]  # which is about those with pooling
    assert told["training-changes-stability", "2d"].startswith("of max only")
    assert both.drop(("training-changes-stability", "2d")).all()
    whole = ["kinds-converge", "training-smooths", "smoothness-converges", "euclidean-agrees"]
    whole += ["depth-trend", "training-changes-stability", *dict(LABELS)]
    assert set(told.index.get_level_values("claim")) == set(whole)
    assert ("depth-trend", "4a") not in told
    every = claims.evaluate(made_results(small_preset()))["note"]
    assert not every.str.contains("only").any()


# ---- what is missing ----


@pytest.mark.parametrize("tables", [{}, {"sensitivity": pd.DataFrame()}])
def test_without_runs_nothing_is_tested(tables):
    table = claims.evaluate(Results(small_preset(), tables))
    assert set(table["verdict"]) == {"not tested"}
    assert (table["seeds"] == 0).all()
    assert table[["value", "low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(table["note"]) == {"the runs it needs are missing, or could not be measured"}
    assert list(table.columns) == COLUMNS


@pytest.mark.parametrize(
    ("studies", "tested"),
    [
        (("filters",), {"5a"}),
        (("tasks",), {"3b"}),
        (("large",), {"2a", "4a", "text"}),
        (("main",), {"2c", "2d", "4b", "4c", "5b", "text"}),
    ],
)
def test_the_claims_of_runs_that_are_missing_are_not_tested(studies, tested):
    table = claims.evaluate(made_results(small_preset(), studies=studies))
    assert set(table[table["seeds"] > 0]["figure"]) == tested
    assert set(table[table["seeds"] == 0]["verdict"]) == {"not tested"}


@pytest.mark.parametrize(
    ("changes", "untested"),
    [
        # One kind: nothing to compare it with.
        (
            {"downsampling": ("max",), "large_downsampling": ("max",)},
            {"pooling-stabilizes-init", "kinds-converge", "smoothness-converges"}
            | {"labels-decide-smoothness", "labels-decide-stability"},
        ),
        (
            {"downsampling": ("subsample", "strided"), "large_downsampling": ("strided",)},
            {"pooling-stabilizes-init", "training-changes-stability"},
        ),
        (
            {"main_tasks": ("true_labels",)},
            {"labels-decide-smoothness", "labels-decide-stability"},
        ),
        ({"sigmas": (1.0,)}, {"smooth-filters-stabilize"}),
        ({"class_displacements": (1.0,)}, {"stronger-task-smoother"}),
    ],
)
def test_a_comparison_without_its_other_side_is_not_tested(changes, untested):
    table = claims.evaluate(made_results(small_preset(**changes), studies=JUDGED))
    assert set(table[table["verdict"] == "not tested"]["claim"]) == untested


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_have_no_verdict(seeds):
    """One has no interval; of two, none can be left out of what is a mean over pairs of them."""
    table = claims.evaluate(made_results(small_preset(seeds=seeds), plausible, JUDGED))
    assert set(table["verdict"]) == {"inconclusive"}
    assert table["note"].str.startswith("too few seeds").all()
    of_spreads = table["claim"].isin([identity for identity, _ in RATIOS_OF_SPREADS])
    no_interval = table["low"].isna()
    assert list(no_interval) == list(of_spreads | (seeds == 1))
    assert (table[no_interval]["note"] == "too few seeds for an interval").all()
    assert table[no_interval][["high", "p", "p_holm"]].isna().all(axis=None)
    assert table[~of_spreads]["value"].notna().all()
    assert (table[~of_spreads]["seeds"] == seeds).all()
    assert table[~no_interval][["high", "p", "p_holm"]].notna().all(axis=None)


def test_a_network_that_diverged_takes_no_claim_down(results):
    table = claims.evaluate(unmeasured(results, **TRAINED))
    assert len(table) == len(claims.CLAIMS)
    assert table[["value", "low", "high", "p_holm"]].notna().all(axis=None)
    # Its seed is missing wherever all kinds are compared after training.
    fewer = {row.claim for row in table.itertuples() if row.seeds == 4}
    assert fewer == {identity for identity, _ in RATIOS_OF_SPREADS} | {
        "training-changes-stability",
        "training-smooths",
        "depth-trend",
    }
    assert (table.loc[~table["claim"].isin(fewer), "seeds"] == 5).all()


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_a_world_of_noise_is_not_what_the_paper_describes(seeds):
    table = claims.evaluate(made_results(small_preset(seeds=seeds), drawn, JUDGED))
    assert not (table["verdict"] == "reproduced").any()
