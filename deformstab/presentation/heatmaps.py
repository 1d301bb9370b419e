"""plot_heatmap: layers × steps, strengths, models or parts, as colours."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deformstab.presentation.drawing import as_text, log_steps, merged, shortened, typed
from deformstab.presentation.kinds import KINDS, kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What tables may vary over, the first one counts. A strength also moves the rms_displacement.
OVER = {
    "step": "optimizer step",
    "max_displacement": "largest displacement, px",
    "strength": "strength",
    "model": "model",
    "network": "network",
    "family": "family of deformations",
    "part": "part of the deformation",
    "noise": "noise",
    "rms_displacement": "root mean square displacement, px",
    "metric": "metric",
}
_MOST_CELLS = 150  # with a number in each
_MOST_NAMES = 60


def plot_heatmap(
    table: pd.DataFrame,
    by: str | None = None,
    value: str | None = None,
    title: str = "",
    *,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draws a table as colours: layers from top to bottom, what varies from left to right.

    Columns of the picture are equally wide, whatever lies between the values they stand for; the
    axis says so where steps are spaced logarithmically. A layer without a number is hatched.

    Args:
        table: of `ds.sensitivity_by_strength`, a `ds.SensitivityCallback`,
            `ds.compare_sensitivity` or `ds.sensitivity_by_part`; or several tables of any measure
            one after the other, `pd.concat([a.assign(model="a"), b.assign(model="b")])`. As it was
            returned, or read again from a CSV file.
        by: the column that varies; by default the first of step, max_displacement, strength, model,
            network, family, part, noise, rms_displacement and metric that tells the rows of a layer
            apart.
        value: the column to show; by default that of the measure, sensitivity or a ratio.
        title: of the figure.
        ax: axes to draw on, in place of a figure of its own.

    Returns:
        A `matplotlib.figure.Figure`, as `ds.plot_sensitivity` returns it.

    Raises:
        ValueError: the table has no such columns or no rows; several rows are of one layer and one
            value of `by`.

    Example:

    ```python
    table = ds.sensitivity_by_strength(model, images, [0.5, 1, 2])
    ds.plot_heatmap(table).savefig("heatmap.png")
    ```
    """
    from matplotlib import colors

    from deformstab.presentation.pictures import Picture

    table, kind, by, value = _checked(table, by, value)
    columns = _in_order(table, by)
    layers = _layers(table, by)
    cells = table.pivot(index="layer", columns=by, values=value).loc[layers, columns]
    cells = cells.to_numpy("float64")
    ratio = kind.ratio and value == kind.value
    if ratio:
        cells = np.where((cells > 0) & np.isfinite(cells), cells, np.nan)
    labels, names = [shortened(name) for name in layers], _names(columns)
    if ax is None:
        width = 2.6 + 0.075 * max(map(len, labels)) + min(9, 0.5 * len(columns))
        height = 1.5 + 0.065 * max(map(len, names)) + 0.17 * min(max(len(layers), 12), _MOST_NAMES)
        ax = Picture(figsize=(width, height), layout="constrained").subplots()
    known = cells[np.isfinite(cells)]
    if ratio:  # as far below 1 as above; what is farther than ten times has the last colour
        reach = np.clip(np.exp(np.abs(np.log(known)).max(initial=0)), 1.01, 10)
        norm, colours = colors.LogNorm(1 / reach, reach), "PuOr"
    else:
        norm, colours = (
            colors.Normalize(min(0, known.min(initial=0)), known.max(initial=0)),
            "cividis",
        )
    ax.set_facecolor("0.93")
    ax.patch.set(hatch="///", edgecolor="0.8")
    mesh = ax.pcolormesh(np.ma.masked_invalid(cells), cmap=colours, norm=norm)
    ax.invert_yaxis()  # the input above, as data pass
    if cells.size <= _MOST_CELLS:
        _write(ax, cells, mesh)
    _name(ax, labels, names, columns, table, by)
    ax.set_title(as_text(title))
    text = kind.label(table) if value == kind.value else value
    bar = ax.figure.colorbar(mesh, ax=ax)
    bar.set_label(as_text(text).replace("; ", "\n"), fontsize=8)
    if ratio:
        from matplotlib import ticker

        bar.ax.yaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10]))
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_locator(ticker.NullLocator())
    return ax.figure


def _checked(table, by, value):
    """(table with its types, its kind, the column that varies, the column to show)."""
    kind = kind_of(table)
    if kind is None or not len(table):
        columns = list(getattr(table, "columns", ()))
        raise ValueError(
            "table must be one of "
            + ", ".join(each.makers for each in KINDS)
            + ", with rows, the columns layer and layer_index, and a number such as sensitivity "
            "with sensitivity_low and sensitivity_high; received "
            + (f"columns {columns} and {len(table)} rows" if columns else repr(table))
        )
    value = kind.value if value is None else value
    for name, column in (("by", by), ("value", value)):
        if column is not None and column not in table:
            raise ValueError(f"{name}={column!r} is no column of the table: {list(table.columns)}")
    numbers = {"layer_index", value} | ({"step", "max_displacement"} & set(table.columns))
    words = {"layer", "model", "network", "part", "family"} & set(table.columns)
    table = typed(table, numbers, words)
    if by is None:
        by = next((name for name in OVER if name in table and _tells(table, name)), None)
        if by is None:
            raise ValueError(
                "nothing varies in this table, or several things at once: pass by=, the column to "
                "vary, and select the rest, as in table[table['metric'] == 'cosine']; a table of "
                "ds.sensitivity_by_strength, ds.SensitivityCallback or ds.compare_sensitivity "
                f"varies by itself. Its columns are {list(table.columns)}"
            )
    table = table[table[by].notna()]
    twice = table.duplicated(["layer", by])
    if twice.any():
        row = table[twice].iloc[0]
        raise ValueError(
            f"several rows are of layer {row['layer']!r} and {by}={row[by]!r}: select one of them "
            "first, as in table[table['metric'] == 'cosine']"
        )
    return table, kind, by, value


def _tells(table, name) -> bool:
    several = table[name].nunique() > 1 or name == "model"
    return several and not table.duplicated(["layer", name]).any()


def _in_order(table, by) -> list:
    """The values of the column: numbers by size, names as they come."""
    values = table[by].unique()
    return sorted(values) if pd.api.types.is_numeric_dtype(table[by]) else list(values)


def _layers(table, by) -> list[str]:
    parts = [rows.sort_values("layer_index") for _, rows in table.groupby(by, sort=False)]
    return merged(sorted((list(rows["layer"]) for rows in parts), key=len, reverse=True))


def _write(ax, cells, mesh):
    """A number in each cell, dark on light and light on dark."""
    for (row, column), number in np.ndenumerate(cells):
        if np.isfinite(number):
            red, green, blue, _ = mesh.cmap(mesh.norm(number))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            style = {"ha": "center", "va": "center", "color": "white" if dark else "black"}
            ax.text(column + 0.5, row + 0.5, f"{number:.2g}", fontsize=6, **style)


def _names(columns) -> list[str]:
    """Of values of the column that varies, as they are shown."""
    texts = (f"{each:.10g}" if isinstance(each, float) else str(each) for each in columns)
    return [shortened(text) for text in texts]


def _name(ax, labels, names, columns, table, by):
    step = -(-len(labels) // _MOST_NAMES)
    places = np.arange(len(labels)) + 0.5
    ax.set_yticks(places[::step], labels[::step], fontsize=7)
    step = -(-len(columns) // 25)
    places = np.arange(len(columns)) + 0.5
    long = max(map(len, names)) > 4
    ax.set_xticks(places[::step], names[::step], rotation=90 if long else 0)
    ax.tick_params(length=0)
    label = OVER.get(by, by)
    if by == "step" and log_steps(columns):
        label += " (spaced logarithmically)"
    elif pd.api.types.is_numeric_dtype(table[by]):
        label += " (columns equally wide)" if _uneven(columns) else ""
    ax.set_xlabel(as_text(label))


def _uneven(values) -> bool:
    gaps = np.diff(np.asarray(values, "float64"))
    return len(gaps) > 1 and gaps.max() > 1.01 * gaps.min()
