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
from deformstab.paper.verdicts import statistics_of_errors, statistics_of_training
from deformstab.paper.verdicts.questions import STATISTICS, questions
from deformstab.paper.verdicts.questions_of_errors import OF_ERRORS
from deformstab.paper.verdicts.questions_of_training import OF_TRAINING
from deformstab.paper.verdicts.result_tables import Results

POOLING, WITHOUT = ("max", "average"), ("subsample", "strided", "strided_relu")
KINDS = (*WITHOUT, *POOLING)
LAYERS = ("input", "block1_conv1_relu", "block1_downsample", "block2_conv1_relu")
EARLY, LATE = LAYERS[1:3], LAYERS[3:]
PHASES, WITHIN, METRICS = ("initial", "trained"), ("rms", "box"), ("cosine", "euclidean")
STEPS = {0: "initial", 1: "tracked", 4: "tracked", 6: "tracked", 15: "trained"}  # 5 an epoch
SIZES = (20, 40, 80)
# R of other deformations and metrics is another: who takes these sees it.
THEIRS = ("diffeomorphism", "euclidean")
OTHERWISE = {("spline", "euclidean"): 1.7, ("diffeomorphism", "cosine"): 2.3}
OUTCOME = {"fits": True, "accuracy_train": 0.99, "accuracy_batch_statistics": 0.995}
OUTCOME |= {"epochs": 3, "steps": 15}


DEEP = LAYERS[1:]


def shared(seed):
    """What all logs of a seed have, and no difference has."""
    return 0.5 * math.sin(3.0 * seed)


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
            return shared(seed) + effect(of[0], kind, *of[1:]) + noise * rng.normal()

        for phase, within, layer in itertools.product(PHASES, WITHIN, (*LAYERS, "prediction")):
            mean = math.exp(log("mean", phase, layer))
            ratio = math.exp(log("worst", phase, layer) if layer in DEEP else shared(seed))
            predicts, baseline = layer == "prediction", 10.0 ** KINDS.index(kind)
            row = {"phase": phase, "within": within, "layer": layer, "mean": mean * baseline}
            row |= {"worst": mean * ratio * baseline, "mean_sensitivity": mean}
            row |= {"worst_sensitivity": mean * ratio, "search": mean * ratio, "best_of_k": mean}
            row |= {"layer_index": [*LAYERS, "prediction"].index(layer)}
            row |= {"ratio": np.nan if predicts else ratio}
            row |= {"unchanged": 0.5 if predicts else np.nan}
            row |= {"unchanged_by_chance": 0.75 if predicts else np.nan}
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
                other = OTHERWISE.get((family, metric), 1.0) ** (size / 40)
                row |= {"relative_stability": stability * other, "layer": "logits"}
                tables["logits"].append({**which, **row})
            outcome = {**OUTCOME, "train_images": size, "accuracy_test": 1 - error}
            tables["training"].append({**which, **outcome})
        # Networks of other questions, of the same kind, seed and size.
        other = {**OUTCOME, "train_images": 40, "accuracy_test": 0.01, "steps": 1000}
        tables["training"].append({**which, "part": "network", **other})
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


def test_eleven_statistics_decide():
    table = questions(made())[-len(OF_TRAINING) - len(OF_ERRORS) :]
    assert list(table.loc[table["decisive"], "question"]) == ["4"] * 5 + ["5"] * 4 + ["6"] * 2
    assert (table.loc[table["question"] != "6", "note"] == "").all()
    assert (table.loc[table["question"] == "6", "note"] == "networks of 20, 40, 80 images").all()
    assert (table["seeds"] == 5).all()


def test_statistics_of_the_worst_by_plain_loops():
    results = made(noise=0.3)
    rows, by_half = list(decisive(results)[:5].itertuples()), []
    for half, layers in enumerate((EARLY, LATE)):
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
                by_kind[kind] = plain.mean(logs["trained", layer] - image for layer in layers)
                change[kind] = plain.mean(
                    logs["trained", layer] - logs["initial", layer] for layer in layers
                )
            of_layers.append(plain.mean(by_kind.values()))
            of_training.append(plain.mean(change.values()))
            of_kinds.append(
                plain.mean(by_kind[kind] for kind in POOLING)
                - plain.mean(by_kind[kind] for kind in WITHOUT)
            )
        check_row(rows[half], of_layers)
        check_row(rows[2 + half], of_training)
        by_half.append(of_kinds)
    # Of all layers: two are early, one is late.
    check_row(rows[4], [(2 * early + late) / 3 for early, late in zip(*by_half)])


def test_statistics_of_moving_by_plain_loops():
    results = made(noise=0.3)
    rows = decisive(results)[5:9].itertuples()
    asked = itertools.product(("stays", "moves_with"), (EARLY, LATE))
    for row, (column, layers) in zip(rows, asked, strict=True):
        values = []
        for seed in range(5):
            changes = [
                math.log(values_of(results, "moving", f"{column}_euclidean", *of, step=15))
                - math.log(values_of(results, "moving", f"{column}_euclidean", *of, step=0))
                for of in itertools.product([seed], KINDS, layers)
            ]
            values.append(plain.mean(changes))
        check_row(row, values)


def test_the_two_parts_of_training_are_the_whole():
    results = made(noise=0.3)
    whole, first, rest = (
        statistics_of_training.moving("ratio_euclidean", "late", POOLING, period)(results)
        for period in (
            *(statistics_of_training.WHOLE, statistics_of_training.FIRST),
            statistics_of_training.REST,
        )
    )
    np.testing.assert_allclose(first + rest, whole)
    expected = plain.mean(
        math.log(values_of(results, "moving", "ratio_euclidean", *of, step=4))
        - math.log(values_of(results, "moving", "ratio_euclidean", *of, step=0))
        for of in itertools.product([2], POOLING, LATE)
    )
    assert first[2] == pytest.approx(expected)


def points_of(results, seed):
    """(log R, log error, kind, size) of the networks of a seed."""
    logits, training = results.tables["question_logits"], results.tables["question_training"]
    points = []
    for row in logits.itertuples():
        if (row.family, row.metric, row.seed) != (*THEIRS, seed):
            continue
        (accuracy,) = (
            one.accuracy_test
            for one in training.itertuples()
            if (one.part, one.seed, one.downsampling, one.train_images)
            == (row.part, seed, row.downsampling, row.train_images)
        )
        point = math.log(row.relative_stability), math.log(1 - accuracy)
        points.append((*point, row.downsampling, row.train_images))
    assert len(points) == 15
    return points


def test_statistics_of_the_law_by_plain_loops():
    results = made(noise=0.1)
    slope, misfit = decisive(results)[9:].itertuples()
    slopes, misfits, factors, lines, within, between = [], [], [], [], [], []
    for seed in range(5):
        points = points_of(results, seed)
        x, y, kinds, _ = zip(*points)
        line = stats.linregress(x, y)
        slopes.append(line.slope)
        residuals = [y - math.log(0.2) - 0.5 * x for x, y, *_ in points]
        misfits.append(math.sqrt(plain.mean(r**2 for r in residuals)))
        factors.append(plain.mean(residuals))
        off = [y - line.intercept - line.slope * x for x, y, *_ in points]
        lines.append(math.sqrt(plain.mean(r**2 for r in off)))
        of = {kind: [p[:2] for p in points if p[2] == kind] for kind in dict.fromkeys(kinds)}
        centres = {kind: tuple(map(plain.mean, zip(*rows))) for kind, rows in of.items()}
        moved = [(a - centres[k][0], b - centres[k][1]) for a, b, k, _ in points]
        within.append(stats.linregress(*zip(*moved)).slope)
        between.append(stats.linregress(*zip(*centres.values())).slope)
    check_row(slope, slopes, ratios=False)
    check_row(misfit, misfits)
    found = statistics_of_errors
    np.testing.assert_allclose(found.factor(*THEIRS)(results), factors)
    np.testing.assert_allclose(found.misfit(*THEIRS, own_line=True)(results), lines)
    np.testing.assert_allclose(found.slope(*THEIRS, "sizes")(results), within)
    np.testing.assert_allclose(found.slope(*THEIRS, "kinds")(results), between)


def test_kinds_that_miss_the_law_on_both_sides_do_not_follow_it():
    """Their mean does, and the slope."""
    off = dict(zip(KINDS, (1.6, 1.6, 1, 1 / 1.6, 1 / 1.6)))
    results = made(noise=0.001)
    training = results.tables["question_training"]
    error = (1 - training["accuracy_test"]) * training["downsampling"].map(off)
    training["accuracy_test"] = 1 - error
    found = decisive(results)
    assert np.exp(statistics_of_errors.factor(*THEIRS)(results).mean()) == pytest.approx(
        1, rel=0.01
    )
    assert found["verdict"][10] == "no"


THREE = [(-0.3, 0), (-math.log(1.1), None), (0.0, 1), (math.log(1.1), None), (0.3, 2)]


def told(verdicts, place):
    return "undecided" if place is None else verdicts[place]


@pytest.mark.parametrize(("size", "place"), THREE)
def test_verdicts_of_the_worst(size, place):
    def late(table, kind, phase, layer):
        return size * (table == "worst" and phase == "trained" and layer in LATE)

    def of_pooling(table, kind, phase, layer):
        return size * (table == "worst" and kind in POOLING)

    found = decisive(made(late))["verdict"]
    assert (found[0], found[2], found[4]) == ("by as much", "neither", "alike")
    assert found[1] == told(("by less", "by as much", "by more"), place)
    assert found[3] == told(("closer together", "neither", "further apart"), place)
    assert decisive(made(of_pooling))["verdict"][4] == told(("better", "alike", "worse"), place)


@pytest.mark.parametrize(("size", "place"), THREE)
@pytest.mark.parametrize("column", ["moves_with", "stays"])
def test_verdicts_of_moving(size, place, column):
    """Each distance has its own verdict: a layer may do both, or neither."""

    def effect(table, kind, phase, layer):
        return size * (table == column and phase == "trained" and layer in EARLY)

    found = decisive(made(effect))["verdict"][5:9].tolist()
    verdicts = {
        "stays": ("to ignore it", "neither", "to change more"),
        "moves_with": ("to move with it", "neither", "to move with it less"),
    }
    place_of = 0 if column == "stays" else 2
    assert found.pop(place_of) == told(verdicts[column], place)
    assert found == ["neither"] * 3


@pytest.mark.parametrize(
    ("slope", "factor", "verdicts"),
    [
        (0.5, 1.0, ("the root", "to within 25 %")),
        (0.2, 1.5, ("less than the root", "no")),
        (-0.2, 0.5, ("less than the root", "no")),
        (0.9, 1.25, ("more than the root", None)),
    ],
)
def test_verdicts_of_the_law(slope, factor, verdicts):
    found = decisive(made(slope=slope, factor=factor))["verdict"]
    assert found[9] == verdicts[0]
    if verdicts[1]:
        assert found[10] == verdicts[1]


def test_shares_ranks_searches_and_transfer():
    """Context, by numbers that are known."""

    def effect(table, kind, phase, layer):
        # Worst distances rank kinds the other way round than mean ones.
        order = KINDS.index(kind)
        return {"mean": order, "worst": -2.0 * order}.get(table, 0.0)

    results = made(effect, noise=0.0)
    table = questions(results)
    found = table.set_index(["what", "condition"])["value"]
    ranks = found.xs("rank correlation of kinds by worst and by mean sensitivity")
    np.testing.assert_allclose(ranks, -1)
    share = found.xs("share of answers that stay under the worst")
    np.testing.assert_allclose(share, 0.5)
    share = found.xs("share of answers that stay under the best random draw")
    np.testing.assert_allclose(share, 0.75)
    (moved,) = found.xs("distance by other layers' worst deformations / by its own")
    np.testing.assert_allclose(moved, 0.25)
    results = made(noise=0.0, effect=lambda table, *_: 1.5 * (table == "worst"))
    gain = statistics_of_training.search("trained", "rms")(results)
    np.testing.assert_allclose(gain, [shared(seed) + 1.5 for seed in range(5)])


def test_a_seed_without_one_of_the_kinds_has_no_rank():
    results = made()
    table = results.tables["question_worst"]
    lacks = (table["seed"] == 2) & (table["downsampling"] == "strided")
    results.tables["question_worst"] = table[~lacks]
    assert list(statistics_of_training.ranks("trained", "rms")(results).index) == [0, 1, 3, 4]


def test_numbers_of_images_that_a_seed_or_kind_lacks():
    results = made(noise=0.1)
    logits = results.tables["question_logits"]
    most, fewest, every = (
        statistics_of_errors.factor(*THEIRS, sizes)
        for sizes in ("the most images", "the fewest images", "all numbers of images")
    )

    def without(lacks):
        results.tables["question_logits"] = logits[~lacks & (logits["family"] == THEIRS[0])]
        return statistics_of_errors.errors(results, *THEIRS)

    size, seed, kind = (logits[name] for name in ("train_images", "seed", "downsampling"))
    # One network of a seed: without the seed, as long as others have all.
    found = without((size == 80) & (seed == 3) & (kind == "max"))
    assert (set(found["seed"]), set(found["train_images"])) == ({0, 1, 2, 4}, {20, 40, 80})
    # One of most seeds: without the number of images.
    found = without((size == 80) & (seed > 1) & (kind == "max"))
    assert (set(found["seed"]), set(found["train_images"])) == ({0, 1, 2, 3, 4}, {20, 40})
    np.testing.assert_allclose((most(results) + fewest(results)) / 2, every(results))
    note = decisive(results)["note"][9]
    assert note == "networks of 20, 40 images"
    # A seed of which little is there does not take anything from the others.
    assert len(without((seed == 4) & ((size != 40) | (kind != "max")))) == 4 * 15
    # One that could not be measured is as good as missing.
    found = without(seed < 0)
    broken = (size == 20) & (seed == 0) & (kind == "max")
    results.tables["question_logits"].loc[broken, "relative_stability"] = np.nan
    assert set(statistics_of_errors.errors(results, *THEIRS)["seed"]) == {1, 2, 3, 4}
    # Of one number of images there is no slope.
    assert len(without(size != 40)) == 0
    assert decisive(results)["note"][9].startswith("the runs it needs are missing")


def test_a_layer_without_a_map_counts_in_none_of_its_seed():
    results = made(noise=0.3)
    table = results.tables["question_moving"]
    one = (table["seed"] == 1) & (table["layer"] == DEEP[0])
    columns = ["ratio_euclidean", "moves_with_euclidean"]
    table.loc[one & (table["downsampling"] == "max"), columns] = np.nan
    whole = statistics_of_training.moving("ratio_euclidean", "", POOLING)
    first = whole(results)
    table.loc[one & (table["downsampling"] == "average"), columns] = np.nan
    pd.testing.assert_series_equal(first, whole(results))
    assert len(first) == 5


def test_p_values_are_adjusted_with_those_that_lack_their_runs():
    results = made(lambda table, *_: 0.12 * (table == "worst"), noise=0.15)
    found = decisive(results)
    expected = []
    for each in (*OF_TRAINING, *OF_ERRORS):
        if each.decisive:
            values = each.values(results).to_numpy()
            bounds = np.log(each.rule.bounds) if each.rule.ratios else np.array(each.rule.bounds)
            p = [stats.ttest_1samp(values, bound).pvalue for bound in bounds]
            place = int((values.mean() > bounds).sum())
            expected.append(max(p[max(place - 1, 0) : place + 1]))
    np.testing.assert_allclose(found["p"], holm([*[1.0] * 8, *expected])[8:])


def test_networks_that_are_not_to_be_trusted_decide_nothing():
    results = made()
    training = results.tables["question_training"]
    training.loc[training["part"] == "sized", "accuracy_batch_statistics"] = 0.9
    found = decisive(results)
    assert (found["verdict"][:9] != "undecided").all()
    assert (found["verdict"][9:] == "undecided").all()
    assert found["note"][9:].str.contains("in inference differ by 0.090").all()


@pytest.mark.parametrize("target", ["4", "5", "6"])
def test_the_figure_shows_the_tables(target):
    results = made()
    table = questions(results)
    table = table[(table["question"] == target) & table["decisive"]]
    table = table[~table["what"].str.contains("[Ss]lope")]
    assert len(table) > 0
    plot = figure.plot(results, target)
    first, second, below = plot.axes
    (inner,) = below.child_axes
    points = [line.get_xdata()[0] for line in inner.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, table["value"])
    if target == "6":
        dots = [each.get_offsets() for each in first.collections]
        expected = statistics_of_errors.errors(results, *THEIRS)
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
    if target == "5":
        rows = results.tables["question_moving"]
        rows = rows[(rows["downsampling"] == "max") & rows["layer"].isin(DEEP)]
        stays = {
            phase: rows[rows["phase"] == phase].set_index(["seed", "layer_index"])[
                "stays_euclidean"
            ]
            for phase in ("initial", "trained")
        }
        expected = (stays["trained"] / stays["initial"]).groupby("layer_index").mean()
        lines = [line.get_ydata() for line in first.lines]
        assert any(len(each) == len(expected) and np.allclose(each, expected) for each in lines)
    caption = figure.caption(results, target)
    assert f"{75 if target == '6' else 25} networks of 5 seeds" in caption
    assert ("Slope of log error against log R: 0.5" in caption) == (target == "6")
    assert ("over layers" in caption) == (target != "6")
    style.plt.close(plot)


def test_the_section_tells_bounds_that_are_not_the_usual_ones():
    results = made()
    lines = questions_page.section(results, questions(results))
    bounds = {
        line.split("?")[0][len("**Question 6.** ") :]: line.split("?")[1]
        for line in lines
        if line.startswith("**Question")
    }
    told = {question: text for question, text in bounds.items() if text}
    assert sorted(told.values()) == [" (Bounds: 0.333 and 0.667.)", " (Bounds: 1.25.)"]
    assert all("0.2 · √R" in question or "root" in question for question in told)
    for size in (20, 80):
        assert any(line.startswith(f"| sized | max | 5 | {size} |") for line in lines)


def test_kinds_that_were_not_run_are_told():
    results = made()
    tables = {
        name: table[table["downsampling"].isin(["max", "strided"])]
        for name, table in results.tables.items()
    }
    found = decisive(dataclasses.replace(results, tables=tables))
    assert (found["note"][:9] == "of strided, max only").all()
    assert found["note"][9:].str.startswith("of strided, max only").all()
