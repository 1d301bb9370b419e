"""Measurements over time: two tables in memory, and both on disk if they are to outlive it."""

import pathlib

import numpy as np
import pandas as pd

from deformstab.measurement.representations import INPUT
from deformstab.tables import (
    SENSITIVITY_COLUMNS,
    SMOOTHNESS_COLUMNS,
    TIME_COLUMNS,
    read_csv,
    table,
    write_csv,
)

_COLUMNS = {
    "sensitivity": {**TIME_COLUMNS, **SENSITIVITY_COLUMNS},
    "smoothness": {**TIME_COLUMNS, **SMOOTHNESS_COLUMNS},
}
# What all measurements of one model have in common.
_COMMON = {
    "sensitivity": ("layer", "layer_type", "metric", "images", "deformations"),
    "smoothness": ("layer", "layer_type", "kernel_height", "kernel_width"),
}


class Recording:
    """The sensitivities and the smoothness of one training so far.

    A measurement is known by its time, (epochs finished, the optimizer's step).

    Args:
        path: of the CSV file of sensitivities, "_smoothness" is added for the other one; or `None`.

    Attributes:
        tables: "sensitivity" and "smoothness" → DataFrame. Never changed in place.
    """

    def __init__(self, path=None):
        self.tables = {name: table((), columns) for name, columns in _COLUMNS.items()}
        self._files = {}
        if path is not None:
            path = pathlib.Path(path)
            beside = path.with_name(f"{path.stem}_smoothness{path.suffix}")
            self._files = {"sensitivity": path, "smoothness": beside}

    @property
    def last(self) -> tuple[int, int] | None:
        """The time of the last measurement, if there is one."""
        rows = self.tables["sensitivity"]
        return None if rows.empty else (int(rows["epoch"].iloc[-1]), int(rows["step"].iloc[-1]))

    def add(self, epoch: int, step: int, measured: dict) -> None:
        """Appends tables, "sensitivity" and "smoothness"; again at the same time, they replace."""
        for name, rows in measured.items():
            before = self.tables[name]
            before = before[(before["epoch"] != epoch) | (before["step"] != step)]
            rows = rows.assign(epoch=epoch, step=step)[list(_COLUMNS[name])]
            if not (before.empty or rows.empty):
                rows = pd.concat([before, rows], ignore_index=True)
            self.tables[name] = before if rows.empty else rows

    def rename_last(self, epoch: int) -> None:
        """Gives the last measurement to another epoch."""
        time = self.last
        for name, rows in self.tables.items():
            here = (rows["epoch"] == time[0]) & (rows["step"] == time[1])
            self.tables[name] = rows.assign(epoch=rows["epoch"].mask(here, epoch))

    def keep_until(self, step: int) -> None:
        """Drops what a training that has got to this step has not measured: at 0 everything."""
        for name, rows in self.tables.items():
            self.tables[name] = rows[(rows["step"] <= step) & (step > 0)]

    def write(self) -> None:
        for name, file in self._files.items():
            if not self.tables[name].empty:
                write_csv(self.tables[name], file)

    def is_on_disk(self) -> bool:
        return any(_has_content(file) for file in self._files.values())

    def read(self, step: int, measured: dict) -> None:
        """Takes up what the files have.

        Args:
            step: that the training has got to.
            measured: a measurement of now, "sensitivity" and "smoothness": what was measured before
                must have been measured of this model in this way.

        Raises:
            ValueError: it was not.
        """
        found = dict(self.tables)
        for name, file in self._files.items():
            if not _has_content(file):
                continue
            try:
                rows = read_csv(file, _COLUMNS[name])
            except ValueError as error:  # of pandas: no table, or no numbers where there must be
                raise self._refused(file, "it cannot be read") from error
            if list(rows.columns) != list(_COLUMNS[name]):
                raise self._refused(file, "other columns")
            differing = _differing(rows, measured[name], _COMMON[name])
            if differing:
                raise self._refused(file, f"other {', '.join(differing)}")
            found[name] = rows
        self.tables = found if measured["smoothness"].empty else self._complete(found, step)

    def _complete(self, tables, step) -> dict:
        """Without the measurement that was being written when the process was killed."""
        times = {name: list(zip(rows["epoch"], rows["step"])) for name, rows in tables.items()}
        both = set.intersection(*map(set, times.values()))
        complete = {}
        for name, rows in tables.items():
            whole = np.array([time in both for time in times[name]], bool)
            if (rows["step"][~whole] < step).any():
                files = " and ".join(str(file) for file in self._files.values())
                raise self._refused(files, "they are not of the same times")
            complete[name] = rows[whole]
        return complete

    def _refused(self, file, why) -> ValueError:
        return ValueError(
            f"{file} holds something else than this measurement of this model ({why}): move or "
            "delete it, or pass another csv_path"
        )


def _has_content(file) -> bool:
    return file.exists() and file.stat().st_size > 0


def _differing(rows, now, columns) -> list[str]:
    """In what the measurements in `rows` differ from `now`, apart from results."""
    if rows.empty:
        return []
    if now.empty or len(rows) % len(now):
        return ["layers"]
    expected = now.iloc[np.arange(len(rows)) % len(now)].reset_index(drop=True)
    found = [name for name in columns if not rows[name].equals(expected[name])]
    if "rms_displacement" in rows and not found:
        # Other seeds and other images show in numbers that do not depend on the model.
        pairs = {"rms_displacement": slice(None), "distance": expected["layer"] == INPUT}
        names = {"rms_displacement": "displacements", "distance": "pixels"}
        for name, where in pairs.items():
            values = rows[name][where], expected[name][where]
            if not np.allclose(*values, rtol=1e-4, equal_nan=True):
                found.append(names[name])
    return found
