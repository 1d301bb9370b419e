"""What is measured of the reader's note, and how the tables of such a run are checked."""

import numpy as np
import pandas as pd

from deformstab.networks.downsampling import PAPER_KINDS
from deformstab.paper.note import gains, maxima, maxout, sharing, sparse, symmetries, units

# Table → what tells its rows apart, its texts first, and the numbers that are read of it.
_TEXTS = {
    "note_sparse": ("kind", "layer"),
    "note_counts": (),
    "note_sharing": ("weights",),
    "note_symmetries": ("transform", "filters", "image"),
    "note_turns": ("filters", "output"),
    "note_maxima": ("image", "place"),
    "note_units": ("kind",),
    "note_filters": ("state",),
    "note_gains": ("state", "deformation", "metric", "output"),
}
_NUMBERS = {
    "note_sparse": ("field", "field_y", "field_x", "changed_outside", "largest_outside"),
    "note_counts": ("parameters", "operations", "matrix_entries", "ratio"),
    "note_sharing": ("parameters", "largest_difference", "moves_with", "ratio"),
    "note_symmetries": ("expected", "error", "low", "high", "count"),
    "note_turns": ("error", "low", "high", "count"),
    "note_maxima": ("window", "expected", "kept", "low", "high", "count"),
    "note_units": ("units", "multiplications", "parameters", "of_none"),
    "note_filters": ("entropy", "accuracy_test", "accuracy_turned"),
    "note_gains": ("gain", "below", "rms_displacement"),
}
# How many rows each table of a part has.
_ROWS = {
    "sparse": {"note_sparse": len(PAPER_KINDS) * len(sparse.fields("max"))},
    "sharing": {"note_counts": 1, "note_sharing": len(sharing.KERNELS)},
    "symmetries": {"note_symmetries": 12, "note_turns": 4},
    "maxima": {"note_maxima": 10},
    "units": {"note_units": 1 + len(PAPER_KINDS)},
}
_OF_FILTERS = {"note_filters": 1, "note_gains": 20}
TABLES = tuple(_TEXTS)
TEXTS = tuple({name for names in _TEXTS.values() for name in names})
_ACCURACIES = ("accuracy_train", "accuracy_test", "accuracy_turned")
TYPES = dict.fromkeys(TEXTS, "str") | dict.fromkeys((*_ACCURACIES, "expected"), "float64")


def measure(experiment) -> dict[str, pd.DataFrame]:
    """Measures one statement, or one network.

    Args:
        experiment: `NoteExperiment`.

    Returns:
        The tables of the functions in `deformstab.paper.note`; of filters in groups `note_gains`, and
        `note_filters`, with the `entropy` of which member of a group is the largest, in bits, and
        the accuracies of `maxout.trained` (NaN where nothing was trained), both with `state`.
    """
    part, seed = experiment.part, experiment.seed
    if part == "sparse":
        changes = [sparse.one_pixel_changes(kind, seed) for kind in PAPER_KINDS]
        return {"note_sparse": pd.concat(changes, ignore_index=True)}
    if part == "sharing":
        return {"note_counts": sharing.edge_counts(), "note_sharing": sharing.sharing(seed)}
    if part == "symmetries":
        turns = symmetries.maximum_over_turns(seed)
        return {"note_symmetries": symmetries.symmetries(seed), "note_turns": turns}
    if part == "maxima":
        return {"note_maxima": maxima.maxima(seed)}
    if part == "units":
        return {"note_units": units.units()}
    return _of_filters(experiment)


def _of_filters(experiment) -> dict[str, pd.DataFrame]:
    state, seed = experiment.part, experiment.seed
    accuracies = dict.fromkeys(_ACCURACIES, np.nan)
    if state == "made of turns":
        kernels = maxout.made_of_turns(seed)
    else:
        model = maxout.network(seed)
        if state != "initial":
            turns = state == "trained on turned"
            model, accuracies = maxout.trained(seed, turns, experiment.epochs)
        (kernels,) = model.get_layer("filters").get_weights()
    *_, images, _ = maxout.digits()
    options = kernels, maxout.MEMBERS, images[: experiment.measured_images]
    row = {"state": state, "entropy": gains.entropy(*options), **accuracies}
    table = gains.gains(*options, seed)
    table.insert(0, "state", state)
    return {"note_filters": pd.DataFrame([row]), "note_gains": table}


def check(tables, experiment) -> None:
    """Refuses tables of a run that are cut, or are not those of its part.

    Raises:
        ValueError: with what is wrong.
    """
    expected = _ROWS.get(experiment.part, _OF_FILTERS)
    if set(tables) != set(expected):
        raise ValueError(f"its tables are {', '.join(sorted(tables))}, not {', '.join(expected)}")
    for name, rows in expected.items():
        frame = tables[name]
        missing = [c for c in (*_TEXTS[name], *_NUMBERS[name]) if c not in frame]
        if missing:
            raise ValueError(f"its table {name} has no column {', '.join(missing)}")
        keys = [*_TEXTS[name], *(["window"] if "window" in frame else [])]
        if len(frame) != rows or (keys and frame.duplicated(keys).any()):
            raise ValueError(f"its table {name} has {len(frame)} rows, not {rows}, or one twice")
        if "state" in frame and set(frame["state"]) != {experiment.part}:
            raise ValueError(f"its table {name} is of {', '.join(sorted(set(frame['state'])))}")
