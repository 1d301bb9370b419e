"""SensitivityCallback: sensitivity and smoothness recorded while a model trains."""

import pathlib

import keras
import numpy as np
import pandas as pd

from deformstab.backend import variable_to_numpy
from deformstab.sensitivity import check_measurement, measure_sensitivity
from deformstab.smoothness import filter_smoothness
from deformstab.tables import (
    SENSITIVITY_COLUMNS,
    SMOOTHNESS_COLUMNS,
    TIME_COLUMNS,
    write_csv,
)


class SensitivityCallback(keras.callbacks.Callback):
    """Measures each layer's sensitivity and smoothness before training and after every n epochs.

    The same images under the same deformations every time, so that what changes is the model.

    Args:
        images, deformation, layers, metric, deformations, batch_size, intervals, seed: as for
            `ds.measure_sensitivity`.
        every: epochs between measurements; the first is before training, epoch 0.
        csv_path: a file that holds `table` after each measurement, whole or not at all;
            `smoothness_table` is beside it, with "_smoothness" in its name. By default none.

    Attributes:
        table: a DataFrame, the rows of `ds.measure_sensitivity` with `epoch` (epochs finished) and
            `step` (the optimizer's iterations) before them.
        smoothness_table: the same for `ds.filter_smoothness`; empty without convolutions.

    Example:

    ```python
    callback = ds.SensitivityCallback(x_test[:128], csv_path="sensitivity.csv")
    model.fit(x_train, y_train, epochs=5, callbacks=[callback])
    callback.table.pivot(index="layer_index", columns="epoch", values="sensitivity").plot()
    ```
    """

    def __init__(
        self,
        images,
        deformation=None,
        layers=None,
        every: int = 1,
        csv_path=None,
        metric: str = "cosine",
        deformations: int = 1,
        batch_size: int = 32,
        intervals: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if not isinstance(every, (int, np.integer)) or every < 1:
            raise ValueError(f"every must be an int of at least 1 epochs, received {every!r}")
        self.images = check_measurement(images, deformation, metric, deformations, batch_size)
        self.every = every
        self.csv_path = None if csv_path is None else pathlib.Path(csv_path)
        self._measurement = {
            "deformation": deformation,
            "layers": layers,
            "metric": metric,
            "deformations": deformations,
            "batch_size": batch_size,
            "intervals": intervals,
            "seed": seed,
        }
        self.table = pd.DataFrame(columns=[*TIME_COLUMNS, *SENSITIVITY_COLUMNS])
        self.smoothness_table = pd.DataFrame(columns=[*TIME_COLUMNS, *SMOOTHNESS_COLUMNS])

    def on_epoch_begin(self, epoch, logs=None):
        if self.table.empty:
            self._measure(epoch)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            self._measure(epoch + 1)

    def _measure(self, epochs: int):
        step = int(variable_to_numpy(self.model.optimizer.iterations))
        sensitivity = measure_sensitivity(self.model, self.images, **self._measurement)
        self.table = _append(self.table, sensitivity, epochs, step)
        try:
            smoothness = filter_smoothness(self.model)
        except ValueError:  # a model without convolutions still has sensitivities
            smoothness = None
        if smoothness is not None:
            self.smoothness_table = _append(self.smoothness_table, smoothness, epochs, step)
        if self.csv_path is not None:
            write_csv(self.table, self.csv_path)
            if not self.smoothness_table.empty:
                name = f"{self.csv_path.stem}_smoothness{self.csv_path.suffix}"
                write_csv(self.smoothness_table, self.csv_path.with_name(name))


def _append(before: pd.DataFrame, rows: pd.DataFrame, epoch: int, step: int) -> pd.DataFrame:
    rows = rows.copy()
    rows.insert(0, "epoch", epoch)
    rows.insert(1, "step", step)
    return rows if before.empty else pd.concat([before, rows], ignore_index=True)
