"""How the statistics of an open question become a verdict.

A rule's bounds divide the numbers into regions, each with its verdict. A verdict is given when the
whole 95 % interval over seeds (Student's t) lies in one region *and* the p-value, adjusted by Holm
for all decisive statistics of all questions, is below 0.05; it is "undecided" otherwise, and with
fewer than three seeds. The p-value is that of the two-sided t test of the bound of the region, and
of two bounds the larger one, as in a test of equivalence.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deformstab.measurement.intervals import mean_interval, mean_p_value
from deformstab.paper.verdicts.claims import DESCRIPTION, SIGNIFICANCE

MARGIN = 1.1  # a ratio between 1/1.1 and 1.1 is no difference that matters here
UNDECIDED = "undecided"
# How rows name the metrics, where Euclidean distances are squared: R, and distances between maps.
SQUARED = {"cosine": "cosine", "euclidean": "squared Euclidean"}


@dataclass(frozen=True)
class Rule:
    """How numbers become a verdict.

    Attributes:
        question: its number, "1".
        asks: it, in a sentence.
        bounds: that divide the numbers, ascending.
        verdicts: of the regions below, between and above them.
        ratios: whether the numbers are ratios, whose logs are averaged; else they are, themselves.
    """

    question: str
    asks: str
    bounds: tuple
    verdicts: tuple
    ratios: bool = True

    @property
    def _bounds(self) -> np.ndarray:
        return np.log(self.bounds) if self.ratios else np.array(self.bounds, "float64")

    def p_value(self, values) -> float:
        """Of the mean's lying in another region than it does; 1 with too few seeds."""
        if len(values) < DESCRIPTION:
            return 1.0
        bounds = self._bounds
        region = int(np.searchsorted(bounds, np.mean(values)))
        own = bounds[max(region - 1, 0) : region + 1]  # one at either end, two in between
        p = max(mean_p_value(values, bound) for bound in own)
        return 1.0 if np.isnan(p) else p

    def verdict(self, values, p_holm: float) -> str:
        """Of the values (of ratios, their logs), one a seed, and their adjusted p-value."""
        if len(values) < DESCRIPTION or not p_holm < SIGNIFICANCE:
            return UNDECIDED
        _, low, high = mean_interval(values)
        ends = np.searchsorted(self._bounds, [low, high])
        return self.verdicts[ends[0]] if ends[0] == ends[1] else UNDECIDED

    def told(self, values) -> tuple[float, float, float]:
        """The mean and its interval, as they are told: of ratios, exponentials."""
        interval = mean_interval(values)
        return tuple(np.exp(interval)) if self.ratios else tuple(interval)


@dataclass(frozen=True)
class Statistic:
    """One row.

    Attributes:
        rule: it belongs to.
        what: the value is, in a sentence.
        condition: what it was measured with: phase, metric, …
        values: Results → Series of seed → number; of ratios, their logs.
        kinds: of downsampling that take part.
        decisive: whether the rule reads it.
    """

    rule: Rule
    what: str
    condition: str
    values: Callable
    kinds: tuple
    decisive: bool = False
