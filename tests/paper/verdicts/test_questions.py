"""The rules of questions 1 to 3: from made-up tables, by plain arithmetic, every verdict."""

import dataclasses
import functools
import itertools
import math
import statistics as plain

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_result_tables import small_preset

from deformstab.measurement.intervals import holm
from deformstab.paper.figures import questions as figure
from deformstab.paper.figures import style
from deformstab.paper.pages import questions_page
from deformstab.paper.questions.shifts import CHANGES
from deformstab.paper.verdicts import questions as rules
from deformstab.paper.verdicts.question_tables import WITHOUT_POOLING
from deformstab.paper.verdicts.questions import STATISTICS, questions
from deformstab.paper.verdicts.questions_of_stability import EXACT_SHIFTS, OF_STABILITY
from deformstab.paper.verdicts.result_tables import Results

KINDS = ("subsample", "max", "average", "strided", "strided_relu")
CIRCULAR = ("subsample", "max", "average", "blur", "aps", "max_aps")
LAYERS = ("input", "block1_conv1_relu", "block1_downsample", "logits")
CONVOLUTIONS = ("block1_conv1", "block1_conv2", "block2_conv1")
METRICS = ("cosine", "euclidean")
DECIDES = ("initial", "re-estimated", "gaussian")


@functools.cache
def rows_of_all(seeds):
    """Every row of every table, without its number."""
    names = ("noise", "shifts", "consistency", "shuffles", "training")
    tables = {f"question_{name}": [] for name in names}
    both = ("initial", "trained")
    for seed, kind in itertools.product(range(seeds), KINDS):
        which = {"part": "network", "downsampling": kind, "seed": seed}
        options = both, ("re-estimated", "moving averages"), ("gaussian", "spectrum")
        for phase, mode, of, metric, layer in itertools.product(*options, METRICS, LAYERS):
            row = {"phase": phase, "statistics": mode, "noise": of, "metric": metric}
            row |= {"layer": layer, "layer_index": LAYERS.index(layer)}
            tables["question_noise"].append({**which, **row})
        options = CONVOLUTIONS, ("channels", "taps"), range(2)
        for layer, shuffle, number in itertools.product(*options):
            row = {"layer": layer, "layer_index": CONVOLUTIONS.index(layer)}
            row |= {"shuffle": shuffle, "permutation": number}
            tables["question_shuffles"].append({**which, **row})
        tables["question_training"].append({**which, **OUTCOME})
    for seed, kind in itertools.product(range(seeds), CIRCULAR):
        which = {"part": "circular", "downsampling": kind, "seed": seed}
        for phase, change, metric, layer in itertools.product(both, CHANGES, METRICS, LAYERS):
            row = {"phase": phase, "change": change[0], "outside": change[1], "metric": metric}
            row |= {"layer": layer, "layer_index": LAYERS.index(layer)}
            tables["question_shifts"].append({**which, **row})
        for phase in both:
            row = {"phase": phase, "consistency": 0.9 if "aps" not in kind else 1.0}
            tables["question_consistency"].append({**which, **row})
        tables["question_training"].append({**which, **OUTCOME})
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def made(effects=None, seeds=5, noise=0.01, rng=0):
    """Tables in which a log is what its seed has, the effect of its kind, and noise.

    Args:
        effects: (table, kind), or (table, kind, shuffle) → the effect.
    """
    rng = np.random.default_rng(rng)
    tables = {name: frame.copy() for name, frame in rows_of_all(seeds).items()}
    numbers = {"noise": "relative_stability", "shifts": "sensitivity", "shuffles": "ratio"}
    for name, column in numbers.items():
        frame = tables[f"question_{name}"]
        logs = 0.5 * np.sin(3.0 * frame["seed"]) + noise * rng.normal(size=len(frame))
        for (where, kind, *shuffle), effect in (effects or {}).items():
            chosen = (frame["downsampling"] == kind) & (where == name)
            if shuffle and name == "shuffles":
                chosen &= frame["shuffle"] == shuffle[0]
            logs += effect * chosen
        # What rules must not look at is far off.
        logs += frame["layer"].isin(["input", "logits"]) * rng.normal(4, 2, len(frame))
        frame[column] = np.exp(logs)
    return Results(small_preset(stop_accuracy=0.99), tables)


OUTCOME = {
    **{"fits": True, "accuracy_train": 0.99, "accuracy_batch_statistics": 0.995, "epochs": 3},
    **{"accuracy_test": 0.6, "train_images": 40},
}


def row_of(table, what, condition):
    rows = table[table["what"].str.contains(what, regex=False) & (table["condition"] == condition)]
    assert len(rows) == 1
    return rows.iloc[0]


def decisive(results):
    """The rows that decide alone, of these questions: the others take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "STATISTICS", [each for each in STATISTICS if each.decisive])
        return questions(results).query("question in ['1', '2', '3']")


NOISE = "initial, {}, Gaussian noise, re-estimated"
NAMES = {"cosine": "cosine", "euclidean": "squared Euclidean"}
SHIFTS = "trained, cosine, edges repeated"
TAPS = "taps shuffled / with channels shuffled, without pooling"


def test_eight_statistics_decide_and_no_two_rows_are_of_one_thing():
    table = questions(made())
    assert len(table) == len(STATISTICS)
    assert not table.duplicated(["what", "condition"]).any()
    table = table[: len(OF_STABILITY)]
    assert table["decisive"].sum() == 8
    assert list(table[table["decisive"]]["question"].value_counts().sort_index()) == [4, 2, 2]
    assert table.loc[~table["decisive"], ["p"]].isna().all().all()
    assert (table.loc[~table["decisive"], "verdict"] == "").all()
    assert set(table.loc[table["decisive"], "condition"]) == {
        *(NOISE.format(name) for name in NAMES.values()),
        *(SHIFTS, "trained, cosine"),
    }
    assert (table["note"] == "").all()


def test_a_statistic_of_noise_by_plain_loops():
    results = made(noise=0.3)
    table, found = results.tables["question_noise"], decisive(results)
    named = ["phase", "statistics", "noise"]
    table = table[table[named].agg(tuple, axis=1) == DECIDES]
    for kind, metric in itertools.product(("max", "average"), METRICS):
        values = []
        for seed in range(5):
            means = {}
            for each in KINDS:
                logs = [
                    math.log(row.relative_stability)
                    for row in table.itertuples()
                    if (row.seed, row.downsampling, row.metric) == (seed, each, metric)
                    and row.layer not in ("input", "logits")
                ]
                assert len(logs) == 2
                means[each] = sum(logs) / 2
            values.append(means[kind] - sum(means[name] for name in WITHOUT_POOLING) / 3)
        check_row(row_of(found, f"R, {kind} ", NOISE.format(NAMES[metric])), values)


def test_a_statistic_of_shifts_by_plain_loops():
    results = made(noise=0.3)
    table, found = results.tables["question_shifts"], decisive(results)
    which = ("beyond_translation", "edge", "cosine", "trained")
    named = ["change", "outside", "metric", "phase"]
    table = table[table[named].agg(tuple, axis=1) == which]
    for kind, reference in (("aps", "subsample"), ("max_aps", "max")):
        values = []
        for seed in range(5):
            logs = {kind: [], reference: []}
            for row in table.itertuples():
                counts = row.layer not in ("input", "logits") and row.downsampling in logs
                if counts and row.seed == seed:
                    logs[row.downsampling].append(math.log(row.sensitivity))
            values.append(plain.mean(logs[kind]) - plain.mean(logs[reference]))
        what = f"without their translation, {kind} / {reference}"
        check_row(row_of(found, what, SHIFTS), values)


def test_statistics_of_shuffles_by_plain_loops():
    results = made(noise=0.3)
    table = results.tables["question_shuffles"]
    without, both = [], []
    for seed in range(5):
        by_kind = {}
        for kind in KINDS:
            logs = {"taps": [], "channels": []}
            for row in table.itertuples():
                if (row.seed, row.downsampling) == (seed, kind):
                    logs[row.shuffle].append(math.log(row.ratio))
            by_kind[kind] = plain.mean(logs["taps"]) - plain.mean(logs["channels"])
        without.append(plain.mean(by_kind[kind] for kind in WITHOUT_POOLING))
        both.append(without[-1] - plain.mean(by_kind[kind] for kind in ("max", "average")))
    found = decisive(results)
    found = found[found["question"] == "3"]
    for row, values in zip(found.itertuples(), (without, both), strict=True):
        check_row(row, values)


def check_row(row, values):
    mean, half = plain.mean(values), stats.t.ppf(0.975, 4) * plain.stdev(values) / math.sqrt(5)
    expected = [math.exp(each) for each in (mean, mean - half, mean + half)]
    np.testing.assert_allclose([row.value, row.low, row.high], expected)
    assert row.seeds == 5


MARGIN = math.log(1.1)


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [
        *((-0.3, "stability to deformation"), (-0.15, "stability to deformation")),
        *((-MARGIN, "undecided"), (-0.03, "smoothing"), (0.0, "smoothing"), (0.5, "smoothing")),
    ],
)
def test_what_pooling_gives(effect, verdict):
    effects = {("noise", kind): effect for kind in ("max", "average")}
    found = decisive(made(effects))
    assert list(found[found["question"] == "1"]["verdict"]) == [verdict] * 4


THREE = [(-0.3, 0), (-MARGIN, None), (0.0, 1), (0.05, 1), (MARGIN, None), (0.3, 2)]


@pytest.mark.parametrize(("effect", "place"), THREE)
def test_what_exact_shifts_buy(effect, place):
    verdicts = ("buys it", "does neither", "costs it")
    effects = {("shifts", kind): effect for kind in ("aps", "max_aps")}
    found = decisive(made(effects))
    verdict = "undecided" if place is None else verdicts[place]
    assert list(found[found["question"] == "2"]["verdict"]) == [verdict] * 2


@pytest.mark.parametrize(("effect", "place"), THREE)
def test_smooth_filters_or_pairs_of_channels(effect, place):
    """The taps count; of all kinds alike there is no interaction."""
    effects = {("shuffles", kind, "taps"): effect for kind in KINDS}
    first, second = decisive(made(effects))["verdict"].iloc[-2:]
    names = ("pairing of channels", "both alike", "smooth filters")
    assert first == ("undecided" if place is None else names[place])
    assert second == "alike"


@pytest.mark.parametrize(("effect", "place"), THREE)
def test_whether_that_is_more_so_without_pooling(effect, place):
    effects = {("shuffles", kind, "channels"): effect for kind in ("max", "average")}
    names = ("less without pooling", "alike", "more without pooling")
    row = decisive(made(effects)).iloc[-1]
    assert row["verdict"] == ("undecided" if place is None else names[place])
    assert row["asks"] == "Is that so more without pooling than with it?"


def test_scatter_over_seeds_and_few_seeds_leave_it_open():
    effects = {("noise", "max"): -0.3, ("shifts", "aps"): 0.3}
    assert set(decisive(made(effects, noise=3.0))["verdict"]) == {"undecided"}
    found = decisive(made(effects, seeds=2))
    assert set(found["verdict"]) == {"undecided"}
    assert found["note"].str.contains("too few seeds").all()
    assert (found["p"] == 1).all()
    assert "undecided" not in set(decisive(made(effects, seeds=3, noise=1e-4))["verdict"])


def test_the_p_values_are_those_of_the_region_s_bounds_adjusted_for_all():
    rng = np.random.default_rng(3)
    effects = {("noise", "max"): -0.25, ("shifts", "aps"): 0.02, ("shuffles", "max", "taps"): 0.12}
    results = made(effects, noise=0.15, rng=rng)
    expected = []
    for each in OF_STABILITY:
        if each.decisive:
            values = each.values(results).to_numpy()
            bounds = [-MARGIN] if each.rule.question == "1" else [-MARGIN, MARGIN]
            by_bound = [stats.ttest_1samp(values, bound).pvalue for bound in bounds]
            inside = len(bounds) == 2 and abs(values.mean()) < MARGIN
            beyond = by_bound[-1] if values.mean() > MARGIN else by_bound[0]
            expected.append(max(by_bound) if inside else beyond)
    found = decisive(results)
    # Of the eleven of questions 4 to 6 there are no runs: they count all the same.
    np.testing.assert_allclose(found["p"], holm([*expected, *[1.0] * 11])[:8])
    assert (found["p"] > 19 * min(expected) - 1e-12).all()


def test_an_interval_that_is_clear_alone_is_undecided_after_holm():
    rule, values = EXACT_SHIFTS, np.log(1.3) + 0.09 * np.array([-1, -0.5, 0, 0.5, 1])
    p = rule.p_value(values)
    assert p < 0.05
    assert rule.verdict(values, p) == "costs it"
    assert rule.verdict(values, 0.051) == "undecided"
    assert rule.verdict(np.log([1.3, 1.3001]), 1e-9) == "undecided"


def test_runs_that_are_missing_count_in_holm_s_number():
    results = made({("noise", "max"): -0.3}, noise=0.02)
    whole = decisive(results)["p"].to_numpy()
    for name in ("question_shifts", "question_shuffles"):
        results.tables[name] = pd.DataFrame()
    found = decisive(results)
    assert (found["p"].to_numpy() >= whole - 1e-15).all()
    assert (found["p"].iloc[4:] == 1).all()
    assert (found["verdict"].iloc[4:] == "undecided").all()
    assert found["note"].iloc[4:].str.startswith("the runs it needs are missing").all()


def test_a_layer_that_one_network_cannot_measure_counts_in_none_of_its_seed():
    results = made(noise=0.3)
    table = results.tables["question_noise"]
    broken = (table["seed"] == 2) & (table["layer"] == "block1_downsample")
    all_broken = broken & table["downsampling"].isin(["max", *WITHOUT_POOLING])
    table.loc[broken & (table["downsampling"] == "strided"), "relative_stability"] = np.nan
    one = decisive(results)
    table.loc[all_broken, "relative_stability"] = np.nan
    other = decisive(results)
    rows = [row_of(each, "R, max ", NOISE.format("cosine")) for each in (one, other)]
    assert rows[0]["seeds"] == 5
    assert rows[0]["value"] == pytest.approx(rows[1]["value"])


def test_a_seed_without_one_of_the_kinds_is_still_to_come():
    results = made(noise=0.3)
    table = results.tables["question_shifts"]
    lacks = (table["seed"] == 4) & (table["downsampling"] == "subsample")
    results.tables["question_shifts"] = table[~lacks]
    found = decisive(results)
    assert row_of(found, "translation, aps / subsample", SHIFTS)["seeds"] == 4
    assert row_of(found, "translation, max_aps / max", SHIFTS)["seeds"] == 5


def test_networks_that_are_not_to_be_trusted_decide_nothing_and_are_told():
    effects = {("shifts", "aps"): 0.3, ("noise", "max"): -0.3}
    results = made(effects)
    training = results.tables["question_training"]
    circular = (training["part"] == "circular") & (training["downsampling"] == "aps")
    training.loc[circular, "accuracy_batch_statistics"] = 0.9
    training.loc[circular, "fits"] = False
    found = decisive(results)
    row = row_of(found, "translation, aps / subsample", SHIFTS)
    assert row["verdict"] == "undecided"
    assert "5 of 10 networks stopped before they fitted" in row["note"]
    assert "in inference differ by 0.090" in row["note"]
    assert row_of(found, "translation, max_aps / max", SHIFTS)["note"] == ""
    # What is asked before training does not depend on it.
    training["accuracy_batch_statistics"] = 0.5
    row = row_of(decisive(results), "R, max ", NOISE.format("cosine"))
    assert (row["verdict"], row["note"]) == ("stability to deformation", "")


def test_kinds_that_were_not_run_are_told():
    results = made()
    tables = {
        name: table[table["downsampling"].isin(["max", "strided", "aps"])]
        for name, table in results.tables.items()
    }
    found = decisive(dataclasses.replace(results, tables=tables))
    assert row_of(found, "R, max ", NOISE.format("cosine"))["note"] == "of max, strided only"
    assert row_of(found, "R, average ", NOISE.format("cosine"))["seeds"] == 0
    assert row_of(found, "translation, aps / subsample", SHIFTS)["seeds"] == 0


def test_nothing_is_said_without_runs():
    empty = Results(small_preset(), {})
    assert len(questions(empty)) == 0
    assert questions_page.section(empty, questions(empty)) == []
    for target in figure.TITLES:
        plot = figure.plot(empty, target)
        assert [axis.texts[0].get_text() for axis in plot.axes] == ["not run"] * 3
        assert figure.caption(empty, target)
        style.plt.close(plot)


def test_the_section_tells_every_row_that_there_is():
    results = made({("noise", "max"): -0.3})
    table = questions(results)
    lines = questions_page.section(results, table)
    cells = [line for line in lines if line.startswith("| ")]
    # Of what was trained; of each rule that decides, of those that lack their runs as well.
    heads = 1 + 4 + 7
    shown = (table["decisive"] | (table["seeds"] > 0)).sum()
    assert len(cells) == shown + 11 + heads
    assert sum("**stability to deformation**" in line for line in lines) == 2
    assert "| network | max | 5 | 40 | 3 | 0.990 | 0.600 |" in lines
    one = row_of(table, "R, max ", NOISE.format("cosine"))
    (line,) = (line for line in lines if one["what"] in line and one["condition"] in line)
    assert f"{one['value']:.4g} ({one['low']:.4g} to {one['high']:.4g}) | 5 |" in line


@pytest.mark.parametrize("target", ["1", "2", "3"])
def test_the_figure_shows_the_tables(target, monkeypatch):
    results = made({("noise", "max"): -0.3})
    whole = questions(results)
    monkeypatch.setattr(figure, "questions", lambda of: whole if of is results else None)
    table = whole[(whole["question"] == target) & whole["decisive"]]
    assert 0 < len(table) < (whole["question"] == target).sum()
    plot = figure.plot(results, target)
    first, second, below = plot.axes
    assert first.get_title(loc="left").startswith("(a)")
    (inner,) = below.child_axes
    points = [line.get_xdata()[0] for line in inner.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, table["value"])
    verdicts = [text.get_text() for text in inner.texts]
    assert verdicts == list(table["verdict"])
    labels = [label.get_text() for label in inner.get_yticklabels()]
    assert labels == [f"{row.what}\n{row.condition}" for row in table.itertuples()]
    name, column, which = {
        "1": ("question_noise", "relative_stability", (("metric", "euclidean"),)),
        "2": ("question_shifts", "sensitivity", (("change", "whole pixel"),)),
        "3": ("question_shuffles", "ratio", (("shuffle", "taps"),)),
    }[target]
    rows = results.tables[name]
    wanted = {"phase": "initial", "statistics": "re-estimated", "noise": "gaussian"}
    wanted = wanted if target == "1" else {"phase": "trained", "metric": "cosine"}
    for key, value in (*which, *wanted.items(), ("downsampling", "max")):
        rows = rows[rows[key] == value] if key in rows else rows
    rows = rows[~rows["layer"].isin(["input", "logits"])]
    expected = rows.groupby("layer_index")[column].mean()
    assert any(
        len(line.get_ydata()) == len(expected) and np.allclose(line.get_ydata(), expected)
        for line in second.lines
    )
    assert first.get_ylim() == second.get_ylim()
    caption = figure.caption(results, target)
    asked = {each for each in set(whole["asks"]) if each in caption}
    assert asked == set(table["asks"])  # no question that the figure does not show
    count = 30 if target == "2" else 25
    assert f"{count} networks of 5 seeds, 40 training images" in caption
    style.plt.close(plot)
