"""What questions 1 to 3 are judged by: one number a seed, from the tables of the runs.

Each function makes one that takes `Results` and gives a Series of seed → statistic, a difference of
logs; empty without the runs.
"""

import pandas as pd

from deformstab.paper.questions.shuffles import CHANNELS, TAPS
from deformstab.paper.verdicts.question_tables import (
    WITHOUT_POOLING,
    between,
    chosen,
    in_half,
    layer_logs,
    log,
    wide,
)
from deformstab.paper.verdicts.statistics import POOLING


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
        table = chosen(results, "question_consistency", phase=phase)
        logs = wide(table.assign(layer="output"), log(table, "consistency"))
        return between(logs, (kind,), (reference,))

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


def _shuffled(results, shuffle=None, half=None) -> pd.DataFrame:
    """Mean over permutations of the log ratio, [(seed, kind) rows, convolution columns]."""
    table = chosen(results, "question_shuffles")
    if len(table) and half is not None:
        table = table[in_half(table["layer_index"], half)]
    both = [
        wide(rows, log(rows, "ratio"))
        for rows in (table[table["shuffle"] == name] if len(table) else table for name in _ALONE)
    ]
    return both[0] - both[1] if shuffle is None else both[_ALONE.index(shuffle)]


_ALONE = (TAPS, CHANNELS)
