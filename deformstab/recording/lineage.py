"""Whether a model that begins to train goes on with a training that was recorded, and from where."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deformstab.recording.fingerprints import (
    Weights,
    related,
    sample_from_text,
    sample_to_text,
)

_ABOUT = "To which training the tables of deformstab's SensitivityCallback belong: do not edit"


class Point(NamedTuple):
    """A time at which the weights of a training were looked at.

    Attributes:
        epoch: epochs finished.
        step: of the training.
        iterations: the count of the optimizer, `None` without. It may begin again at 0 when the
            steps go on.
        weights: their digest.
    """

    epoch: int
    step: int
    iterations: int | None
    weights: str


@dataclass
class Lineage:
    """What a training is known by.

    Attributes:
        architecture: of its model, see `architecture_of`.
        points: in the order of their steps.
        samples: of the weights at the first point and at the last.
        by_batches: whether its steps are batches, `None` if that is open.
        finished: whether `fit` came to its end.
    """

    architecture: str
    points: list[Point]
    samples: Sequence[tuple]
    by_batches: bool | None = None
    finished: bool = False

    def note(self, point: Point, weights: Weights, measured: bool = False) -> None:
        """Adds a point; those of later steps are no longer.

        Of the points of one time the first is that of its measurement; weights may change after it
        (best ones are restored, averages are put in), and the optimizer. `measured` is a new one.
        """
        self.keep_until(point.step)
        if measured:
            same = itertools.takewhile(lambda p: p.step == point.step, reversed(self.points))
            for each in [p for p in same if p.epoch == point.epoch]:
                self.points.remove(each)
        if self.points[-1:] != [point]:
            self.points.append(point)
        self.samples = [self.samples[0] if self.samples else weights.sample, weights.sample]

    def keep_until(self, step: int) -> None:
        while self.points and self.points[-1].step > step:
            self.points.pop()

    def to_json(self) -> str:
        head = {
            "about": _ABOUT,
            "architecture": self.architecture,
            "by_batches": self.by_batches,
            "finished": self.finished,
            "samples": [sample_to_text(sample) for sample in self.samples],
        }
        # A line each; json.dumps would take a time that is felt when there are many.
        points = ",\n".join(
            f'[{p.epoch}, {p.step}, {"null" if p.iterations is None else p.iterations}, "{p.weights}"]'
            for p in self.points
        )
        return json.dumps(head, indent=1)[:-2] + f',\n "points": [\n{points}\n]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> "Lineage":
        """Raises a ValueError, TypeError or KeyError where the text is something else."""
        found = json.loads(text)
        points = [Point(*point) for point in found["points"]]
        samples = [sample_from_text(sample) for sample in found["samples"]]
        counts = [n for p in points for n in p[:3] if n is not None]
        steps = [p.step for p in points]
        if found["about"] != _ABOUT or not all(type(n) is int for n in counts) or not points:
            raise ValueError("no record of a training")
        if steps != sorted(steps) or len(samples) != 2:
            raise ValueError("a damaged record of a training")
        return cls(
            found["architecture"], points, samples, found["by_batches"], bool(found["finished"])
        )


class Begin(NamedTuple):
    """How a `fit` begins.

    Attributes:
        epoch, iterations: as of a `Point`.
        architecture, weights: of the model.
        same_model, same_optimizer: whether they are the objects that were recorded last.
        reached: the step that the recorded training has come to.
        steps_per_epoch: if it is known.
    """

    epoch: int
    iterations: int | None
    architecture: str
    weights: Weights
    same_model: bool
    same_optimizer: bool
    reached: int
    steps_per_epoch: int | None


def step_of(begin: Begin, lineage: Lineage) -> int | None:
    """The step that a recorded training is at when `fit` begins; `None` if it is another training.

    The weights decide. A count of 0 may be a new optimizer; only weights of an earlier time, together
    with a count or an epoch of that time, are a training that was set back. Weights of an earlier
    time alone are the best ones, restored: it goes on. Where weights are those of no recorded time
    (a checkpoint between two measurements), the count of the optimizer tells the step, if the model
    is of the same architecture and its weights still resemble the recorded ones.
    """
    last = lineage.points[-1]
    counted = begin.iterations is not None and not lineage.by_batches
    equal = [p for p in reversed(lineage.points) if p.weights == begin.weights.digest]
    same_count = [p for p in equal if counted and p.iterations == begin.iterations]
    same_epoch = [p for p in equal if p.epoch == begin.epoch]
    for point in same_count:
        if point in same_epoch:
            return point.step
    if last in equal:
        # Without learning, counts go on where weights do not.
        ahead = begin.iterations - last.iterations if counted and begin.same_optimizer else 0
        return last.step + max(ahead, 0)
    if same_count or same_epoch:
        return (same_count or same_epoch)[0].step
    if equal:
        return begin.reached
    if begin.same_model:
        return _step_of_same_model(begin, lineage, counted)
    if begin.architecture != lineage.architecture or not _resembles(begin, lineage):
        return None
    if counted and begin.iterations:
        return max(0, last.step + begin.iterations - (last.iterations or 0))
    if not begin.epoch:
        return None
    return begin.reached if lineage.finished else _step_of_epoch(begin, lineage)


def _step_of_same_model(begin, lineage, counted):
    last = lineage.points[-1]
    if counted and begin.same_optimizer and begin.iterations:
        return max(0, last.step + begin.iterations - (last.iterations or 0))
    return begin.reached if _resembles(begin, lineage) else None


def _step_of_epoch(begin, lineage):
    """At which an epoch begins; `None` if it is not known how many steps an epoch has."""
    last = lineage.points[-1].epoch
    starts = [p.step for p in lineage.points if p.epoch == min(begin.epoch, last)]
    ahead = max(begin.epoch - last, 0)
    if not starts or (ahead and begin.steps_per_epoch is None):
        return None
    return min(starts) + (ahead * begin.steps_per_epoch if ahead else 0)


def _resembles(begin, lineage) -> bool:
    return any(related(begin.weights.sample, sample) for sample in lineage.samples)
