"""What claims are judged by: each statistic against a plain loop over rows; spreads by simulation."""

import math
import statistics
import zlib

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_result_tables import KERNELS, LAYERS, RUN_COLUMNS, drawn, made_results, small_preset

from deformstab.measurement.intervals import mean_p_value, ratio_interval
from deformstab.networks.downsampling import PAPER_KINDS
from deformstab.paper.verdicts import claims
from deformstab.paper.verdicts.result_tables import Results
from deformstab.paper.verdicts.statistics import variance_between_kinds

MEASURED = LAYERS[1:]  # the input is no layer of the network
POOLING, OTHERS = ("max", "average"), ("subsample", "strided", "strided_relu")
SEEDS = (0, 1, 2, 3)
RATIOS_OF_SPREADS = (
    ("kinds-converge", "2d"),
    ("smoothness-converges", "4b"),
    ("labels-decide-smoothness", "4c"),
    ("labels-decide-stability", "5b"),
)


def plausible(experiment, quantity, phase, metric, layer):
    """`drawn`, but mostly what the kind does, in every seed: there is something to find."""
    text = repr((experiment.downsampling, experiment.task, quantity, phase, layer))
    of_kind = np.random.default_rng(zlib.crc32(text.encode())).normal()
    return drawn(experiment, quantity, phase, metric, layer) ** 0.2 * math.exp(0.5 * of_kind)


@pytest.fixture(scope="module")
def results():
    studies = ("main", "large", "tasks", "filters")
    return made_results(small_preset(seeds=len(SEEDS)), plausible, studies)


def claim(identity, figure):
    (found,) = [each for each in claims.CLAIMS if (each.id, each.figure) == (identity, figure)]
    return found


# ---- oracles: plain loops over rows ----


class Rows:
    """The rows of made-up tables; one number a condition, or an error."""

    def __init__(self, results):
        self.found = {}
        for quantity in ("sensitivity", "smoothness"):
            for row in results.tables[quantity].to_dict("records"):
                self.found.setdefault((quantity, row["layer"], row["seed"]), []).append(row)

    def only(self, quantity, layer, seed, condition):
        rows = self.found[quantity, layer, seed]
        rows = [row for row in rows if all(row[k] == v for k, v in condition.items())]
        assert len(rows) == 1, condition
        return rows[0][quantity]

    def sensitivity(self, layer, seed, metric="cosine", task="true_labels", **condition):
        return self.only("sensitivity", layer, seed, condition | {"metric": metric, "task": task})

    def smoothness(self, layer, seed, task="true_labels", **condition):
        return self.only("smoothness", layer, seed, condition | {"task": task})


def log_summary(number, layers, **condition):
    return statistics.mean(math.log(number(layer, **condition)) for layer in layers)


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
    for kind in PAPER_KINDS:
        which = {"study": "main", "downsampling": kind, "seed": seed}
        trained = log_summary(rows.smoothness, KERNELS, phase="trained", **which)
        changes.append(trained - log_summary(rows.smoothness, KERNELS, phase="initial", **which))
    return changes


def depth_trend(rows, seed, study, kinds):
    slopes = []
    for kind in kinds:
        which = {"study": study, "phase": "trained", "downsampling": kind, "seed": seed}
        logs = [math.log(rows.smoothness(layer, **which)) for layer in KERNELS]
        slopes.append(slope(range(len(KERNELS)), logs))
    return statistics.mean(slopes)


def euclidean_agrees(rows, seed):
    pairs = [[], []]
    for phase in ("initial", "trained"):
        for kind in PAPER_KINDS:
            which = {"study": "main", "phase": phase, "downsampling": kind, "seed": seed}
            for layer in MEASURED:
                for values, metric in zip(pairs, ("cosine", "euclidean")):
                    values.append(rows.sensitivity(layer, metric=metric, **which))
    return math.atanh(scipy.stats.spearmanr(*pairs).statistic)


def init_smoothness(rows, seed):
    which = {"phase": "initial", "seed": seed}
    networks = [{"study": "main", "downsampling": kind} for kind in PAPER_KINDS]
    networks += [{"study": "large", "downsampling": kind} for kind in ("max", "strided_relu")]
    return max(
        abs(rows.smoothness(layer, **network, **which) / 1.87 - 1)
        for layer in KERNELS
        for network in networks
    )


def pairs_of_different(seeds):
    return [(one, other) for one in seeds for other in seeds if one != other]


def pseudo_values(estimate, seeds):
    """What each seed adds to an estimate from all of them: by doing without it."""
    whole, count = estimate(seeds), len(seeds)
    without = [estimate([each for each in seeds if each != left_out]) for left_out in seeds]
    return [count * whole - (count - 1) * each for each in without]


def variances(number, layers, seeds, **condition):
    """The pseudo-values of the variance between kinds."""
    deviations = {}
    for seed in seeds:
        for layer in layers:
            logs = [
                math.log(number(layer, seed=seed, downsampling=kind, **condition))
                for kind in PAPER_KINDS
            ]
            deviations[seed, layer] = [log - statistics.mean(logs) for log in logs]

    def estimate(some):
        by_layer = []
        for layer in layers:
            products = []
            for one, other in pairs_of_different(some):
                both = zip(deviations[one, layer], deviations[other, layer])
                products.append(sum(a * b for a, b in both) / (len(PAPER_KINDS) - 1))
            by_layer.append(statistics.mean(products))
        return statistics.mean(by_layer)

    return pseudo_values(estimate, seeds)


def kinds_converge(rows, seeds):
    phases = [
        variances(rows.sensitivity, MEASURED, seeds, study="main", phase=phase)
        for phase in ("trained", "initial")
    ]
    return list(zip(*phases))


def smoothness_converges(rows, seeds):
    apart = variances(rows.smoothness, KERNELS, seeds, study="main", phase="trained")
    change = {seed: statistics.mean(smoothness_changes(rows, seed)) for seed in seeds}
    squared = lambda some: statistics.mean(
        change[one] * change[other] for one, other in pairs_of_different(some)
    )
    return list(zip(apart, pseudo_values(squared, seeds)))


def labels_decide(rows, seeds, number, layers):
    labels = [
        variances(number, layers, seeds, study="main", phase="trained", task=task)
        for task in ("random_labels", "true_labels")
    ]
    return list(zip(*labels))


def of_each(statistic, *more):
    return lambda rows, seeds: [statistic(rows, seed, *more) for seed in seeds]


ORACLES = {
    ("pooling-stabilizes-init", "2c"): of_each(pooling_init, "main", POOLING, OTHERS),
    ("pooling-stabilizes-init", "2a"): of_each(pooling_init, "large", ["max"], ["strided_relu"]),
    ("training-changes-stability", "2d"): of_each(pooling_increases),
    ("kinds-converge", "2d"): kinds_converge,
    ("smooth-filters-stabilize", "5a"): of_each(smooth_filters),
    ("stronger-task-smoother", "3b"): of_each(stronger_tasks),
    ("training-smooths", "4b"): of_each(lambda r, seed: max(smoothness_changes(r, seed))),
    ("smoothness-converges", "4b"): smoothness_converges,
    ("depth-trend", "4b"): of_each(depth_trend, "main", PAPER_KINDS),
    ("depth-trend", "4a"): of_each(depth_trend, "large", ["max", "strided_relu"]),
    ("labels-decide-smoothness", "4c"): lambda r, s: labels_decide(r, s, r.smoothness, KERNELS),
    ("labels-decide-stability", "5b"): lambda r, s: labels_decide(r, s, r.sensitivity, MEASURED),
    ("euclidean-agrees", "text"): of_each(euclidean_agrees),
    ("init-smoothness-constant", "text"): of_each(init_smoothness),
}


def test_every_claim_has_an_oracle():
    assert {(each.id, each.figure) for each in claims.CLAIMS} == set(ORACLES)


@pytest.mark.parametrize(("identity", "figure"), ORACLES)
def test_a_statistic_is_what_a_plain_loop_gives(results, identity, figure):
    expected = ORACLES[identity, figure](Rows(results), SEEDS)
    values = claim(identity, figure).values(results)
    np.testing.assert_allclose(values.loc[list(SEEDS)], expected, rtol=1e-9, atol=1e-12)
    assert len(values) == len(SEEDS)
    assert (values.ndim == 2) == ((identity, figure) in RATIOS_OF_SPREADS)


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


# ---- layers and networks that cannot be measured ----


def unaltered(experiment, quantity, phase, metric, layer):
    """No kind differs from another, no phase from the other; layers and seeds do."""
    return 1.8 if quantity == "smoothness" else 0.1 * 2 ** LAYERS.index(layer) + experiment.seed


def test_a_layer_that_was_measured_once_only_is_no_change():
    """A dead layer (a constant representation is NaN) must not pass for an effect of training."""

    def value(experiment, quantity, phase, metric, layer):
        dead = phase == "trained" and layer == "block4_downsample"
        return np.nan if dead else unaltered(experiment, quantity, phase, metric, layer)

    results = made_results(small_preset(), value, studies=("main",))
    values = claim("training-changes-stability", "2d").values(results)
    np.testing.assert_allclose(values, 0, atol=1e-12)


def test_a_layer_that_one_kind_cannot_measure_is_no_difference_between_kinds():
    def value(experiment, quantity, phase, metric, layer):
        dead = experiment.downsampling == "max" and layer == "block4_downsample"
        return np.nan if dead else unaltered(experiment, quantity, phase, metric, layer)

    results = made_results(small_preset(), value, studies=("main",))
    values = claim("pooling-stabilizes-init", "2c").values(results)
    np.testing.assert_allclose(values, 0, atol=1e-12)


def without(results, **condition):
    """The results without the rows of a layer, a seed, …"""
    tables = {}
    for name, table in results.tables.items():
        columns = [column for column in condition if column in table]
        if columns == list(condition):
            gone = np.logical_and.reduce([table[c] == condition[c] for c in columns])
            table = table[~gone]
        tables[name] = table.reset_index(drop=True)
    return Results(results.preset, tables)


def unmeasured(results, **condition):
    """The results with NaN for the measurements of a condition."""
    tables = {name: table.copy() for name, table in results.tables.items()}
    for quantity in ("sensitivity", "smoothness"):
        table = tables[quantity]
        chosen = np.logical_and.reduce([table[c] == value for c, value in condition.items()])
        table.loc[chosen, quantity] = np.nan
    return Results(results.preset, tables)


NETWORK = {"study": "main", "task": "true_labels", "downsampling": "strided", "seed": 1}
TRAINED = {**NETWORK, "phase": "trained"}


@pytest.mark.parametrize("phase", ["initial", "trained"])
@pytest.mark.parametrize(("identity", "figure"), RATIOS_OF_SPREADS)
def test_a_layer_that_is_dead_in_one_network_is_left_out_of_spreads_altogether(
    results, identity, figure, phase
):
    # Out of its network or its phase only, spreads of different layers would be compared.
    layer = "block3_conv1_relu" if figure in ("2d", "5b") else "block3_conv1"
    values = claim(identity, figure).values
    found = values(unmeasured(results, **{**NETWORK, "phase": phase}, layer=layer))
    if identity.startswith("labels") and phase == "initial":  # both of its sides are trained
        pd.testing.assert_frame_equal(found, values(results))
    else:
        pd.testing.assert_frame_equal(found, values(without(results, layer=layer)))


@pytest.mark.parametrize(("identity", "figure"), RATIOS_OF_SPREADS)
def test_spreads_leave_out_the_seed_of_a_network_that_diverged(results, identity, figure):
    values = claim(identity, figure).values
    found = values(unmeasured(results, **TRAINED))
    assert list(found.index) == [0, 2, 3]
    pd.testing.assert_frame_equal(found, values(without(results, seed=1)))


@pytest.mark.parametrize("study", ["main", "large", "tasks", "filters"])
def test_a_seed_whose_networks_are_not_all_there_is_in_no_claim(results, study):
    """Runs go seed after seed: stopped early, the last one has fewer networks, of other kinds."""
    last = {"study": study, "seed": 3}
    rows = results.tables["smoothness"]
    rows = rows[rows["study"].eq(study) & rows["seed"].eq(3)]
    (*_, network) = (
        rows[["downsampling", "class_displacement", "sigma"]].drop_duplicates().to_dict("records")
    )
    left = without(results, **last, **{k: v for k, v in network.items() if v == v})
    assert 0 < len(left.tables["smoothness"].query("study == @study and seed == 3")) < len(rows)
    gone = without(results, **last)
    concerned = 0
    for each in claims.CLAIMS:
        found, expected = each.values(left), each.values(gone)
        concerned += not expected.equals(each.values(results))
        if each.id == "init-smoothness-constant" and study in ("main", "large"):
            assert 3 not in found.index
            continue
        testing = pd.testing
        same = testing.assert_frame_equal if expected.ndim > 1 else testing.assert_series_equal
        same(found, expected)
    assert concerned


def test_networks_that_diverged_cost_seeds_and_dead_layers_cost_layers(results):
    spoiled = unmeasured(results, **TRAINED)
    spoiled = unmeasured(spoiled, **TRAINED | {"seed": 2}, layer="block2_downsample")
    left = without(without(results, seed=1), layer="block2_downsample")
    values = claim("kinds-converge", "2d").values
    pd.testing.assert_frame_equal(values(spoiled), values(left))


def test_other_claims_leave_a_network_that_diverged_out_of_its_seed_only(results):
    lost = set()
    for each in claims.CLAIMS:
        if (each.id, each.figure) in RATIOS_OF_SPREADS:
            continue
        before, after = each.values(results), each.values(unmeasured(results, **TRAINED))
        pd.testing.assert_series_equal(after[[0, 2, 3]], before[[0, 2, 3]])
        if after.reindex([1]).isna().all():
            lost.add(each.id)
    # Those of all trained networks; of a correlation over pairs, most pairs are left.
    assert lost == {"training-changes-stability", "training-smooths", "depth-trend"}


@pytest.mark.parametrize(("identity", "figure"), RATIOS_OF_SPREADS)
def test_a_kind_that_diverged_in_every_seed_leaves_no_spread(results, identity, figure):
    everywhere = {name: value for name, value in TRAINED.items() if name != "seed"}
    assert claim(identity, figure).values(unmeasured(results, **everywhere)).empty


def test_metrics_that_rank_all_alike_agree_and_are_still_finite():
    for sign in (1, -1):
        same = lambda experiment, quantity, phase, metric, layer, sign=sign: (
            drawn(experiment, quantity, phase, None, layer)
            ** (sign if metric == "euclidean" else 1)
        )
        values = claim("euclidean-agrees", "text").values(
            made_results(small_preset(), same, studies=("main",))
        )
        np.testing.assert_allclose(np.tanh(values), sign, rtol=1e-8)
        assert np.isfinite(values).all()


# ---- the variance between kinds ----


def made_logs(rng, runs, spread, noise, layers, alike=0.0, seeds=5, kinds=5):
    """Logs of [runs, seeds, kinds, layers] whose variance between kinds is spread².

    Seeds move each kind by `noise`, and each layer of all kinds. `alike` is the correlation between
    layers, of what the kinds do and of the noise.
    """

    def draw(*shape):
        apart, common = rng.normal(size=(*shape, layers)), rng.normal(size=(*shape, 1))
        return math.sqrt(1 - alike) * apart + math.sqrt(alike) * common

    of_kinds = draw(kinds)
    of_kinds *= spread / math.sqrt(of_kinds.var(axis=0, ddof=1).mean())
    of_seeds = draw(runs, seeds, 1)
    return of_kinds + of_seeds + noise * draw(runs, seeds, kinds)


def frame(logs):
    """The logs of one run, as the package has them."""
    seeds, kinds, layers = logs.shape
    index = pd.MultiIndex.from_product(
        [range(seeds), PAPER_KINDS[:kinds], [0.0], [0.0]],
        names=["seed", "downsampling", "class_displacement", "sigma"],
    )
    return pd.DataFrame(logs.reshape(-1, layers), index=index)


def fast_variances(logs):
    """`variance_between_kinds` of many runs: [runs, seeds]."""
    runs, seeds, kinds, layers = logs.shape
    deviations = (logs - logs.mean(axis=2, keepdims=True)).reshape(runs, seeds, -1)
    products = deviations @ deviations.transpose(0, 2, 1) / ((kinds - 1) * layers)

    def estimate(some):
        pairs = pairs_of_different(some)
        return sum(products[:, one, other] for one, other in pairs) / len(pairs)

    return np.stack(pseudo_values(estimate, list(range(seeds))), axis=1)


@pytest.mark.parametrize(("seeds", "kinds", "layers"), [(3, 2, 1), (5, 5, 9), (10, 3, 12)])
def test_the_variance_of_the_package_is_that_of_the_simulations(seeds, kinds, layers):
    logs = made_logs(np.random.default_rng(0), 10, 1, 0.5, layers, seeds=seeds, kinds=kinds)
    for run, expected in zip(logs, fast_variances(logs)):
        found = variance_between_kinds(frame(run))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert list(found.index) == list(range(seeds))


def test_without_noise_it_is_the_variance():
    logs = np.random.default_rng(0).normal(size=(1, 5, 8)) + np.zeros((4, 1, 1))
    expected = [np.mean([statistics.variance(logs[0, :, layer]) for layer in range(8)])] * 4
    np.testing.assert_allclose(variance_between_kinds(frame(logs)), expected, rtol=1e-9)


def test_what_a_seed_does_to_all_kinds_is_no_variance_between_them():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(4, 5, 8))
    expected = variance_between_kinds(frame(logs))
    moved = variance_between_kinds(frame(logs + 100 * rng.normal(size=(4, 1, 8))))
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    np.testing.assert_allclose(variance_between_kinds(frame(3 * logs)), 9 * expected)


@pytest.mark.parametrize("seeds", [1, 2])
def test_under_three_seeds_have_no_variance_without_one_of_them(seeds):
    logs = np.random.default_rng(0).normal(size=(seeds, 5, 8))
    found = variance_between_kinds(frame(logs))
    assert len(found) == seeds
    assert found.isna().all()


RUNS = 4000


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_variance_between_seeds_is_left_out(spread, seeds):
    """Noise alone would show as a variance of noise²; its mean is what the kinds do, also if 0."""
    rng = np.random.default_rng(seeds)
    logs = made_logs(rng, RUNS, spread, 1.0, 10, alike=0.5, seeds=seeds)
    found = fast_variances(logs).mean(axis=1)
    naive = logs.var(axis=2, ddof=1).mean(axis=(1, 2))
    assert abs(found.mean() - spread**2) < 4 * found.std() / math.sqrt(RUNS)
    assert abs(naive.mean() - spread**2 - 1) < 4 * naive.std() / math.sqrt(RUNS)
    if spread == 0:  # not cut off at zero: that would be a bias
        assert 0.4 < (found < 0).mean() < 0.7


NOISE = [(0.05, 0.05), (0.3, 0.3), (1.0, 1.0), (0.3, 1.0), (1.0, 0.3)]


@pytest.mark.parametrize(("layers", "alike"), [(8, 0.0), (12, 0.5)])
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_coverage_of_a_ratio_of_spreads_and_false_verdicts_at_its_bound(
    bound, noise, layers, alike
):
    """Five seeds. The noise is in units of the spread, of the one above and of the one below.

    Of false verdicts, 2.5 % were due on each side; a variance is skewed where noise is as large as
    what is measured, and unequal noise puts up to 4 % on one of them.
    """
    rng = np.random.default_rng(layers)
    above = fast_variances(made_logs(rng, RUNS, bound, noise[0] * bound, layers, alike))
    below = fast_variances(made_logs(rng, RUNS, 1.0, noise[1], layers, alike))
    covered, wrong = 0, {-1: 0, 1: 0}
    for pair in zip(above, below):
        _, low, high = ratio_interval(*pair)
        covered += low <= bound**2 <= high
        away = pair[0] - bound**2 * pair[1]
        if mean_p_value(away) < 0.05:
            wrong[np.sign(away.mean())] += 1
    assert 0.94 - 2 * math.sqrt(0.94 * 0.06 / RUNS) < covered / RUNS < 0.985
    for count in wrong.values():
        assert count / RUNS < 0.04 + 2 * math.sqrt(0.04 * 0.96 / RUNS)


def test_noise_alone_is_hardly_ever_a_difference_of_spreads():
    """Where no kind does anything, before or after, there are fewer false verdicts, not more."""
    rng = np.random.default_rng(0)
    above, below = (
        fast_variances(made_logs(rng, RUNS, 0.0, noise, 10, 0.5)) for noise in (1.0, 0.5)
    )
    for bound in (0.5, 1.0):
        wrong = sum(mean_p_value(away) < 0.05 for away in above - bound**2 * below)
        assert wrong / RUNS < 0.05


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_spreads_that_differ_clearly_are_found(noise):
    """Half of the bound, or twice of it."""
    rng = np.random.default_rng(1)
    below = fast_variances(made_logs(rng, 500, 1.0, noise, 10, 0.5))
    for spread in (0.25, 1.0):
        above = fast_variances(made_logs(rng, 500, spread, noise, 10, 0.5))
        away = above - 0.5**2 * below
        found = [mean_p_value(each) < 0.05 for each in away]
        assert np.mean(found & (np.sign(away.mean(axis=1)) == np.sign(spread - 0.5))) > 0.9
