"""Kept networks, measured again without training: with the measures that there are now.

What comes out has the form of a run: a file of its own, in a folder of its own. Runs stay as they are.
"""

import dataclasses
import itertools
import time

import pandas as pd

from deformstab.paper.runs import runs
from deformstab.paper.runs.experiments import MORE_MEASURES
from deformstab.paper.runs.network_measurements import measure, record
from deformstab.paper.runs.training import Training

FOLDER = "measured_again"  # in the folder of results


def measure_again(experiment, networks) -> dict[str, pd.DataFrame]:
    """Measures what is kept of one run.

    Args:
        experiment: of the run.
        networks: `KeptNetworks`.

    Returns:
        The tables of `runs.run` that come of measuring: sensitivity, smoothness, trajectory,
        variants and `more_measures`; of the moments that were kept. Training's own are left out.
    """
    kept_as = as_trained(experiment, networks)
    data = runs.dataset_of(experiment)
    training = Training(experiment, data)
    found = {}
    if networks.load(kept_as, training.measured, "initial"):
        measure(training.measured, experiment, data, "initial", found)
    for step in networks.steps(kept_as):
        networks.load(kept_as, training.measured, "tracked", step)
        training.model.set_weights(training.measured.get_weights())
        training.step = step
        record(training, found)
    if networks.load(kept_as, training.measured, "trained"):
        measure(training.measured, experiment, data, "trained", found)
    return {name: runs.with_run(frames, experiment) for name, frames in found.items()}


def as_trained(experiment, networks):
    """The experiment by which a network was kept: other things may be measured of it than were then."""
    then = [
        dataclasses.replace(experiment, more_measures=measures)
        for count in range(len(MORE_MEASURES) + 1)
        for measures in itertools.permutations(MORE_MEASURES, count)
    ]
    return next((each for each in (experiment, *then) if networks.has_any(each)), experiment)


def missing(experiments, networks) -> pd.DataFrame:
    """What of the runs' networks is not there.

    Returns:
        A row a run of which something is missing: `run`, and `missing`, the moments.
    """
    rows = []
    for each in experiments:
        moments = [name for name in ("initial", "trained") if not networks.has(each, name)]
        if each.track and not networks.steps(each):
            moments.insert(-1 if "trained" in moments else len(moments), "tracked")
        if not each.epochs:
            moments = [name for name in moments if name == "initial"]
        if moments:
            rows.append({"run": each.id, "missing": ", ".join(moments)})
    return pd.DataFrame(rows, columns=["run", "missing"])


def execute(experiment, folder, commit=None, networks=None) -> dict:
    """Measures the networks of one run again: what `runs.keep` writes."""
    start = time.perf_counter()
    tables = measure_again(experiment, networks)
    return runs.as_result(experiment, tables, time.perf_counter() - start, commit)
