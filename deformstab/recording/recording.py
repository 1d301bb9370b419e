"""Measurements over time: tables in memory, and on disk if they are to outlive it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from deformstab.recording.files import RecordingFiles
from deformstab.recording.fingerprints import Weights
from deformstab.recording.lineage import Begin, Lineage, Point, step_of
from deformstab.recording.measures import MEASURES
from deformstab.tables import table


class _Measurement(NamedTuple):
    epoch: int
    step: int
    rows: dict  # name → DataFrame
    texts: dict  # name → the same as CSV, so that to write does not take longer and longer


class Recording:
    """What was measured of one training so far.

    A measurement is known by its time, (epochs finished, step).

    Args:
        csv_path: of the CSV file of sensitivities, the name of the measure is added for the others;
            or `None`.
        measures: of `MEASURES`, what is recorded.
    """

    def __init__(self, csv_path=None, measures=("sensitivity", "smoothness")):
        self._measures = tuple(measures)
        self._files = None if csv_path is None else RecordingFiles(csv_path, self._measures)
        self._measurements, self._lineage = [], None
        self._tables = {}

    def table(self, name: str) -> pd.DataFrame:
        """Of one measure, without rows if it is not recorded; never changed in place."""
        if name not in self._tables:
            parts = [each.rows[name] for each in self._measurements if name in each.rows]
            parts = [rows for rows in parts if not rows.empty]
            self._tables[name] = (
                pd.concat(parts, ignore_index=True) if parts else table((), MEASURES[name].timed)
            )
        return self._tables[name]

    @property
    def last(self) -> tuple[int, int] | None:
        """The time of the last measurement, if there is one."""
        return self._measurements[-1][:2] if self._measurements else None

    @property
    def logged(self) -> dict:
        """Of the last measurement, what the logs of an epoch show: "measure/layer" → number."""
        found = {}
        for name, rows in self._measurements[-1].rows.items() if self.last else ():
            column = MEASURES[name].logged
            if column:
                # Of two metrics the squared Euclidean one, for which the formulas were made.
                rows = rows if name == "sensitivity" else rows[rows["metric"] == "euclidean"]
                found |= {f"{name}/{x}": y for x, y in zip(rows["layer"], rows[column])}
        return found

    @property
    def by_batches(self) -> bool | None:
        return self._lineage.by_batches if self._lineage else None

    def acquire(self) -> None:
        """Before training: no other process may write the files from now on."""
        if self._files:
            self._files.acquire()

    def release(self) -> None:
        if self._files:
            self._files.release()

    def begin(self, begin: Begin, measure: Callable) -> tuple[int, dict | None]:
        """Takes up what was recorded before, in memory or in files, or begins anew.

        Args:
            begin: how the training begins.
            measure: gives a measurement of now, asked for once a process, to compare with files.

        Returns:
            (the step that the training is at; a measurement of now if one was asked for).

        Raises:
            ValueError: the files hold something else, or would lose what they hold.
        """
        measurements, lineage, measured, on_disk = self._measurements, self._lineage, None, False
        if self._files:
            on_disk = self._files.hold_tables()
            self._files.check_unchanged()
        tables = None
        if lineage is None and on_disk:
            measured = measure()
            tables, lineage = self._files.read(measured)
            begin = begin._replace(reached=lineage.points[-1].step)
        elif self._files and not on_disk:
            self._files.check_record()
        step = None if lineage is None else step_of(begin, lineage)
        if step is None:
            if on_disk:
                raise self._files.refused_training(lineage, _another(begin, lineage))
            measurements, lineage = [], Lineage(begin.architecture, [], [])
            step = begin.iterations or 0
        if tables:
            tables = self._files.complete(tables, lineage, step)
            self._check_same_numbers(begin, lineage, tables["sensitivity"], measured, step)
            measurements = _measurements(tables, self._measures)
        if on_disk and lineage.finished and measurements and measurements[-1].step > step:
            raise self._files.refused_training(
                lineage, f"this one begins at its step {step}, so that later rows would be lost"
            )
        self._measurements, self._lineage, self._tables = list(measurements), lineage, {}
        self.keep_until(step)
        lineage.finished = False
        return step, measured

    def note(self, point: Point, weights: Weights, measured: bool = False) -> None:
        """Notes down the weights of a time; `measured` if `add` has its measurement."""
        self._lineage.note(point, weights, measured)

    def keep_until(self, step: int) -> None:
        """Drops what a training that is at this step has not measured."""
        while self._measurements and self._measurements[-1].step > step:
            self._measurements.pop()
            self._tables = {}
        self._lineage.keep_until(step)

    def add(self, epoch: int, step: int, measured: dict) -> None:
        """Adds a table of each measure; the same time and later steps are no longer."""
        self.keep_until(step)
        for index in reversed(range(len(self._measurements))):
            if self._measurements[index].step < step:
                break
            if self._measurements[index].epoch == epoch:
                del self._measurements[index]
        self._measurements.append(_measurement(epoch, step, measured))
        self._tables = {}

    def rename_last(self, epoch: int) -> None:
        """Gives the last measurement, and what was noted with it, to another epoch."""
        step, rows = self._measurements[-1].step, self._measurements.pop().rows
        self.add(epoch, step, rows)
        self._lineage.points[-1] = self._lineage.points[-1]._replace(epoch=epoch)

    def write(self, by_batches: bool | None, tables: bool = True) -> None:
        """To the files, if there are any; without `tables`, only which training it is."""
        self._lineage.by_batches = by_batches
        if self._files:
            self._files.write(self._lineage, self._texts() if tables else None)

    def finish(self, weights: Weights) -> None:
        """`fit` has come to its end, with these weights."""
        last = self._lineage.points[-1]
        self._lineage.note(last._replace(weights=weights.digest), weights)
        self._lineage.finished = True
        if self._files:
            self._files.write(self._lineage)

    def _texts(self):
        found = {}
        for name in self._measures:
            text = "".join(each.texts[name] for each in self._measurements)
            found[name] = text and ",".join(MEASURES[name].timed) + "\n" + text
        return found

    def _check_same_numbers(self, begin, lineage, rows, measured, step):
        """Equal weights at a recorded step give what was recorded, if it is the same function."""
        measured_with = {}  # the first of a time is that of its measurement
        for point in lineage.points:
            if point.step == step:
                measured_with.setdefault(point.epoch, point.weights)
        for epoch, weights in measured_with.items():
            if weights != begin.weights.digest:
                continue
            here = rows[(rows["epoch"] == epoch) & (rows["step"] == step)]["sensitivity"].to_numpy()
            now = measured["sensitivity"]["sensitivity"].to_numpy()
            both = np.isfinite(here) & np.isfinite(now) if len(here) else np.zeros(0, bool)
            # Another device may round otherwise; another activation is farther away.
            if both.any() and not np.allclose(here[both], now[both], rtol=0.02, atol=1e-3):
                raise self._files.refused(
                    self._files.path, f"other sensitivities of the same weights, at step {step}"
                )


def _another(begin, lineage) -> str:
    if begin.architecture != lineage.architecture:
        return "the model is another one: of other layers or shapes"
    return (
        "the model's weights are not of that training: this is a new training, or it goes on "
        "from weights of another one"
    )


def _measurement(epoch, step, measured) -> _Measurement:
    rows, texts = {}, {}
    for name, frame in measured.items():
        rows[name] = frame.assign(epoch=epoch, step=step)[list(MEASURES[name].timed)]
        texts[name] = rows[name].to_csv(index=False, header=False, lineterminator="\n")
    return _Measurement(epoch, step, rows, texts)


def _measurements(tables, measures) -> list[_Measurement]:
    """Tables in their measurements."""
    groups = {name: dict(list(rows.groupby(["epoch", "step"]))) for name, rows in tables.items()}
    times = tables["sensitivity"][["epoch", "step"]].drop_duplicates()
    found = []
    for time in times.itertuples(index=False, name=None):
        measured = {
            name: groups[name][time] if name in groups else table((), MEASURES[name].timed)
            for name in measures
        }
        found.append(_measurement(*time, measured))
    return found
