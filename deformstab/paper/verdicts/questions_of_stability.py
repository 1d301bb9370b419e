"""Questions 1 to 3: what pooling, exact shifts, and shapes of filters give to stability.

Eight statistics decide. Question 1: max and average pooling, by both metrics, at initialization,
Gaussian noise, batch normalization re-estimated. Question 2: adaptive sampling against subsampling,
and adaptive max pooling against max pooling, trained, by cosine, deformations without their
translation, edge pixels repeated. Question 3: taps against channels, without pooling; and that less
the same with pooling.
"""

from deformstab.paper.questions.shifts import FRACTION, WHOLE
from deformstab.paper.questions.shuffles import CHANNELS, TAPS
from deformstab.paper.runs.question_measurements import AVERAGES, REESTIMATED
from deformstab.paper.verdicts import statistics_of_stability
from deformstab.paper.verdicts.question_rules import MARGIN, SQUARED, Rule, Statistic
from deformstab.paper.verdicts.question_tables import WITHOUT_POOLING
from deformstab.paper.verdicts.statistics import POOLING

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


_NOISES = {"gaussian": "Gaussian noise", "spectrum": "noise of the deformation's spectrum"}


def _noise(kind, metric, phase="initial", statistics=REESTIMATED, noise="gaussian"):
    conditions = ("initial", REESTIMATED, "gaussian")
    return Statistic(
        POOLING_AT_START,
        f"relative stability R, {kind} pooling / without pooling",
        f"{phase}, {SQUARED[metric]}, {_NOISES[noise]}, {statistics}",
        statistics_of_stability.noise(kind, metric, phase, statistics, noise),
        (kind, *WITHOUT_POOLING),
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
        f"{phase}, {metric.replace('euclidean', 'Euclidean')}, {border}",
        statistics_of_stability.shifts(kind, reference, change, outside, metric, phase),
        pair,
        pair in _ADAPTIVE and (change, outside, metric, phase) == conditions,
    )


def _consistency(pair):
    return Statistic(
        EXACT_SHIFTS,
        f"consistency of answers under rolls, {pair[0]} / {pair[1]}",
        "trained",
        statistics_of_stability.consistency(*pair, "trained"),
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
        statistics_of_stability.shuffles(kinds, shuffle, half),
        kinds,
        kinds != POOLING and shuffle is None and half is None,
    )


_METRICS = ("cosine", "euclidean")
_NONE, _BOTH = WITHOUT_POOLING, ("without pooling", "with pooling")
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
OF_STABILITY = (
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
        statistics_of_stability.interaction,
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
