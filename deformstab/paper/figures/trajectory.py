"""Sensitivity and smoothness of each layer while networks train: the paper's open question."""

import matplotlib as mpl
import numpy as np

from deformstab.paper.figures import style
from deformstab.paper.verdicts import training_paths

STUDIES = ("main",)
TABLES = ("trajectory", "paths")
CLAIMS = ("training-smooths", "training-changes-stability")
TITLE = "When filters become smooth, and how sensitivity gets where it ends"

_ROWS = (
    ("smoothness", "true_labels", "TV/‖W‖₁, true labels"),
    ("smoothness", "random_labels", "TV/‖W‖₁, random labels"),
    ("sensitivity", "true_labels", "sensitivity, true labels"),
    ("sensitivity", "random_labels", "sensitivity, random labels"),
)


def plot(results):
    table = training_paths.full_paths(results)
    kinds = [kind for kind in style.KIND_LABELS if kind in results.preset.downsampling]
    size = {"nrows": len(_ROWS), "ncols": len(kinds), "squeeze": False}
    fig, axes = style.figure(7.2, 7.4, **size, sharey="row", sharex=True)
    with style.context():
        for row, (quantity, task, label) in zip(axes, _ROWS):
            row[0].set_ylabel(label)
            for axis, kind in zip(row, kinds):
                _draw(axis, _select(table, quantity, task, kind))
        for axis, kind in zip(axes[0], kinds):
            axis.set_title(style.KIND_LABELS[kind].replace(" + ", " +\n"))
        for axis in axes[-1]:
            axis.set_xlabel("step")
            if len(table):
                _steps(axis, table.loc[table["study"] == "main", "step"].max())
        _depth_bar(fig, axes)
    return fig


def caption(results):
    return (
        "Trajectory. The path of each layer through training, measured at steps 1, 2, 3, 4, 6, 8, 11, "
        f"… (powers of √2): {results.describe('main')}. Lines: geometric mean over seeds, as far as "
        "all of them were still training, then their end; crosses: half of a layer's change is "
        "reached and never lost again. Dots: initialization, where batch normalization has moving "
        "averages of 0 and 1; at each later step they are re-estimated, on 512 training images, which "
        "alone moves sensitivities. "
        f"{style.shifts((results.preset.control_points, results.preset.image_size))} How "
        "monotone each path is: tables/paths.csv. Not in the paper, which asks for it."
    )


def _select(table, quantity, task, kind):
    if table.empty:
        return table
    chosen = (table["study"] == "main") & (table["quantity"] == quantity) & (table["task"] == task)
    return table[chosen & (table["downsampling"] == kind) & (table["layer"] != "input")]


def _draw(axis, table):
    if table.empty:
        style.not_run(axis)
        return
    layers = table.drop_duplicates("layer").sort_values("layer_index")["layer"]
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(layers)))
    start = 0 if table["quantity"].iloc[0] == "smoothness" else 1
    for layer, colour in zip(layers, colours):
        rows = table[table["layer"] == layer]
        initial = np.exp(np.log(rows.loc[rows["step"] == 0, "value"]).mean())
        axis.plot(0, initial, ".", color=colour, ms=4)
        path = training_paths.mean_path(rows[rows["step"] >= start])
        axis.plot(path.index, path, color=colour, lw=1)
        half = training_paths.half_way(path)
        axis.plot(path.index[half], path.iloc[half], "x", color=colour, ms=4, mew=1)
    if start:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(mpl.ticker.NullLocator())


def _steps(axis, longest):
    """The x axis that all panels share: step 0 stands half a decade to the left of step 1."""
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    axis.set_xlim(-0.15, longest * 1.1)
    decades = [step for step in (1, 10, 100, 1000, 10_000, 100_000) if step <= longest]
    axis.set_xticks([0, *decades], ["init", *map(str, decades)])


def _depth_bar(fig, axes):
    """The colours' meaning, beside the panels."""
    bar = fig.colorbar(
        mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), _SHOWN), ax=axes, aspect=60, pad=0.01
    )
    bar.set_ticks([0, 1], labels=["first\nlayer", "last\nlayer"])
    bar.outline.set_visible(False)


_SHOWN = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 256)))
