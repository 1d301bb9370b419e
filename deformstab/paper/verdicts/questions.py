"""The open questions, each with the rule that answers it.

All rules stand here, written and committed before any of the networks of `results/questions` was
trained. Seeds are the unit, as in `claims.py`: a statistic is one number a seed, a difference of
logs paired by seed (`question_statistics.py`), and a row tells the exponential of its mean, a
ratio, with Student's 95 % interval over seeds.

Eight decide. Question 1: max and average pooling, by both metrics, at initialization, Gaussian noise,
batch normalization re-estimated. Question 2: adaptive sampling against subsampling, and adaptive max
pooling against max pooling, trained, by cosine, deformations without their translation, edge pixels
repeated. Question 3: taps against channels, without pooling; and that less the same with pooling.

The margin is 10 %: a ratio between 1/1.1 and 1.1 is no difference that matters here. It divides the
numbers into regions, each with its verdict. A verdict is given when the whole interval lies in one
region *and* the p-value, adjusted by Holm for all decisive statistics of all questions, is below
0.05; it is "undecided" otherwise, and with fewer than three seeds. The p-value is that of the
two-sided t test of the bound of the region, and of two bounds the larger one, as in a test of
equivalence. Statistics whose runs are still missing count in Holm's number as well, with p = 1: a
verdict does not weaken when they come. It stays "undecided" as well where a trained network's
accuracy on its training images differs, in inference mode and with batch statistics, by more than
0.05: then its statistics are not to be trusted. Rows that are not decisive are context: intervals
and no verdict.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import holm, mean_interval, mean_p_value
from deformstab.paper.questions.shifts import FRACTION, WHOLE
from deformstab.paper.questions.shuffles import CHANNELS, TAPS
from deformstab.paper.runs.question_experiments import CIRCULAR, NETWORK
from deformstab.paper.runs.question_measurements import AVERAGES, REESTIMATED
from deformstab.paper.verdicts import claim_notes, question_statistics
from deformstab.paper.verdicts.claims import ACCURACY_TOLERANCE, DESCRIPTION, SIGNIFICANCE
from deformstab.paper.verdicts.statistics import POOLING

MARGIN = 1.1
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Rule:
    """How numbers become a verdict.

    Attributes:
        question: its number, "1".
        asks: it, in a sentence.
        bounds: ratios that divide the numbers, ascending.
        verdicts: of the regions below, between and above them.
    """

    question: str
    asks: str
    bounds: tuple
    verdicts: tuple

    def region(self, values) -> tuple[int, float]:
        """In which region the mean of logs lies, and the p-value of its not lying in another."""
        bounds = np.log(self.bounds)
        region = int(np.searchsorted(bounds, np.mean(values)))
        own = bounds[max(region - 1, 0) : region + 1]  # one at either end, two in between
        return region, max(mean_p_value(values, bound) for bound in own)

    def verdict(self, values, p_holm: float) -> str:
        """Of logs, one a seed, and their adjusted p-value."""
        if len(values) < DESCRIPTION or not p_holm < SIGNIFICANCE:
            return UNDECIDED
        _, low, high = mean_interval(values)
        ends = np.searchsorted(np.log(self.bounds), [low, high])
        return self.verdicts[ends[0]] if ends[0] == ends[1] else UNDECIDED


@dataclass(frozen=True)
class Statistic:
    """One row.

    Attributes:
        rule: it belongs to.
        what: the value is, in a sentence.
        condition: what it was measured with: phase, metric, …
        values: Results → Series, a difference of logs of each seed.
        kinds: of downsampling that take part.
        decisive: whether the rule reads it.
    """

    rule: Rule
    what: str
    condition: str
    values: Callable
    kinds: tuple
    decisive: bool = False


_STABLE, _SMOOTHING = "stability to deformation", "smoothing"
POOLING_AT_START = Rule(
    "1",
    "Is what pooling gives at initialization stability to deformation, or plain smoothing?",
    (1 / MARGIN,),
    (_STABLE, _SMOOTHING),
)
EXACT_SHIFTS = Rule(
    "2",
    "Does exact consistency under shifts buy stability to deformation?",
    (1 / MARGIN, MARGIN),
    ("buys it", "does neither", "costs it"),
)
WITHOUT = Rule(
    "3",
    "Without pooling, is stability due to smooth filters or to the pairing of channels?",
    (1 / MARGIN, MARGIN),
    ("pairing of channels", "both alike", "smooth filters"),
)
INTERACTION = Rule(
    "3",
    "Is that so more without pooling than with it?",
    (1 / MARGIN, MARGIN),
    ("less without pooling", "alike", "more without pooling"),
)
PART_OF = {"1": NETWORK, "2": CIRCULAR, "3": NETWORK}  # the networks that are asked


def _noise(kind, metric, phase="initial", statistics=REESTIMATED, noise="gaussian"):
    conditions = ("initial", REESTIMATED, "gaussian")
    return Statistic(
        POOLING_AT_START,
        f"relative stability R, {kind} pooling / without pooling",
        f"{phase}, {metric}, {noise} noise, {statistics}",
        question_statistics.noise(kind, metric, phase, statistics, noise),
        (kind, *question_statistics.WITHOUT_POOLING),
        (phase, statistics, noise) == conditions,
    )


_PARTS = {
    WHOLE: "a roll by one pixel",
    FRACTION: "a shift in any direction that goes round",
    "translation": "the translation in deformations",
    "beyond_translation": "deformations without their translation",
    "full": "deformations",
}
_ADAPTIVE = (("aps", "subsample"), ("max_aps", "max"))


def _shifts(pair, change, outside="edge", metric="cosine", phase="trained"):
    kind, reference = pair
    conditions = ("beyond_translation", "edge", "cosine", "trained")
    border = "borders touch" if outside == "circular" else "edges repeated"
    return Statistic(
        EXACT_SHIFTS,
        f"sensitivity to {_PARTS[change]}, {kind} / {reference}",
        f"{phase}, {metric}, {border}",
        question_statistics.shifts(kind, reference, change, outside, metric, phase),
        pair,
        pair in _ADAPTIVE and (change, outside, metric, phase) == conditions,
    )


def _consistency(pair):
    return Statistic(
        EXACT_SHIFTS,
        f"consistency of answers under rolls, {pair[0]} / {pair[1]}",
        "trained",
        question_statistics.consistency(*pair, "trained"),
        pair,
    )


def _shuffles(kinds, name, shuffle=None, half=None):
    layers = f", {half} layers" if half else ""
    what = f"sensitivity with {shuffle or TAPS} shuffled / "
    what += "intact" if shuffle else f"with {CHANNELS} shuffled"
    return Statistic(
        WITHOUT,
        f"{what}, {name}{layers}",
        "trained, cosine",
        question_statistics.shuffles(kinds, shuffle, half),
        kinds,
        kinds != POOLING and shuffle is None and half is None,
    )


_METRICS = ("cosine", "euclidean")
_NONE, _BOTH = question_statistics.WITHOUT_POOLING, ("without pooling", "with pooling")
_OTHERS = [
    {"noise": "spectrum"},
    {"statistics": AVERAGES},
    {"phase": "trained"},
    {"phase": "trained", "noise": "spectrum"},
    {"phase": "trained", "statistics": AVERAGES},
]
_CHANGES = [
    *({"change": WHOLE, "outside": "circular"}, {"change": FRACTION, "outside": "circular"}),
    *({"change": "translation"}, {"change": "full"}),
    {"change": "beyond_translation", "outside": "circular"},
    {"change": "beyond_translation", "metric": "euclidean"},
    {"change": "beyond_translation", "phase": "initial"},
]
STATISTICS = (
    *(_noise(kind, metric) for kind in POOLING for metric in _METRICS),
    *(_noise(k, m, **other) for other in _OTHERS for k in POOLING for m in _METRICS),
    *(_shifts(pair, "beyond_translation") for pair in _ADAPTIVE),
    *(_shifts(pair, **change) for change in _CHANGES for pair in _ADAPTIVE),
    *(_consistency(pair) for pair in _ADAPTIVE),
    *(_shifts((k, "subsample"), "beyond_translation") for k in ("max", "average", "blur")),
    _shuffles(_NONE, _BOTH[0]),
    Statistic(
        INTERACTION,
        f"sensitivity with {TAPS} shuffled / with {CHANNELS} shuffled, {' / '.join(_BOTH)}",
        "trained, cosine",
        question_statistics.interaction,
        (*_NONE, *POOLING),
        True,
    ),
    _shuffles(POOLING, _BOTH[1]),
    *(
        _shuffles(kinds, name, shuffle)
        for kinds, name in zip((_NONE, POOLING), _BOTH)
        for shuffle in (TAPS, CHANNELS)
    ),
    *(_shuffles(_NONE, _BOTH[0], half=half) for half in ("early", "late")),
)


def questions(results) -> pd.DataFrame:
    """What the open questions come to.

    Returns:
        A row a statistic: `question`, `asks`, `what`, `condition`, `decisive`; `value`, a ratio,
        with its interval `low`, `high`; `seeds`; of decisive ones `p` (adjusted) and `verdict`;
        `note`. Empty without runs.
    """
    if not any(name.startswith("question_") and len(t) for name, t in results.tables.items()):
        return pd.DataFrame()
    found = [each.values(results).dropna() for each in STATISTICS]
    p_values = [
        _p_value(each.rule, values) if each.decisive else np.nan
        for each, values in zip(STATISTICS, found)
    ]
    rows = []
    for each, values, p in zip(STATISTICS, found, holm(p_values)):
        value, low, high = np.exp(mean_interval(values))
        note, trusted = _note(results, each, len(values))
        verdict = each.rule.verdict(values, p) if trusted else UNDECIDED
        rows.append(
            {
                "question": each.rule.question,
                "asks": each.rule.asks,
                "what": each.what,
                "condition": each.condition,
                "decisive": each.decisive,
                "value": value,
                "low": low,
                "high": high,
                "seeds": len(values),
                "p": p,
                "verdict": verdict if each.decisive else "",
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _p_value(rule, values) -> float:
    p = rule.region(values)[1] if len(values) >= DESCRIPTION else 1.0
    return 1.0 if np.isnan(p) else p


def _note(results, statistic, seeds) -> tuple[str, bool]:
    """What is to be known of the networks of a row, and whether they are to be trusted."""
    if not seeds:
        return "the runs it needs are missing, or could not be measured", True
    training = results.tables.get("question_training", pd.DataFrame())
    notes, gap = ["too few seeds" * (seeds < DESCRIPTION)], 0.0
    if len(training):
        part = training[training["part"] == PART_OF[statistic.rule.question]]
        part = part[part["downsampling"].isin(statistic.kinds)]
        there = [kind for kind in statistic.kinds if kind in set(part["downsampling"])]
        if len(there) < len(statistic.kinds):
            notes.append(f"of {', '.join(there)} only")
        if not statistic.condition.startswith("initial"):
            short = int((~part["fits"].astype(bool)).sum())
            if short and results.preset.stop_accuracy:
                notes.append(f"{short} of {len(part)} networks stopped before they fitted")
            gap = claim_notes.accuracy_gap(part)
            if gap > ACCURACY_TOLERANCE:
                notes.append(f"accuracy with batch statistics and in inference differ by {gap:.3f}")
    return claim_notes.join(*notes), not gap > ACCURACY_TOLERANCE
