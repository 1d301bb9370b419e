"""A request of the shell → its tables, as the functions of the library measure them."""

import fnmatch
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.comparisons import compare_sensitivity
from deformstab.measurement.consistency import prediction_consistency
from deformstab.measurement.equivariance import measure_equivariance
from deformstab.measurement.intervals import proportion_interval
from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.smoothness import filter_smoothness
from deformstab.measurement.stability import measure_stability
from deformstab.measurement.strengths import sensitivity_by_strength
from deformstab.presentation.image_classes import folder_labels
from deformstab.presentation.image_sets import chosen_files
from deformstab.presentation.measure_files import LoadedFiles, load_files
from deformstab.presentation.shell_deformations import (
    SPLINE,
    check_reaches,
    checked_strengths,
    shell_deformation,
)
from deformstab.presentation.shell_request import CONSISTENCY, Request


@dataclass(frozen=True)
class Loaded:
    """What is measured.

    Attributes:
        files: the model, images and their deformation.
        models: {name: model}, one or two; of a comparison the first is the reference.
        labels: [images], or `None`.
    """

    files: LoadedFiles
    models: dict[str, keras.Model]
    labels: np.ndarray | None


def load(request: Request, report=lambda sentence: None) -> Loaded:
    """Reads what a request names, and refuses what does not fit together.

    Args:
        request: checked.
        report: called with sentences about what was read.

    Raises:
        ValueError, OSError: with what to do about it.
    """
    files = load_files(
        request.source,
        request.images,
        request.max_images,
        request.image_seed,
        request.resize,
        report,
        family=request.family,
        control_points=request.control_points,
        max_displacement=request.max_displacement,
    )
    check_reaches(checked_strengths(request.strengths), files.images.shape)
    models = {request.source.name: files.model}
    if request.other is not None:
        models |= _compared(request, files)
        first, second = models
        report(f"comparing {second} with {first}, the reference")
    labels = None
    if request.labels:
        classes = {_classes(name, model) for name, model in models.items()}
        if len(classes) > 1:
            raise ValueError(
                f"--labels=folders: the models tell different numbers of classes apart, {classes}"
            )
        found, *_ = chosen_files(request.images, request.max_images, request.image_seed)
        labels, sentence = folder_labels(found, request.images, *classes, request.classes)
        report(sentence)
    return Loaded(files, models, labels)


def measured(request: Request, loaded: Loaded) -> dict[str, pd.DataFrame]:
    """The tables of a request, by what is measured, in the order of `Request.tables`."""
    files, found = loaded.files, {}
    common = {
        name: getattr(request, name) for name in ("layers", "deformations", "seed", "batch_size")
    }
    if request.other is not None:
        options = common | {"metric": request.metric, "by": request.compare_by}
        for name in request.measures:
            found[name] = compare_sensitivity(
                loaded.models, files.images, files.deformation, measure=name, **options
            )
    else:
        given = files.model, files.images, files.deformation
        if "smoothness" in request.measures:  # first: it takes no time, and may not be there
            found["smoothness"] = _smoothness(files.model, request.layers)
        if request.strengths is not None:
            found["sensitivity"] = _by_strength(request, files, common)
        elif "sensitivity" in request.measures:
            found["sensitivity"] = measure_sensitivity(*given, metric=request.metric, **common)
        if "stability" in request.measures:
            found["stability"] = measure_stability(*given, **common)
        if "equivariance" in request.measures:
            found["equivariance"] = measure_equivariance(*given, **common)
    if loaded.labels is not None:
        found[CONSISTENCY] = _consistency(request, loaded)
    return {name: found[name] for name in request.tables()}


def strongest(request: Request, files: LoadedFiles):
    """The deformation that pictures are to show: of several strengths the largest."""
    strengths = checked_strengths(request.strengths)
    return _of_strength(request, files, max(strengths)) if strengths else files.deformation


def _compared(request, files) -> dict[str, Any]:
    """{name: model} of the other one, which must take the same images."""
    other = request.other
    model = other.load()
    shape = other.input_shape(model)
    if any(size not in (None, has) for size, has in zip(shape[1:], files.images.shape[1:])):
        raise ValueError(
            f"{other.model} takes images {shape[1:]}, and {request.source.model} "
            f"{files.images.shape[1:]}: models are compared by the same images"
        )
    if not other.preparation.same_as(files.preparation, files.images.shape[-1]):
        raise ValueError(
            f"{other.model} takes {other.preparation.words}, and {request.source.model} "
            f"{files.preparation.words}: models are compared by the same images; --preprocessing "
            "says what both take"
        )
    name = other.name if other.name != request.source.name else str(other.model)
    if name == request.source.name:
        raise ValueError(f"--compare={other.model} is the model itself: name another one")
    return {name: model}


def _classes(name, model) -> int:
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None or shape[-1] < 2:
        raise ValueError(
            f"--labels=folders: {name} does not give one output [images, classes], but {shape}"
        )
    return shape[-1]


def _of_strength(request, files, strength):
    if request.family == SPLINE:
        return shell_deformation(files.images.shape, SPLINE, request.control_points, strength)
    return shell_deformation(files.images.shape, request.family, strength=strength)


def _by_strength(request, files, common) -> pd.DataFrame:
    options = common | {"metric": request.metric}
    strengths = checked_strengths(request.strengths)
    if request.family == SPLINE:
        given = files.model, files.images, strengths, files.deformation
        return sensitivity_by_strength(*given, **options)
    tables = []
    for strength in strengths:
        deformation = _of_strength(request, files, strength)
        table = measure_sensitivity(files.model, files.images, deformation, **options)
        table.insert(0, "strength", strength)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _smoothness(model, layers) -> pd.DataFrame:
    table = filter_smoothness(model)
    if layers is None:
        return table
    chosen = [any(fnmatch.fnmatchcase(name, one) for one in layers) for name in table["layer"]]
    return table[chosen].reset_index(drop=True)


def _consistency(request, loaded) -> pd.DataFrame:
    """A row for each model and strength, with Wilson's interval of the accuracies as well."""
    strengths = checked_strengths(request.strengths)
    rows = []
    for name, model in loaded.models.items():
        for strength in strengths or [None]:
            deformation = loaded.files.deformation
            before = {"model": name} if len(loaded.models) > 1 else {}
            if strength is not None:
                deformation = _of_strength(request, loaded.files, strength)
                before["strength"] = strength
            row = prediction_consistency(
                model,
                loaded.files.images,
                loaded.labels,
                deformation,
                request.metric,
                request.deformations,
                request.batch_size,
                request.seed,
            )
            right = np.arange(len(loaded.labels)) < round(
                row["accuracy"].fillna(0).iloc[0] * len(loaded.labels)
            )
            _, low, high = proportion_interval(right[:, None])
            known = row["accuracy"].notna().iloc[0]
            place = row.columns.get_loc("accuracy") + 1
            row.insert(place, "accuracy_low", low if known else np.nan)
            row.insert(place + 1, "accuracy_high", high if known else np.nan)
            for column, value in reversed(before.items()):
                row.insert(0, column, value)
            rows.append(row)
    return pd.concat(rows, ignore_index=True)
