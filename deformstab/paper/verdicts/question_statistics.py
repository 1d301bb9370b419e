"""What the open questions are judged by: one number a seed, from the tables of the runs.

Each function makes one that takes `Results` and gives a Series of seed → statistic, a difference of
logs; empty without the runs. Kinds are compared within a seed: only seeds count of which every kind
that takes part was run, and in each seed only layers that all of its networks could measure. The
input, which no network changes, and the logits, which the paper does not plot, are left out.
"""

import numpy as np
import pandas as pd

from deformstab.paper.questions.shuffles import CHANNELS, TAPS
from deformstab.paper.verdicts.statistics import POOLING

WITHOUT_POOLING = ("subsample", "strided", "strided_relu")
NOT_COUNTED = ("input", "logits")


def noise(kind: str, metric: str, phase: str, statistics: str, noise: str):
    """log R of a kind of pooling, less the mean over the kinds without pooling."""
    which = {"metric": metric, "phase": phase, "statistics": statistics, "noise": noise}

    def values(results):
        logs = layer_logs(results, "question_noise", "relative_stability", **which)
        return between(logs, (kind,), WITHOUT_POOLING)

    return values


def shifts(kind: str, reference: str, change: str, outside: str, metric: str, phase: str):
    """log sensitivity of a kind to a change of the image, less that of another kind."""
    which = {"change": change, "outside": outside, "metric": metric, "phase": phase}

    def values(results):
        logs = layer_logs(results, "question_shifts", "sensitivity", **which)
        return between(logs, (kind,), (reference,))

    return values


def consistency(kind: str, reference: str, phase: str):
    """log of the consistency of a kind under rolls, less that of another kind."""

    def values(results):
        table = _chosen(results, "question_consistency", phase=phase)
        logs = table.assign(layer="output", value=_log(table, "consistency"))
        return between(_wide(logs), (kind,), (reference,))

    return values


def shuffles(kinds, shuffle=None, half=None):
    """log ratio to the intact network, shuffled by taps less by channels; mean over some kinds.

    Args:
        kinds: of downsampling.
        shuffle: one of the two alone.
        half: of the convolutions, "early" or "late", by default all.
    """

    def values(results):
        return between(_shuffled(results, shuffle, half), kinds)

    return values


def interaction(results) -> pd.Series:
    """`shuffles` of the kinds without pooling, less those of the kinds with it."""
    return between(_shuffled(results), WITHOUT_POOLING, POOLING)


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


def layer_logs(results, name: str, column: str, **which) -> pd.DataFrame:
    """log of a column of one condition, [(seed, kind) rows, layer columns]."""
    table = _chosen(results, name, **which)
    if len(table):
        table = table[~table["layer"].isin(NOT_COUNTED)]
    return _wide(table.assign(value=_log(table, column)))


def _shuffled(results, shuffle=None, half=None) -> pd.DataFrame:
    """Mean over permutations of the log ratio, [(seed, kind) rows, convolution columns]."""
    table = _chosen(results, "question_shuffles")
    if len(table) and half is not None:
        late = table["layer_index"] > table["layer_index"].max() / 2
        table = table[late if half == "late" else ~late]
    both = [
        _wide(rows.assign(value=_log(rows, "ratio")))
        for rows in (table[table["shuffle"] == name] if len(table) else table for name in _ALONE)
    ]
    return both[0] - both[1] if shuffle is None else both[_ALONE.index(shuffle)]


_ALONE = (TAPS, CHANNELS)


def _wide(table) -> pd.DataFrame:
    names = ["seed", "downsampling"]
    if table.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=names))
    keys = [table[name] for name in (*names, "layer")]
    # One that is NaN must not hide behind the others of its layer.
    lacks = table["value"].isna().groupby(keys, sort=False).any()
    return table["value"].groupby(keys, sort=False).mean().mask(lacks).unstack("layer")


def _log(table, column) -> pd.Series:
    """NaN where it is no positive number: nothing moved a representation, or it was not measured."""
    if table.empty:
        return pd.Series(dtype=float)
    values = table[column].astype("float64")
    return np.log(values.where((values > 0) & np.isfinite(values)))


def _chosen(results, name, **which) -> pd.DataFrame:
    table = results.tables.get(name, pd.DataFrame())
    for column, value in which.items():
        if len(table):
            table = table[table[column] == value]
    return table
