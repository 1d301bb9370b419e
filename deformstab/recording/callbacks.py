"""SensitivityCallback: what is measured of a model, recorded while it trains."""

import inspect
import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.perturbations import Deformation, NoiseKind
from deformstab.measurement.representations import LayerSelection, read_once
from deformstab.measurement.sensitivity import check_options, measure_sensitivity
from deformstab.measurement.sources import first_images
from deformstab.measurement.stimuli import deformed_images
from deformstab.recording.fingerprints import Weights, architecture_of, weights_of
from deformstab.recording.lineage import Begin, Point
from deformstab.recording.measures import MEASURES, MeasureName, Stimuli, check_measures
from deformstab.recording.recording import Recording
from deformstab.recording.schedules import check_every, next_step
from deformstab.recording.steps import StepCount, iterations_of, updates_per_batch


class SensitivityCallback(keras.callbacks.Callback):
    """Measures each layer before and while a model trains: sensitivity, smoothness, and more.

    The same images under the same deformations every time, so that what changes is the model. The
    training is the same, bit for bit, as without.

    **Steps** are updates: what `optimizer.iterations` counts, so that with gradients accumulated
    several batches are one step. They go on when a model is compiled with a new optimizer. A model
    that leaves its optimizer unused, as one with a `train_step` and optimizers of its own, has a
    step each batch. Where Keras reports less often (`steps_per_execution`), a step that is due is
    measured at the next report, under the number that it then has.

    **Logs.** At each epoch's end the history and callbacks listed after this one (EarlyStopping,
    ModelCheckpoint, CSVLogger, TensorBoard) find `sensitivity/<layer>` in the logs: the last
    measurement since the epoch began, NaN if there was none. Of other measures, by squared Euclidean
    distances, it is `stability/<layer>` (the relative one) and `equivariance/<layer>` (the ratio).
    To monitor one, give `mode="min"` or
    `"max"`, and measure after each epoch: to Keras nothing is better than a NaN that came first.
    The progress bar shows them all; name few `layers` then, or pass `logs=False`.

    **Going on.** `epoch` follows the numbers of `fit`, which begin at 0 again without
    `initial_epoch`; steps go on, and rows are told apart by them. A second `fit` keeps all rows and
    measures no step again. Where a training was set back, rows of later steps go: the weights are
    those of an earlier step, and so is the optimizer's count, or the epoch. (With weights alone, as
    `EarlyStopping` restores them, or a count alone, as of a new optimizer, it goes on.) Another
    model is measured anew.

    **Files.** With a `csv_path` a new process goes on in this way as well, so that a killed
    training with `keras.callbacks.BackupAndRestore`, before or after this callback, ends with the
    table of one that was not. (After a backup within an epoch Keras begins that epoch again, so its
    steps are others.) `_training.json` in place of `.csv` is a record of the weights, by which a
    training is known again. Rows of another training, or of one that was finished, are never
    overwritten, and one process at a time writes: what is not the same training going on is refused.
    (What cannot be told: two trainings that begin with the same weights, if the second one comes
    with weights between two records, and a count that fits.)

    Args:
        images, deformation, layers: as for `ds.measure_sensitivity`.
        every: epochs between measurements; by default 1, with `steps` none. In any case it is
            measured before training, epoch 0.
        csv_path: a file that holds `table` after each measurement, whole or not at all; the other
            tables are beside it, with "_smoothness", "_stability", "_equivariance" in their names.
            By default none. Of several processes that train one model, give it to one.
        steps: optimizer steps at which to measure: an int (every so many), a list of them, or
            "log" (1, 2, 4, 8, …). By default none.
        logs: whether what is measured goes to the logs of each epoch.
        measures: what is measured: "sensitivity", always; "smoothness", of convolutions
            (`ds.filter_smoothness`); "stability" (`ds.measure_stability`) and "equivariance"
            (`ds.measure_equivariance`), by both metrics, with the same deformations.
        noise: of "stability".
        figure: called after each measurement with `table` and the step, as `ds.figure_to` makes one:
            the figure of the training so far in TensorBoard or Weights & Biases. By default none.
        **measurement: `metric`, `deformations`, `batch_size`, … of `ds.measure_sensitivity`.

    Attributes:
        table: a DataFrame, the rows of `ds.measure_sensitivity` with `epoch` (epochs finished) and
            `step` (the optimizer's iterations) before them; at any time, so far.
        smoothness_table: the same for `ds.filter_smoothness`; empty without convolutions.
        stability_table, equivariance_table: the same for these; empty if not among `measures`.

    Raises:
        ValueError: for an impossible schedule, path or measurement, or an unknown measure; and when
            training begins, for files at `csv_path` that hold something else than this training,
            that another process is writing, or that cannot be written.

    Example:

    ```python
    callback = ds.SensitivityCallback(x_test[:128], steps="log", csv_path="sensitivity.csv")
    model.fit(x_train, y_train, epochs=5, callbacks=[callback])
    callback.table.pivot(index="layer_index", columns="step", values="sensitivity").plot()
    ```
    """

    def __init__(
        self,
        images: Any,
        deformation: Deformation | None = None,
        layers: LayerSelection = None,
        every: int | None = None,
        csv_path: str | os.PathLike | None = None,
        steps: int | Sequence[int] | Literal["log"] | None = None,
        logs: bool = True,
        *,
        measures: Sequence[MeasureName] = ("sensitivity", "smoothness"),
        noise: NoiseKind = "gaussian",
        figure: Callable[[pd.DataFrame, int], Any] | None = None,
        **measurement: Any,
    ):
        super().__init__()
        if measurement.get("return_distances"):
            raise ValueError("return_distances is not for SensitivityCallback: it keeps one table")
        if not isinstance(logs, (bool, np.bool_)):
            raise ValueError(f"logs must be True or False, received {logs!r}")
        if figure is not None and not callable(figure):
            raise ValueError(
                "figure must be a function of (table, step), such as ds.figure_to('logs') for "
                f"TensorBoard; received {figure!r}"
            )
        self.every = check_every(every, steps)
        self._next_step = next_step(steps)
        options = inspect.signature(measure_sensitivity).bind(
            None, images, deformation, layers, **measurement
        )
        options.apply_defaults()
        names = ("metric", "batch_size", "memory_limit")
        check_options(*(options.arguments[name] for name in names))
        names = ("deformation", "deformations", "seed", "deformed_input")
        images, _ = first_images(images, options.arguments["max_images"])
        images = keras.tree.map_structure(np.array, images)  # copies: what is given may change
        images = deformed_images(images, **{name: options.arguments[name] for name in names})
        names = ("layers", "metric", "batch_size", "intervals", "memory_limit", "seed")
        options = {name: options.arguments[name] for name in names}
        options["layers"] = read_once(layers)
        self._given = Stimuli(images, noise=noise, **options)
        self.measures = check_measures(measures, self._given)
        self._recording = Recording(csv_path, self.measures)
        self.steps = steps
        self.csv_path = csv_path
        self.logs = logs
        self.figure = figure
        # Without steps nothing happens after a batch, which Keras on JAX need not wait for.
        self.async_safe = steps is None
        self._count = StepCount()
        self._starting = True
        self._due = math.inf  # the next step to measure
        self._epoch, self._batches = 0, 0  # epochs finished, and batches since
        self._batches_before = 0  # of this fit, until the epoch began
        self._looked = (0, 0)  # the step when last looked at, and batches then
        self._measured_after = None  # batches at the last measurement since the epoch began
        self._latest = {}  # what it found: name in the logs → number
        self._per_batch = 1  # steps, at most
        self._last_model = self._last_optimizer = lambda: None  # weak references

    @property
    def table(self) -> pd.DataFrame:
        return self._recording.table("sensitivity")

    @property
    def smoothness_table(self) -> pd.DataFrame:
        return self._recording.table("smoothness")

    @property
    def stability_table(self) -> pd.DataFrame:
        return self._recording.table("stability")

    @property
    def equivariance_table(self) -> pd.DataFrame:
        return self._recording.table("equivariance")

    def on_train_begin(self, logs=None):
        self._starting = True
        self._recording.acquire()

    def on_train_end(self, logs=None):
        if not self._starting:  # there was an epoch
            self._recording.finish(weights_of(self.model))
        self._recording.release()

    def on_epoch_begin(self, epoch, logs=None):
        if self._starting:  # now, for on_train_begin of a BackupAndRestore may come after ours
            try:
                step = self._start(epoch)
            except BaseException:
                self._recording.release()
                raise
            self._starting, self._batches_before = False, 0
        else:
            self._batches_before, self._batches = self._batches_before + self._batches, 0
            step = self._step()
            self._recording.keep_until(step)  # another callback may have set the training back
        self._epoch, self._batches, self._measured_after, self._latest = epoch, 0, None, {}
        self._due, self._looked = self._next_step(step), (step, 0)

    def on_train_batch_end(self, batch, logs=None):
        length = (self.params or {}).get("steps")  # unknown for a generator
        # Keras on JAX may report from several threads; with `steps_per_execution` Keras reports
        # batches that an epoch does not have.
        self._batches = max(self._batches, min(batch + 1, length or math.inf))
        # To look costs time on JAX, where the model is not up to date within an epoch. A batch is
        # one step at most (of an accumulated gradient or a skipped update, none).
        step, batches = self._looked
        if step + self._batches - batches >= self._due:
            step = self._step()
            self._looked = step, self._batches
            if step >= self._due:
                self._measure(self._epoch + bool(length and self._batches >= length), step)

    def on_epoch_end(self, epoch, logs=None):
        step = self._step()
        self._looked = step, self._batches
        if self._measured_after != self._batches:
            if step >= self._due or self._is_due_after(epoch + 1):
                self._measure(epoch + 1, step)
            else:
                self._note(epoch + 1, step, weights_of(self.model))
                self._recording.write(self._count.by_batches, tables=False)
        elif self._recording.last[0] == epoch:  # measured before it was known that it ends here
            self._recording.rename_last(epoch + 1)
            self._recording.write(self._count.by_batches)
        if self.logs and logs is not None:
            for name in self._recording.logged:
                logs[name] = self._latest.get(name, math.nan)

    def _step(self) -> int:
        return self._count.after(self._batches_before + self._batches, lambda: self.model)

    def _is_due_after(self, epochs: int) -> bool:
        return self.every is not None and epochs % self.every == 0

    def _start(self, epoch: int) -> int:
        """Goes on from what was measured before, and measures what is due and missing."""
        model, recording = self.model, self._recording
        optimizer, weights = getattr(model, "optimizer", None), weights_of(model)
        step, batches = self._looked  # in the fit before, which may have been interrupted since
        begin = Begin(
            epoch=epoch,
            iterations=iterations_of(model),
            architecture=architecture_of(model),
            weights=weights,
            same_model=model is self._last_model(),
            same_optimizer=optimizer is not None and optimizer is self._last_optimizer(),
            reached=step + int((self._batches - batches) * self._per_batch),
            steps_per_epoch=self._steps_per_epoch(),
        )
        step, measured = recording.begin(begin, self._measured)
        self._count.by_batches = recording.by_batches
        self._count.begin(model, step)
        self._per_batch = updates_per_batch(model)
        self._last_model, self._last_optimizer = _weak(model), _weak(optimizer)
        if recording.last is None:
            self._measure(epoch, step, measured, weights)
            return step
        last_epoch, last_step = recording.last
        # Of an epoch that Keras begins again, after a backup within it, the start is not missing.
        missing = step > last_step and epoch != last_epoch and self._is_due_after(epoch)
        if missing or step >= self._next_step(last_step):
            self._measure(epoch, step, measured, weights)
        else:
            self._note(epoch, step, weights)
            recording.write(self._count.by_batches)
        return step

    def _steps_per_epoch(self) -> int | None:
        batches = (self.params or {}).get("steps")
        return int(batches * updates_per_batch(self.model)) if batches else None

    def _measure(self, epoch: int, step: int, measured: dict | None = None, weights=None):
        measured = self._measured() if measured is None else measured
        self._recording.add(epoch, step, measured)
        weights = weights_of(self.model) if weights is None else weights
        self._note(epoch, step, weights, measured=True)
        self._recording.write(self._count.by_batches)
        self._due, self._measured_after = self._next_step(step), self._batches
        self._latest = self._recording.logged
        if self.figure is not None:
            self.figure(self.table, step)

    def _note(self, epoch: int, step: int, weights: Weights, measured: bool = False):
        point = Point(epoch, step, iterations_of(self.model), weights.digest)
        self._recording.note(point, weights, measured)

    def _measured(self) -> dict:
        return {name: MEASURES[name].taken(self.model, self._given) for name in self.measures}


def _weak(thing):
    """A function that gives it as long as it is there."""
    try:
        return weakref.ref(thing)
    except TypeError:  # None, or a list of optimizers
        return lambda: None
