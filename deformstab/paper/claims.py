"""The claims of the paper, one row each: statistic, interval, verdict.

All rules stand here, written before the runs. Seeds are the unit: a statistic is one number a seed,
paired over kinds (networks of one seed start with equal weights where they have layers in common),
its interval Student's t over the seeds, 95 %. A layer summary is the mean over layers of the log
sensitivity (the input, which no network changes, left out) or of the log smoothness of the 3×3
filters; the spread between kinds is the standard deviation over kinds at each layer, averaged over
layers, of the same logs.

Verdict: a claim of direction is *reproduced* when the interval lies on the claimed side of zero, *not
reproduced* when it lies on the other, *inconclusive* otherwise. A claim of likeness has a margin: the
interval inside it, outside it, or neither. *Not tested*: the runs are missing, or batch
normalization is not to be trusted: training accuracy in inference mode and with batch statistics
differ by more than 0.05 in a network that the claim is built on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deformstab.intervals import mean_interval

ACCURACY_TOLERANCE = 0.05
POOLING = ("max", "average")
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested"


@dataclass(frozen=True)
class Claim:
    """A claim and how it is tested.

    Attributes:
        id, sentence, figure: of the paper.
        statistic: what the number is, in words.
        values: Results → Series of the statistic, a value a seed; empty without the runs.
        above, below: the side or the margin that is claimed, `None` for no bound.
        trained: the (study, task) whose training the claim is built on, if any.
    """

    id: str
    sentence: str
    figure: str
    statistic: str
    values: Callable
    above: float | None = None
    below: float | None = None
    trained: tuple = ()


def evaluate(results) -> pd.DataFrame:
    """Every claim with its value, 95 % interval over seeds and verdict, in the paper's order."""
    rows = []
    for claim in CLAIMS:
        values = claim.values(results).dropna()
        value, low, high = mean_interval(values) if len(values) else [np.nan] * 3
        verdict, note = _verdict(claim, len(values), low, high)
        gap = _accuracy_gap(results, claim.trained)
        if len(values) and gap > ACCURACY_TOLERANCE:
            verdict = NOT_TESTED
            note = f"training accuracy with batch statistics and in inference differ by {gap:.3f}"
        rows.append(
            {
                "claim": claim.id,
                "sentence": claim.sentence,
                "figure": claim.figure,
                "statistic": claim.statistic,
                "claimed": _claimed(claim),
                "value": value,
                "low": low,
                "high": high,
                "ratio": np.exp(value) if claim.statistic.startswith("log ratio") else np.nan,
                "seeds": len(values),
                "verdict": verdict,
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _verdict(claim, seeds, low, high):
    if seeds == 0:
        return NOT_TESTED, "the runs it needs were not asked for"
    if seeds == 1:
        return INCONCLUSIVE, "one seed has no interval"
    above = -np.inf if claim.above is None else claim.above
    below = np.inf if claim.below is None else claim.below
    if low > above and high < below:
        return REPRODUCED, ""
    if high < above or low > below:
        return NOT_REPRODUCED, ""
    return INCONCLUSIVE, "the interval reaches over the bound"


def _claimed(claim) -> str:
    if claim.above is not None and claim.below is not None:
        return f"{claim.above:g} to {claim.below:g}"
    return f"> {claim.above:g}" if claim.above is not None else f"< {claim.below:g}"


def _accuracy_gap(results, trained) -> float:
    gaps = [0.0]
    for study, task in trained:
        training = results.training(study, task)
        if not training.empty:
            gap = (training["accuracy_batch_statistics"] - training["accuracy_train"]).abs()
            gaps.append(gap.max())
    return max(gaps)


def _log_sensitivity(results, study, phase, task="true_labels", metric="cosine"):
    """log sensitivity, [(seed, kind, …) rows, layer columns]; the input left out."""
    table = results.sensitivity(study, phase, task, metric)
    return _logs(table[table["layer_index"] > 0] if len(table) else table, "sensitivity")


def _log_smoothness(results, study, phase, task="true_labels"):
    return _logs(results.smoothness(study, phase, task), "smoothness")


def _logs(table, column) -> pd.DataFrame:
    index = ["seed", "downsampling", "class_displacement", "sigma"]
    if table.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[]] * len(index), names=index))
    logs = table.assign(value=np.log(table[column]))
    # Layers in the model's order: the trend over depth needs it.
    logs["layer"] = pd.Categorical(logs["layer"], logs.drop_duplicates("layer")["layer"])
    return logs.pivot(index=index, columns="layer", values="value")


def _common(*tables) -> list[pd.DataFrame]:
    """The same logs with only the layers that are measured in all rows of all tables of a seed.

    A layer that one network cannot measure (a dead one) would otherwise pass for a difference.
    """
    measured = pd.concat(tables).notna().groupby(level="seed").all()
    return [logs.where(measured.reindex(logs.index, level="seed")) for logs in tables]


def _summary(logs) -> pd.DataFrame:
    """The mean over layers: [seeds, kinds]."""
    return logs.mean(axis=1).groupby(level=["seed", "downsampling"]).mean().unstack("downsampling")


def _spread(logs) -> pd.Series:
    """The spread between kinds of each seed."""
    kinds = logs.groupby(level="seed")
    return kinds.std(ddof=1).mean(axis=1)


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


def _pooling_init(study):
    def values(results):
        (initial,) = _common(_log_sensitivity(results, study, "initial"))
        summary = _summary(initial)
        others = [kind for kind in summary if kind not in POOLING]
        return _between(summary, POOLING, others)

    return values


def _pooling_increases(results):
    initial, trained = _common(*_phases(_log_sensitivity, results))
    initial, trained = _summary(initial), _summary(trained)
    kinds = [kind for kind in POOLING if kind in trained]
    if not kinds:
        return pd.Series(dtype=float)
    return (trained[kinds] - initial[kinds]).mean(axis=1)


def _kinds_converge(results):
    initial, trained = _common(*_phases(_log_sensitivity, results))
    return _log_ratio(_spread(trained), _spread(initial))


def _log_ratio(first, second) -> pd.Series:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(first / second).replace([np.inf, -np.inf], np.nan)


def _smoothing(results):
    return _slopes(_log_sensitivity(results, "filters", "initial"), "sigma")


def _stronger_tasks(results):
    smoothness = _log_smoothness(results, "tasks", "trained", "deformed_classes")
    return _slopes(smoothness, "class_displacement")


def _training_smooths(results):
    """The largest change among the kinds: below zero, every kind has become smoother."""
    initial, trained = _common(*_phases(_log_smoothness, results))
    initial, trained = _summary(initial), _summary(trained)
    return (trained - initial).max(axis=1) if len(trained) else pd.Series(dtype=float)


def _smoothness_converges(results):
    """Kinds start equal in smoothness, so what is asked is how far training takes them apart,
    compared with how far it takes them all."""
    initial, trained = _common(*_phases(_log_smoothness, results))
    if trained.empty:
        return pd.Series(dtype=float)
    change = (trained - initial).mean(axis=1).groupby(level="seed").mean().abs()
    return _log_ratio(_spread(trained), change)


def _depth(study):
    def values(results):
        (trained,) = _common(_log_smoothness(results, study, "trained"))
        trained = trained.dropna(axis=1, how="all").dropna()
        if trained.empty:
            return pd.Series(dtype=float)
        slope = np.polyfit(np.arange(trained.shape[1]), trained.to_numpy().T, 1)[0]
        return pd.Series(slope, index=trained.index).groupby(level="seed").mean()

    return values


def _labels_decide(logs):
    def values(results):
        labels = ("true_labels", "random_labels")
        true, random = _common(*(logs(results, "main", "trained", task) for task in labels))
        return _log_ratio(_spread(random), _spread(true))

    return values


def _euclidean(results):
    """Spearman's rank correlation of the two metrics over kinds, layers and phases, of each seed."""
    pairs = []
    for phase in ("initial", "trained"):
        metrics = [
            _log_sensitivity(results, "main", phase, metric=metric)
            for metric in ("cosine", "euclidean")
        ]
        if all(len(logs) for logs in metrics):
            pairs.append(pd.concat([logs.stack() for logs in metrics], axis=1))
    if not pairs:
        return pd.Series(dtype=float)
    pairs = pd.concat(pairs)
    return pairs.groupby(level="seed").apply(lambda rows: rows.rank().corr().iloc[0, 1])


def _init_smoothness(results):
    """The largest relative deviation from 1.87 of a layer's mean over kinds."""
    initial = _log_smoothness(results, "main", "initial")
    if initial.empty:
        return pd.Series(dtype=float)
    by_layer = np.exp(initial).groupby(level="seed").mean()
    return (by_layer / 1.87 - 1).abs().max(axis=1)


_TRUE, _RANDOM = ("main", "true_labels"), ("main", "random_labels")

CLAIMS = (
    Claim(
        "pooling-stabilizes-init",
        "At initialization, networks with pooling are less sensitive to deformation than those "
        "without.",
        "2c",
        "log ratio of sensitivity, kinds with pooling to kinds without",
        _pooling_init("main"),
        below=0,
    ),
    Claim(
        "pooling-stabilizes-init",
        "The same on larger images.",
        "2a",
        "log ratio of sensitivity, kinds with pooling to kinds without",
        _pooling_init("large"),
        below=0,
    ),
    Claim(
        "training-changes-stability",
        "Training changes the layerwise pattern; the sensitivity of networks with pooling increases.",
        "2d",
        "log ratio of sensitivity, trained to initial, kinds with pooling",
        _pooling_increases,
        above=0,
        trained=(_TRUE,),
    ),
    Claim(
        "kinds-converge",
        "After training, the choice of downsampling has little effect: the spread between kinds "
        "shrinks.",
        "2d",
        "log ratio of the spread of sensitivity between kinds, trained to initial",
        _kinds_converge,
        below=0,
        trained=(_TRUE,),
    ),
    Claim(
        "smooth-filters-stabilize",
        "At initialization, smoother filters lead to less sensitive representations.",
        "5a",
        "slope of log sensitivity against σ",
        _smoothing,
        below=0,
    ),
    Claim(
        "stronger-task-smoother",
        "The stronger the deformation within a class, the smoother the learned filters.",
        "3b",
        "slope of log TV/‖W‖₁ against C",
        _stronger_tasks,
        below=0,
        trained=(("tasks", "deformed_classes"),),
    ),
    Claim(
        "training-smooths",
        "After training, filters are smoother than at initialization, for every kind.",
        "4b",
        "log ratio of TV/‖W‖₁, trained to initial, of the kind that smooths least",
        _training_smooths,
        below=0,
        trained=(_TRUE,),
    ),
    Claim(
        "smoothness-converges",
        "After training, kinds converge to similar smoothness.",
        "4b",
        "log ratio of the spread of smoothness between kinds to its mean change from "
        "initialization; margin: half",
        _smoothness_converges,
        below=float(np.log(0.5)),
        trained=(_TRUE,),
    ),
    Claim(
        "depth-trend",
        "On CIFAR-10 filters get less smooth from layer to layer.",
        "4b",
        "slope of log TV/‖W‖₁ over the layers",
        _depth("main"),
        above=0,
        trained=(_TRUE,),
    ),
    Claim(
        "depth-trend",
        "On ImageNet filters get smoother from layer to layer.",
        "4a",
        "slope of log TV/‖W‖₁ over the layers, larger images",
        _depth("large"),
        below=0,
        trained=(("large", "true_labels"),),
    ),
    Claim(
        "labels-decide-smoothness",
        "With random labels, smoothness depends strongly on the kind.",
        "4c",
        "log ratio of the spread of smoothness between kinds, random to true labels",
        _labels_decide(_log_smoothness),
        above=0,
        trained=(_TRUE, _RANDOM),
    ),
    Claim(
        "labels-decide-stability",
        "With random labels, sensitivity patterns differ strongly between kinds.",
        "5b",
        "log ratio of the spread of sensitivity between kinds, random to true labels",
        _labels_decide(_log_sensitivity),
        above=0,
        trained=(_TRUE, _RANDOM),
    ),
    Claim(
        "euclidean-agrees",
        "Euclidean distance leads to qualitatively similar results.",
        "text",
        "rank correlation of the two metrics over kinds, layers and phases; margin: 0.8",
        _euclidean,
        above=0.8,
        trained=(_TRUE,),
    ),
    Claim(
        "init-smoothness-constant",
        "At initialization smoothness is about the same in every layer and architecture (≈ 1.87).",
        "text",
        "largest relative deviation of a layer from 1.87; margin: 5 %",
        _init_smoothness,
        below=0.05,
    ),
)
CLAIM_IDS = tuple(dict.fromkeys(claim.id for claim in CLAIMS))
