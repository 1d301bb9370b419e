"""What claims are judged by: one number a seed, from the tables of the runs.

Each function takes `Results` (or makes one that does) and gives a Series of seed → statistic, or of
two variances to compare a DataFrame with the columns of `VARIANCES`; empty without the runs. Which
statistic belongs to which claim, and why: `deformstab/paper/verdicts/claims.py`.
"""

import numpy as np
import pandas as pd

POOLING = ("max", "average")
VARIANCES = ("variance", "reference")


def log_sensitivity(results, study, phase, task="true_labels", metric="cosine"):
    """log sensitivity, [(seed, kind, …) rows, layer columns]; the input left out."""
    table = results.sensitivity(study, phase, task, metric)
    return _logs(table[table["layer_index"] > 0] if len(table) else table, "sensitivity")


def log_smoothness(results, study, phase, task="true_labels"):
    return _logs(results.smoothness(study, phase, task), "smoothness")


def _logs(table, column) -> pd.DataFrame:
    index = ["seed", "downsampling", "class_displacement", "sigma"]
    if table.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[]] * len(index), names=index))
    logs = table.assign(value=np.log(table[column]))
    # Layers in the model's order: the trend over depth needs it.
    logs["layer"] = pd.Categorical(logs["layer"], logs.drop_duplicates("layer")["layer"])
    return _whole_seeds(logs.pivot(index=index, columns="layer", values="value"))


def _whole_seeds(logs) -> pd.DataFrame:
    """Only seeds of which every network was run that any seed has.

    Runs go seed after seed: of one that was stopped, a mean over the kinds that are there would be
    of other kinds than in the seeds before it.
    """
    networks = logs.index.to_frame(index=False).fillna(-1)  # nothing else is a displacement of -1
    which = list(zip(*(networks[name] for name in networks if name != "seed")))
    by_seed = pd.Series(which).groupby(networks["seed"]).agg(set)
    whole = by_seed.index[by_seed.map(len) == len(set(which))]
    return logs[logs.index.isin(whole, level="seed")]


def _common(*tables) -> list[pd.DataFrame]:
    """The same logs with only the layers that are measured in all rows of all tables of a seed.

    A layer that one network cannot measure (a dead one) would otherwise pass for a difference.
    """
    measured = pd.concat(tables).notna().groupby(level="seed").all()
    return [logs.where(measured.reindex(logs.index, level="seed")) for logs in tables]


def _summary(logs) -> pd.DataFrame:
    """The mean over layers: [seeds, kinds]."""
    return logs.mean(axis=1).groupby(level=["seed", "downsampling"]).mean().unstack("downsampling")


def variance_between_kinds(logs) -> pd.Series:
    """The variance between kinds of the logs, mean over layers, that between seeds left out.

    In each layer, a network's deviation from the mean over the kinds of its seed is what its kind
    does plus what its seed does. Products of the deviations of *different* seeds have the square of
    the first for expectation, and none of the second: their mean over all pairs of seeds is the
    variance between kinds, without bias (it may come out below zero).

    Args:
        logs: [(seed, kind, …) rows, layer columns], all kinds in all seeds, all of them measured.

    Returns:
        A pseudo-value a seed (Tukey's jackknife: n times the estimate less n - 1 times the one
        without this seed), of which the mean is the estimate; NaN for under three seeds.
    """
    kinds = logs.index.get_level_values("downsampling").nunique()
    by_seed = (logs - logs.groupby(level="seed").transform("mean")).groupby(level="seed")
    deviations = [rows.sort_index().to_numpy().ravel() for _, rows in by_seed]
    scale = (kinds - 1) * logs.shape[1]
    return pd.Series(_pseudo_values(np.stack(deviations)) / scale, index=list(by_seed.groups))


def _comparable(*tables) -> list[pd.DataFrame]:
    """The same logs with only what can be compared between kinds in each of the tables.

    That is: seeds in which every kind has a network that could be measured (one that diverged
    cannot), and layers that all of their networks can measure. No rows without two kinds.
    """
    tables = [logs.dropna(how="all") for logs in tables]
    kinds = set().union(*(logs.index.unique("downsampling") for logs in tables))
    seeds = [
        {seed for seed, rows in logs.groupby(level="seed") if len(rows) == len(kinds)}
        for logs in tables
    ]
    seeds = set.intersection(*seeds) if len(kinds) > 1 else set()
    tables = [logs[logs.index.isin(seeds, level="seed")] for logs in tables]
    layers = [set(logs.dropna(axis=1)) for logs in tables]
    return [logs[[x for x in logs if x in set.intersection(*layers)]] for logs in tables]


def _variances(variance, reference) -> pd.DataFrame:
    return pd.concat([variance, reference], axis=1, keys=VARIANCES)


def _ratio_of_spreads(above, below) -> pd.DataFrame:
    above, below = _comparable(above, below)
    if above.empty:
        return pd.DataFrame(columns=VARIANCES, dtype=float)
    return _variances(variance_between_kinds(above), variance_between_kinds(below))


def _pseudo_values(vectors) -> np.ndarray:
    """Of the mean of x·y over all pairs of different rows; none for under three rows."""
    count = len(vectors)
    if count < 3:
        return np.full(count, np.nan)

    def pairs(rows):
        total = rows.sum(axis=0)
        return ((total @ total) - (rows * rows).sum()) / (len(rows) * (len(rows) - 1))

    without = [pairs(np.delete(vectors, number, axis=0)) for number in range(count)]
    return count * pairs(vectors) - (count - 1) * np.array(without)


def _between(summary, first, second) -> pd.Series:
    """Mean over some kinds minus mean over others; nothing when either is missing."""
    first = [kind for kind in first if kind in summary]
    second = [kind for kind in second if kind in summary]
    if not first or not second:
        return pd.Series(dtype=float)
    return summary[first].mean(axis=1) - summary[second].mean(axis=1)


def _slopes(logs, level) -> pd.Series:
    """The slope of the layer summary against a level of the index, of each seed."""
    (logs,) = _common(logs)
    summary = logs.mean(axis=1).dropna().reset_index(name="value")
    slopes = {
        seed: np.polyfit(rows[level], rows["value"], 1)[0]
        for seed, rows in summary.groupby("seed")
        if rows[level].nunique() > 1
    }
    return pd.Series(slopes, dtype=float)


def _phases(logs, results):
    return [logs(results, "main", phase) for phase in ("initial", "trained")]


def pooling_init(study):
    def values(results):
        (initial,) = _common(log_sensitivity(results, study, "initial"))
        summary = _summary(initial)
        others = [kind for kind in summary if kind not in POOLING]
        return _between(summary, POOLING, others)

    return values


def pooling_increases(results):
    initial, trained = _common(*_phases(log_sensitivity, results))
    initial, trained = _summary(initial), _summary(trained)
    kinds = [kind for kind in POOLING if kind in trained]
    if not kinds:
        return pd.Series(dtype=float)
    return (trained[kinds] - initial[kinds]).mean(axis=1)


def kinds_converge(results):
    initial, trained = _phases(log_sensitivity, results)
    return _ratio_of_spreads(trained, initial)


def smoothing(results):
    return _slopes(log_sensitivity(results, "filters", "initial"), "sigma")


def stronger_tasks(results):
    smoothness = log_smoothness(results, "tasks", "trained", "deformed_classes")
    return _slopes(smoothness, "class_displacement")


def training_smooths(results):
    """The largest change among the kinds: below zero, every kind has become smoother."""
    initial, trained = _common(*_phases(log_smoothness, results))
    initial, trained = _summary(initial), _summary(trained)
    return (trained - initial).max(axis=1) if len(trained) else pd.Series(dtype=float)


def smoothness_converges(results):
    """Kinds start equal in smoothness, so what is asked is how far training takes them apart,
    compared with how far it takes them all (squared, and without bias, as the variance is)."""
    initial, trained = _comparable(*_phases(log_smoothness, results))
    if trained.empty:
        return pd.DataFrame(columns=VARIANCES, dtype=float)
    change = (trained - initial).mean(axis=1).groupby(level="seed").mean()
    squared = pd.Series(_pseudo_values(change.to_numpy()[:, None]), index=change.index)
    return _variances(variance_between_kinds(trained), squared)


def depth(study):
    def values(results):
        slopes = depth_of_kinds(results, study=study)
        return slopes.mean(axis=1) if len(slopes) else pd.Series(dtype=float)

    return values


def change_of_kinds(logs, results, task="true_labels") -> pd.DataFrame:
    """By how much training changes the layer summary: [seeds, kinds]."""
    initial, trained = (logs(results, "main", phase, task) for phase in ("initial", "trained"))
    if initial.empty or trained.empty:
        return pd.DataFrame()
    initial, trained = _common(initial, trained)
    return _summary(trained) - _summary(initial)


def depth_of_kinds(results, task="true_labels", study="main") -> pd.DataFrame:
    """The slope of the logs of smoothness after training, layer by layer: [seeds, kinds]."""
    (trained,) = _common(log_smoothness(results, study, "trained", task))
    trained = trained.dropna(axis=1, how="all").dropna()
    if trained.empty:
        return pd.DataFrame()
    slope = np.polyfit(np.arange(trained.shape[1]), trained.to_numpy().T, 1)[0]
    return _summary(pd.DataFrame({"slope": slope}, index=trained.index))


def labels_decide(logs):
    def values(results):
        labels = ("true_labels", "random_labels")
        true, random = (logs(results, "main", "trained", task) for task in labels)
        return _ratio_of_spreads(random, true)

    return values


def euclidean(results):
    """Spearman's rank correlation of the two metrics over kinds, layers and phases, of each seed, as
    Fisher's z."""
    pairs = []
    for phase in ("initial", "trained"):
        metrics = [
            log_sensitivity(results, "main", phase, metric=metric)
            for metric in ("cosine", "euclidean")
        ]
        if all(len(logs) for logs in metrics):
            pairs.append(pd.concat([logs.stack() for logs in metrics], axis=1))
    if not pairs:
        return pd.Series(dtype=float)
    pairs = pd.concat(pairs).dropna()
    found = pairs.groupby(level="seed").apply(lambda rows: rows.rank().corr().iloc[0, 1])
    return np.arctanh(found.clip(-1 + 1e-9, 1 - 1e-9))


def init_smoothness(results):
    """The largest relative deviation from 1.87 of a layer, of all networks of a seed."""
    found = []
    for study in ("main", "large"):
        initial = log_smoothness(results, study, "initial")
        if len(initial):
            deviations = (np.exp(initial) / 1.87 - 1).abs().max(axis=1)
            found.append(deviations.groupby(level="seed").max())
    if not found:
        return pd.Series(dtype=float)
    return pd.concat(found, axis=1, join="inner").max(
        axis=1
    )  # seeds of which both studies are there
