"""What all plots have in common: names as text, intervals, axes, colours; tables with their types."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

NAMES = 60  # so many layers can be named along an axis
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
# Colours that colour-blind readers tell apart (Okabe and Ito 2008), the lightest left out; each has
# a marker, so that colour is never alone in telling lines apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LONGEST = 48  # characters of a name that is shown


def typed(table: pd.DataFrame, numbers: Iterable[str], words: Iterable[str]) -> pd.DataFrame:
    """The table with numbers in its columns of numbers, and text in the others.

    A CSV file does not tell the type of a column without any number, nor of names like "1".
    """
    return table.assign(
        **{name: pd.to_numeric(table[name], errors="coerce") for name in numbers},
        **{name: table[name].astype(str) for name in words},
    )


def check_columns(table, needed: Iterable[str], argument: str, makers: str) -> None:
    """Refuses what is no table with these columns and with rows.

    Args:
        table: what was passed.
        needed: names of columns.
        argument: its name, for the error.
        makers: the functions that make such tables, for the error.

    Raises:
        ValueError: it names the columns and the functions.
    """
    if isinstance(table, pd.DataFrame):
        missing = [name for name in needed if name not in table.columns]
        if not missing and len(table):
            return
        received = f"columns {list(table.columns)} and {len(table)} rows"
    else:
        received = repr(table)
    raise ValueError(
        f"{argument} must be a table of {makers}: a DataFrame with rows and the columns "
        f"{', '.join(needed)}; received {received}"
    )


def draw_with_interval(axis, rows, shown: str, **line) -> None:
    """A line over layers, and its interval as a band."""
    place, low, high = rows["layer_index"], rows[f"{shown}_low"], rows[f"{shown}_high"]
    line = {"marker": "o", "markersize": marker(place)} | line
    (drawn,) = axis.plot(place, rows[shown], **line)
    axis.fill_between(place, low, high, color=drawn.get_color(), alpha=0.25, linewidth=0)
    known = low.notna()  # a layer between two gaps has no area
    alone = known & ~known.shift(1, fill_value=False) & ~known.shift(-1, fill_value=False)
    axis.vlines(place[alone], low[alone], high[alone], color=drawn.get_color(), alpha=0.5)


def with_logarithms(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The table without what a logarithmic axis has no place for: what is zero or infinite."""
    return table.assign(**table[names].where((table[names] > 0) & (table[names] < np.inf)))


def logarithmic(axis) -> None:
    """A logarithmic y axis with ticks that can be read, however little it spans."""
    from matplotlib import ticker

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    steps = (1, 2, 5) if high < 1e3 * low else (1,)
    axis.yaxis.set_major_locator(
        ticker.MaxNLocator(7, steps=[1, 2, 5, 10])
        if high < 5 * low
        else ticker.LogLocator(subs=steps)
    )
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(ticker.NullLocator())


def log_steps(steps) -> bool:
    """Whether steps of training are spaced logarithmically, most likely."""
    positive = np.unique(np.asarray(steps, "float64"))
    positive = positive[positive > 0]
    return len(positive) > 2 and positive[-1] > 50 * positive[0] and not _evenly(positive)


def _evenly(values) -> bool:
    gaps = np.diff(values)
    return gaps.max() <= 1.5 * gaps.min()


def colours(name: str, count: int):
    """From a colour map without its lightest part, which is hard to see on white."""
    import matplotlib

    return matplotlib.colormaps[name](np.linspace(0, 0.9, count))


def marker(rows) -> float:
    """The size of markers of so many layers."""
    return 3.5 if len(rows) <= NAMES else 1.5


def shortened(name: str) -> str:
    """A layer's name for a figure: of a long one its end, which tells it from its neighbours."""
    return as_text(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}")


def as_text(name: str) -> str:
    """A name as matplotlib shows it letter by letter: between two $ it would read mathematics."""
    return name.replace("$", r"\$")


def name_layers(axis, places, labels, measured) -> None:
    """Layers along the x axis, as many as have room; those without a number in grey."""
    step = -(-len(labels) // NAMES)
    axis.set_xticks(places[::step], labels[::step], rotation=90, fontsize=7)
    axis.set_xlim(places.min() - 0.6, places.max() + 0.6)
    for tick, known in zip(axis.get_xticklabels(), measured[places[::step]]):
        tick.set_color("black" if known else "0.6")


def merged(orders: Iterable[Iterable[str]]) -> list[str]:
    """Names in an order that keeps each of several orders, as far as they agree.

    A name that earlier ones do not have comes behind the one it follows in its own.
    """
    found: list[str] = []
    for order in orders:
        place = 0
        for name in order:
            if name in found:
                place = found.index(name) + 1
            else:
                found.insert(place, name)
                place += 1
    return found
