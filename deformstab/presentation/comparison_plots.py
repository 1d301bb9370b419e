"""plot_comparison and plot_measures: two networks side by side, and all measures of one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deformstab.presentation.drawing import (
    BESIDE,
    MARKERS,
    NAMES,
    PALETTE,
    as_text,
    check_columns,
    draw_with_interval,
    logarithmic,
    marker,
    merged,
    name_layers,
    shortened,
    typed,
    with_logarithms,
)
from deformstab.presentation.kinds import (
    COMPARISON,
    EQUIVARIANCE,
    SENSITIVITY,
    STABILITY,
    WORST_COLUMNS,
    WORST_MAKERS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LEAST = 1e-3  # what is drawn of a ratio: the input moves exactly, and has one of rounding errors


def plot_comparison(
    table: pd.DataFrame, title: str = "", *, axes: "Sequence[Axes] | None" = None
) -> "Figure":
    """Draws a comparison of networks: their sensitivities, and below their ratio.

    The ratio has its paired 95 % interval. Filled markers: the interval leaves out 1, one layer by
    itself; of twenty layers that do not differ one is filled by chance.

    Args:
        table: of `ds.compare_sensitivity`, as it was returned or read again from a CSV file.
        title: of the figure.
        axes: two axes to draw on, the sensitivities and the ratio, in place of a figure of its own.

    Returns:
        A `matplotlib.figure.Figure`, as `ds.plot_sensitivity` returns it.

    Raises:
        ValueError: the table is another one, or empty; not two axes.

    Example:

    ```python
    models = {"max": model, "average": ds.swap_downsampling(model, "average")}
    figure = ds.plot_comparison(ds.compare_sensitivity(models, images))
    ```
    """
    numbers = ["layer_index", "sensitivity", "reference_sensitivity", *COMPARISON.numbers]
    words = ["model", "reference", "layer", "metric"]
    check_columns(table, [*words, *numbers], "table", COMPARISON.makers)
    table = typed(table, numbers, words)
    layers = _places(table[["layer", "layer_index"]].drop_duplicates())
    table = table.assign(layer_index=table["layer"].map(layers["layer_index"]))
    above, below = _axes(axes, 2, layers)
    first = next(iter(table.groupby("model", sort=False)))[1].sort_values("layer_index")
    style = {"color": "0.35", "marker": "x", "linestyle": "--", "markersize": 4}
    own = as_text(f"{first['reference'].iloc[0]} (reference)")
    above.plot(first["layer_index"], first["reference_sensitivity"], label=own, **style)
    below.axhline(1, color="0.35", linewidth=1, linestyle="--")
    table = with_logarithms(table, list(COMPARISON.numbers))
    for number, (model, rows) in enumerate(table.groupby("model", sort=False)):
        rows = rows.sort_values("layer_index")
        line = _style(number)
        above.plot(
            rows["layer_index"],
            rows["sensitivity"],
            label=as_text(model),
            markersize=marker(rows),
            **line,
        )
        _draw_intervals(below, rows, number)
    above.set_ylim(bottom=0)
    _say(above, as_text(SENSITIVITY.label(table)))
    above.legend(**BESIDE)
    _say(below, as_text(COMPARISON.label(table)))
    logarithmic(below)
    _finish([above, below], layers, title, table.groupby("layer_index")["ratio"].count() > 0)
    return above.figure


def plot_measures(
    sensitivity: pd.DataFrame | None = None,
    stability: pd.DataFrame | None = None,
    equivariance: pd.DataFrame | None = None,
    worst: pd.DataFrame | None = None,
    title: str = "",
    *,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """Draws the measures of one network below each other, over the same layers.

    Args:
        sensitivity: of `ds.measure_sensitivity`; with its interval.
        stability: of `ds.measure_stability`: relative stability, a line a metric.
        equivariance: of `ds.measure_equivariance`: moves-with over stays, a line a metric.
        worst: of `ds.worst_deformation`, of several layers one after the other (`pd.concat`): the
            worst deformation found beside the mean of draws, medians over images with quartiles.
            A ratio below 0.001 is drawn at 0.001.
        title: of the figure.
        axes: as many axes as tables are given, in place of a figure of its own.

    Returns:
        A `matplotlib.figure.Figure`, as `ds.plot_sensitivity` returns it.

    Raises:
        ValueError: a table is another one, or empty; none is given; a number of axes that is not
            that of the tables.

    Example:

    ```python
    figure = ds.plot_measures(
        ds.measure_sensitivity(model, images), ds.measure_stability(model, images)
    )
    ```
    """
    panels = []
    given = (("sensitivity", sensitivity, SENSITIVITY), ("stability", stability, STABILITY))
    for argument, table, kind in (*given, ("equivariance", equivariance, EQUIVARIANCE)):
        if table is not None:
            check_columns(
                table, ["layer", "layer_index", "metric", *kind.tells], argument, kind.makers
            )
            table = typed(table, ["layer_index", *kind.numbers], ["layer", "metric"])
            if table.duplicated(["layer", "metric"]).any():
                raise ValueError(
                    f"{argument} has several rows for one layer and metric: select one strength, "
                    "step, part or model first; ds.plot_sensitivity and ds.plot_heatmap show several"
                )
            panels.append((kind, table))
    if worst is not None:
        check_columns(worst, WORST_COLUMNS, "worst", WORST_MAKERS)
        panels.append((None, typed(worst, WORST_COLUMNS[1:], ["layer"])))
    if not panels:
        raise ValueError(
            "pass at least one table: sensitivity=ds.measure_sensitivity(…), "
            "stability=ds.measure_stability(…), equivariance=ds.measure_equivariance(…) or "
            "worst=ds.worst_deformation(…)[0]"
        )
    layers = _places(*(table for _, table in panels))
    drawn = _axes(axes, len(panels), layers)
    for ax, (kind, table) in zip(drawn, panels):
        table = table.assign(layer_index=table["layer"].map(layers["layer_index"]))
        if kind is None:
            _draw_worst(ax, table)
        else:
            _draw_metrics(ax, table, kind)
    names = set().union(*(_measured(kind, table) for kind, table in panels))
    measured = pd.Series(layers["layer"].isin(names).to_numpy(), index=layers["layer_index"])
    _finish(drawn, layers, title, measured)
    return drawn[0].figure


def _measured(kind, table) -> set:
    value = "worst" if kind is None else kind.value
    return set(table["layer"][table[value].notna()])


def _draw_metrics(ax, table, kind):
    """A line with its interval for each metric."""
    if kind.ratio:
        table = with_logarithms(table, list(kind.numbers))
        table = table.assign(**table[list(kind.numbers)].clip(lower=_LEAST))
        ax.axhline(1, color="0.35", linewidth=1, linestyle="--")
    for number, (metric, rows) in enumerate(table.groupby("metric", sort=False)):
        rows = rows.sort_values("layer_index")
        draw_with_interval(ax, rows, kind.value, label=as_text(metric), **_style(number))
    if kind.ratio:
        logarithmic(ax)
    else:
        ax.set_ylim(bottom=0)
    if table["metric"].nunique() > 1:
        ax.legend(**BESIDE)
    _say(ax, as_text(kind.label(table)))


def _say(ax, label):
    """What a panel shows, in letters that its height has room for."""
    ax.set_ylabel(label.replace("; ", "\n"), fontsize=8)


def _draw_worst(ax, table):
    """Medians over images with quartiles: of the mean over draws, and of the worst found."""
    shown = ("mean_sensitivity", "worst_sensitivity")
    if table[list(shown)].isna().all(axis=None):  # of the prediction there is no baseline
        shown = ("mean", "worst")
    for number, (value, label) in enumerate(zip(shown, ("mean of draws", "worst found"))):
        quartiles = table.groupby("layer_index")[value].quantile([0.25, 0.5, 0.75]).unstack()
        low, middle, high = (quartiles[share].to_numpy() for share in (0.25, 0.5, 0.75))
        ax.errorbar(
            quartiles.index + 0.12 * (number - 0.5),
            middle,
            [middle - low, high - middle],
            markersize=4,
            label=label,
            **_style(number) | {"linestyle": ""},
        )
    ax.set_ylim(bottom=0)
    what = "sensitivity of an image" if "_" in shown[0] else "distance of an image"
    _say(ax, f"{what}\nlower is more stable")
    ax.legend(**BESIDE)


def _style(number) -> dict:
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _draw_intervals(ax, rows, number):
    """The ratio, its interval, and markers that are filled where 1 is left out."""
    place, ratio = rows["layer_index"], rows["ratio"]
    low, high = rows["ratio_low"], rows["ratio_high"]
    style = _style(number)
    ax.plot(place, ratio, color=style["color"], linewidth=0.8, alpha=0.6)
    ax.vlines(place, low, high, color=style["color"], linewidth=1.2)
    apart = (low > 1) | (high < 1)
    for filled, some in ((True, apart), (False, ~apart)):
        face = style["color"] if filled else "white"
        ax.plot(
            place[some],
            ratio[some],
            linestyle="",
            markerfacecolor=face,
            markersize=marker(rows) + 1,
            **style,
        )


def _places(*tables) -> pd.DataFrame:
    """Layers of all tables in one order: `layer` and `layer_index`, by name."""
    orders = []
    for table in tables:
        rows = table.sort_values("layer_index") if "layer_index" in table else table
        orders.append(list(rows["layer"].drop_duplicates()))
    names = merged(sorted(orders, key=len, reverse=True))
    return pd.DataFrame({"layer": names, "layer_index": np.arange(len(names))}, index=names)


def _axes(axes, count, layers) -> list:
    if axes is not None:
        found = list(np.ravel(axes))
        if len(found) != count:
            raise ValueError(f"axes must be {count}, one a panel, received {len(found)}")
        return found
    from deformstab.presentation.pictures import Picture

    longest = max(len(shortened(name)) for name in layers["layer"])
    width = 3.6 + max(3.5, 0.2 * min(len(layers), NAMES))
    figure = Picture(figsize=(width, 0.6 + 2.5 * count + 0.065 * longest), layout="constrained")
    return list(np.ravel(figure.subplots(count, 1, sharex=True)))


def _finish(axes, layers, title, measured):
    """Names of layers below the last of panels that share them, below each of others."""
    own = len({ax.figure for ax in axes}) == 1 and all(
        axes[0].get_shared_x_axes().joined(axes[0], ax) for ax in axes
    )
    measured = measured.reindex(layers["layer_index"], fill_value=False)
    labels = [shortened(name) for name in layers["layer"]]
    for ax in axes[-1:] if own else axes:
        name_layers(ax, layers["layer_index"].to_numpy(), labels, measured)
    axes[0].set_title(as_text(title))
