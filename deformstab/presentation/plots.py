"""plot_sensitivity: any table of sensitivities as a figure."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deformstab.presentation.drawing import (
    BESIDE,
    NAMES,
    as_text,
    colours,
    draw_with_interval,
    log_steps,
    logarithmic,
    marker,
    name_layers,
    shortened,
    typed,
    with_logarithms,
)
from deformstab.presentation.kinds import COMPARISON, SENSITIVITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OVER = {  # what tables may vary over → the axis of it
    "step": "optimizer step",
    "max_displacement": "largest displacement, px",
    "strength": "root mean square displacement, px",
}
_NAMED = 10  # so many profiles have a name each, of more only some
_FEW = 8  # so many layers have a legend, more of them a colour bar


def plot_sensitivity(table: pd.DataFrame, title: str = "", *, ax: "Axes | None" = None) -> "Figure":
    """Draws a table of sensitivities: layers from left to right, what varies as colours.

    A layer without a number has a gap, and a grey name.

    Args:
        table: of `ds.measure_sensitivity`: one line with its interval; of
            `ds.sensitivity_by_strength` or of a `ds.SensitivityCallback`: one line for each
            strength or measurement, and beside it each layer against strength or optimizer steps
            (of a single one, what `ds.measure_sensitivity` would have); of
            `ds.compare_sensitivity`: the ratio to the reference with its paired interval, a line
            for each model. As it was returned, or read again from a CSV file.
        title: of the figure.
        ax: axes to draw on, in place of a figure of its own. Of several strengths or measurements
            it takes the lines over layers; the panel beside them is left out.

    Returns:
        A `matplotlib.figure.Figure`, the one of `ax` if that is given. A notebook shows it when it
        is a cell's last line. pyplot does not know it: there is nothing to close.

    Raises:
        ValueError: the table is none of these, or empty.

    Example:

    ```python
    figure = ds.plot_sensitivity(ds.measure_sensitivity(model, images))
    figure.savefig("sensitivity.png")
    ```
    """
    from deformstab.presentation.pictures import Picture

    table, shown, over = _checked(table)
    layers = table.drop_duplicates("layer_index").sort_values("layer_index")
    labels = [shortened(name) for name in layers["layer"]]
    course = None
    if ax is None:
        height = 2.9 + 0.065 * max(map(len, labels))
        width = 1.5 + max(3.5, 0.2 * min(len(layers), NAMES))
        if over is None:
            width += 0.5 + 0.08 * table["model"].str.len().max() if shown == "ratio" else 0
            ax = Picture(figsize=(width, height), layout="constrained").subplots()
        else:
            beside = 5 + (0.07 * max(map(len, labels)) if len(layers) <= _FEW else 0)
            fig = Picture(figsize=(width + beside, height), layout="constrained")
            ax, course = fig.subplots(1, 2, width_ratios=(width, beside))
    if over is None:
        (_draw_ratios if shown == "ratio" else _draw_profile)(ax, table)
    else:
        _draw_profiles(ax, table, over)
    if course is not None:
        _draw_course(course, table, layers["layer_index"], labels, over)
        ax.figure.suptitle(as_text(title))
    else:
        ax.set_title(as_text(title))
    measured = table.groupby("layer_index")[shown].count() > 0
    name_layers(ax, layers["layer_index"], labels, measured)
    return ax.figure


def _checked(table):
    """(the table with numbers in its columns of numbers, the one to show, what it varies over)."""
    columns = set(getattr(table, "columns", ()))
    shown = "ratio" if "ratio" in columns else "sensitivity"
    numbers = {"layer_index", shown, f"{shown}_low", f"{shown}_high"}
    words = {"model", "reference"} if shown == "ratio" else {"metric"}
    over = next((name for name in _OVER if name in columns), None)
    if over is not None:
        numbers |= {over, "epoch"} if over == "step" else {over}
    if not {"layer", *numbers, *words} <= columns or table.empty:
        raise ValueError(
            "table must be one of measure_sensitivity, sensitivity_by_strength, "
            "compare_sensitivity or SensitivityCallback, with rows; received "
            + (f"columns {list(table.columns)} and {len(table)} rows" if columns else repr(table))
        )
    table = typed(table, numbers, {"layer", *words})
    if over is not None and not table.duplicated("layer_index").any():
        over = None
    return table, shown, over


def _draw_profile(axis, table):
    table = table.sort_values("layer_index")
    draw_with_interval(axis, table, "sensitivity")
    _label(axis, table)


def _draw_ratios(axis, table):
    axis.axhline(1, color="0.6", linewidth=1)
    table = with_logarithms(table, ["ratio", "ratio_low", "ratio_high"])
    for model, rows in table.groupby("model", sort=False):
        draw_with_interval(axis, rows.sort_values("layer_index"), "ratio", label=as_text(model))
    logarithmic(axis)
    axis.set_ylabel(as_text(COMPARISON.label(table)))
    axis.legend(**BESIDE)


def _draw_profiles(axis, table, over):
    """Lines over layers, coloured by what varies."""
    # Two reaches (y, x) of the same larger one, or a step that changed nothing, stay two lines.
    again = table.groupby([over, "layer_index"]).cumcount()
    lines = [rows.sort_values("layer_index") for _, rows in table.groupby([over, again])]
    shades = colours("viridis", len(lines))
    count = len(lines) if len(lines) <= _NAMED else 6
    named = set(np.linspace(0, len(lines) - 1, count).round())
    by = over
    if over == "step" and table.groupby("epoch")["step"].nunique().max() == 1:
        by = "epoch"
    for number, rows in enumerate(lines):
        label = f"{rows[by].iloc[0]:.10g}" if number in named else None
        axis.plot(
            rows["layer_index"],
            rows["sensitivity"],
            "o-",
            markersize=marker(rows),
            color=shades[number],
            label=label,
        )
    titles = {"step": "optimizer step", "epoch": "epoch"}
    axis.legend(title=titles.get(by, "strength, px"), **BESIDE)
    _label(axis, table)


def _draw_course(axis, table, places, labels, over):
    """Lines over what varies, coloured by layer."""
    import matplotlib
    from matplotlib.colors import ListedColormap, Normalize

    shades = colours("plasma", len(places))
    for number, place in enumerate(places):
        rows = table[table["layer_index"] == place].sort_values(over, kind="stable")
        style = {"markersize": 3, "color": shades[number], "label": labels[number]}
        axis.plot(rows[over], rows["sensitivity"], "o-", **style)
    if over == "step" and log_steps(table[over]):
        axis.set_xscale("symlog", linthresh=table[over][table[over] > 0].min())
    axis.set_ylim(bottom=0)
    axis.set_xlabel(_OVER[over])
    if len(places) <= _FEW:
        axis.legend(**BESIDE)
        return
    scale = matplotlib.cm.ScalarMappable(Normalize(0, 1), ListedColormap(shades))
    axis.figure.colorbar(scale, ax=axis, label="layer").set_ticks([0, 1], labels=["first", "last"])


def _label(axis, table):
    axis.set_ylim(bottom=0)
    axis.set_ylabel(as_text(SENSITIVITY.label(table)))
