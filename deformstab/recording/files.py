"""The files of a recording: `NAME.csv`, `NAME_smoothness.csv`, …, and a record of the training.

The record, `NAME_training.json`, says which training the tables belong to: the architecture of its
model, and digests of its weights at each measurement and at each epoch's end. What happens when a
training begins:

| at `csv_path` | the training that begins | what happens |
|---|---|---|
| nothing, or empty files | any | **new**: written from its first measurement on |
| a training that was killed or interrupted | the same, at its last step or later | **continued** |
| | the same, set back to an earlier step (a checkpoint, its start) | **continued** from there: \
rows of later steps go |
| | another one: other weights, or a new model | **refused** |
| a training that was finished | the same, going on from its end or from its best weights, with or \
without a new optimizer | **continued** |
| | the same, set back, so that rows would go (a script run again) | **refused** |
| | another one: other weights, or a new model | **refused** |
| a model of other layers or shapes | any | **refused** |
| other images, deformations, layers, metric, measures | any | **refused** |
| rows that are doubled, missing or out of order; no record; something else | any | **refused** |
| what this callback wrote, changed since | any | **refused** |
| what this callback wrote, deleted since | the same | **written again**, all of it |
| what another process, thread or callback is writing | any | **refused** |
| a folder, a device, a place that cannot be written | any | **refused** |

Refused means a ValueError before anything is trained or written. To start anew, move or delete the
files, or pass another `csv_path`. The same weights at the same step are the same training, so
one with equal seeds that was interrupted before its first checkpoint is continued at its start.
"""

import contextlib
import hashlib
import itertools
import os
import pathlib

import numpy as np
import pandas as pd

from deformstab.locks import FileLock
from deformstab.measurement.representations import INPUT
from deformstab.recording.lineage import Lineage
from deformstab.recording.measures import MEASURES
from deformstab.tables import read_csv, write_text

_ANEW = "move or delete it, or pass another csv_path"


class RecordingFiles:
    """Reads and writes the files of a recording, for one process at a time.

    Args:
        csv_path: of the sensitivities.
        measures: of `MEASURES`, what is recorded.

    Raises:
        ValueError: it is no path of a file.
    """

    def __init__(self, csv_path, measures):
        path = _checked(csv_path)
        beside = {
            name: path.with_name(f"{path.stem}_{name}{path.suffix}")
            for name in MEASURES
            if name != "sensitivity"
        }
        # Sensitivities last: what they have the others have.
        self._csv = {name: beside[name] for name in beside if name in measures}
        self._csv["sensitivity"] = path
        self._unwanted = [file for name, file in beside.items() if name not in measures]
        self._record = path.with_name(f"{path.stem}_training.json")
        for file in (*self._csv.values(), self._record):
            if _exists(file) and not file.is_file():
                raise ValueError(f"csv_path: {file} is not a file; pass the path of a CSV file")
        self._lock = FileLock(path)
        self._written = {}  # file → digest of what this object wrote

    @property
    def path(self) -> pathlib.Path:
        return self._csv["sensitivity"]

    def acquire(self) -> None:
        """Before training: no one else may write from now on, and the folder must be writable."""
        try:
            self._lock.acquire()
        except OSError as error:
            raise ValueError(f"csv_path: {self.path} cannot be written: {error}") from error
        except ValueError as error:
            raise ValueError(f"csv_path: {error}: wait for it, or pass another csv_path") from None

    def release(self) -> None:
        self._lock.release()

    def hold_tables(self) -> bool:
        return any(map(_has_content, (*self._csv.values(), *self._unwanted)))

    def check_unchanged(self) -> None:
        """Refuses to replace what someone else wrote; what is gone is written again."""
        for file, digest in self._written.items():
            if _has_content(file) and _digest(file.read_bytes()) != digest:
                raise ValueError(
                    f"{file} was changed by something else since this callback wrote it (its own "
                    f"rows are in the callback's tables): {_ANEW}"
                )

    def write(self, lineage: Lineage, tables: dict | None = None) -> None:
        """Writes the record, and then the tables, each file whole or not at all.

        Args:
            lineage: of the training.
            tables: name of the measure → CSV text, "" for none; or `None`, as they are.
        """
        self._lock.check()
        write_text(lineage.to_json(), self._record)
        for name, file in self._csv.items() if tables else ():
            if tables[name]:
                write_text(tables[name], file)
                self._written[file] = _digest(tables[name].encode())

    def read(self, measured: dict) -> tuple[dict, Lineage]:
        """What the files have.

        Args:
            measured: a measurement of now, name → table: what was measured before must have been
                measured of such a model in this way.

        Returns:
            (tables: name → DataFrame, those that such a model has; the training they belong to).

        Raises:
            ValueError: it was not.
        """
        for file in filter(_has_content, self._unwanted):
            raise self.refused(file, "a measure that is not among measures")
        tables = {name: self._read_table(name, measured[name]) for name in self._csv}
        if not self._record.exists():
            raise self.refused(self.path, f"its record {self._record.name} is missing")
        tables = {name: rows for name, rows in tables.items() if not measured[name].empty}
        return tables, self._read_record()

    def check_record(self) -> None:
        """Refuses to replace a file that is no record."""
        if self._record.exists():
            self._read_record()

    def complete(self, tables: dict, lineage: Lineage, step: int) -> dict:
        """Without a measurement that was being written when the process was killed."""
        times = {name: list(zip(rows["epoch"], rows["step"])) for name, rows in tables.items()}
        everywhere = {point[:2] for point in lineage.points}.intersection(*times.values())
        found = {}
        for name, rows in tables.items():
            whole = np.array([time in everywhere for time in times[name]], bool)
            if (rows["step"][~whole] < step).any():
                raise self.refused(self._names(), "they are not of the same times")
            found[name] = rows[whole]
        return found

    def refused(self, file, why) -> ValueError:
        return ValueError(
            f"{file} holds something else than this measurement of this model ({why}): {_ANEW}"
        )

    def refused_training(self, lineage: Lineage, why: str) -> ValueError:
        last = lineage.points[-1]
        state = "finished" if lineage.finished else "interrupted"
        return ValueError(
            f"{self.path} holds a training that was {state} at epoch {last.epoch}, step "
            f"{last.step}, and {why}. Its rows are not overwritten: move or delete "
            f"{self._names()}, or pass another csv_path"
        )

    def _names(self):
        *beside, path = self._csv.values()
        return " and ".join(map(str, (path, *beside)))

    def _read_table(self, name, now):
        file, columns = self._csv[name], MEASURES[name].timed
        if not _has_content(file):
            return pd.DataFrame(columns=list(columns)).astype(columns)
        try:
            rows = read_csv(file, columns)
        except (ValueError, OSError) as error:  # no table, or no numbers where there must be
            raise self.refused(file, "it cannot be read") from error
        if list(rows.columns) != list(columns):
            raise self.refused(file, "other columns")
        if not _in_order(rows, now):
            raise self.refused(file, "its rows are doubled, missing or out of order")
        differing = _differing(rows, now, MEASURES[name])
        if differing:
            raise self.refused(file, f"other {', '.join(differing)}")
        return rows

    def _read_record(self) -> Lineage:
        try:
            return Lineage.from_json(self._record.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise self.refused(self._record, "it is no record of a training") from error


def _checked(csv_path) -> pathlib.Path:
    path = os.fspath(csv_path) if isinstance(csv_path, os.PathLike) else csv_path
    if not isinstance(path, str) or not path or "\0" in path or path.endswith(os.sep):
        raise ValueError(
            'csv_path must be the path of a file, for example "sensitivity.csv", or None; '
            f"received {csv_path!r}"
        )
    return pathlib.Path(path).absolute()  # wherever the process goes


def _exists(file) -> bool:
    with contextlib.suppress(OSError):  # a name that is too long: said when it is to be written
        return file.exists()
    return False


def _has_content(file) -> bool:
    return _exists(file) and file.stat().st_size > 0


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _in_order(rows, now) -> bool:
    """Whether each measurement has its layers once and in order, and times only go on."""
    pairs = list(zip(rows["epoch"], rows["step"]))
    times = [time for time, _ in itertools.groupby(pairs)]
    steps = [step for _, step in times]
    if len(set(times)) < len(times) or steps != sorted(steps):
        return False
    layers = list(now["layer"])
    if set(rows["layer"]) != set(layers):
        return True  # which is said of other layers
    found = [[layer for layer, _ in run] for run in _runs(rows["layer"], pairs)]
    return all(each == layers for each in found)


def _runs(values, times):
    for _, run in itertools.groupby(zip(values, times), key=lambda pair: pair[1]):
        yield run


def _differing(rows, now, measure) -> list[str]:
    """In what the measurements in `rows` differ from `now`, apart from results."""
    if rows.empty:
        return []
    if now.empty or len(rows) % len(now):
        return ["layers"]
    expected = now.iloc[np.arange(len(rows)) % len(now)].reset_index(drop=True)
    found = [name for name in measure.common if not rows[name].equals(expected[name])]
    if "rms_displacement" in rows and not found:
        # Other seeds and other images show in numbers that do not depend on the model.
        of_pixels = measure.of_pixels
        pairs = {"rms_displacement": slice(None), of_pixels: expected["layer"] == INPUT}
        names = {"rms_displacement": "displacements", of_pixels: "pixels"}
        for name, where in pairs.items():
            values = rows[name][where], expected[name][where]
            if not np.allclose(*values, rtol=1e-4, equal_nan=True):
                found.append(names[name])
    return found
