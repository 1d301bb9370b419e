"""The file of a finished run: read, and held against what its experiment says must be in it.

A file that was copied over another, cut or damaged would count in claims like any other, so nothing
of it is believed: the identity in it must be the one asked for, and every table must have the rows
that follow from it, each once.
"""

import collections
import json
import math
import pathlib

import numpy as np
import pandas as pd

from deformstab.paper.runs import apart
from deformstab.paper.runs.experiments import Experiment
from deformstab.paper.runs.network_measurements import tracked_quantities
from deformstab.paper.runs.training import is_tracked
from deformstab.tables import (
    EQUIVARIANCE_COLUMNS,
    SENSITIVITY_COLUMNS,
    SMOOTHNESS_COLUMNS,
    STABILITY_COLUMNS,
    from_csv,
)

TYPES = {
    **STABILITY_COLUMNS,
    **EQUIVARIANCE_COLUMNS,
    **SMOOTHNESS_COLUMNS,
    **SENSITIVITY_COLUMNS,
    **apart.TYPES,
}
# What tells the rows of a table apart, and the numbers that are read of them.
_KEYS = {
    "sensitivity": ("phase", "metric", "layer_index", "layer"),
    "smoothness": ("phase", "layer_index", "layer", "kernel_height", "kernel_width"),
    "stability": ("phase", "metric", "layer_index", "layer"),
    "equivariance": ("phase", "metric", "layer_index", "layer"),
    "variants": ("phase", "variant", "layer_index", "layer"),
    "trajectory": ("step", "quantity", "layer_index", "layer"),
    "epochs": ("epoch",),
    "training": ("epochs",),
}
_NUMBERS = {
    "sensitivity": ("distance", "sensitivity", "images"),
    "smoothness": ("smoothness",),
    "stability": ("sensitivity", "noise_sensitivity", "relative_stability", "images"),
    "equivariance": ("moves_with", "stays", "ratio", "images"),
    "variants": ("distance", "baseline", "sensitivity"),
    "trajectory": ("value", "accuracy_train"),
    "epochs": ("step", "accuracy_train"),
    "training": ("steps", "accuracy_train", "accuracy_test"),
}
_TEXTS = ("layer", "layer_type", "metric", "noise", "note", "phase", "quantity", "state", "variant")
_TEXTS += apart.TEXTS
_VARIANTS = ("train_images", "before_relu", "own_statistics")
# Of these a run has what its images have: pairs of different classes, of one class, or both.
_PAIRS = ("pairs_between_classes", "pairs_within_classes")


def read_run(
    path, experiment: Experiment, whole: bool = True
) -> tuple[dict[str, pd.DataFrame], float]:
    """What `runs.keep` wrote: the tables of a run, without `RUN_COLUMNS`, and its seconds.

    Args:
        path: of the file.
        experiment: of the run.
        whole: whether it is a run, or what was measured of kept networks: of some moments, maybe.

    Raises:
        ValueError: the file cannot be read, is of another experiment, or a table has other rows than
            it must have; with what to do.
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file" if path.exists() else "it has vanished")
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict):
            raise ValueError("it holds no run")
        _check_identity(result.get("experiment"), experiment.identity())
        seconds = result.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise ValueError(f"its seconds are {seconds!r}, not a number")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"its seconds are {seconds}")
        tables = _tables(result.get("tables"))
        if experiment.study in apart.MEASUREMENTS:
            apart.MEASUREMENTS[experiment.study].check(tables, experiment)
            return tables, float(seconds)
        for name, rows in _expected(experiment, tables, whole).items():
            _check_rows(name, tables.get(name, pd.DataFrame()), rows)
    except (ValueError, TypeError, KeyError, OSError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split()) or repr(error)
        raise ValueError(
            f"{path} is damaged or of another run ({reason}); remove it, and the run is run again"
        ) from error
    return tables, float(seconds)


def _check_identity(found, wanted) -> None:
    if not isinstance(found, dict):
        raise ValueError("it does not say of which experiment it is")
    if found == wanted:
        return
    names = sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
    told = (f"{name} is {found.get(name)!r}, not {wanted.get(name)!r}" for name in names[:3])
    raise ValueError(f"its {', its '.join(told)}")


def _tables(texts) -> dict[str, pd.DataFrame]:
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("it has no tables")
    tables = {name: from_csv(text, TYPES) for name, text in texts.items()}
    for name, frame in tables.items():
        for column in frame:
            if column in _TEXTS or pd.api.types.is_numeric_dtype(frame[column]):
                continue
            if not (frame[column] == "").all():
                raise ValueError(f"in its table {name}, {column} are not numbers")
            frame[column] = np.nan  # of a network that diverged there may be no number at all
    return tables


def _check_rows(name, frame, expected) -> None:
    if not len(frame) and not expected:
        return
    keys, numbers = _KEYS[name], _NUMBERS[name]
    missing = [column for column in (*keys, *numbers) if column not in frame]
    if missing and len(frame):
        raise ValueError(f"its table {name} has no column {', '.join(missing)}")
    found = collections.Counter(zip(*(frame[key] for key in keys)) if len(frame) else ())
    wanted = collections.Counter(expected)
    if found == wanted:
        return
    less, more = wanted - found, found - wanted
    kind, row = ("lacks", next(iter(less))) if less else ("must not have", next(iter(more)))
    told = ", ".join(f"{key} {value}" for key, value in zip(keys, row))
    raise ValueError(
        f"its table {name} has {len(frame)} rows, not the {len(expected)} that follow from its "
        f"configuration: it {kind} {told}"
    )


def _expected(experiment, tables, whole) -> dict[str, list]:
    """The rows of each table, by `_KEYS`.

    How long a training took is not known before: of that, tables must agree with each other.
    """
    layers, kernels = list(enumerate(experiment.representations)), _kernels(experiment)
    phases = ("initial", "trained") if experiment.epochs else ("initial",)
    if not whole:
        measured = tables.get("sensitivity", pd.DataFrame(columns=["phase"]))
        phases = [phase for phase in phases if (measured["phase"] == phase).any()]
        if not phases and not len(tables.get("trajectory", ())):
            raise ValueError("nothing was measured in it")
    epochs, steps = _length(experiment, tables) if whole and experiment.epochs else (0, 0)
    tracked = [step for step in range(1, steps + 1) if is_tracked(step)]
    if not whole and len(tables.get("trajectory", ())):
        tracked = [step for step in tables["trajectory"]["step"].unique() if is_tracked(step)]
    watched = [(*pair, "sensitivity") for pair in layers]
    watched += [(index, name, "smoothness") for index, name, side in kernels if side == 3]
    quantities = tracked_quantities(experiment.more_measures)
    watched += [(*pair, quantity) for quantity in quantities for pair in layers]
    by_metric = [
        (phase, metric, *pair)
        for phase in phases
        for metric in ("cosine", "euclidean")
        for pair in layers
    ]
    return {
        "sensitivity": by_metric,
        **dict.fromkeys(experiment.more_measures, by_metric),
        "smoothness": [(phase, *row, row[-1]) for phase in phases for row in kernels],
        "variants": [
            (phase, variant, index, _before_relu(name) if variant == "before_relu" else name)
            for phase in phases
            for variant in _variants(experiment, tables)
            for index, name in layers
        ],
        "trajectory": [
            (step, quantity, index, name)
            for step in (tracked if experiment.track else ())
            for index, name, quantity in watched
        ],
        "epochs": [(epoch,) for epoch in range(1, epochs + 1)],
        "training": [(epochs,)] if epochs else [],
    }


def _length(experiment, tables) -> tuple[int, int]:
    """(epochs, steps) of a training that ended as its experiment says."""
    rows, outcome = (tables.get(name, pd.DataFrame()) for name in ("epochs", "training"))
    for name, frame in (("epochs", rows), ("training", outcome)):
        lacking = [c for c in (*_KEYS[name], *_NUMBERS[name]) if c not in frame]
        if lacking or not len(frame):
            raise ValueError(f"its table {name} is empty or has no column {', '.join(lacking)}")
    count, steps = int(outcome["epochs"].iloc[0]), int(outcome["steps"].iloc[0])
    an_epoch = steps / count if count > 0 else 0
    if list(rows["step"]) != [an_epoch * number for number in range(1, len(rows) + 1)]:
        raise ValueError(f"its tables do not agree on {count} epochs and {steps} steps")
    target, reached = experiment.stop_accuracy, rows["accuracy_train"].iloc[-1]
    if not (
        count == experiment.epochs or (target and count < experiment.epochs and reached >= target)
    ):
        raise ValueError(f"it ended after {count} of {experiment.epochs} epochs")
    return count, steps


def _kernels(experiment) -> list[tuple]:
    """(index, name, side) of the filters that `ds.filter_smoothness` gives."""
    strided = {"strided": "downsample", "strided_relu": "downsample_conv"}
    found = []
    for block, (convolutions, _) in enumerate(experiment.blocks, start=1):
        found += [(f"block{block}_conv{number}", 3) for number in range(1, convolutions + 1)]
        if experiment.downsampling in strided:
            found.append((f"block{block}_{strided[experiment.downsampling]}", 2))
    return [(index, *pair) for index, pair in enumerate(found)]


def _variants(experiment, tables) -> list[str]:
    if not experiment.variants:
        return []
    if not experiment.class_pairs:
        return list(_VARIANTS)
    there = set(tables.get("variants", {}).get("variant", ()))
    return [*_VARIANTS, *([name for name in _PAIRS if name in there] or _PAIRS)]


def _before_relu(name: str) -> str:
    return name.removesuffix("relu") + "bn" if name.endswith("_relu") else name
