"""What is measured of the networks of the open questions, and how their tables are checked."""

import itertools

import pandas as pd

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.distances import METRICS
from deformstab.paper.questions import noise, shifts, shuffles
from deformstab.paper.runs.question_experiments import NETWORK
from deformstab.tables import SHIFT_COLUMNS

PHASES = ("initial", "trained")
# Of batch normalization: by Keras' moving averages, which at initialization do next to nothing and
# lag behind after training; or re-estimated over the training images.
AVERAGES, REESTIMATED = "moving averages", "re-estimated"
_KEYS = {
    "question_noise": ("phase", "statistics", "noise", "metric", "layer"),
    "question_shifts": ("phase", "change", "outside", "metric", "layer"),
    "question_consistency": ("phase",),
    "question_shuffles": ("layer", "shuffle", "permutation"),
    "question_training": (),
}
_NUMBERS = {
    "question_noise": ("sensitivity", "noise_sensitivity", "relative_stability", "layer_index"),
    "question_shifts": ("distance", "baseline", "sensitivity", "rms_displacement", "layer_index"),
    "question_consistency": ("consistency", "customary_consistency", "accuracy"),
    "question_shuffles": (
        *("intact", "sensitivity", "ratio", "smoothness_before", "smoothness", "layer_index"),
    ),
    "question_training": ("epochs", "fits", "accuracy_train", "accuracy_test"),
}
TABLES = tuple(_KEYS)
_OF_PART = {True: ("question_noise", "question_shuffles")}
_OF_PART[False] = ("question_shifts", "question_consistency")
TEXTS = ("statistics", "noise", "change", "outside", "shuffle", "protocol", "layer_type")
TYPES = dict.fromkeys(TEXTS, "str") | SHIFT_COLUMNS


def measure(experiment, training, phase: str, found: dict) -> None:
    """Appends what is measured at initialization and after training; the network is left as it was.

    Args:
        experiment: `QuestionExperiment`.
        training: `Training` of its network; after training, batch normalization re-estimated.
        phase: one of `PHASES`.
        found: table → frames.
    """
    model, images = training.measured, training.data.x_test[: experiment.network.measured_images]
    points, reach = experiment.network.control_points, experiment.network.max_displacement
    deformation = RandomDeformation(points, reach, seed=0)

    def keep(name, table, **which):
        found.setdefault(name, []).append(table.assign(phase=phase, **which))

    weights = model.get_weights()
    if experiment.part == NETWORK:
        # They were re-estimated as its last epoch ended.
        model.set_weights(training.as_stepped if phase == "trained" else weights)
        table = noise.beside_noise(model, images, deformation)
        keep("question_noise", table, statistics=AVERAGES)
        model.set_weights(weights)
    if phase == "initial":
        training.evaluate()
    if experiment.part == NETWORK:
        table = noise.beside_noise(model, images, deformation)
        keep("question_noise", table, statistics=REESTIMATED)
        if phase == "trained":
            options = experiment.shuffles, experiment.seed, experiment.network.batch_size
            train_images = training.data.x_train
            table = shuffles.by_shuffle(model, train_images, images, deformation, *options)
            found["question_shuffles"] = [table]
    else:
        keep("question_shifts", shifts.by_change(model, images, deformation))
        labels = training.data.y_test[: len(images)]
        keep("question_consistency", shifts.consistency(model, images, labels))
    model.set_weights(weights)


def tables_of(found) -> dict[str, pd.DataFrame]:
    """The tables of a run, from what was measured and what its training came to."""
    frames = {name: found[name] for name in TABLES if name in found}
    frames["question_training"] = found["training"]
    return {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}


def check(tables, experiment) -> None:
    """Refuses tables of a run that are cut, or are not those of its part.

    Raises:
        ValueError: with what is wrong.
    """
    expected = (*_OF_PART[experiment.part == NETWORK], "question_training")
    if set(tables) != set(expected):
        raise ValueError(f"its tables are {', '.join(sorted(tables))}, not {', '.join(expected)}")
    rows = _rows(experiment)
    for name in expected:
        frame, keys = tables[name], _KEYS[name]
        missing = [column for column in (*keys, *_NUMBERS[name]) if column not in frame]
        if missing:
            raise ValueError(f"its table {name} has no column {', '.join(missing)}")
        found = list(frame[list(keys)].itertuples(index=False, name=None)) if keys else [()]
        if len(frame) != len(rows[name]) or sorted(found) != sorted(rows[name]):
            raise ValueError(
                f"its table {name} has {len(frame)} rows, not the {len(rows[name])} that follow from "
                "its configuration, or others"
            )


def _rows(experiment) -> dict[str, list]:
    layers, both = experiment.representations, (AVERAGES, REESTIMATED)
    changes = [
        (phase, *change, metric, layer)
        for phase, change, metric, layer in itertools.product(
            PHASES, shifts.CHANGES, METRICS, layers
        )
    ]
    permuted = (experiment.convolutions, shuffles.SHUFFLES, range(experiment.shuffles))
    return {
        "question_noise": list(itertools.product(PHASES, both, noise.NOISES, METRICS, layers)),
        "question_shifts": changes,
        "question_consistency": [(phase,) for phase in PHASES],
        "question_shuffles": list(itertools.product(*permuted)),
        "question_training": [()],
    }
