"""What questions 4 and 5 are judged by: one number a seed, from the tables of the runs.

Each function makes one that takes `Results` and gives a Series of seed → statistic; empty without
the runs. Of ratios it is their log. "Worst" is the worst that was found.
"""

import pandas as pd

from deformstab.measurement.objectives import PREDICTION
from deformstab.paper.verdicts.question_tables import (
    ALL_KINDS,
    between,
    chosen,
    layer_logs,
    log,
    wide,
)


def excess(phase: str, within: str, half: str = "", first=ALL_KINDS, second=()):
    """log of worst over mean of layers less that of the image; of some kinds, less others."""

    def values(results):
        which = {"phase": phase, "within": within}
        layers = layer_logs(results, "question_worst", "ratio", half, **which)
        table = chosen(results, "question_worst", **which, layer="input")
        image = wide(table, log(table, "ratio")).reindex(layers.index)
        return between(layers.sub(image.mean(axis=1), axis=0), first, second)

    return values


def excess_by_training(within: str, half: str = ""):
    """What training changes of log worst over mean."""

    def values(results):
        both = [
            layer_logs(results, "question_worst", "ratio", half, phase=phase, within=within)
            for phase in ("trained", "initial")
        ]
        return between(both[0] - both[1], ALL_KINDS)

    return values


def search(phase: str, within: str):
    """log of what the ascents find over the best of as many random draws."""

    def values(results):
        which = {"phase": phase, "within": within}
        both = [
            layer_logs(results, "question_worst", name, **which) for name in ("search", "best_of_k")
        ]
        return between(both[0] - both[1], ALL_KINDS)

    return values


def transfer(results) -> pd.Series:
    """log of what other layers' worst deformations do to a layer over what its own does."""
    table = chosen(results, "question_transfer")
    table = table[table["source"] != PREDICTION] if len(table) else table
    own = table[table["source"] == table["layer"]] if len(table) else table
    others = table[table["source"] != table["layer"]] if len(table) else table
    both = [wide(rows, log(rows, "distance")) for rows in (others, own)]
    return between((both[0] - both[1]).drop(columns="input", errors="ignore"), ALL_KINDS)


def ranks(phase: str, within: str):
    """Rank correlation (Spearman) of kinds by worst and by mean sensitivity, mean over layers.

    Of seeds of which every kind was run, and layers that all of them could measure.
    """

    def values(results):
        which = {"phase": phase, "within": within}
        columns = "worst_sensitivity", "mean_sensitivity"
        worst, mean = (layer_logs(results, "question_worst", name, **which) for name in columns)
        kinds = worst.index.get_level_values("downsampling").nunique()
        found = {}
        for seed in dict.fromkeys(worst.index.get_level_values("seed")):
            both = [table.xs(seed, level="seed").rank() for table in (worst, mean)]
            measured = ~pd.concat(both).isna().any()
            if len(both[0]) == kinds > 1 and measured.any():
                columns = measured.index[measured]
                found[seed] = both[0][columns].corrwith(both[1][columns]).mean()
        return pd.Series(found, dtype=float)

    return values


def unchanged(column: str, within: str):
    """The share of answers that stay, trained, mean over kinds."""

    def values(results):
        which = {"phase": "trained", "within": within, "layer": PREDICTION}
        table = chosen(results, "question_worst", **which)
        return between(wide(table, table[column] if len(table) else None), ALL_KINDS)

    return values


# Steps are noted down at powers of √2: the last one of the first epoch is two thirds of it or more.
WHOLE, FIRST, REST = "the whole training", "most of the first epoch", "the rest of the training"


def moving(column: str, half: str = "", kinds=ALL_KINDS, period: str = WHOLE):
    """What a part of training changes of log `column` of the layers."""

    def values(results):
        ends = {
            WHOLE: ("initial", "trained"),
            FIRST: ("initial", FIRST),
            REST: (FIRST, "trained"),
        }[period]
        start, end = (_moment(results, column, half, name) for name in ends)
        return between(end - start, kinds)

    return values


def _moment(results, column, half, name) -> pd.DataFrame:
    if name != FIRST:
        return layer_logs(results, "question_moving", column, half, phase=name)
    table = chosen(results, "question_moving")
    if len(table):
        keys = ["part", "downsampling", "seed"]
        training = chosen(results, "question_training").drop_duplicates(keys).set_index(keys)
        epoch = (training["steps"] / training["epochs"]).rename("epoch")
        table = table.join(epoch, on=keys)
        within = table[(table["step"] > 0) & (table["step"] <= table["epoch"])]
        last = within.groupby(keys)["step"].transform("max")
        table = within[within["step"] == last]
    return layer_logs(_Only({"question_moving": table}), "question_moving", column, half)


class _Only:
    """Results with these tables."""

    def __init__(self, tables):
        self.tables = tables
