"""What question 6 is judged by: one number a seed, from the tables of the runs.

The law is error ≈ 0.2 · √R. Each function makes one that takes `Results` and gives a Series of seed →
statistic; empty without the runs. Of ratios it is their log.
"""

import numpy as np
import pandas as pd

from deformstab.paper.questions.logits import FACTOR, POWER
from deformstab.paper.verdicts.claims import DESCRIPTION
from deformstab.paper.verdicts.question_tables import chosen

_FEWEST_SIZES = 2  # numbers of training images, for a slope
ALL_SIZES, SMALLEST, LARGEST = "all numbers of images", "the fewest images", "the most images"


def slope(family: str, metric: str, among: str = "all"):
    """The slope of log error against log R over the networks of a seed.

    Args:
        family, metric: of R.
        among: "all" networks; "sizes", with a level of its own for each kind of downsampling; or
            "kinds", of means over the numbers of training images.
    """

    def values(results):
        return _by_seed(_with_logs(results, family, metric), lambda rows: _slope(rows, among))

    return values


def _slope(rows, among) -> float:
    points = rows[["log_r", "log_error"]]
    if among != "all":
        means = points.groupby(rows["downsampling"]).transform("mean")
        points = points - means if among == "sizes" else means.drop_duplicates()
    x, y = (points[name] - points[name].mean() for name in points)
    return (x * y).sum() / (x**2).sum() if (x**2).sum() > 0 else np.nan


def factor(family: str, metric: str, sizes: str = ALL_SIZES):
    """log of the error over what the law says, mean over the networks of a seed."""

    def values(results):
        table = _with_logs(results, family, metric)
        if len(table) and sizes != ALL_SIZES:
            images = table["train_images"]
            table = table[images == (images.min() if sizes == SMALLEST else images.max())]
        return _by_seed(table, lambda rows: rows["residual"].mean())

    return values


def misfit(family: str, metric: str, own_line: bool = False):
    """How far errors are from the law: root mean square of the residuals' logs, of a seed.

    Args:
        family, metric: of R.
        own_line: from the line that fits the seed's networks best, in place of the law.
    """

    def values(results):
        def of_seed(rows):
            residual = rows["residual"]
            if own_line:
                x = rows["log_r"] - rows["log_r"].mean()
                residual = rows["log_error"] - rows["log_error"].mean() - _slope(rows, "all") * x
            return np.sqrt((residual**2).mean())

        return _by_seed(_with_logs(results, family, metric), of_seed)

    return values


def _by_seed(table, statistic) -> pd.Series:
    found = {seed: statistic(rows) for seed, rows in table.groupby("seed")}
    return pd.Series(found, dtype=float)


def _with_logs(results, family, metric) -> pd.DataFrame:
    table = errors(results, family, metric)
    logs = {"log_r": np.log(table["relative_stability"]), "log_error": np.log(table["error"])}
    table = table.assign(**logs)
    return table.assign(residual=logs["log_error"] - np.log(FACTOR) - POWER * logs["log_r"])


def errors(results, family: str, metric: str) -> pd.DataFrame:
    """Test error and relative stability of the logits of each network.

    All seeds are compared on the same networks. Numbers of training images count that at least three
    seeds (or, of fewer seeds, the most that there are) have every kind of; then the seeds that have
    every kind of all these numbers. Empty with fewer than two numbers of images.

    Returns:
        `seed`, `downsampling`, `train_images`, `relative_stability`, `error`.
    """
    columns = ["seed", "downsampling", "train_images", "relative_stability", "error"]
    none = pd.DataFrame(columns=columns, dtype=float)
    table = chosen(results, "question_logits", family=family, metric=metric)
    if not len(table):
        return none
    keys = ["part", "downsampling", "seed", "train_images"]
    training = chosen(results, "question_training")[[*keys, "accuracy_test"]]
    table = table.merge(training, on=keys, validate="one_to_one")
    table["error"] = 1 - table["accuracy_test"]
    kinds = table["downsampling"].nunique()
    table = table[(table[["error", "relative_stability"]] > 0).all(axis=1)]
    complete = table.pivot_table(index="seed", columns="train_images", aggfunc="size") == kinds
    seeds = complete.sum()
    sizes = seeds.index[seeds >= min(DESCRIPTION, seeds.max())] if seeds.max() else seeds.index[:0]
    whole = complete.index[complete[sizes].all(axis=1)]
    if len(sizes) < _FEWEST_SIZES:
        return none
    there = table["train_images"].isin(sizes) & table["seed"].isin(whole)
    return table[there][columns].reset_index(drop=True)
