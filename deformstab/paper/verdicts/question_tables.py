"""Means over layers and kinds of the open questions' tables, one number a seed.

Kinds are compared within a seed: only seeds count of which every kind that takes part was run, and
in each seed only layers that all of its networks could measure. The input, which no network changes,
and the logits, which the paper does not plot, are left out.
"""

import numpy as np
import pandas as pd

from deformstab.measurement.objectives import PREDICTION
from deformstab.paper.verdicts.statistics import POOLING

WITHOUT_POOLING = ("subsample", "strided", "strided_relu")
ALL_KINDS = (*WITHOUT_POOLING, *POOLING)
NOT_COUNTED = ("input", "logits", PREDICTION)


def between(logs, first, second=()) -> pd.Series:
    """Mean over layers and over some kinds, less that over others, of each seed.

    Args:
        logs: [(seed, kind) rows, layer columns].
        first, second: kinds; of each those that were run. No `second`: nothing is subtracted.
    """
    subtracts = bool(second)
    kinds, seeds = (logs.index.get_level_values(name) for name in ("downsampling", "seed"))
    first, second = ([kind for kind in group if kind in {*kinds}] for group in (first, second))
    if not first or (subtracts and not second):
        return pd.Series(dtype=float)
    by_seed, found = {}, {}
    for seed, kind, row in zip(seeds, kinds, logs.to_numpy()):
        by_seed.setdefault(seed, {})[kind] = row
    for seed, rows in by_seed.items():
        if not {*first, *second} <= {*rows}:
            continue  # a kind is still to come
        # A layer that one network cannot measure would pass for a difference.
        measured = ~np.isnan([rows[kind] for kind in (*first, *second)]).any(axis=0)
        if measured.any():
            means = {kind: row[measured].mean() for kind, row in rows.items()}
            found[seed] = np.mean([means[kind] for kind in first])
            found[seed] -= np.mean([means[kind] for kind in second]) if subtracts else 0.0
    return pd.Series(found, dtype=float)


def layer_logs(results, name: str, column: str, half: str = "", **which) -> pd.DataFrame:
    """log of a column of one condition, [(seed, kind) rows, layer columns].

    Args:
        results: with the tables.
        name, column: of the table.
        half: of the layers, "early" or "late", by default all.
        **which: the condition, column → value.
    """
    table = chosen(results, name, **which)
    if len(table):
        table = table[~table["layer"].isin(NOT_COUNTED)]
    if len(table) and half:
        table = table[in_half(table["layer_index"], half)]
    return wide(table, log(table, column))


def in_half(index, half: str) -> pd.Series:
    """Which places of layers lie in the "early" or the "late" half of those that there are."""
    places = sorted(set(index))
    late = index.isin(places[(len(places) + 1) // 2 :])
    return late if half == "late" else ~late


def wide(table, values) -> pd.DataFrame:
    """Values of the rows of a table, means over what is alike, [(seed, kind) rows, layer columns]."""
    names = ["seed", "downsampling"]
    if table.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=names))
    keys = [table[name] for name in (*names, "layer")]
    # One that is NaN must not hide behind the others of its layer.
    lacks = values.isna().groupby(keys, sort=False).any()
    return values.groupby(keys, sort=False).mean().mask(lacks).unstack("layer")


def log(table, column) -> pd.Series:
    """NaN where it is no positive number: nothing moved a representation, or it was not measured."""
    if table.empty:
        return pd.Series(dtype=float)
    values = table[column].astype("float64")
    return np.log(values.where((values > 0) & np.isfinite(values)))


def chosen(results, name, **which) -> pd.DataFrame:
    """The rows of a table where columns have these values; empty without the runs."""
    table = results.tables.get(name, pd.DataFrame())
    for column, value in which.items():
        if len(table):
            table = table[table[column] == value]
    return table
