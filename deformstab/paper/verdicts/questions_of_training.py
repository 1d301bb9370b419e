"""Questions 4 to 6: worst deformations, maps that move with the image, and the error.

Seven statistics decide. Question 4: the worst deformation over the mean one, of layers relative to
the image, trained; what training changes of it; and pooling against no pooling, trained; all at equal
root mean square. Question 5: what the whole training changes of the ratio moves_with / stays, squared
Euclidean distances, with and without pooling. Question 6: the slope of log error against log R of
the logits, and the error over 0.2 · √R, of diffeomorphisms and by squared Euclidean distances, over
all kinds and numbers of images.
"""

from deformstab.paper.questions.logits import DIFFEOMORPHISM, FACTOR, SPLINE
from deformstab.paper.verdicts import statistics_of_training as statistics
from deformstab.paper.verdicts.question_rules import MARGIN, Rule, Statistic
from deformstab.paper.verdicts.question_tables import ALL_KINDS, WITHOUT_POOLING
from deformstab.paper.verdicts.statistics import POOLING

_AROUND_ONE = (1 / MARGIN, MARGIN)
WORST_LAYERS = Rule(
    "4",
    "Does the worst deformation exceed the mean one by more in layers than in the image?",
    _AROUND_ONE,
    ("by less", "by as much", "by more"),
)
WORST_TRAINED = Rule(
    "4",
    "Does training bring the worst deformation and the mean one closer together?",
    _AROUND_ONE,
    ("closer together", "neither", "further apart"),
)
WORST_KINDS = Rule(
    "4",
    "Does pooling look better by the worst deformation than by the mean one?",
    _AROUND_ONE,
    ("better", "alike", "worse"),
)
WORST_BESIDE = Rule(
    "4",
    "What do searches find, and do kinds of downsampling rank alike?",
    (0.5,),
    ("no", "yes"),
    ratios=False,
)
MOVES = Rule(
    "5",
    "Does training teach layers to move with the image, or to ignore that it moves?",
    _AROUND_ONE,
    ("to move with it", "neither", "to ignore it"),
)
SLOPE = Rule(
    "6",
    "Does the error follow the square root of the relative stability R of the logits?",
    (1 / 3, 2 / 3),
    ("less than the root", "the root", "more than the root"),
    ratios=False,
)
# Wider than elsewhere: the law is told with one digit.
LAW = Rule(
    "6", f"Is the error {FACTOR} · √R?", (0.8, 1.25), ("smaller", "as the law says", "larger")
)

_AT = {"rms": "equal root mean square", "box": "within the box"}
_GROUPS = {"without pooling": WITHOUT_POOLING, "with pooling": POOLING}


def _excess(phase, within):
    return Statistic(
        WORST_LAYERS,
        "worst / mean deformation, layers / image",
        f"{phase}, cosine, {_AT[within]}",
        statistics.excess(phase, within),
        ALL_KINDS,
        (phase, within) == ("trained", "rms"),
    )


def _by_training(within):
    return Statistic(
        WORST_TRAINED,
        "worst / mean deformation, trained / initial",
        f"cosine, {_AT[within]}",
        statistics.excess_by_training(within),
        ALL_KINDS,
        within == "rms",
    )


def _by_kind(phase, within):
    return Statistic(
        WORST_KINDS,
        "worst / mean deformation, with / without pooling",
        f"{phase}, cosine, {_AT[within]}",
        statistics.excess(phase, within, POOLING, WITHOUT_POOLING),
        ALL_KINDS,
        (phase, within) == ("trained", "rms"),
    )


def _search(phase, within):
    what = "largest distance, ascent / best of as many random draws"
    values = statistics.search(phase, within)
    return Statistic(WORST_LAYERS, what, f"{phase}, cosine, {_AT[within]}", values, ALL_KINDS)


def _ranks(phase):
    what = "rank correlation of kinds by worst and by mean"
    values = statistics.ranks(phase, "rms")
    return Statistic(WORST_BESIDE, what, f"{phase}, cosine, {_AT['rms']}", values, ALL_KINDS)


def _unchanged(column, name, within):
    what = f"share of answers that stay under the {name}"
    values = statistics.unchanged(column, within)
    return Statistic(WORST_BESIDE, what, f"trained, {_AT[within]}", values, ALL_KINDS)


_COLUMNS = {
    "ratio": "moves with the image / stays",
    "moves_with": "distance to the map that moves along",
    "stays": "distance to the map that stays",
}


def _moving(column, name, metric="euclidean", period=statistics.WHOLE):
    distance = "squared Euclidean" if metric == "euclidean" else metric
    return Statistic(
        MOVES,
        f"{_COLUMNS[column]}, after / before {period}, {name}",
        f"trained, {distance}",
        statistics.moving(f"{column}_{metric}", _GROUPS[name], period),
        _GROUPS[name],
        (column, metric, period) == ("ratio", "euclidean", statistics.WHOLE),
    )


def _law(rule, make, what, family, metric, *sizes):
    distance = "squared Euclidean" if metric == "euclidean" else metric
    return Statistic(
        rule,
        what + (f", {sizes[0]}" if sizes else ""),
        f"trained, {distance}, {family}s",
        make(family, metric, *sizes),
        ALL_KINDS,
        (family, metric, sizes) == (DIFFEOMORPHISM, "euclidean", ()),
    )


def _slope(family, metric):
    what = "slope of log error against log R of the logits"
    return _law(SLOPE, statistics.law_slope, what, family, metric)


def _factor(family, metric, *sizes):
    what = f"error / ({FACTOR} · √R)"
    return _law(LAW, statistics.law_factor, what, family, metric, *sizes)


_PHASES = ("trained", "initial")
_BY = [(DIFFEOMORPHISM, "euclidean"), (SPLINE, "euclidean"), (DIFFEOMORPHISM, "cosine")]
_PERIODS = (statistics.FIRST_EPOCH, statistics.AFTERWARDS)
OF_TRAINING = (
    *(_excess(phase, within) for within in _AT for phase in _PHASES),
    *(_search(phase, within) for within in _AT for phase in _PHASES),
    Statistic(
        WORST_LAYERS,
        "distance by other layers' worst deformations / by its own",
        f"trained, cosine, {_AT['rms']}",
        statistics.transfer,
        ALL_KINDS,
    ),
    *(_by_training(within) for within in _AT),
    *(_by_kind(phase, within) for within in _AT for phase in _PHASES),
    *(_ranks(phase) for phase in _PHASES),
    *(
        _unchanged(column, name, within)
        for within in _AT
        for column, name in (("unchanged", "worst"), ("unchanged_by_chance", "best random draw"))
    ),
    *(_moving("ratio", name) for name in _GROUPS),
    *(_moving("ratio", name, "cosine") for name in _GROUPS),
    *(_moving("ratio", name, period=period) for period in _PERIODS for name in _GROUPS),
    *(_moving(column, name) for column in ("moves_with", "stays") for name in _GROUPS),
    *(_slope(*by) for by in _BY),
    *(_factor(*by) for by in _BY),
    *(_factor(*_BY[0], sizes) for sizes in (statistics.SMALLEST, statistics.LARGEST)),
)
