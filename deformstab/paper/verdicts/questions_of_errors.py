"""Question 6: the error of a network, and the relative stability R of its logits.

Two statistics decide, of R by diffeomorphisms and squared Euclidean distances, over all kinds and all
numbers of training images: the slope of log error against log R, and how far errors are from
0.2 · √R, root mean square. Petrini et al. (2021) report that law for 15 architectures trained on all
of CIFAR-10, with augmentation among them; here R is of means, not medians, over images, and training
ends when 99 % of its images are right.
"""

from deformstab.paper.questions.logits import DIFFEOMORPHISM, FACTOR, SPLINE
from deformstab.paper.verdicts import statistics_of_errors as statistics
from deformstab.paper.verdicts.question_rules import SQUARED, Rule, Statistic
from deformstab.paper.verdicts.question_tables import ALL_KINDS

SLOPE = Rule(
    "6",
    "Does the error follow the square root of the relative stability R of the logits?",
    (1 / 3, 2 / 3),
    ("less than the root", "the root", "more than the root"),
    ratios=False,
)
# Wider than elsewhere: the law is told with one digit.
LAW = Rule(
    "6",
    f"Is the error {FACTOR} · √R, from fewer training images on than the 50,000 of that law?",
    (1.25,),
    ("to within 25 %", "no"),
)


def _row(rule, make, what, family, metric, *rest, decisive=False):
    condition = f"trained, {SQUARED[metric]}, {family}s"
    return Statistic(rule, what, condition, make(family, metric, *rest), ALL_KINDS, decisive)


def _slope(family, metric, among="all", decisive=False):
    told = {"sizes": ", within kinds", "kinds": ", of means of kinds"}.get(among, "")
    what = f"slope of log error against log R{told}"
    return _row(SLOPE, statistics.slope, what, family, metric, among, decisive=decisive)


def _misfit(family, metric, own_line=False, decisive=False):
    what = f"misfit of {'the line that fits best' if own_line else 'the law'}, root mean square"
    return _row(LAW, statistics.misfit, what, family, metric, own_line, decisive=decisive)


def _factor(family, metric, sizes=statistics.ALL_SIZES):
    what = f"error / ({FACTOR} · √R), {sizes}"
    return _row(LAW, statistics.factor, what, family, metric, sizes)


_THEIRS = DIFFEOMORPHISM, "euclidean"
_OTHERS = [(SPLINE, "euclidean"), (DIFFEOMORPHISM, "cosine")]
OF_ERRORS = (
    _slope(*_THEIRS, decisive=True),
    *(_slope(*_THEIRS, among) for among in ("sizes", "kinds")),
    *(_slope(*other) for other in _OTHERS),
    _misfit(*_THEIRS, decisive=True),
    _misfit(*_THEIRS, own_line=True),
    *(_factor(*_THEIRS, sizes) for sizes in (statistics.ALL_SIZES, statistics.SMALLEST)),
    _factor(*_THEIRS, statistics.LARGEST),
    *(row for other in _OTHERS for row in (_misfit(*other), _factor(*other))),
)
