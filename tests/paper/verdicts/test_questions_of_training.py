"""The rules of questions 4 to 6: from made-up tables, by plain arithmetic, every verdict."""

import dataclasses
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
from deformstab.paper.verdicts import questions as rules
from deformstab.paper.verdicts import statistics_of_training
from deformstab.paper.verdicts.questions import STATISTICS, questions
from deformstab.paper.verdicts.questions_of_training import OF_TRAINING
from deformstab.paper.verdicts.result_tables import Results

POOLING, WITHOUT = ("max", "average"), ("subsample", "strided", "strided_relu")
KINDS = (*WITHOUT, *POOLING)
LAYERS = ("input", "block1_conv1_relu", "block1_downsample")
DEEP = LAYERS[1:]
PHASES, WITHIN, METRICS = ("initial", "trained"), ("rms", "box"), ("cosine", "euclidean")
STEPS = {0: "initial", 1: "tracked", 4: "tracked", 6: "tracked", 15: "trained"}  # 5 an epoch
SIZES = (20, 40, 80)
OUTCOME = {"fits": True, "accuracy_train": 0.99, "accuracy_batch_statistics": 0.995}
OUTCOME |= {"epochs": 3, "steps": 15}


def made(effect=None, seeds=5, noise=0.01, slope=0.5, factor=1.0, rng=0):
    """Tables of the runs of questions 4 to 6.

    Args:
        effect: (table, kind, phase, layer) → what is added to the logs there.
        slope, factor: of the errors: factor · 0.2 · R^slope.
    """
    rng = np.random.default_rng(rng)
    effect = effect or (lambda *_: 0.0)
    tables = {name: [] for name in ("worst", "transfer", "moving", "logits", "training")}
    for seed, kind in itertools.product(range(seeds), KINDS):
        which = {"part": "followed", "downsampling": kind, "seed": seed}

        def log(*of, seed=seed, kind=kind):
            return 0.5 * math.sin(3.0 * seed) + effect(of[0], kind, *of[1:]) + noise * rng.normal()

        for phase, within, layer in itertools.product(PHASES, WITHIN, (*LAYERS, "prediction")):
            mean = math.exp(log("mean", phase, layer))
            ratio = (
                math.exp(log("worst", phase, layer))
                if layer != "input"
                else math.exp(0.5 * math.sin(3.0 * seed))
            )
            row = {"phase": phase, "within": within, "layer": layer, "mean": mean, "ratio": ratio}
            row |= {"worst": mean * ratio, "search": mean * ratio, "best_of_k": mean}
            row |= {"layer_index": [*LAYERS, "prediction"].index(layer)}
            predicts = layer == "prediction"
            row |= {"unchanged": 0.5 if predicts else np.nan}
            row |= {"unchanged_by_chance": 0.75 if predicts else np.nan}
            if predicts:
                row["ratio"] = np.nan
            tables["worst"].append({**which, **row})
        for source, layer in itertools.product((*LAYERS, "prediction"), LAYERS):
            row = {"source": source, "layer": layer, "layer_index": LAYERS.index(layer)}
            own = 4.0 if source == layer else 1.0
            tables["transfer"].append({**which, **row, "distance": own, "unchanged": 0.5})
        for (step, phase), layer in itertools.product(STEPS.items(), LAYERS):
            row = {"phase": phase, "step": step, "layer": layer, "accuracy_train": 0.5}
            row |= {"layer_index": LAYERS.index(layer)}
            for metric in METRICS:
                row[f"moves_with_{metric}"] = math.exp(log("moves_with", phase, layer))
                row[f"stays_{metric}"] = math.exp(log("stays", phase, layer))
                ratio = row[f"moves_with_{metric}"] / row[f"stays_{metric}"]
                row[f"ratio_{metric}"] = ratio
            tables["moving"].append({**which, **row})
        for size in SIZES:
            part = "followed" if size == 40 else "sized"
            which = {"part": part, "downsampling": kind, "seed": seed}
            # Of each kind another R: a slope has more than three points.
            stability = 0.5 * (size / 40) ** -0.5 * (1 + 0.1 * KINDS.index(kind))
            error = factor * 0.2 * stability**slope * math.exp(noise * rng.normal())
            for family, metric in itertools.product(("spline", "diffeomorphism"), METRICS):
                row = {"family": family, "metric": metric, "train_images": size}
                row |= {"relative_stability": stability, "layer": "logits"}
                tables["logits"].append({**which, **row})
            outcome = {**OUTCOME, "train_images": size, "accuracy_test": 1 - error}
            tables["training"].append({**which, **outcome})
    frames = {f"question_{name}": pd.DataFrame(rows) for name, rows in tables.items()}
    return Results(small_preset(stop_accuracy=0.99), frames)


def decisive(results):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "STATISTICS", [each for each in STATISTICS if each.decisive])
        return questions(results).query("question in ['4', '5', '6']").reset_index(drop=True)


def check_row(row, values, ratios=True):
    mean, half = plain.mean(values), stats.t.ppf(0.975, 4) * plain.stdev(values) / math.sqrt(5)
    expected = [mean, mean - half, mean + half]
    expected = [math.exp(each) for each in expected] if ratios else expected
    np.testing.assert_allclose([row.value, row.low, row.high], expected)
    assert row.seeds == 5


def values_of(results, name, column, seed, kind, layer, **which):
    table = results.tables[f"question_{name}"]
    for key, value in {"seed": seed, "downsampling": kind, "layer": layer, **which}.items():
        table = table[table[key] == value]
    return table[column].item()


def test_seven_statistics_decide():
    table = questions(made())[-len(OF_TRAINING) :]
    assert list(table.loc[table["decisive"], "question"]) == ["4"] * 3 + ["5"] * 2 + ["6"] * 2
    assert (table["note"] == "").all()
    assert (table["seeds"] == 5).all()


def test_statistics_of_the_worst_by_plain_loops():
    results = made(noise=0.3)
    first, second, third = decisive(results)[:3].itertuples()
    of_layers, of_training, of_kinds = [], [], []
    for seed in range(5):
        by_kind, change = {}, {}
        for kind in KINDS:
            logs = {
                (phase, layer): math.log(
                    values_of(
                        results, "worst", "ratio", seed, kind, layer, phase=phase, within="rms"
                    )
                )
                for phase in PHASES
                for layer in LAYERS
            }
            image = logs["trained", "input"]
            by_kind[kind] = plain.mean(logs["trained", layer] - image for layer in DEEP)
            change[kind] = plain.mean(
                logs["trained", layer] - logs["initial", layer] for layer in DEEP
            )
        of_layers.append(plain.mean(by_kind.values()))
        of_training.append(plain.mean(change.values()))
        of_kinds.append(
            plain.mean(by_kind[kind] for kind in POOLING)
            - plain.mean(by_kind[kind] for kind in WITHOUT)
        )
    check_row(first, of_layers)
    check_row(second, of_training)
    check_row(third, of_kinds)


def test_statistics_of_moving_by_plain_loops():
    results = made(noise=0.3)
    rows = decisive(results)[3:5].itertuples()
    for row, kinds in zip(rows, (WITHOUT, POOLING), strict=True):
        values = []
        for seed in range(5):
            changes = [
                math.log(values_of(results, "moving", "ratio_euclidean", *of, step=15))
                - math.log(values_of(results, "moving", "ratio_euclidean", *of, step=0))
                for of in itertools.product([seed], kinds, DEEP)
            ]
            values.append(plain.mean(changes))
        check_row(row, values)


def test_the_two_parts_of_training_are_the_whole():
    results = made(noise=0.3)
    whole, first, then = (
        statistics_of_training.moving("ratio_euclidean", POOLING, period)(results)
        for period in (
            *(statistics_of_training.WHOLE, statistics_of_training.FIRST_EPOCH),
            statistics_of_training.AFTERWARDS,
        )
    )
    np.testing.assert_allclose(first + then, whole)
    expected = plain.mean(
        math.log(values_of(results, "moving", "ratio_euclidean", *of, step=4))
        - math.log(values_of(results, "moving", "ratio_euclidean", *of, step=0))
        for of in itertools.product([2], POOLING, DEEP)
    )
    assert first[2] == pytest.approx(expected)


def test_statistics_of_the_law_by_plain_loops():
    results = made(noise=0.1)
    slope, law = decisive(results)[5:].itertuples()
    logits, training = results.tables["question_logits"], results.tables["question_training"]
    slopes, factors = [], []
    for seed in range(5):
        points = []
        for row in logits.itertuples():
            of = row.family, row.metric, row.seed
            if of != ("diffeomorphism", "euclidean", seed):
                continue
            (accuracy,) = (
                one.accuracy_test
                for one in training.itertuples()
                if (one.seed, one.downsampling, one.train_images)
                == (seed, row.downsampling, row.train_images)
            )
            points.append((math.log(row.relative_stability), math.log(1 - accuracy)))
        assert len(points) == 15
        slopes.append(stats.linregress(*zip(*points)).slope)
        factors.append(plain.mean(y - math.log(0.2) - 0.5 * x for x, y in points))
    check_row(slope, slopes, ratios=False)
    check_row(law, factors)


THREE = [(-0.3, 0), (-math.log(1.1), None), (0.0, 1), (math.log(1.1), None), (0.3, 2)]


@pytest.mark.parametrize(("size", "place"), THREE)
def test_verdicts_of_the_worst(size, place):
    def everywhere(table, kind, phase, layer):
        return size * (table == "worst" and phase == "trained")

    def of_pooling(table, kind, phase, layer):
        return size * (table == "worst" and kind in POOLING)

    def told(rule):
        return "undecided" if place is None else rule[place]

    found = decisive(made(everywhere))["verdict"]
    assert found[0] == told(("by less", "by as much", "by more"))
    assert found[1] == told(("closer together", "neither", "further apart"))
    assert found[2] == "alike"
    assert decisive(made(of_pooling))["verdict"][2] == told(("better", "alike", "worse"))


@pytest.mark.parametrize(("size", "place"), THREE)
@pytest.mark.parametrize("column", ["moves_with", "stays"])
def test_verdicts_of_moving(size, place, column):
    """Less distance to the map that moves along is as good as more to the one that stays."""
    sign = 1 if column == "moves_with" else -1

    def effect(table, kind, phase, layer):
        return sign * size * (table == column and phase == "trained" and kind in POOLING)

    verdicts = ("to move with it", "neither", "to ignore it")
    found = decisive(made(effect))["verdict"]
    assert found[3] == "neither"
    assert found[4] == ("undecided" if place is None else verdicts[place])


@pytest.mark.parametrize(
    ("slope", "factor", "verdicts"),
    [
        (0.5, 1.0, ("the root", "as the law says")),
        (0.2, 1.5, ("less than the root", "larger")),
        (-0.2, 0.5, ("less than the root", "smaller")),
        (0.9, 1.25, ("more than the root", None)),
    ],
)
def test_verdicts_of_the_law(slope, factor, verdicts):
    found = decisive(made(slope=slope, factor=factor))["verdict"]
    assert found[5] == verdicts[0]
    if verdicts[1]:
        assert found[6] == verdicts[1]


def test_shares_ranks_searches_and_transfer():
    """Context, by numbers that are known."""

    def effect(table, kind, phase, layer):
        # Worst distances rank kinds the other way round than mean ones.
        order = KINDS.index(kind)
        return {"mean": order, "worst": -2.0 * order}.get(table, 0.0)

    results = made(effect, noise=0.0)
    table = questions(results)
    found = table.set_index(["what", "condition"])["value"]
    ranks = found.xs("rank correlation of kinds by worst and by mean")
    np.testing.assert_allclose(ranks, -1)
    share = found.xs("share of answers that stay under the worst")
    np.testing.assert_allclose(share, 0.5)
    share = found.xs("share of answers that stay under the best random draw")
    np.testing.assert_allclose(share, 0.75)
    (moved,) = found.xs("distance by other layers' worst deformations / by its own")
    np.testing.assert_allclose(moved, 0.25)
    results = made(noise=0.0, effect=lambda table, *_: 1.5 * (table == "worst"))
    gain = statistics_of_training.search("trained", "rms")(results)
    np.testing.assert_allclose(gain, 0.5 * np.sin(3.0 * np.arange(5)) + 1.5)


def test_numbers_of_images_that_a_seed_or_kind_lacks_count_in_none():
    results = made(noise=0.1)
    logits = results.tables["question_logits"]
    lacks = (logits["train_images"] == 80) & (logits["seed"] == 3)
    results.tables["question_logits"] = logits[~(lacks & (logits["downsampling"] == "max"))]
    found = statistics_of_training.errors(results, "diffeomorphism", "euclidean")
    assert set(found["train_images"]) == {20, 40}
    assert len(found) == 2 * 25
    most = statistics_of_training.law_factor("diffeomorphism", "euclidean", "the most images")
    fewest = statistics_of_training.law_factor("diffeomorphism", "euclidean", "the fewest images")
    both = statistics_of_training.law_factor("diffeomorphism", "euclidean")
    np.testing.assert_allclose((most(results) + fewest(results)) / 2, both(results))
    alone = logits[(logits["train_images"] == 40) & (logits["downsampling"] == "max")]
    results.tables["question_logits"] = alone
    assert len(statistics_of_training.law_slope("diffeomorphism", "euclidean")(results)) == 0


def test_a_layer_without_a_map_counts_in_none_of_its_seed():
    results = made(noise=0.3)
    table = results.tables["question_moving"]
    one = (table["seed"] == 1) & (table["layer"] == DEEP[0])
    columns = ["ratio_euclidean", "moves_with_euclidean"]
    table.loc[one & (table["downsampling"] == "max"), columns] = np.nan
    whole = statistics_of_training.moving("ratio_euclidean", POOLING)
    first = whole(results)
    table.loc[one & (table["downsampling"] == "average"), columns] = np.nan
    pd.testing.assert_series_equal(first, whole(results))
    assert len(first) == 5


def test_p_values_are_adjusted_with_those_that_lack_their_runs():
    results = made(lambda table, *_: 0.12 * (table == "worst"), noise=0.15)
    found = decisive(results)
    expected = []
    for each in OF_TRAINING:
        if each.decisive:
            values = each.values(results).to_numpy()
            bounds = np.log(each.rule.bounds) if each.rule.ratios else each.rule.bounds
            p = [stats.ttest_1samp(values, bound).pvalue for bound in bounds]
            inside = bounds[0] < values.mean() < bounds[1]
            expected.append(max(p) if inside else p[int(values.mean() > bounds[1])])
    np.testing.assert_allclose(found["p"], holm([*[1.0] * 8, *expected])[8:])


def test_networks_that_are_not_to_be_trusted_decide_nothing():
    results = made()
    training = results.tables["question_training"]
    training.loc[training["part"] == "sized", "accuracy_batch_statistics"] = 0.9
    found = decisive(results)
    assert (found["verdict"][:5] != "undecided").all()
    assert (found["verdict"][5:] == "undecided").all()
    assert found["note"][5:].str.contains("in inference differ by 0.090").all()


@pytest.mark.parametrize("target", ["4", "5", "6"])
def test_the_figure_shows_the_tables(target):
    results = made()
    table = questions(results)
    shown = figure._of_question(results, target)
    assert set(shown["question"]) == {target}
    slopes = shown["what"].str.startswith("slope")
    assert slopes.sum() == (1 if target == "6" else 0)  # the one that decides
    plot = figure.plot(results, target)
    first, second, below = plot.axes
    (inner,) = below.child_axes
    points = [line.get_xdata()[0] for line in inner.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, shown["value"])
    if target == "6":
        dots = [each.get_offsets() for each in first.collections]
        expected = statistics_of_training.errors(results, "diffeomorphism", "euclidean")
        expected = expected[expected["downsampling"] == "max"]
        ends = expected[["relative_stability", "error"]].to_numpy()
        assert any(np.allclose(each, ends) for each in dots)
        (law,) = (line for line in first.lines if line.get_linestyle() == "--")
        np.testing.assert_allclose(law.get_ydata(), 0.2 * np.sqrt(law.get_xdata()))
        assert [label.get_text() for label in second.get_xticklabels()] == ["20", "40", "80"]
    else:
        name, column = {"4": ("worst", "ratio"), "5": ("moving", "ratio_euclidean")}[target]
        rows = results.tables[f"question_{name}"]
        rows = rows[(rows["phase"] == "trained") & (rows["downsampling"] == "max")]
        rows = rows[rows["within"] == "rms"] if "within" in rows else rows
        layers = LAYERS if target == "4" else DEEP
        rows = rows[rows["layer"].isin(layers)]
        expected = rows.groupby("layer_index")[column].mean()
        lines = [line.get_ydata() for line in second.lines]
        assert any(len(each) == len(expected) and np.allclose(each, expected) for each in lines)
    caption = figure.caption(results, target)
    assert f"{75 if target == '6' else 25} networks of 5 seeds" in caption
    style.plt.close(plot)
    assert table["what"].isin(shown["what"]).any()


def test_the_section_tells_bounds_that_are_not_the_usual_ones():
    results = made()
    lines = questions_page.section(results, questions(results))
    (law,) = (line for line in lines if line.startswith("**Question 6.** Is the error"))
    assert law == "**Question 6.** Is the error 0.2 · √R? (Bounds: 0.8 and 1.25.)"
    (slope,) = (line for line in lines if line.startswith("**Question 6.** Does the error"))
    assert slope.endswith("(Bounds: 0.333 and 0.667.)")
    (beside,) = (line for line in lines if line.startswith("**Question 4.** What do searches"))
    assert beside.endswith("alike?")
    for size in (20, 80):
        assert any(line.startswith(f"| sized | max | 5 | {size} |") for line in lines)


def test_kinds_that_were_not_run_are_told():
    results = made()
    tables = {
        name: table[table["downsampling"].isin(["max", "strided"])]
        for name, table in results.tables.items()
    }
    found = decisive(dataclasses.replace(results, tables=tables))
    assert (found["note"][[0, 1, 2, 5, 6]] == "of strided, max only").all()
