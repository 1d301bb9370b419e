"""One run: a network initialized, measured, trained, measured again. Many runs: resumable.

A run is finished when `runs/<id>.json` is there: the id is a hash of the experiment (every choice,
and the content of data from disk) and of the version of the package's numbers. The package's own
version and git commit are not part of it, nor are other packages: the file names them all. A
finished run is never run again, and a file appears whole or not at all, so a run that was stopped
costs only itself.
"""

import functools
import json
import pathlib
import time

import pandas as pd

from deformstab.paper.runs import apart
from deformstab.paper.runs.executors import serial
from deformstab.paper.runs.experiments import MORE_MEASURES, Experiment
from deformstab.paper.runs.network_measurements import measure, record
from deformstab.paper.runs.run_files import TYPES, read_run
from deformstab.paper.runs.training import Training, accuracy, is_tracked, predict
from deformstab.paper.runs.training_data import dataset_of, test_images_of
from deformstab.provenance import git_commit, provenance
from deformstab.tables import from_csv, remove_temporaries, write_json

# Of an experiment in every row of every table: what figures and claims choose and group by.
RUN_COLUMNS = (
    *("study", "dataset", "task", "downsampling", "seed", "class_displacement", "sigma"),
    *("input_scaling", "batch_statistics", "choice"),
)
TABLES = ("sensitivity", "smoothness", "training", "epochs", "trajectory", "variants")
_EVERY_TABLE = (*TABLES, *MORE_MEASURES, *apart.TABLES)


def run(experiment: Experiment, checkpoint=None, networks=None) -> dict[str, pd.DataFrame]:
    """Runs one experiment.

    Args:
        experiment: all choices.
        checkpoint: path of a file that an epoch's end writes, and that a run takes up which was
            stopped: it gives what it would have given. `None` for neither.
        networks: `KeptNetworks`, where its weights are kept; `None` for nowhere.

    Returns:
        All with `RUN_COLUMNS`, empty where there is nothing (no training). sensitivity: the rows of
        `ds.measure_sensitivity` for both metrics, smoothness: those of `ds.filter_smoothness`, each
        with `phase` "initial" or "trained"; training: one row with the accuracies; epochs: a row an
        epoch; trajectory: `quantity` ("sensitivity" or "smoothness") and its `value` of each layer
        at steps 1, 2, 3, 4, 6, 8, 11, …, with the accuracy then (of experiments with `track`);
        variants: sensitivity measured otherwise (of those with `variants`). Of `more_measures` the
        rows of `ds.measure_stability` and `ds.measure_equivariance` with `phase`, and their
        quantities in trajectory.
    """
    return _run(experiment, checkpoint, networks)[0]


def _run(experiment, checkpoint, networks=None) -> tuple[dict[str, pd.DataFrame], float]:
    """The tables, and the seconds they took: also before a stop, but in no table."""

    def measures(training, phase, found):
        measure(training.measured, experiment, training.data, phase, found)

    found, seconds = _trained(experiment, checkpoint, networks, measures)
    names = (*TABLES, *experiment.more_measures)
    return {name: with_run(found.get(name), experiment) for name in names}, seconds


def _trained(experiment, checkpoint, networks, measures, run=None) -> tuple[dict[str, list], float]:
    """Table → frames of it, by measures(training, phase, found) before and after; and the seconds.

    The network is kept under the name of the `run`, by default the experiment's own.
    """
    start = time.perf_counter()
    data = dataset_of(experiment)
    training = Training(experiment, data)

    def keep(moment, step=None):
        if networks is not None:
            networks.keep(run or experiment, training.measured, moment, step)

    kept = training.resume(checkpoint) if checkpoint else None
    if kept is None:
        found = {}
        if experiment.batch_statistics:
            training.evaluate()
        keep("initial")
        measures(training, "initial", found)
    else:
        found = {name: [from_csv(text, TYPES)] for name, text in kept["tables"].items()}
        start -= kept["seconds"]

    def track():
        if is_tracked(training.step):
            record(training, found)
            keep("tracked", training.step)

    while not training.is_over:
        training.run_epoch(track if experiment.track else lambda: None)
        if checkpoint and not training.is_over:
            seconds = time.perf_counter() - start
            training.save(checkpoint, {"tables": _texts(found), "seconds": seconds})
    if experiment.epochs:
        found["epochs"] = [pd.DataFrame(training.history)]
        found["training"] = [pd.DataFrame([_outcome(training)])]
        keep("trained")
        measures(training, "trained", found)
    return found, time.perf_counter() - start


def _outcome(training) -> dict:
    """What the training came to: how long it took and the accuracies, while it ran and after."""
    data, last = training.data, dict(training.history[-1])
    row = {"epochs": last.pop("epoch"), "steps": last.pop("step"), "fits": training.fits}
    row |= {"train_images": len(data.x_train), "classes": data.classes, **last}
    x, y = test_images_of(training.experiment, data)
    row["accuracy_test"] = accuracy(predict(training.measured, x), y)
    return row


def _texts(found) -> dict[str, str]:
    return {name: pd.concat(frames).to_csv(index=False) for name, frames in found.items()}


def with_run(frames, experiment) -> pd.DataFrame:
    """Tables one under the other, with what they are of: `RUN_COLUMNS`."""
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    for place, column in enumerate(getattr(experiment, "columns", RUN_COLUMNS)):
        frame.insert(place, column, getattr(experiment, column))
    return frame


def execute(experiment: Experiment, folder, commit: str | None = None, networks=None) -> dict:
    """Runs an experiment, from its checkpoint in the folder if there is one: what `keep` writes.

    On a worker the source is a copy without its history, so it is told the commit.
    """
    checkpoint = _path(experiment, folder).with_suffix(".partial.npz")
    if experiment.study in apart.TRAINED:
        module = apart.MEASUREMENTS[experiment.study]
        asks = functools.partial(module.measure, experiment)
        found, seconds = _trained(experiment.network, checkpoint, networks, asks, experiment)
        tables = module.tables_of(found)
    elif experiment.study in apart.MEASUREMENTS:
        start = time.perf_counter()
        tables = apart.MEASUREMENTS[experiment.study].measure(experiment)
        seconds = time.perf_counter() - start
    else:
        tables, seconds = _run(experiment, checkpoint, networks)
    return as_result(experiment, tables, seconds, commit)


def as_result(experiment: Experiment, tables, seconds: float, commit: str | None) -> dict:
    """What `keep` writes of an experiment's tables: with what they were made, and how long it took."""
    made_with = {name: value for name, value in provenance().items() if name != "command"}
    return {
        "experiment": experiment.identity(),
        "seconds": round(seconds, 2),
        "made_with": made_with | {"git_commit": commit},
        "tables": {
            name: frame.drop(columns=list(RUN_COLUMNS), errors="ignore").to_csv(index=False)
            for name, frame in tables.items()
        },
    }


def keep(experiment: Experiment, result: dict, folder) -> None:
    """Writes what `execute` gave; from then on the experiment is finished."""
    path = _path(experiment, folder)
    write_json(result, path)
    path.with_suffix(".partial.npz").unlink(missing_ok=True)
    remove_temporaries(path.parent, f"{experiment.id}.*")  # of workers that were killed


def finished(experiment: Experiment, folder) -> bool:
    """Whether an experiment's results are in a folder."""
    return _path(experiment, folder).exists()


def run_all(experiments, folder, progress, executor=serial, measure=None) -> None:
    """Runs what is not finished yet, and writes each as it ends.

    Args:
        experiments: in the order to run them.
        folder: of the results, `runs/<id>.json` in it.
        progress: called with (experiment,) before and (experiment, seconds) after each run.
        executor: of `deformstab.paper.runs.executors`.
        measure: (experiment, folder=…, commit=…) → what `keep` writes; by default `execute`.
    """
    folder = pathlib.Path(folder).absolute()  # a worker has a working directory of its own
    left = [each for each in experiments if not finished(each, folder)]
    _remove_leftovers(folder / "runs")
    run = functools.partial(measure or execute, folder=folder, commit=git_commit())
    for experiment, result in executor(left, run, progress):
        keep(experiment, result, folder)
        progress(experiment, result["seconds"])


def _remove_leftovers(folder) -> None:
    """What a kill left: half-written files, checkpoints of finished runs."""
    remove_temporaries(folder)
    for path in folder.glob("*.partial.npz"):
        if path.with_name(path.name.replace(".partial.npz", ".json")).exists():
            path.unlink(missing_ok=True)


def collect(
    experiments, folder, needed=(), whole: bool = True
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """The tables of all finished experiments, one under the other, and the seconds each took.

    Args:
        experiments: in the order of the tables.
        folder: of the results.
        needed: those of the experiments that must be finished.
        whole: as for `run_files.read_run`.

    Raises:
        ValueError: a file is damaged or of another run, or one of `needed` is not there.
    """
    frames, seconds = {}, {}
    for experiment in experiments:
        if not finished(experiment, folder):
            continue
        found, seconds[experiment.id] = read_run(_path(experiment, folder), experiment, whole)
        for name, frame in found.items():
            if len(frame):
                frames.setdefault(name, []).append(with_run([frame], experiment))
    check_there([each for each in needed if each.id not in seconds], folder)
    tables = {
        name: pd.concat(frames[name], ignore_index=True) if name in frames else pd.DataFrame()
        for name in _EVERY_TABLE
    }
    return tables, seconds


def check_files(experiments, folder, whole: bool = True) -> list[Experiment]:
    """Which experiments are finished; refuses files that `collect` would refuse, before new runs."""
    there = [each for each in experiments if finished(each, folder)]
    for each in there:
        read_run(_path(each, folder), each, whole)
    return there


def check_there(experiments, folder) -> None:
    """Refuses to go on without the files of runs that were finished.

    Raises:
        ValueError: some are not there: somebody removes them meanwhile.
    """
    lost = [each for each in experiments if not finished(each, folder)]
    if lost:
        raise ValueError(
            f"the files of {len(lost)} finished runs have vanished from "
            f"{pathlib.Path(folder) / 'runs'} meanwhile, {lost[0].id}.json among them: put them back, "
            "or start again, and these runs are run again"
        )


def without_origin(experiments, folder) -> int:
    """How many finished experiments' files are older than `made_with`: versions, device, commit."""
    texts = (_path(each, folder).read_text(encoding="utf-8") for each in experiments)
    return sum("made_with" not in json.loads(text) for text in texts)


def _path(experiment, folder) -> pathlib.Path:
    return pathlib.Path(folder) / "runs" / f"{experiment.id}.json"
