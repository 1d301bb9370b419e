"""What training does to each kind of downsampling on its own: claims are about means over kinds."""

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import mean_interval
from deformstab.paper.verdicts.claims_by_choice import from_first_step, with_variant
from deformstab.paper.verdicts.statistics import (
    change_of_kinds,
    depth_of_kinds,
    log_sensitivity,
    log_smoothness,
)

QUANTITIES = {
    "sensitivity": "sensitivity, trained / initial",
    "first_step": "sensitivity, trained / after the first step",
    "own_statistics": "sensitivity, trained / initial, own statistics",
    "smoothness": "TV/‖W‖₁, trained / initial",
    "depth": "TV/‖W‖₁ trained, from layer to layer",
}


def changes_by_kind(results) -> pd.DataFrame:
    """How much each kind's sensitivity and smoothness change.

    Returns:
        A row a task of the main study, kind and quantity (of `QUANTITIES`): `value`, a factor, the
        geometric mean over seeds (of means over layers, the input left out), with `low` and `high`,
        Student's 95 % interval of its log, and the `seeds`. "first_step" counts from the first step
        on (of `from_first_step`), "own_statistics" with batch normalization by the statistics of
        the measured images at both ends; neither is there without runs that tracked, or have
        variants.
    """
    found = []
    for task in results.preset.main_tasks:
        for quantity, by_kind in _quantities(results, task):
            for kind in [kind for kind in results.preset.downsampling if kind in by_kind]:
                logs = by_kind[kind].dropna()
                value, low, high = (float(np.exp(x)) for x in mean_interval(logs))
                row = {"task": task, "downsampling": kind, "quantity": quantity, "value": value}
                found.append({**row, "low": low, "high": high, "seeds": len(logs)})
    return pd.DataFrame(found)


def _quantities(results, task):
    yield "sensitivity", change_of_kinds(log_sensitivity, results, task)
    if len(results.tables.get("trajectory", ())):
        yield "first_step", change_of_kinds(log_sensitivity, from_first_step(results), task)
    if len(results.tables.get("variants", ())):
        own = with_variant(results, "own_statistics")
        yield "own_statistics", change_of_kinds(log_sensitivity, own, task)
    yield "smoothness", change_of_kinds(log_smoothness, results, task)
    yield "depth", depth_of_kinds(results, task)
