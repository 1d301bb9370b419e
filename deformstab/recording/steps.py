"""How far a training is: the optimizer's updates, or batches where no optimizer counts."""

from collections.abc import Callable

import keras

from deformstab.backend import variable_to_numpy


def iterations_of(model) -> int | None:
    """The count of the model's optimizer, `None` if it has none."""
    count = getattr(getattr(model, "optimizer", None), "iterations", None)
    return None if count is None else int(variable_to_numpy(count))


def updates_per_batch(model) -> float:
    """At most; less than 1 with gradients accumulated."""
    every = getattr(getattr(model, "optimizer", None), "gradient_accumulation_steps", None)
    return 1 / (every or 1)


class StepCount:
    """The steps of a training, which go on from one `fit` to the next.

    A model that trains as Keras does counts the updates of its optimizer. One with a `train_step`
    of its own may have other optimizers, and leave this one unused: if it has not counted when the
    first batches are through, each batch is a step, from then on and in any later `fit`.

    Attributes:
        by_batches: whether batches are counted, `None` while that is open.
    """

    def __init__(self):
        self.by_batches: bool | None = None

    def begin(self, model, step: int) -> None:
        """A `fit` begins, at this step."""
        self._start, self._iterations = step, iterations_of(model)
        self._unused_after = 1 / updates_per_batch(model)
        if self.by_batches is None and self._iterations is not None:
            own_way = getattr(model.train_step, "__func__", None) is not keras.Model.train_step
            self.by_batches = None if own_way and not self._iterations else False
        self._by_batches = True if self._iterations is None else self.by_batches

    def after(self, batches: int, get_model: Callable) -> int:
        """The step when this `fit` has seen so many batches.

        Args:
            batches: since it began.
            get_model: gives the model, asked only if it is needed: on JAX, Keras then brings it up
                to date.
        """
        if self._by_batches:
            return self._start + batches
        iterations = iterations_of(get_model())
        moved = iterations - self._iterations
        if self._by_batches is None and (moved or batches >= self._unused_after):
            self._by_batches = self.by_batches = not moved
            if not moved:
                return self._start + batches
        return self._start + moved
