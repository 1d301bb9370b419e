"""The claims of the paper, one row each: statistic, interval, test, verdict.

All rules stand here, written before the sensitivities and filters of `results/cifar10-small` were
looked at; `docs/findings.md` says what was mended since. Seeds are the unit: five are evidence,
three describe. Networks of one seed start with equal weights where they have layers in common, so
kinds are compared within a seed. A layer summary is the mean over layers of the log sensitivity
(the input, which no network changes, left out) or of the log smoothness of the 3×3 filters. Where
it is asked how far kinds are apart, the statistic is a ratio of two *spreads*: roots of the variance
between kinds (layer by layer, without that between seeds: `statistics.variance_between_kinds`).

Intervals are of 95 %: Student's t over the seeds, of a ratio of variances Fieller's, which holds
the ratios that the t test does not reject. The test is the t test of the claim's bound, two-sided,
and its p-values are adjusted for the number of rows that are tested (Holm 1979). Verdict:
*reproduced* when the adjusted p-value is below 0.05, the bound outside the interval and the value
on the claimed side of it, *not reproduced* when it is on the other, *inconclusive* otherwise.
Claims of likeness have a margin for bound, in units of what is claimed: after training, kinds are
to be at most half as far apart as before. *Not tested*: the runs are missing, or batch
normalization is not to be trusted: training accuracy in inference mode and with batch statistics
differ by more than 0.05 in a network that the claim is built on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import holm, mean_interval, mean_p_value, ratio_interval
from deformstab.networks.downsampling import PAPER_KINDS
from deformstab.paper.verdicts import claim_notes, statistics

SIGNIFICANCE = 0.05
DESCRIPTION, EVIDENCE = 3, 5  # seeds
ACCURACY_TOLERANCE = 0.05
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested"


@dataclass(frozen=True)
class Claim:
    """A claim and how it is tested.

    Attributes:
        id, sentence, figure: of the paper.
        statistic: what the value is, in words and in the unit of `bound`.
        values: Results → Series, the statistic of each seed on a scale on which seeds are averaged;
            or DataFrame, the two variances of a ratio of spreads.
        above, below: the bound, one of the two: the side that is claimed.
        to_scale, from_scale: from the unit of `bound` to the scale of `values`, and back.
        trained: the (study, task, *kinds) whose training the claim is built on, if any; no kinds
            for all.
    """

    id: str
    sentence: str
    figure: str
    statistic: str
    values: Callable
    above: float | None = None
    below: float | None = None
    to_scale: Callable = np.log
    from_scale: Callable = np.exp
    trained: tuple = ()

    @property
    def bound(self) -> float:
        return self.below if self.above is None else self.above

    def estimate(self, values) -> tuple[float, float, float, float, float]:
        """(value, low, high) in the unit of the bound, the p-value, and by how much it is above."""
        if isinstance(values, pd.DataFrame):
            variance, reference = (values[column] for column in statistics.VARIANCES)
            away = variance - self.bound**2 * reference
            found = [float(number) for number in np.sqrt(ratio_interval(variance, reference))]
            # Neither spread is more than that between seeds: there is no ratio to judge.
            p = 1.0 if np.isnan(found[0]) and len(away) > 1 else mean_p_value(away)
            return (*found, p, float(away.mean()))
        bound = float(self.to_scale(self.bound))
        mean, low, high = mean_interval(values)
        found = (float(self.from_scale(number)) for number in (mean, low, high))
        return (*found, mean_p_value(values, bound), mean - bound)


def evaluate(results, chosen=None) -> pd.DataFrame:
    """The chosen claims, by default all, with value, 95 % interval over seeds, p-values, verdict.

    The paper's claims are about its five kinds of downsampling: networks of others do not count.
    """
    results = results.of_kinds(PAPER_KINDS)
    chosen = CLAIMS if chosen is None else chosen
    found = [_row(claim, results) for claim in chosen]
    adjusted = holm([row["p"] if row["verdict"] is None else np.nan for row, _ in found])
    for (row, is_above), claim, p_holm in zip(found, chosen, adjusted):
        row["p_holm"] = p_holm
        if row["verdict"] is None:
            row["verdict"] = INCONCLUSIVE
            if row["seeds"] < DESCRIPTION:
                row["note"] = claim_notes.join(row["note"], "too few seeds")
            elif p_holm < SIGNIFICANCE and not row["low"] <= claim.bound <= row["high"]:
                claimed = is_above == (claim.below is None)
                row["verdict"] = REPRODUCED if claimed else NOT_REPRODUCED
                few = f"{row['seeds']} seeds describe, evidence needs {EVIDENCE}"
                row["note"] = claim_notes.join(row["note"], few * (row["seeds"] < EVIDENCE))
            elif row["p"] < SIGNIFICANCE:
                row["note"] = claim_notes.join(row["note"], "on its own it would be clear")
    columns = "claim sentence figure statistic claimed value low high seeds p p_holm verdict note"
    return pd.DataFrame([row for row, _ in found])[columns.split()]


def _row(claim, results) -> tuple[dict, bool]:
    """A row, its verdict `None` where the p-value is to decide; whether the value is above."""
    values = claim.values(results)
    seeds, values = len(values), values.dropna()
    value, low, high, p, above = claim.estimate(values) if len(values) else [np.nan] * 5
    training = claim_notes.training(results, claim.trained)
    verdict, gap = None, claim_notes.accuracy_gap(training)
    note = claim_notes.join(
        claim_notes.kinds(results, claim.trained), claim_notes.unfinished(training, results.preset)
    )
    if seeds == 0:
        verdict, note = NOT_TESTED, "the runs it needs are missing, or could not be measured"
    elif gap > ACCURACY_TOLERANCE:
        verdict = NOT_TESTED
        gap = f"training accuracy with batch statistics and in inference differ by {gap:.3f}"
        note = claim_notes.join(gap, note)
    elif np.isnan(p):
        verdict, note = INCONCLUSIVE, claim_notes.join("too few seeds for an interval", note)
    row = {
        "claim": claim.id,
        **{name: getattr(claim, name) for name in ("sentence", "figure", "statistic")},
        "claimed": f"> {claim.above:g}" if claim.below is None else f"< {claim.below:g}",
        "value": value,
        "low": low,
        "high": high,
        "seeds": len(values) or seeds,
        "p": p,
        "verdict": verdict,
        "note": note,
    }
    return row, above > 0


_TRUE, _RANDOM = ("main", "true_labels"), ("main", "random_labels")

CLAIMS = (
    Claim(
        "pooling-stabilizes-init",
        "At initialization, networks with pooling are less sensitive to deformation than those "
        "without.",
        "2c",
        "sensitivity of kinds with pooling / of kinds without",
        statistics.pooling_init("main"),
        below=1,
    ),
    Claim(
        "pooling-stabilizes-init",
        "The same on larger images.",
        "2a",
        "sensitivity of kinds with pooling / of kinds without",
        statistics.pooling_init("large"),
        below=1,
    ),
    Claim(
        "training-changes-stability",
        "Training changes the layerwise pattern; the sensitivity of networks with pooling increases.",
        "2d",
        "sensitivity trained / initial, kinds with pooling",
        statistics.pooling_increases,
        above=1,
        trained=((*_TRUE, *statistics.POOLING),),
    ),
    Claim(
        "kinds-converge",
        "After training, the choice of downsampling has little effect: the spread between kinds "
        "shrinks.",
        "2d",
        "spread of sensitivity between kinds, trained / initial",
        statistics.kinds_converge,
        below=0.5,
        trained=(_TRUE,),
    ),
    Claim(
        "smooth-filters-stabilize",
        "At initialization, smoother filters lead to less sensitive representations.",
        "5a",
        "factor of sensitivity for each pixel of σ",
        statistics.smoothing,
        below=1,
    ),
    Claim(
        "stronger-task-smoother",
        "The stronger the deformation within a class, the smoother the learned filters.",
        "3b",
        "factor of TV/‖W‖₁ for each pixel of C",
        statistics.stronger_tasks,
        below=1,
        trained=(("tasks", "deformed_classes"),),
    ),
    Claim(
        "training-smooths",
        "After training, filters are smoother than at initialization, for every kind.",
        "4b",
        "TV/‖W‖₁ trained / initial, of the kind that smooths least",
        statistics.training_smooths,
        below=1,
        trained=(_TRUE,),
    ),
    Claim(
        "smoothness-converges",
        "After training, kinds converge to similar smoothness.",
        "4b",
        "spread of smoothness between kinds, trained / its mean change from initialization",
        statistics.smoothness_converges,
        below=0.5,
        trained=(_TRUE,),
    ),
    Claim(
        "depth-trend",
        "On CIFAR-10 filters get less smooth from layer to layer.",
        "4b",
        "factor of TV/‖W‖₁ from layer to layer",
        statistics.depth("main"),
        above=1,
        trained=(_TRUE,),
    ),
    Claim(
        "depth-trend",
        "On ImageNet filters get smoother from layer to layer.",
        "4a",
        "factor of TV/‖W‖₁ from layer to layer, larger images",
        statistics.depth("large"),
        below=1,
        trained=(("large", "true_labels"),),
    ),
    Claim(
        "labels-decide-smoothness",
        "With random labels, smoothness depends strongly on the kind.",
        "4c",
        "spread of smoothness between kinds, random / true labels",
        statistics.labels_decide(statistics.log_smoothness),
        above=1,
        trained=(_TRUE, _RANDOM),
    ),
    Claim(
        "labels-decide-stability",
        "With random labels, sensitivity patterns differ strongly between kinds.",
        "5b",
        "spread of sensitivity between kinds, random / true labels",
        statistics.labels_decide(statistics.log_sensitivity),
        above=1,
        trained=(_TRUE, _RANDOM),
    ),
    Claim(
        "euclidean-agrees",
        "Euclidean distance leads to qualitatively similar results.",
        "text",
        "rank correlation of the two metrics over kinds, layers and phases",
        statistics.euclidean,
        above=0.8,
        to_scale=np.arctanh,
        from_scale=np.tanh,
        trained=(_TRUE,),
    ),
    Claim(
        "init-smoothness-constant",
        "At initialization smoothness is about the same in every layer and architecture (≈ 1.87).",
        "text",
        "largest relative deviation of a layer of any network from 1.87",
        statistics.init_smoothness,
        below=0.05,
        to_scale=float,
        from_scale=float,
    ),
)
CLAIM_IDS = tuple(dict.fromkeys(claim.id for claim in CLAIMS))
