"""Questions 4 and 5: worst deformations, and maps that move with the image.

Nine statistics decide, means over all kinds of downsampling, in the first ("early") and in the second
("late") half of the layers where it says so: an opposite change of early and late layers would cancel.
Question 4, at equal root mean square: the worst deformation over the mean one, of layers relative to
the image, trained, early and late; what training changes of it, early and late; and with against
without pooling, trained. Question 5, squared Euclidean distances: what the whole training changes of
the distance to the map that stays, and of that to the map that moves along, each early and late.
"""

from deformstab.paper.verdicts import statistics_of_training as statistics
from deformstab.paper.verdicts.question_rules import MARGIN, SQUARED, Rule, Statistic
from deformstab.paper.verdicts.question_tables import ALL_KINDS, WITHOUT_POOLING
from deformstab.paper.verdicts.statistics import POOLING

_AROUND_ONE = (1 / MARGIN, MARGIN)
# What a search finds is a lower bound, so "by less" may be a search that found less.
WORST_LAYERS = Rule(
    "4",
    "Does the worst deformation that is found exceed the mean one by more in layers than in the image?",
    _AROUND_ONE,
    ("by less", "by as much", "by more"),
)
WORST_TRAINED = Rule(
    "4",
    "Does training bring the worst deformation that is found and the mean one closer together?",
    _AROUND_ONE,
    ("closer together", "neither", "further apart"),
)
WORST_KINDS = Rule(
    "4",
    "Does pooling look better by the worst deformation that is found than by the mean one?",
    _AROUND_ONE,
    ("better", "alike", "worse"),
)
SEARCHES = Rule("4", "What do searches find, beside chance?", (1.0,), ("less", "more"))
BESIDE = Rule("4", "Do kinds rank alike, and do answers stay?", (0.5,), ("no", "yes"), ratios=False)
STAYS = Rule(
    "5",
    "Does training teach layers to ignore that the image moves?",
    _AROUND_ONE,
    ("to ignore it", "neither", "to change more"),
)
MOVES = Rule(
    "5",
    "Does training teach layers to move with the image?",
    _AROUND_ONE,
    ("to move with it", "neither", "to move with it less"),
)
BOTH = Rule("5", "Which of the two counts for more?", (1.0,), ("moving", "staying"))

_AT = {"rms": "equal root mean square", "box": "within the box"}
_HALVES = ("early", "late")
_GROUPS = {"without pooling": WITHOUT_POOLING, "with pooling": POOLING}


def _of(half):
    return f"{half} layers" if half else "layers"


def _excess(phase, within, half=""):
    return Statistic(
        WORST_LAYERS,
        f"worst / mean deformation, {_of(half)} / image",
        f"{phase}, cosine, {_AT[within]}",
        statistics.excess(phase, within, half),
        ALL_KINDS,
        (phase, within) == ("trained", "rms") and half in _HALVES,
    )


def _by_training(within, half):
    return Statistic(
        WORST_TRAINED,
        f"worst / mean deformation, trained / initial, {_of(half)}",
        f"cosine, {_AT[within]}",
        statistics.excess_by_training(within, half),
        ALL_KINDS,
        within == "rms",
    )


def _by_kind(phase, within):
    return Statistic(
        WORST_KINDS,
        "worst / mean deformation, with / without pooling",
        f"{phase}, cosine, {_AT[within]}",
        statistics.excess(phase, within, "", POOLING, WITHOUT_POOLING),
        ALL_KINDS,
        (phase, within) == ("trained", "rms"),
    )


def _search(phase, within):
    what = "largest distance, ascent / best of as many random draws"
    values = statistics.search(phase, within)
    return Statistic(SEARCHES, what, f"{phase}, cosine, {_AT[within]}", values, ALL_KINDS)


def _ranks(phase):
    what = "rank correlation of kinds by worst and by mean sensitivity"
    values = statistics.ranks(phase, "rms")
    return Statistic(BESIDE, what, f"{phase}, cosine, {_AT['rms']}", values, ALL_KINDS)


def _unchanged(column, name, within):
    what = f"share of answers that stay under the {name}"
    values = statistics.unchanged(column, within)
    return Statistic(BESIDE, what, f"trained, {_AT[within]}", values, ALL_KINDS)


_COLUMNS = {
    "ratio": (BOTH, "distance to the map that moves along / to the one that stays"),
    "moves_with": (MOVES, "distance to the map that moves along"),
    "stays": (STAYS, "distance to the map that stays"),
}


def _moving(column, half="", group="", metric="euclidean", period=statistics.WHOLE):
    rule, what = _COLUMNS[column]
    kinds = _GROUPS.get(group, ALL_KINDS)
    where = f"{_of(half)} {group}".strip()
    return Statistic(
        rule,
        f"{what}, after / before {period}, {where}",
        f"trained, {SQUARED[metric]}",
        statistics.moving(f"{column}_{metric}", half, kinds, period),
        kinds,
        rule != BOTH
        and half in _HALVES
        and (group, metric, period) == ("", "euclidean", statistics.WHOLE),
    )


def _of_column(column):
    return (
        *(_moving(column, half) for half in _HALVES),
        *(_moving(column, half, metric="cosine") for half in _HALVES),
        *(_moving(column, group=group) for group in _GROUPS),
        *(_moving(column, period=period) for period in (statistics.FIRST, statistics.REST)),
    )


_PHASES = ("trained", "initial")
OF_TRAINING = (
    *(
        _excess(phase, within, half)
        for within in _AT
        for phase in _PHASES
        for half in (*_HALVES, "")
    ),
    *(_by_training(within, half) for within in _AT for half in _HALVES),
    *(_by_kind(phase, within) for within in _AT for phase in _PHASES),
    *(_search(phase, within) for within in _AT for phase in _PHASES),
    Statistic(
        SEARCHES,
        "distance by other layers' worst deformations / by its own",
        f"trained, cosine, {_AT['rms']}",
        statistics.transfer,
        ALL_KINDS,
    ),
    *(_ranks(phase) for phase in _PHASES),
    *(
        _unchanged(column, name, within)
        for within in _AT
        for column, name in (("unchanged", "worst"), ("unchanged_by_chance", "best random draw"))
    ),
    *(each for column in ("stays", "moves_with", "ratio") for each in _of_column(column)),
)
