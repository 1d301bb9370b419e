"""The figures of networks while they train: what is drawn is what the tables say."""

import math
import statistics

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from test_figures import legend_texts, panels
from test_result_tables import KERNELS, LAYERS
from test_training_paths import loop_half_way, loop_paths, tracked_preset, tracked_results

from deformstab.paper.figures import style
from deformstab.paper.figures.catalogue import FIGURES
from deformstab.paper.verdicts import claims_by_choice, training_paths
from deformstab.paper.verdicts.result_tables import Results

ROWS = [(q, t) for q in ("smoothness", "sensitivity") for t in ("true_labels", "random_labels")]
MEASURED = {"sensitivity": LAYERS[1:], "smoothness": KERNELS}
CLAIMS = {  # panel → claim, bound, whether more than that is claimed
    "b": ("training-changes-stability", 1, True),
    "c": ("kinds-converge", 0.5, False),
    "d": ("training-smooths", 1, False),
    "e": ("smoothness-converges", 0.5, False),
    "f": ("depth-trend", 1, True),
    "g": ("labels-decide-smoothness", 1, True),
    "h": ("labels-decide-stability", 1, True),
}


@pytest.fixture(scope="module")
def results():
    return tracked_results(tracked_preset(variants=False))


def grid(results):
    """(quantity, labels, kind) → the panel of the figure of trajectories."""
    kinds = [kind for kind in style.KIND_LABELS if kind in results.preset.downsampling]
    axes = FIGURES["trajectory"].plot(results).axes
    assert len(axes) == len(ROWS) * len(kinds) + 1  # and what the colours mean
    keys = [(*row, kind) for row in ROWS for kind in kinds]
    return dict(zip(keys, axes))


def ticks(axis):
    axis.figure.draw_without_rendering()
    return [tick.get_text() for tick in axis.get_xticklabels() if tick.get_text()]


def not_run(axis):
    return [text.get_text() for text in axis.texts] == ["not run"]


# ---- the mean over seeds ----


def loop_mean(by_seed):
    """Step → the geometric mean of paths {step: value}: while all train, and of their ends."""
    mean = lambda values: math.exp(statistics.mean(map(math.log, values)))
    end = round(mean([max(path) for path in by_seed]))
    common = set.intersection(*(set(path) for path in by_seed))
    found = {step: [path[step] for path in by_seed] for step in sorted(common) if step < end}
    found = {
        step: mean(values) for step, values in found.items() if not any(map(math.isnan, values))
    }
    return found | {end: mean([path[max(path)] for path in by_seed])}


def frame(*by_seed):
    rows = [
        {"seed": seed, "step": step, "value": value}
        for seed, path in enumerate(by_seed)
        for step, value in path.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "by_seed",
    [
        [{1: 2.0, 2: 4.0, 3: 8.0}],
        [{1: 2.0, 2: 4.0, 3: 8.0}, {1: 8.0, 2: 1.0, 3: 3.0}],
        [
            {0: 1.0, 1: 2.0, 2: 4.0, 7: 9.0},
            {0: 3.0, 1: 8.0, 2: 1.0, 3: 3.0, 4: 5.0, 6: 5.0, 12: 2.0},
        ],
        [{1: 2.0, 2: 4.0}, {1: 8.0, 2: 1.0, 3: 3.0}],  # their mean step is one of both
        [{1: 2.0, 2: 5.0, 3: 4.0}, {1: 8.0, 2: math.nan, 3: 3.0}],  # dead for a while
        [{1: 2.0}, {1: 3.0}],
    ],
)
def test_the_mean_path_is_that_of_a_plain_loop(by_seed):
    found = training_paths.mean_path(frame(*by_seed))
    expected = loop_mean(by_seed)
    assert list(found.index) == list(expected)
    assert list(found) == pytest.approx(list(expected.values()))


def test_the_mean_of_networks_that_do_not_change_does_not_change_either():
    """Wherever they end: none of them may come in or drop out on the way."""
    by_seed = [
        dict.fromkeys(steps, v) for steps, v in (((1, 2, 3), 1.0), ((1, 2, 3, 4, 6, 9), 9.0))
    ]
    assert list(training_paths.mean_path(frame(*by_seed))) == pytest.approx([3.0] * 4)


# ---- trajectories ----


def test_a_panel_shows_the_mean_path_of_each_layer_its_start_and_where_half_is_done(results):
    loops = {}
    for (network, quantity, _, layer), path in loop_paths(results).items():
        loops.setdefault((quantity, network[2], network[3], layer), []).append(path)
    for (quantity, task, kind), axis in grid(results).items():
        layers = MEASURED[quantity]
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(layers)))
        assert len(axis.lines) == 3 * len(layers)
        for place, layer in enumerate(layers):
            dot, line, cross = axis.lines[3 * place : 3 * place + 3]
            by_seed = loops[quantity, task, kind, layer]
            starts = [math.log(path[0][0]) for path in by_seed]
            assert list(dot.get_xdata()) == [0]
            assert dot.get_ydata() == pytest.approx(math.exp(statistics.mean(starts)))
            # Sensitivity at initialization has other statistics: no line leads from it.
            first = 0 if quantity == "smoothness" else 1
            values = [{s: v for s, (v, _) in path.items() if s >= first} for path in by_seed]
            mean = loop_mean(values)
            assert list(line.get_xdata()) == list(mean)
            assert list(line.get_ydata()) == pytest.approx(list(mean.values()))
            half = list(mean)[loop_half_way([math.log(value) for value in mean.values()])]
            assert list(cross.get_xdata()) == [half]
            assert list(cross.get_ydata()) == pytest.approx([mean[half]])
            assert [each.get_marker() for each in (dot, line, cross)] == [".", "None", "x"]
            assert {to_hex(each.get_color()) for each in (dot, line, cross)} == {
                to_hex(shades[place])
            }
        assert axis.get_xscale() == "symlog"
        assert axis.get_yscale() == ("linear" if quantity == "smoothness" else "log")


def test_rows_and_columns_of_trajectories_have_names(results):
    axes = grid(results)
    for (quantity, task, kind), axis in axes.items():
        first_row, first_kind = (quantity, task) == ROWS[0], kind == "subsample"
        expected = style.KIND_LABELS[kind] if first_row else ""
        assert axis.get_title().replace("\n", " ") == expected
        assert bool(axis.get_ylabel()) == first_kind
        if first_kind:
            assert axis.get_ylabel().endswith(task.replace("_", " "))
            assert ("sensitivity" in axis.get_ylabel()) == (quantity == "sensitivity")
    assert ticks(list(axes.values())[-1]) == ["init", "1", "10"]


def test_the_longest_training_is_inside_every_panel():
    """All panels have one axis; the kind that takes longest need not be the last one."""
    steps = lambda experiment: {"subsample": 30, "max": 12, "strided_relu": 5}[
        experiment.downsampling
    ]
    results = tracked_results(tracked_preset(seeds=2, variants=False), steps=steps)
    for axis in grid(results).values():
        right = axis.get_xlim()[1]
        assert max(max(line.get_xdata()) for line in axis.lines) <= right


def test_panels_that_were_not_run_leave_the_others_their_ticks():
    preset = tracked_preset(seeds=2, variants=False, main_tasks=("true_labels",))
    results = tracked_results(preset)
    axes = grid(results)
    for (quantity, task, _), axis in axes.items():
        assert not_run(axis) == (task == "random_labels")
        assert axis.get_xlim()[1] > 5
        if task == "true_labels":
            assert len(axis.get_yticks())
            assert len(axis.get_xticks()) == 2, quantity  # initialization and step 1


def test_larger_images_that_were_watched_are_not_in_the_figures_of_the_main_study():
    """Kinds and labels are the same ones, seeds too."""
    kinds = {"downsampling": ("max",), "large_downsampling": ("max",)}
    preset = tracked_preset(seeds=2, variants=False, **kinds)
    alone, both = tracked_results(preset), tracked_results(preset, ("main", "large"))
    data = lambda axis: [line.get_xydata().tolist() for line in axis.lines]
    for name in ("over_training", "trajectory"):
        first, second = (FIGURES[name].plot(some).axes for some in (alone, both))
        assert [data(axis) for axis in first] == [data(axis) for axis in second]


# ---- claims over training ----


def test_a_panel_shows_a_claim_at_each_step_its_interval_and_its_bound(results):
    table = claims_by_choice.claims_over_training(results)
    axes = panels(FIGURES["over_training"].plot(results))
    assert list(axes) == list("abcdefgh")
    for letter, (claim, bound, above) in CLAIMS.items():
        axis, rows = axes[letter], table[table["claim"] == claim].to_dict("records")
        assert axis.get_title(loc="left") == f"({letter}) {claim}"
        line, dotted = axis.lines
        assert list(line.get_xdata()) == [row["step"] for row in rows]
        assert list(line.get_ydata()) == [row["value"] for row in rows]
        assert (dotted.get_linestyle(), list(dotted.get_ydata())) == (":", [bound, bound])
        bottom, top = axis.get_ylim()
        assert bottom < bound < top
        assert all(bottom < row["value"] < top for row in rows if row["value"] < math.inf)
        (band,) = (each for each in axis.collections if isinstance(each, PolyCollection))
        edges = {}
        for x, y in band.get_paths()[0].vertices:
            edges.setdefault(round(x), set()).add(y)
        for row in rows:
            assert min(edges[row["step"]]) == pytest.approx(row["low"])
            if row["high"] < top:
                assert max(edges[row["step"]]) == pytest.approx(row["high"])
            else:  # out of the panel, as it is to be; not to infinity
                assert top < max(edges[row["step"]]) <= row["high"]
        (span,) = (each for each in axis.patches if isinstance(each, Rectangle))
        low, high = sorted((span.get_y(), span.get_y() + span.get_height()))
        assert (low, high) == pytest.approx((bound, top) if above else (bottom, bound))
        assert axis.get_xscale() == "log"


def test_the_first_panel_shows_the_accuracies(monkeypatch):
    """All seeds end together here."""
    monkeypatch.setattr(claims_by_choice, "claims_over_training", lambda results: pd.DataFrame())
    steps = lambda experiment: 5 + 3 * (experiment.task == "random_labels")
    results = tracked_results(tracked_preset(variants=False), steps=steps)
    table = results.tables["trajectory"]
    table["accuracy_train"] = table["step"] / 100 + table["seed"] ** 2 / 50
    training = results.tables["training"]
    training["accuracy_train"] = 0.5 + training["seed"] / 10
    figure = FIGURES["over_training"].plot(results)
    axis, found = panels(figure)["a"], {}
    for line in axis.lines:
        key = to_rgb(line.get_color()), line.get_linestyle()
        assert key not in found
        found[key] = dict(zip(line.get_xdata(), line.get_ydata()))
    assert len(found) == 3 * 2
    for kind in results.preset.downsampling:
        for dashes, last in (("-", 5), ("--", 8)):  # true and random labels
            expected = {s: s / 100 + 14 / 4 / 50 for s in (1, 2, 3, 4, 6) if s < last} | {
                last: 0.65
            }
            line = found[to_rgb(style.KIND_COLOURS[kind]), dashes]
            assert line == pytest.approx(expected)
    assert legend_texts(figure) == [
        style.KIND_LABELS[k] for k in ("subsample", "max", "strided_relu")
    ]


def test_accuracies_that_do_not_change_give_level_lines(monkeypatch):
    """A mean over seeds, at each of its points: a network that ended does not drop out of it."""
    monkeypatch.setattr(claims_by_choice, "claims_over_training", lambda results: pd.DataFrame())
    results = tracked_results(tracked_preset(variants=False))
    for name in ("trajectory", "training"):
        results.tables[name]["accuracy_train"] = 0.2 + results.tables[name]["seed"] / 5
    for line in panels(FIGURES["over_training"].plot(results))["a"].lines:
        assert list(line.get_ydata()) == pytest.approx([0.5] * len(line.get_ydata()))


@pytest.mark.parametrize("changes", [{"main_tasks": ("true_labels",)}, {"seeds": 2}])
def test_claims_without_values_leave_the_other_panels_their_ticks(changes):
    """Random labels that were not run, or too few seeds for the spread between kinds."""
    results = tracked_results(tracked_preset(variants=False, **changes))
    table = claims_by_choice.claims_over_training(results)
    axes = panels(FIGURES["over_training"].plot(results))
    shown = set(table.dropna(subset="value")["claim"])
    assert 0 < len(shown) < 7
    for letter, (claim, *_) in CLAIMS.items():
        assert not_run(axes[letter]) == (claim not in shown)
    for letter in "efgh":  # the lower row, which has the labels of both
        assert ticks(axes[letter]) or CLAIMS[letter][0] not in shown


# ---- without runs; captions ----


@pytest.mark.parametrize("name", ["trajectory", "over_training"])
def test_without_runs_every_panel_says_so(name, tmp_path):
    preset = tracked_preset(track=False, seeds=2, downsampling=("max", "strided"))
    for results in (Results(preset, {}), tracked_results(preset)):
        figure = FIGURES[name].plot(results)
        empty = [axis for axis in figure.axes if not_run(axis)]
        kinds = len(results.preset.downsampling)
        assert len(empty) == {"trajectory": len(ROWS) * kinds, "over_training": 8}[name]
        assert not any(axis.lines for axis in empty)
    style.save(figure, FIGURES[name].caption(results), tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["trajectory", "over_training"])
def test_a_caption_names_the_data_and_that_the_paper_has_no_such_figure(name):
    preset = tracked_preset(seeds=2, train_images=44, variants=False)
    for results in (Results(preset, {}), tracked_results(preset)):
        caption = FIGURES[name].caption(results)
        for part in ("photos at 16 px, 44 training images", "2 seeds", "Not in the paper"):
            assert part in caption
    assert FIGURES[name].studies == ("main",)
