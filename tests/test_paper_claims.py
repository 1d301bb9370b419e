"""Claims: each statistic against a plain loop, the verdicts against the rule, no data no verdict."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_paper_results import KERNELS, LAYERS, RUN_COLUMNS, drawn, made_results, small_preset

from deformstab.downsampling import DOWNSAMPLING_KINDS
from deformstab.paper import claims
from deformstab.paper.results import Results

IDS = (
    "pooling-stabilizes-init training-changes-stability kinds-converge smooth-filters-stabilize "
    "stronger-task-smoother training-smooths smoothness-converges depth-trend "
    "labels-decide-smoothness labels-decide-stability euclidean-agrees init-smoothness-constant"
).split()
MEASURED = LAYERS[1:]  # the input is no layer of the network
POOLING, OTHERS = ("max", "average"), ("subsample", "strided", "strided_relu")
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def results():
    return made_results(small_preset())


def claim(identity, figure):
    (found,) = [each for each in claims.CLAIMS if (each.id, each.figure) == (identity, figure)]
    return found


def test_every_claim_of_the_paper_has_a_row(results):
    table = claims.evaluate(results)
    assert list(dict.fromkeys(table["claim"])) == IDS
    assert list(claims.CLAIM_IDS) == IDS
    assert not table.duplicated(["claim", "figure"]).any()
    for identity, figures in {
        "pooling-stabilizes-init": {"2a", "2c"},
        "depth-trend": {"4a", "4b"},
    }.items():
        assert set(table[table["claim"] == identity]["figure"]) == figures


# ---- the statistics, by plain loops over rows ----


class Rows:
    """The rows of made-up tables; one number a condition, or an error."""

    def __init__(self, results):
        self.sensitivities = results.tables["sensitivity"].to_dict("records")
        self.kernels = results.tables["smoothness"].to_dict("records")

    @staticmethod
    def only(rows, condition, column):
        found = [row for row in rows if all(row[k] == v for k, v in condition.items())]
        assert len(found) == 1, condition
        return found[0][column]

    def sensitivity(self, layer, metric="cosine", task="true_labels", **condition):
        condition |= {"layer": layer, "metric": metric, "task": task}
        return self.only(self.sensitivities, condition, "sensitivity")

    def smoothness(self, layer, task="true_labels", **condition):
        return self.only(self.kernels, condition | {"layer": layer, "task": task}, "smoothness")


def log_summary(number, layers, **condition):
    return statistics.mean(math.log(number(layer, **condition)) for layer in layers)


def spread(number, layers, **condition):
    over_kinds = [
        statistics.stdev(
            math.log(number(layer, downsampling=k, **condition)) for k in DOWNSAMPLING_KINDS
        )
        for layer in layers
    ]
    return statistics.mean(over_kinds)


def slope(x, y):
    x_mean, y_mean = statistics.mean(x), statistics.mean(y)
    above = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y))
    return above / sum((a - x_mean) ** 2 for a in x)


def pooling_init(rows, seed, study, pooling, others):
    mean = lambda kinds: statistics.mean(
        log_summary(
            rows.sensitivity, MEASURED, study=study, phase="initial", downsampling=kind, seed=seed
        )
        for kind in kinds
    )
    return mean(pooling) - mean(others)


def pooling_increases(rows, seed):
    change = []
    for kind in POOLING:
        which = {"study": "main", "downsampling": kind, "seed": seed}
        trained = log_summary(rows.sensitivity, MEASURED, phase="trained", **which)
        change.append(trained - log_summary(rows.sensitivity, MEASURED, phase="initial", **which))
    return statistics.mean(change)


def kinds_converge(rows, seed):
    spreads = [
        spread(rows.sensitivity, MEASURED, study="main", phase=phase, seed=seed)
        for phase in ("trained", "initial")
    ]
    return math.log(spreads[0] / spreads[1])


def smooth_filters(rows, seed):
    sigmas = (0.0, 0.5, 2.0)
    which = {"study": "filters", "phase": "initial", "seed": seed}
    return slope(
        sigmas, [log_summary(rows.sensitivity, MEASURED, sigma=sigma, **which) for sigma in sigmas]
    )


def stronger_tasks(rows, seed):
    which = {"study": "tasks", "task": "deformed_classes", "phase": "trained", "seed": seed}
    strengths = (0.5, 1.0)
    return slope(
        strengths,
        [log_summary(rows.smoothness, KERNELS, class_displacement=c, **which) for c in strengths],
    )


def smoothness_changes(rows, seed):
    changes = []
    for kind in DOWNSAMPLING_KINDS:
        which = {"study": "main", "downsampling": kind, "seed": seed}
        trained = log_summary(rows.smoothness, KERNELS, phase="trained", **which)
        changes.append(trained - log_summary(rows.smoothness, KERNELS, phase="initial", **which))
    return changes


def smoothness_converges(rows, seed):
    apart = spread(rows.smoothness, KERNELS, study="main", phase="trained", seed=seed)
    return math.log(apart / abs(statistics.mean(smoothness_changes(rows, seed))))


def depth_trend(rows, seed, study, kinds):
    slopes = []
    for kind in kinds:
        which = {"study": study, "phase": "trained", "downsampling": kind, "seed": seed}
        logs = [math.log(rows.smoothness(layer, **which)) for layer in KERNELS]
        slopes.append(slope(range(len(KERNELS)), logs))
    return statistics.mean(slopes)


def labels_decide(rows, seed, number, layers):
    spreads = [
        spread(number, layers, study="main", phase="trained", seed=seed, task=task)
        for task in ("random_labels", "true_labels")
    ]
    return math.log(spreads[0] / spreads[1])


def euclidean_agrees(rows, seed):
    pairs = [[], []]
    for phase in ("initial", "trained"):
        for kind in DOWNSAMPLING_KINDS:
            which = {"study": "main", "phase": phase, "downsampling": kind, "seed": seed}
            for layer in MEASURED:
                for values, metric in zip(pairs, ("cosine", "euclidean")):
                    values.append(rows.sensitivity(layer, metric, **which))
    return stats.spearmanr(*pairs).statistic


def init_smoothness(rows, seed):
    which = {"study": "main", "phase": "initial", "seed": seed}
    means = [
        statistics.mean(rows.smoothness(layer, downsampling=k, **which) for k in DOWNSAMPLING_KINDS)
        for layer in KERNELS
    ]
    return max(abs(mean / 1.87 - 1) for mean in means)


ORACLES = {
    ("pooling-stabilizes-init", "2c"): lambda r, s: pooling_init(r, s, "main", POOLING, OTHERS),
    ("pooling-stabilizes-init", "2a"): lambda r, s: pooling_init(
        r, s, "large", ["max"], ["strided_relu"]
    ),
    ("training-changes-stability", "2d"): pooling_increases,
    ("kinds-converge", "2d"): kinds_converge,
    ("smooth-filters-stabilize", "5a"): smooth_filters,
    ("stronger-task-smoother", "3b"): stronger_tasks,
    ("training-smooths", "4b"): lambda r, s: max(smoothness_changes(r, s)),
    ("smoothness-converges", "4b"): smoothness_converges,
    ("depth-trend", "4b"): lambda r, s: depth_trend(r, s, "main", DOWNSAMPLING_KINDS),
    ("depth-trend", "4a"): lambda r, s: depth_trend(r, s, "large", ["max", "strided_relu"]),
    ("labels-decide-smoothness", "4c"): lambda r, s: labels_decide(r, s, r.smoothness, KERNELS),
    ("labels-decide-stability", "5b"): lambda r, s: labels_decide(r, s, r.sensitivity, MEASURED),
    ("euclidean-agrees", "text"): euclidean_agrees,
    ("init-smoothness-constant", "text"): init_smoothness,
}


def test_every_row_has_an_oracle():
    assert {(each.id, each.figure) for each in claims.CLAIMS} == set(ORACLES)


@pytest.mark.parametrize(("identity", "figure"), ORACLES)
def test_a_statistic_is_what_a_plain_loop_gives(results, identity, figure):
    rows = Rows(results)
    expected = [ORACLES[identity, figure](rows, seed) for seed in SEEDS]
    values = claim(identity, figure).values(results)
    np.testing.assert_allclose(values[list(SEEDS)], expected, rtol=1e-9)
    assert len(values) == len(SEEDS)

    row = claims.evaluate(results).set_index(["claim", "figure"]).loc[(identity, figure)]
    assert row["seeds"] == len(SEEDS)
    assert row["value"] == pytest.approx(statistics.mean(expected))
    interval = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    if row["statistic"].startswith("log ratio"):
        assert row["ratio"] == pytest.approx(math.exp(statistics.mean(expected)))
    else:
        assert np.isnan(row["ratio"])


@pytest.mark.parametrize(("identity", "figure"), ORACLES)
def test_a_statistic_does_not_depend_on_the_order_of_rows(results, identity, figure):
    # Layers keep their order within a network; networks may finish in any order.
    tables = {}
    for name, table in results.tables.items():
        networks = list(table.groupby([*RUN_COLUMNS, *(c for c in ("phase",) if c in table)]))
        order = np.random.default_rng(0).permutation(len(networks))
        tables[name] = pd.concat([networks[i][1] for i in order], ignore_index=True)
    expected = claim(identity, figure).values(results).sort_index()
    found = claim(identity, figure).values(Results(results.preset, tables)).sort_index()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# ---- worlds in which the paper is right, and wrong ----


def world(sign):
    """Every claim holds, for sign +1, and its opposite, for sign -1."""

    def value(experiment, quantity, phase, metric, layer):
        kind, seed = experiment.downsampling, experiment.seed
        depth = LAYERS if quantity == "sensitivity" else KERNELS + ["block1_downsample"] * 2
        depth = list(depth).index(layer) if layer in depth else 0
        trained, pooled = phase == "trained", kind in POOLING
        # Two kinds of each study stand in between, so that kinds are spread in every layer.
        offset = {"max": -1.0, "average": -0.8, "subsample": 0.8, "strided": 0.9}.get(kind, 1.0)
        noise = 0.01 * seed
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
        size = {"true_labels": 0.01, "random_labels": 0.3}[experiment.task]
        if sign < 0:
            size = {"true_labels": 1.0, "random_labels": 0.01}[experiment.task]
        deeper = 0.02 if experiment.study == "main" else -0.02
        return math.exp(log - sign * 0.5 + size * offset + sign * deeper * depth)

    return value


@pytest.mark.parametrize(("sign", "verdict"), [(1, "reproduced"), (-1, "not reproduced")])
def test_the_verdicts_know_a_world_that_is_as_claimed_from_its_opposite(sign, verdict):
    table = claims.evaluate(made_results(small_preset(), world(sign)))
    wrong = table[table["verdict"] != verdict]
    assert wrong.empty, wrong[["claim", "figure", "value", "low", "high", "verdict"]].to_string()
    assert (table["note"] == "").all()


# ---- the rule ----


def evaluate_one(monkeypatch, values, results, **bounds):
    series = pd.Series(values, dtype=float)
    one = claims.Claim("id", "sentence", "1", "statistic", lambda results: series, **bounds)
    monkeypatch.setattr(claims, "CLAIMS", (one,))
    return claims.evaluate(results).iloc[0]


@pytest.mark.parametrize(
    ("values", "bounds", "verdict"),
    [
        ([1.0, 1.1, 1.2], {"above": 0}, "reproduced"),
        ([-1.0, -1.1, -1.2], {"above": 0}, "not reproduced"),
        ([-1.0, 1.1, 1.2], {"above": 0}, "inconclusive"),
        ([1.0, 1.1, 1.2], {"below": 0}, "not reproduced"),
        ([-1.0, -1.1, -1.2], {"below": 0}, "reproduced"),
        ([0.5, 2.0], {"above": 0}, "inconclusive"),  # both above, their interval is not
        ([0.0, 0.0, 0.0], {"above": 0}, "inconclusive"),  # on the bound is on no side
        ([0.01, 0.02, 0.015], {"below": 0.05}, "reproduced"),  # inside a margin
        ([0.2, 0.21, 0.19], {"below": 0.05}, "not reproduced"),  # outside
        ([0.045, 0.05, 0.04], {"below": 0.05}, "inconclusive"),  # over it
        ([0.0, 0.01, -0.01], {"above": -1, "below": 1}, "reproduced"),
        ([2.0, 2.01, 2.02], {"above": -1, "below": 1}, "not reproduced"),
        ([-2.0, -2.01, -2.02], {"above": -1, "below": 1}, "not reproduced"),
        ([0.9, 1.0, 1.1], {"above": -1, "below": 1}, "inconclusive"),
        ([-5.0, 0.0, 5.0], {"above": -1, "below": 1}, "inconclusive"),
        ([1.0, np.nan, 1.1, 1.2], {"above": 0}, "reproduced"),  # a seed that has no number
        ([1.0], {"above": 0}, "inconclusive"),
        ([1.0, np.nan], {"above": 0}, "inconclusive"),
        ([], {"above": 0}, "not tested"),
        ([np.nan, np.nan], {"above": 0}, "not tested"),
    ],
)
def test_the_verdict_follows_the_interval(monkeypatch, results, values, bounds, verdict):
    row = evaluate_one(monkeypatch, values, results, **bounds)
    assert row["verdict"] == verdict
    finite = [value for value in values if np.isfinite(value)]
    assert row["seeds"] == len(finite)
    if len(finite) > 1 and np.ptp(finite) > 0:
        interval = stats.ttest_1samp(finite, 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    if len(finite) == 1:
        assert row["value"] == 1
        assert np.isnan([row["low"], row["high"]]).all()
        assert "one seed" in row["note"]
    if verdict in ("inconclusive", "not tested"):
        assert row["note"]


def with_gap(gap, study="main", task="true_labels", kind="max", seed=1):
    """Results in which one network's accuracies differ by so much."""
    results = made_results(small_preset())
    table = results.tables["training"]
    which = {"study": study, "task": task, "downsampling": kind, "seed": seed}
    chosen = np.logical_and.reduce([table[column] == value for column, value in which.items()])
    assert chosen.any()
    table.loc[~chosen, "accuracy_train"] = table.loc[~chosen, "accuracy_batch_statistics"]
    table.loc[chosen, "accuracy_batch_statistics"] = 0.5
    table.loc[chosen, "accuracy_train"] = 0.5 + gap
    return results


@pytest.mark.parametrize("sign", [1, -1])
def test_networks_whose_accuracies_differ_by_over_5_percent_carry_no_verdict(monkeypatch, sign):
    trained = {"above": 0, "trained": (("main", "true_labels"),)}
    row = evaluate_one(monkeypatch, [1.0, 1.1, 1.2], with_gap(0.06 * sign), **trained)
    assert row["verdict"] == "not tested"
    assert "0.06" in row["note"]
    assert row["value"] == pytest.approx(1.1)  # the number itself is still shown
    row = evaluate_one(monkeypatch, [1.0, 1.1, 1.2], with_gap(0.04 * sign), **trained)
    assert row["verdict"] == "reproduced"
    for elsewhere in (("main", "random_labels"), ("large", "true_labels")):
        elsewhere = with_gap(0.06 * sign, *elsewhere)
        assert evaluate_one(monkeypatch, [1.0, 1.1, 1.2], elsewhere, **trained)["verdict"] == (
            "reproduced"
        )
    row = evaluate_one(monkeypatch, [], with_gap(0.06 * sign), **trained)
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


@pytest.mark.parametrize(
    ("where", "concerned"),
    [
        (("main", "true_labels", "max"), TRUE),
        (
            ("main", "random_labels", "strided"),
            {("labels-decide-smoothness", "4c"), ("labels-decide-stability", "5b")},
        ),
        (("large", "true_labels", "max"), {("depth-trend", "4a")}),
        (("tasks", "deformed_classes", "max"), {("stronger-task-smoother", "3b")}),
    ],
)
def test_the_gap_concerns_every_claim_about_trained_networks_and_no_other(where, concerned):
    table = claims.evaluate(with_gap(0.2, *where))
    untested = table[table["verdict"] == "not tested"]
    assert set(zip(untested["claim"], untested["figure"])) == concerned


# ---- what is missing ----


@pytest.mark.parametrize("tables", [{}, {"sensitivity": pd.DataFrame()}])
def test_without_runs_nothing_is_tested(tables):
    table = claims.evaluate(Results(small_preset(), tables))
    assert set(table["verdict"]) == {"not tested"}
    assert (table["seeds"] == 0).all()
    assert table[["value", "low", "high"]].isna().all(axis=None)
    assert (table["note"] != "").all()


@pytest.mark.parametrize(
    ("studies", "tested"),
    [
        (("filters",), {"5a"}),
        (("tasks",), {"3b"}),
        (("large",), {"2a", "4a"}),
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
    table = claims.evaluate(made_results(small_preset(**changes)))
    assert set(table[table["verdict"] == "not tested"]["claim"]) == untested


def test_one_seed_has_no_verdict():
    table = claims.evaluate(made_results(small_preset(seeds=1)))
    assert set(table["verdict"]) == {"inconclusive"}
    assert table["value"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)


# ---- layers that cannot be measured ----


def test_a_layer_that_was_measured_once_only_is_no_change():
    """A dead layer (a constant representation is NaN) must not pass for an effect of training."""

    def value(experiment, quantity, phase, metric, layer):
        if quantity == "smoothness":
            return 1.8
        if phase == "trained" and layer == "block4_downsample":
            return np.nan
        return 0.1 * 2 ** LAYERS.index(layer) * (1 + experiment.seed)

    results = made_results(small_preset(), value, studies=("main",))
    values = claim("training-changes-stability", "2d").values(results)
    np.testing.assert_allclose(values, 0, atol=1e-12)


def test_a_layer_that_one_kind_cannot_measure_is_no_difference_between_kinds():
    def value(experiment, quantity, phase, metric, layer):
        if quantity == "smoothness":
            return 1.8
        if experiment.downsampling == "max" and layer == "block4_downsample":
            return np.nan
        return 0.1 * 2 ** LAYERS.index(layer)

    results = made_results(small_preset(), value, studies=("main",))
    values = claim("pooling-stabilizes-init", "2c").values(results)
    np.testing.assert_allclose(values, 0, atol=1e-12)


def test_a_network_that_diverged_takes_no_claim_down():
    def value(experiment, quantity, phase, metric, layer):
        diverged = (experiment.downsampling, experiment.seed, phase) == ("strided", 1, "trained")
        return np.nan if diverged else drawn(experiment, quantity, phase, metric, layer)

    table = claims.evaluate(made_results(small_preset(), value))
    assert len(table) == len(claims.CLAIMS)
    assert table["value"].notna().all()
