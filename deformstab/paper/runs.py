"""One run: a network initialized, measured, trained, measured again. Many runs: resumable.

A run is finished when `runs/<id>.json` is there: the id is a hash of the experiment (every choice,
and the content of data from disk) and of the package's version. The git commit is not part of it,
nor are the versions of other packages: provenance.json names both. A finished run is never run
again, and a file appears whole or not at all, so a run that was stopped costs only itself.
"""

import dataclasses
import functools
import gc
import json
import pathlib
import time

import keras
import numpy as np
import pandas as pd
from keras import ops

from deformstab.deformation import RandomDeformation
from deformstab.initializers import SmoothedInitializer
from deformstab.models import paper_layers, vgg
from deformstab.normalization import reestimate_batch_normalization
from deformstab.paper import datasets, tasks
from deformstab.paper.experiments import Experiment
from deformstab.sensitivity import measure_sensitivity
from deformstab.smoothness import filter_smoothness
from deformstab.tables import SENSITIVITY_COLUMNS, SMOOTHNESS_COLUMNS, from_csv, write_json

# Of an experiment in every row of every table: what figures and claims choose and group by.
RUN_COLUMNS = (
    *("study", "dataset", "task", "downsampling", "seed", "class_displacement", "sigma"),
    *("input_scaling", "batch_statistics"),
)
_TYPES = {**SMOOTHNESS_COLUMNS, **SENSITIVITY_COLUMNS}


def run(experiment: Experiment) -> dict[str, pd.DataFrame]:
    """Runs one experiment.

    Returns:
        sensitivity: the rows of `ds.measure_sensitivity` for both metrics, smoothness: those of
        `ds.filter_smoothness`, each with `phase` "initial" or "trained"; training: one row with the
        accuracies. All with `RUN_COLUMNS`. Empty where there is nothing (no training).
    """
    data = dataset_of(experiment)
    fresh = vgg(
        data.image_shape,
        data.classes,
        experiment.blocks,
        experiment.downsampling,
        SmoothedInitializer(experiment.sigma) if experiment.sigma else None,
        experiment.seed,
    )
    model = _compiled_model(
        data.image_shape, data.classes, experiment.blocks, experiment.downsampling
    )
    keras.utils.set_random_seed(experiment.seed)
    model.set_weights(fresh.get_weights())
    if experiment.batch_statistics:
        reestimate_batch_normalization(model, data.x_train, experiment.batch_size)
    found = {"sensitivity": [], "smoothness": [], "training": []}
    _measure(model, experiment, data, "initial", found)
    if experiment.epochs:
        found["training"].append(pd.DataFrame([_train(model, experiment, data)]))
        _measure(model, experiment, data, "trained", found)
    return {name: _with_run(frames, experiment) for name, frames in found.items()}


def dataset_of(experiment: Experiment) -> datasets.Dataset:
    """The data an experiment trains on, its task included."""
    data = _load(
        experiment.dataset,
        experiment.data_dir,
        experiment.image_size,
        experiment.train_images,
        max(512, experiment.measured_images),
    )
    data = tasks.scaled(data, experiment.input_scaling)
    if experiment.task == "random_labels":
        return tasks.random_labels(data, experiment.seed)
    if experiment.task == "random_images":
        return tasks.random_images(data, experiment.seed)
    if experiment.task == "deformed_classes":
        displacement = experiment.class_displacement
        return tasks.deformed_classes(
            data, experiment.control_points, displacement, experiment.seed
        )
    return data


_load = functools.lru_cache(maxsize=4)(datasets.load)


@functools.lru_cache(maxsize=1)
def _compiled_model(image_shape, classes, blocks, downsampling) -> keras.Model:
    """The network all runs of one architecture share: tracing it takes longer than an epoch."""
    keras.backend.clear_session()
    gc.collect()
    model = vgg(image_shape, classes, blocks, downsampling)
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _train(model, experiment, data) -> dict:
    """Trains in place and re-estimates batch normalization; the accuracies, in `fit` and after."""
    for variable in model.optimizer.variables:
        variable.assign(ops.zeros_like(variable))
    model.optimizer.learning_rate = experiment.learning_rate
    for epoch in range(experiment.epochs):
        history = train_epoch(
            model, data.x_train, data.y_train, experiment.batch_size, experiment.seed, epoch
        )
    outputs = reestimate_batch_normalization(model, data.x_train, experiment.batch_size)
    return {
        "epochs": experiment.epochs,
        "train_images": len(data.x_train),
        "classes": data.classes,
        "loss_in_fit": history["loss"][-1],
        "accuracy_in_fit": history["accuracy"][-1],
        "accuracy_batch_statistics": _accuracy(outputs, data.y_train[: len(outputs)]),
        "accuracy_train": _accuracy(model.predict(data.x_train, verbose=0), data.y_train),
        "accuracy_test": _accuracy(model.predict(data.x_test, verbose=0), data.y_test),
    }


def train_epoch(model, images, labels, batch_size, seed, epoch) -> dict:
    """One epoch of `fit`, in an order that depends on seed and epoch only; its history."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(len(images))
    options = {"batch_size": batch_size, "shuffle": False, "verbose": 0}
    return model.fit(images[order], labels[order], **options).history


def _accuracy(logits, labels) -> float:
    return float((logits.argmax(axis=-1) == labels).mean())


def _measure(model, experiment, data, phase, found):
    deformation = RandomDeformation(experiment.control_points, experiment.max_displacement, seed=0)
    for metric in ("cosine", "euclidean"):
        table = measure_sensitivity(
            model,
            data.x_test[: experiment.measured_images],
            deformation,
            layers=paper_layers(model),
            metric=metric,
        )
        found["sensitivity"].append(table.assign(phase=phase))
    found["smoothness"].append(filter_smoothness(model).assign(phase=phase))


def _with_run(frames, experiment) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    for place, column in enumerate(RUN_COLUMNS):
        frame.insert(place, column, getattr(experiment, column))
    return frame


def finished(experiment: Experiment, folder) -> bool:
    """Whether an experiment's results are in a folder."""
    return _path(experiment, folder).exists()


def run_all(experiments, folder, progress) -> None:
    """Runs what is not finished yet, one after the other, and writes each as it ends.

    Args:
        experiments: in the order to run them.
        folder: of the results, `runs/<id>.json` in it.
        progress: called with (experiment,) before and (experiment, seconds) after each run.
    """
    for experiment in experiments:
        if finished(experiment, folder):
            continue
        progress(experiment)
        start = time.perf_counter()
        tables = run(experiment)
        seconds = time.perf_counter() - start
        result = {
            "experiment": dataclasses.asdict(experiment),
            "seconds": round(seconds, 2),
            "tables": {name: frame.to_csv(index=False) for name, frame in tables.items()},
        }
        write_json(result, _path(experiment, folder))
        progress(experiment, seconds)


def collect(experiments, folder) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """The tables of all finished experiments, one under the other, and the seconds each took."""
    frames, seconds = {}, {}
    for experiment in experiments:
        if not finished(experiment, folder):
            continue
        path = _path(experiment, folder)
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            found = {name: from_csv(text, _TYPES) for name, text in result["tables"].items()}
            seconds[experiment.id] = result["seconds"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error!r}); remove it, and the run is run again"
            ) from error
        for name, frame in found.items():
            frames.setdefault(name, []).append(frame)
    tables = {
        name: pd.concat([frame for frame in found if len(frame)] or [pd.DataFrame()])
        for name, found in frames.items()
    }
    return {name: frame.reset_index(drop=True) for name, frame in tables.items()}, seconds


def _path(experiment, folder) -> pathlib.Path:
    return pathlib.Path(folder) / "runs" / f"{experiment.id}.json"
