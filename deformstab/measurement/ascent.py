"""Looking for the largest value of an objective: by ascent from several starts, and by chance."""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from deformstab.measurement.objectives import PREDICTION, values_of

_STEP_COST = 3  # forward passes; the backward one computes no gradients of weights
_REACH = 2.5  # of all steps together, in half widths of the set


@dataclass
class Found:
    """The best that was seen of each image.

    Attributes:
        values: [images]; NaN where there is none.
        displacements: [images, points, 2].
        lost: [images], whether there was none under some of the displacements.
        mean: [images], over random draws.
    """

    values: np.ndarray
    displacements: np.ndarray
    lost: np.ndarray
    mean: np.ndarray | None = None

    @classmethod
    def nothing(cls, displacements) -> "Found":
        """Before anything was seen of images with displacements like these."""
        count = len(displacements)
        return cls(np.full(count, np.nan), np.zeros_like(displacements), np.zeros(count, bool))

    def look(self, values, displacements):
        """Keeps what is larger."""
        self.lost |= np.isnan(values)
        better = (values > self.values) | (np.isnan(self.values) & ~np.isnan(values))
        self.values[better] = values[better]
        self.displacements[better] = displacements[better]


def passes_of(points: int, steps: int, starts: int) -> int:
    """What a search costs an image, in forward passes."""
    spectral = 2 * 2 * points + 2
    return starts * (_STEP_COST * steps + 1) + spectral


def images_at_once(chosen, batch_size: int, memory_limit: float, points: int, count: int) -> int:
    """Images a forward pass: their representations under all steps of a point are held at once.

    Args:
        chosen: the `Representation`s that are sought.
        batch_size, memory_limit: as for `ds.worst_deformation`.
        points: of the deformation.
        count: images in all.
    """
    room = memory_limit / 2
    bytes_of = [x.features * x.itemsize for x in chosen]
    each = max(4 * max(x.peak_bytes for x in chosen), 3 * 2 * points * max(bytes_of))
    each += sum(bytes_of) - max(bytes_of)  # those of the others, at rest
    most = int(min(batch_size, count, max(1, room // each)))
    return math.ceil(count / math.ceil(count / most))


def draws_of(deformation, images: int, count: int, seed: int) -> np.ndarray:
    """Random displacements, float64 [images, count, points, 2]."""
    draws = ops.convert_to_numpy(deformation.draw(images * count, seed=seed))
    return draws.reshape(images, count, -1, 2).astype("float64")


def random_draws(objectives, within, draws, passes: int, deformations: int, tick) -> list[Found]:
    """The mean over draws as they are, and the best of them, brought to the edge of the set.

    Args:
        objectives: a list of `Objective`s of the same images.
        within: the set.
        draws: [images, the larger of both numbers, points, 2].
        passes: how many the best is of.
        deformations: how many the mean is over.
        tick: called with the number of forward passes.

    Returns:
        What was found of each objective.
    """
    every, totals = [Found.nothing(draws[:, 0]) for _ in objectives], [[] for _ in objectives]
    for number in range(draws.shape[1]):
        here = draws[:, number]
        edge, values = within.on_edge(here), None
        if number < passes:
            values = values_of(objectives, edge)
            for found, at_edge in zip(every, values):
                found.look(at_edge, edge)
        if number < deformations:
            if values is None or not np.array_equal(edge, here):
                values = values_of(objectives, here)
            for total, as_drawn in zip(totals, values):
                total.append(as_drawn)
        tick(1)
    for found, total in zip(every, totals):
        found.mean = np.mean(total, axis=0)
        found.lost |= np.isnan(found.mean)
    return every


def search(objective, within, draws, steps: int, starts: int, seed: int, which, tick) -> Found:
    """Ascents from a spectral start, a random corner and draws; the best value seen counts.

    Args:
        objective: an `Objective`.
        within, draws, tick: as for `random_draws`.
        steps, starts: of them.
        seed: of the corners, with the number of each image in `which`.
    """
    found = Found.nothing(draws[:, 0])
    for number in range(starts):
        if number == 0:
            d = _spectral(objective, within, found)
            tick(2 * 2 * objective.points + 2)
        elif number == 1:
            # NumPy takes no negative seed.
            rngs = (np.random.default_rng((seed % (1 << 64), int(each))) for each in which)
            signs = np.stack([rng.choice([-1.0, 1.0], draws.shape[2:]) for rng in rngs])
            d = within.on_edge(signs * np.abs(within.top_of_line(np.ones(draws.shape[2:]))))
        else:
            d = within.on_edge(draws[:, (number - 2) % draws.shape[1]])
        for _ in range(steps):
            values, gradient = objective.values_and_gradients(d)
            found.look(values, d)
            tick(_STEP_COST)
            d = within.inside(d + within.step(gradient, _REACH / steps))
        found.look(objective.values(d), d)
        tick(1)
    return found


def _spectral(objective, within, found) -> np.ndarray:
    """Where the objective would be largest if it were quadratic (the margin: linear) around rest.

    A quadratic form does not tell d from -d: the better one, by forward passes.
    """
    if objective.kind == PREDICTION:
        d = np.stack([within.top_of_line(each) for each in objective.slope()])
    else:
        d = np.stack([within.top_of_form(each) for each in objective.form()])
    there, back = objective.values(d), objective.values(-d)
    found.look(there, d)
    found.look(back, -d)
    return np.where((back > there)[:, None, None], -d, d)
