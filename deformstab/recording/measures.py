"""What can be recorded while a model trains: one table for each measure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd

from deformstab.measurement.equivariance import check_flows, equivariance_table
from deformstab.measurement.perturbations import NoiseKind
from deformstab.measurement.sensitivity import sensitivity_table
from deformstab.measurement.smoothness import smoothness_table
from deformstab.measurement.stability import check_noise, stability_table
from deformstab.measurement.stimuli import DeformedImages
from deformstab.tables import (
    EQUIVARIANCE_COLUMNS,
    SENSITIVITY_COLUMNS,
    SMOOTHNESS_COLUMNS,
    STABILITY_COLUMNS,
    TIME_COLUMNS,
)

MeasureName = Literal["sensitivity", "smoothness", "stability", "equivariance"]
MEASURE_NAMES = get_args(MeasureName)


@dataclass(frozen=True)
class Stimuli:
    """With what a model is measured, the same every time.

    Attributes:
        images: with their deformations.
        layers, metric, batch_size, intervals, memory_limit: as for `ds.measure_sensitivity`.
        noise, seed: of the noise of "stability".
    """

    images: DeformedImages
    layers: Any
    metric: str
    batch_size: int
    intervals: bool
    memory_limit: float
    noise: NoiseKind
    seed: int


@dataclass(frozen=True)
class Measure:
    """One table of a recording.

    Attributes:
        columns: of the table, its time left out.
        common: those that all measurements of one model have in common.
        of_pixels: the column that does not depend on the model in the row of the input, if any.
        logged: the column that goes to the logs of an epoch, if any.
        taken: (model, `Stimuli`) → the table.
    """

    columns: dict
    common: tuple[str, ...]
    of_pixels: str | None
    logged: str | None
    taken: Callable[[Any, Stimuli], pd.DataFrame]

    @property
    def timed(self) -> dict:
        """The columns with the time before them."""
        return {**TIME_COLUMNS, **self.columns}


def _sensitivity(model, given):
    options = given.layers, given.metric, given.batch_size, given.intervals, given.memory_limit
    return sensitivity_table(model, given.images, *options, progress=False)


def _smoothness(model, given):
    return smoothness_table(model)  # empty without convolutions: sensitivities there are still


def _stability(model, given):
    options = given.batch_size, given.intervals, given.memory_limit, False
    return stability_table(model, given.images, given.layers, given.noise, given.seed, *options)


def _equivariance(model, given):
    options = True, given.batch_size, given.intervals, given.memory_limit, False
    return equivariance_table(model, given.images, given.layers, *options)


_OF_IMAGES = ("layer", "layer_type", "metric", "images", "deformations")
_OF_KERNELS = ("layer", "layer_type", "kernel_height", "kernel_width")
MEASURES = {
    "sensitivity": Measure(
        SENSITIVITY_COLUMNS, _OF_IMAGES, "distance", "sensitivity", _sensitivity
    ),
    "smoothness": Measure(SMOOTHNESS_COLUMNS, _OF_KERNELS, None, None, _smoothness),
    "stability": Measure(
        STABILITY_COLUMNS,
        (*_OF_IMAGES, "noise"),
        "sensitivity",
        "relative_stability",
        _stability,
    ),
    "equivariance": Measure(EQUIVARIANCE_COLUMNS, _OF_IMAGES, "stays", "ratio", _equivariance),
}


def check_measures(names, given: Stimuli) -> tuple[str, ...]:
    """The names of what is recorded, in the order of `MEASURES`.

    Raises:
        ValueError: one is not known, "sensitivity" is missing, or the images do not allow it.
    """
    known = ", ".join(MEASURES)
    if isinstance(names, str) or not isinstance(names, (tuple, list)):
        raise ValueError(f"measures must be a tuple of {known}; received {names!r}")
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise ValueError(f"unknown measures {unknown}; the known ones are {known}")
    if "sensitivity" not in names:
        raise ValueError(
            'measures must have "sensitivity" among them, by which a recording is known again; '
            f"received {names!r}"
        )
    if "equivariance" in names:
        check_flows(given.images)
    check_noise(given.noise)
    return tuple(name for name in MEASURES if name in names)
