"""The open questions: two panels, and below them what decides, with its interval."""

import numpy as np
import pandas as pd

from deformstab.paper.figures import style
from deformstab.paper.questions.logits import DIFFEOMORPHISM, FACTOR, POWER
from deformstab.paper.questions.shifts import WHOLE
from deformstab.paper.questions.shuffles import CHANNELS, TAPS
from deformstab.paper.runs.question_measurements import PHASES, REESTIMATED
from deformstab.paper.verdicts.question_rules import SQUARED
from deformstab.paper.verdicts.question_tables import NOT_COUNTED
from deformstab.paper.verdicts.questions import PARTS_OF, STATISTICS, questions
from deformstab.paper.verdicts.statistics_of_errors import errors

STUDIES = ("questions",)
TABLES = (
    *("questions", "question_noise", "question_shifts", "question_shuffles"),
    *("question_worst", "question_moving", "question_logits", "question_training"),
)
CLAIMS = ()
TITLES = {
    "1": "Question 1: what pooling gives at initialization, beside noise",
    "2": "Question 2: what exact consistency under shifts gives",
    "3": "Question 3: trained filters with channels or taps shuffled",
    "4": "Question 4: the worst deformation, and the mean one",
    "5": "Question 5: whether layers move with the image",
    "6": "Question 6: the error, and the relative stability of the logits",
}
_R = "R, deformation / noise"
_NOISE = {"phase": "initial", "statistics": REESTIMATED, "noise": "gaussian"}
_SHIFTS = {"phase": "trained", "metric": "cosine"}
_WHEN = {"initial": "at initialization", "trained": "trained"}
_CHANGE = "trained / initial"  # in the place of a phase: the ratio of both
# Of each question two panels: title, table, column, its label, and the rows that are shown.
_PANELS = {
    "1": tuple(
        (
            f"R, {name} distances, at initialization",
            *("question_noise", "relative_stability", _R, {"metric": metric, **_NOISE}),
        )
        for metric, name in SQUARED.items()
    ),
    "2": (
        (
            *("deformations less translation", "question_shifts", "sensitivity", "sensitivity"),
            {"change": "beyond_translation", "outside": "edge", **_SHIFTS},
        ),
        (
            *("a roll by one pixel", "question_shifts", "sensitivity", "sensitivity"),
            {"change": WHOLE, "outside": "circular", **_SHIFTS},
        ),
    ),
    "3": tuple(
        (
            f"{what} shuffled",
            "question_shuffles",
            "ratio",
            "sensitivity / intact",
            {"shuffle": name},
        )
        for name, what in ((CHANNELS, "channels"), (TAPS, "taps (places of weights)"))
    ),
    "4": tuple(
        (_WHEN[phase], "question_worst", "ratio", "worst / mean", {"phase": phase, "within": "rms"})
        for phase in PHASES
    ),
    "5": (
        (
            *("distance to the map that stays", "question_moving", "stays_euclidean"),
            *("trained / at initialization", {"phase": _CHANGE}),
        ),
        (
            *("which of the two is closer, trained", "question_moving", "ratio_euclidean"),
            *("moves along / stays", {"phase": "trained"}),
        ),
    ),
}
_SAID = {
    "1": "R is the sensitivity to random deformations over that to Gaussian noise of the same length, "
    "batch normalization re-estimated: below 1 a layer is more stable to deformations than their size "
    "explains.",
    "2": "Circular networks, trained. Deformations repeat the nearest edge pixel; a roll goes round. In "
    "(c) aps is adaptive sampling, max_aps max + adaptive sampling, subsample subsampling.",
    "3": "One 3×3 convolution of a trained network at a time is shuffled: which of its input channels "
    "a filter looks at, which leaves it as smooth as it was, or the nine places of its weights. "
    "Sensitivity (cosine) of what follows it, batch normalization re-estimated, over that of the intact "
    "network.",
    "4": "The largest cosine distance that a search finds for an image, among deformations whose root "
    "mean square is that of random draws, over the mean of random draws.",
    "5": "Squared Euclidean distances of a deformed image's map. (a) To the map as it was, after over "
    "before training: below 1 training made the layer less sensitive. (b) To the map that was moved "
    "along, over that to the map as it was: below 1 a layer rather moves with the image, above 1 it "
    "rather stays.",
    "6": "R of the logits: sensitivity to diffeomorphisms of maximal entropy over that to Gaussian "
    "noise of the same length, squared Euclidean distances. A point a network, larger ones of more "
    f"training images; dashed: error = {FACTOR} · √R (Petrini et al. 2021).",
}


def plot(results, target):
    table = _deciding(_of_question(results, target))
    height = 2.5 + 0.36 * max(3, len(table)) + 0.5
    ratios = {"height_ratios": [2.3, height - 2.7]}
    fig, axes = style.figure(7.2, height, nrows=2, ncols=2, gridspec_kw=ratios)
    with style.context():
        for letter, axis, panel in zip("ab", axes[0], _PANELS.get(target, ())):
            _over_layers(axis, letter, results, *panel)
        if target == "6":
            _law(axes[0], results)
        else:  # the same number in both
            axes[0, 1].sharey(axes[0, 0])
            axes[0, 0].autoscale(axis="y")
        grid = axes[1, 0].get_gridspec()
        for axis in axes[1]:
            axis.remove()
        below = fig.add_subplot(grid[1, :])
        means = "" if target == "6" else ", means over layers"
        style.panel(below, "c", f"what decides: ratios{means}")
        if len(table):
            _intervals(below, table)
        else:
            style.not_run(below)
        style.legend(fig, axes[0], rows=2)
    return fig


def _over_layers(axis, letter, results, title, name, column, label, which):
    style.panel(axis, letter, title)
    table, means = results.tables.get(name, pd.DataFrame()), pd.Series()
    if len(table):
        left_out = {*NOT_COUNTED} - ({"input"} if name == "question_worst" else set())
        table = table[~table["layer"].isin(left_out)]
        if which.get("phase") == _CHANGE:
            before, after = (_means(table, column, {**which, "phase": each}) for each in PHASES)
            means = (after / before).dropna()
        else:
            means = _means(table, column, which)
    if not len(means):
        style.not_run(axis)
        return
    style.kind_lines(axis, means.reset_index(), column)
    if column != "sensitivity":
        axis.axhline(1, color="0.15", linewidth=0.7)
    axis.set_ylabel(label)


def _means(table, column, which) -> pd.Series:
    """Of each network and layer, over the rows that are shown."""
    for key, value in which.items():
        table = table[table[key] == value]
    keys = ["downsampling", "seed", "layer", "layer_index"]
    return table.groupby(keys, sort=False)[column].mean()


def _law(axes, results):
    """Error over R of every network, and R over the number of training images."""
    style.panel(axes[0], "a", "test error")
    style.panel(axes[1], "b", "R of the logits")
    table = errors(results, DIFFEOMORPHISM, "euclidean")
    if not len(table):
        for axis in axes:
            style.not_run(axis)
        return
    images = table["train_images"]
    table = table.assign(area=6 * np.sqrt(images / images.min()))
    for kind, rows in table.groupby("downsampling", sort=False):
        look = {"color": style.KIND_COLOURS[kind], "marker": style.KIND_MARKERS[kind]}
        label = style.KIND_LABELS[kind]
        points = rows["relative_stability"], rows["error"], rows["area"]
        axes[0].scatter(*points, linewidth=0, alpha=0.8, label=label, **look)
        mean = rows.groupby("train_images")["relative_stability"].mean()
        axes[1].plot(mean.index, mean, markersize=3, linewidth=1, label=label, **look)
    ends = np.array([table["relative_stability"].min(), table["relative_stability"].max()])
    axes[0].plot(ends, FACTOR * ends**POWER, color="0.15", linestyle="--", linewidth=0.8)
    axes[0].set(xscale="log", yscale="log", xlabel="R of the logits", ylabel="test error")
    axes[1].set(xscale="log", yscale="log", xlabel="training images", ylabel="R")
    for axis in axes:
        axis.minorticks_off()
    _few_ticks(axes[0].xaxis, table["relative_stability"])
    _few_ticks(axes[0].yaxis, table["error"])
    _few_ticks(axes[1].yaxis, table["relative_stability"])
    sizes = sorted(set(images))
    axes[1].set_xticks(sizes, [f"{size}" for size in sizes])


def _few_ticks(axis, values):
    """Three round numbers of a narrow logarithmic axis, which has no power of ten to show."""
    ticks = dict.fromkeys(
        float(f"{each:.1g}") for each in np.geomspace(min(values), max(values), 3)
    )
    axis.set_ticks(list(ticks), [f"{tick:g}" for tick in ticks])


def _intervals(whole, table):
    """A row a statistic, with its verdict and the bounds of that; its words left of the axis."""
    whole.set_axis_off()
    axis = whole.inset_axes([0.5, 0, 0.3, 1])
    colour = "0.15"  # of no kind
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, table.itertuples()):
        bars = None if np.isnan(row.low) else [[row.value - row.low], [row.high - row.value]]
        look = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1}
        axis.errorbar([row.value], [place], xerr=bars, **look)
        where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        words = {"va": "center", "fontsize": 7, "color": colour}
        axis.annotate(row.verdict, (1, place), xytext=(4, 0), **where, **words)
        bounds = _RULES[row.asks].bounds
        axis.vlines(bounds, place - 0.4, place + 0.4, color="0.6", linewidth=0.8, zorder=0)
    axis.axvline(1, color="0.15", linewidth=0.7, zorder=0)
    ends = table[["value", "low", "high"]].to_numpy()
    low, high = np.clip([np.nanmin(ends) / 1.05, np.nanmax(ends) * 1.05], *_WIDEST)
    low, high = min(low, 0.85), max(high, 1 / 0.85)
    ticks = _apart([tick for tick in _TICKS if low <= tick <= high], high / low)
    axis.set(xscale="log", xlim=(low, high), xlabel="ratio")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_yticks(places, [f"{row.what}\n{row.condition}" for row in table.itertuples()])
    axis.tick_params(axis="y", labelsize=6.5, length=0)
    axis.set_ylim(-0.7, len(table) - 0.3)


_RULES = {each.rule.asks: each.rule for each in STATISTICS}
_WIDEST = (1 / 50, 50)  # ratios; an interval that is wider goes out of the panel
_TICKS = (
    *(0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(1, 1.1, 1.25, 1.5, 2, 2.5, 3, 5, 10, 20, 50),
)


def _apart(ticks, ratio) -> list:
    """Those whose labels do not touch on an axis of so large a ratio, 1 among them."""
    kept = [tick for tick in ticks if tick == 1]
    for tick in sorted(ticks, key=lambda tick: abs(np.log(tick))):
        if all(abs(np.log(tick / other)) > 0.115 * np.log(ratio) for other in kept):
            kept.append(tick)
    return sorted(kept)


def _of_question(results, target) -> pd.DataFrame:
    """The rows that there are of a question."""
    table = questions(results)
    return table[(table["question"] == target) & (table["seeds"] > 0)] if len(table) else table


def _deciding(table) -> pd.DataFrame:
    """Those that decide, and stand on an axis of ratios."""
    if not len(table):
        return table
    return table[table["decisive"] & table["asks"].map(lambda asks: _RULES[asks].ratios)]


def caption(results, target):
    table = _of_question(results, target)
    training = results.tables.get("question_training", pd.DataFrame())
    asked = ""
    if len(training):
        training = training[training["part"].isin(PARTS_OF[target])]
    if len(training):
        sizes = ", ".join(f"{size}" for size in sorted(set(training["train_images"])))
        seeds = training["seed"].nunique()
        asked = f" {len(training)} networks of {seeds} seed{'s' * (seeds > 1)}, {sizes} training images."
    questions_asked = ""
    if len(table):
        questions_asked = " ".join(dict.fromkeys(table.loc[table["decisive"], "asks"]))
    said = _SAID[target]
    said = said if "(a)" in said else f"(a, b) {said}"
    bands, means = "Bands: ±2 standard deviations over seeds.", "Means over layers of logs"
    if target == "6":
        bands, means = "Lines: means over seeds.", f"{_slope(table)}Means of logs over networks"
    return (
        f"{questions_asked} {said} {bands}{asked} (c) {means}, one a seed, with 95 % "
        "intervals (Student's t), and in grey the bounds between verdicts; claims.md has all rows."
    ).strip()


def _slope(table) -> str:
    """What decides and is no ratio, in words."""
    if not len(table):
        return ""
    beside = table[table["decisive"] & ~table["asks"].isin(_deciding(table)["asks"])]
    return "".join(
        f"{row.what[0].upper()}{row.what[1:]}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), "
        f"{row.verdict}. "
        for row in beside.itertuples()
    )
