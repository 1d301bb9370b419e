"""Figures 2b and 4a, drawn from networks that others trained: a panel a network."""

import math

import pandas as pd
from matplotlib.ticker import MaxNLocator

from deformstab.measurement.stimuli import paper_deformation
from deformstab.paper.figures import style
from deformstab.paper.verdicts.other_networks import measured, title

STUDIES = ("pretrained",)
TABLES = ("pretrained_sensitivity", "pretrained_smoothness", "pretrained_networks")
CLAIMS = ("training-changes-stability", "training-smooths", "depth-trend")
TITLES = {
    "2b": "Figure 2b from networks that others trained: sensitivity, trained and random",
    "4a": "Figure 4a from networks that others trained: smoothness, trained and random",
}
_COLUMNS = 3
_STATES = {  # label, colour, line, marker
    "trained": ("weights that others trained", style.KIND_COLOURS["max"], "-", "o"),
    "random": ("random weights", "0.3", ":", ""),
    "random_normalized": (
        "random weights, batch normalization by the images' statistics",
        style.KIND_COLOURS["subsample"],
        "--",
        "",
    ),
}
_SIZES = {3: ("3×3", "o"), 5: ("5×5", "s"), 7: ("7×7", "^")}


def plot(results, target):
    networks = measured(results)
    count = max(1, len(networks))
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    grid = {"nrows": rows, "ncols": columns, "sharey": True, "squeeze": False}
    fig, axes = style.figure(7.2, 2.8 * rows, **grid)
    with style.context():
        for axis in axes.flat[count:]:
            axis.set_axis_off()
        if not len(networks):
            style.not_run(axes[0, 0])
        for letter, axis, row in zip("abcdefghijkl", axes.flat, networks.itertuples()):
            style.panel(axis, letter, title(row.network).replace(", ", ",\n"))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            (_sensitivity if target == "2b" else _smoothness)(axis, results, row.network)
        label = "normalized sensitivity" if target == "2b" else "TV(W) / ‖W‖₁   (lower is smoother)"
        for axis in axes[:, 0]:
            axis.set_ylabel(label)
        if target == "2b":  # of all panels at once: it ends their scaling
            axes[0, 0].set_ylim(bottom=0)
        style.legend(fig, axes.flat, rows=2 if target == "2b" else 1)
    return fig


def _rows(results, name, network, state=None):
    table = results.tables[f"pretrained_{name}"]
    table = table[table["network"] == network]
    return table if state is None else table[table["state"] == state]


def _sensitivity(axis, results, network):
    for state in _STATES:
        rows = _rows(results, "sensitivity", network, state)
        if len(rows):
            _line(axis, rows, "sensitivity", state, _STATES[state][0])
    trained = _rows(results, "sensitivity", network, "trained").sort_values("layer_index")
    before = trained["side"].iloc[0]
    for place, side in zip(trained["layer_index"], trained["side"]):
        if side < 0.75 * before:  # not where a convolution without padding takes a margin off
            axis.axvline(place - 0.5, color="0.85", linewidth=0.7, zorder=0)
            before = side
    axis.set(xlabel="representation (0: the image)")


def _smoothness(axis, results, network):
    rows = _rows(results, "smoothness", network)
    for size, of_size in rows.groupby("kernel_height"):
        name, marker = _SIZES.get(size, (f"{size}×{size}", "D"))
        for state in ("trained", "random"):
            chosen = of_size[of_size["state"] == state]
            if len(chosen):
                label = _STATES[state][0] + (f", {name}" if state == "trained" else "")
                _line(axis, chosen, "smoothness", state, label, marker)
    axis.set(xlabel="convolution, in order")


def _line(axis, rows, column, state, label, marker=None):
    """The mean over draws, and, of several, a band of ±2 standard deviations."""
    _, colour, line, usual = _STATES[state]
    by_layer = rows.groupby("layer_index")[column]
    mean, deviation = by_layer.mean(), by_layer.std(ddof=1)
    if state != "trained":
        marker = usual
        low, high = mean - 2 * deviation, mean + 2 * deviation
        axis.fill_between(mean.index, low, high, color=colour, alpha=0.15, linewidth=0)
    elif marker is None:
        marker = usual
    size = 3 if len(mean) < 25 else 2
    if marker == "s" and state == "trained":
        colour = style.KIND_COLOURS["strided"]
    look = {"color": colour, "marker": marker, "markersize": size, "linewidth": 1.0}
    axis.plot(mean, line, label=label, zorder=3 if state == "trained" else 2, **look)


def caption(results, target):
    networks = measured(results)
    if not len(networks):
        return f"{TITLES[target]}: not run."
    told = "; ".join(_described(row) for row in networks.itertuples())
    seeds = results.tables["pretrained_networks"].query("state == 'random'")["seed"].nunique()
    random = (
        "Random weights: the same architecture with truncated normal kernels; mean of "
        f"{seeds} draws, and bands of ±2 standard deviations over draws. "
    )
    whose = (
        f"In place of Figure {target}: networks that others trained, one of each, not the paper's "
        f"runs, and trained on other things. {told}. {random}"
    )
    if target == "4a":
        return whose + (
            "Normalized total variation of the filters larger than 1×1 of each convolution; filters "
            "of different size are not comparable. Dotted: random weights."
        )
    sensitivity = results.tables["pretrained_sensitivity"]
    sides = sorted(sensitivity.groupby("network")["side"].max().astype(int).unique())  # of images
    grids = [(paper_deformation((side, side, 3)).control_points[0], side) for side in sides]
    return whose + (
        "Sensitivity (cosine) of the image, and of what follows each nonlinearity, each pooling and "
        f"each sum, over {results.describe_photographs()}, prepared as each network's own package "
        "does; the paper's deformations for the size. Vertical lines: where the image is halved. "
        "Random weights with the initial averages of batch normalization, which do next to nothing, "
        f"and with the statistics of these photographs. {style.shifts(*grids)}"
    )


def _described(row):
    halved = f", halves by {row.halved}" if isinstance(row.halved, str) and row.halved else ""
    right = ""
    if row.answers and not pd.isna(row.top1):
        right = f", names {row.top1:.1%} of {row.answers} photographs of known class rightly"
    return f"{title(row.network)} ({row.network}{halved}{right})"
