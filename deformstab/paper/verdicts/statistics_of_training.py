"""What questions 4 to 6 are judged by: one number a seed, from the tables of the runs.

Each function makes one that takes `Results` and gives a Series of seed → statistic; empty without
the runs. Of ratios it is their log.
"""

import numpy as np
import pandas as pd

from deformstab.measurement.objectives import PREDICTION
from deformstab.paper.questions.logits import FACTOR, POWER
from deformstab.paper.verdicts.question_tables import (
    ALL_KINDS,
    between,
    chosen,
    layer_logs,
    log,
    wide,
)


def excess(phase: str, within: str, first=ALL_KINDS, second=()):
    """log of worst over mean of layers less that of the input; of some kinds, less others."""

    def values(results):
        layers = layer_logs(results, "question_worst", "ratio", phase=phase, within=within)
        table = chosen(results, "question_worst", phase=phase, within=within, layer="input")
        image = wide(table, log(table, "ratio")).reindex(layers.index)
        return between(layers.sub(image.mean(axis=1), axis=0), first, second)

    return values


def excess_by_training(within: str):
    """What training changes of log worst over mean."""

    def values(results):
        both = [
            layer_logs(results, "question_worst", "ratio", phase=phase, within=within)
            for phase in ("trained", "initial")
        ]
        return between(both[0] - both[1], ALL_KINDS)

    return values


def search(phase: str, within: str):
    """log of what the search finds over the best of as many random draws."""

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
    """Rank correlation (Spearman) of kinds by worst and by mean distance, mean over layers."""

    def values(results):
        which = {"phase": phase, "within": within}
        both = [layer_logs(results, "question_worst", name, **which) for name in ("worst", "mean")]
        found = {}
        for seed in dict.fromkeys(both[0].index.get_level_values("seed")):
            worst, mean = (table.xs(seed, level="seed").rank() for table in both)
            if len(worst) > 1:
                found[seed] = worst.corrwith(mean).mean()
        return pd.Series(found, dtype=float)

    return values


def unchanged(column: str, within: str):
    """The share of answers that stay, trained, mean over kinds."""

    def values(results):
        which = {"phase": "trained", "within": within, "layer": PREDICTION}
        table = chosen(results, "question_worst", **which)
        return between(wide(table, table[column] if len(table) else None), ALL_KINDS)

    return values


WHOLE, FIRST_EPOCH, AFTERWARDS = "the whole training", "the first epoch", "after the first epoch"


def moving(column: str, kinds, period: str = WHOLE):
    """What a part of training changes of log `column` of the layers."""

    def values(results):
        ends = {
            WHOLE: ("initial", "trained"),
            FIRST_EPOCH: ("initial", FIRST_EPOCH),
            AFTERWARDS: (FIRST_EPOCH, "trained"),
        }[period]
        start, end = (_moment(results, column, name) for name in ends)
        return between(end - start, kinds)

    return values


def _moment(results, column, name) -> pd.DataFrame:
    if name != FIRST_EPOCH:
        return layer_logs(results, "question_moving", column, phase=name)
    table = chosen(results, "question_moving")
    if not len(table):
        return layer_logs(results, "question_moving", column)
    keys = ["part", "downsampling", "seed"]
    training = chosen(results, "question_training").set_index(keys)
    epoch = (training["steps"] / training["epochs"]).rename("epoch")
    table = table.join(epoch, on=keys)
    within = table[(table["step"] > 0) & (table["step"] <= table["epoch"])]
    last = within["step"] == within.groupby(keys)["step"].transform("max")
    tables = {"question_moving": within[last]}
    return layer_logs(_Tables(tables), "question_moving", column)


class _Tables:
    def __init__(self, tables):
        self.tables = tables


ALL_SIZES, SMALLEST, LARGEST = "all numbers of images", "the fewest images", "the most images"


def law_slope(family: str, metric: str):
    """The slope of log error against log R over the networks of a seed."""

    def values(results):
        found = {
            seed: np.polyfit(np.log(rows["relative_stability"]), np.log(rows["error"]), 1)[0]
            for seed, rows in errors(results, family, metric).groupby("seed")
            if rows["relative_stability"].nunique() > 2
        }
        return pd.Series(found, dtype=float)

    return values


def law_factor(family: str, metric: str, sizes: str = ALL_SIZES):
    """log of the error over what the law says, mean over the networks of a seed."""

    def values(results):
        table = errors(results, family, metric)
        if len(table) and sizes != ALL_SIZES:
            images = table["train_images"]
            table = table[images == (images.min() if sizes == SMALLEST else images.max())]
        predicted = FACTOR * table["relative_stability"] ** POWER
        return np.log(table["error"] / predicted).groupby(table["seed"]).mean()

    return values


def errors(results, family: str, metric: str) -> pd.DataFrame:
    """Test error and relative stability of the logits of each network.

    Only numbers of training images count that every seed was trained on with every kind.

    Returns:
        `seed`, `downsampling`, `train_images`, `relative_stability`, `error`.
    """
    table = chosen(results, "question_logits", family=family, metric=metric)
    columns = ["seed", "downsampling", "train_images", "relative_stability", "error"]
    if not len(table):
        return pd.DataFrame(columns=columns, dtype=float)
    keys = ["part", "downsampling", "seed", "train_images"]
    training = chosen(results, "question_training")[[*keys, "accuracy_test"]]
    table = table.merge(training, on=keys, validate="one_to_one")
    table["error"] = 1 - table["accuracy_test"]
    whole = table["seed"].nunique() * table["downsampling"].nunique()
    complete = table.groupby("train_images")["error"].transform("size") == whole
    positive = (table[["error", "relative_stability"]] > 0).all(axis=1)
    return table[complete & positive][columns].reset_index(drop=True)
