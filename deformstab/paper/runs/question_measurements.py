"""What is measured of the networks of the open questions, and how their tables are checked."""

import itertools
from dataclasses import dataclass
from typing import Any

import pandas as pd

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.distances import METRICS
from deformstab.measurement.objectives import PREDICTION
from deformstab.paper.questions import logits, moving, noise, shifts, shuffles, worst
from deformstab.paper.runs.network_measurements import record
from deformstab.paper.runs.question_experiments import (
    CIRCULAR,
    FOLLOWED,
    NETWORK,
    SIZED,
    refuse_too_few,
)
from deformstab.paper.runs.training import is_tracked
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
    "question_worst": ("phase", "within", "layer"),
    "question_transfer": ("source", "layer"),
    "question_moving": ("phase", "step", "layer"),
    "question_logits": ("family", "metric", "layer"),
    "question_training": (),
}
_NUMBERS = {
    "question_noise": ("sensitivity", "noise_sensitivity", "relative_stability", "layer_index"),
    "question_shifts": ("distance", "baseline", "sensitivity", "rms_displacement", "layer_index"),
    "question_consistency": ("consistency", "customary_consistency", "accuracy"),
    "question_shuffles": (
        *("intact", "sensitivity", "ratio", "smoothness_before", "smoothness", "layer_index"),
    ),
    "question_worst": (
        *("mean", "best_of_k", "search", "worst", "mean_sensitivity", "worst_sensitivity"),
        *("ratio", "layer_index"),
    ),
    "question_transfer": ("distance", "unchanged", "layer_index"),
    "question_moving": (*moving.QUANTITIES, "ratio_euclidean", "layer_index"),
    "question_logits": ("relative_stability", "train_images"),
    "question_training": ("epochs", "steps", "fits", "accuracy_train", "accuracy_test"),
}
TABLES = tuple(_KEYS)
_OF_PART = {
    NETWORK: ("question_noise", "question_shuffles"),
    CIRCULAR: ("question_shifts", "question_consistency"),
    FOLLOWED: ("question_worst", "question_transfer", "question_moving", "question_logits"),
    SIZED: ("question_logits",),
}
TEXTS = ("statistics", "noise", "change", "outside", "shuffle", "protocol", "layer_type")
TEXTS += ("within", "source", "family")
_TRACKED = "trajectory"  # what the training of a run notes down, from which question_moving is made
TYPES = dict.fromkeys(TEXTS, "str") | SHIFT_COLUMNS


def measure(experiment, training, phase: str, found: dict) -> None:
    """Appends what is measured at initialization and after training; the network is left as it was.

    Args:
        experiment: `QuestionExperiment`.
        training: `Training` of its network; after training, batch normalization re-estimated.
        phase: one of `PHASES`.
        found: table → frames.
    """
    points, reach = experiment.network.control_points, experiment.network.max_displacement
    images = training.data.x_test[: experiment.network.measured_images]
    asked = _Asked(experiment, training, phase, images, RandomDeformation(points, reach, seed=0))
    weights = training.measured.get_weights()
    for name, table in _ASK[experiment.part](asked):
        found.setdefault(name, []).append(table)
    training.measured.set_weights(weights)


@dataclass(frozen=True)
class _Asked:
    experiment: Any
    training: Any
    phase: str
    images: Any
    deformation: RandomDeformation

    @property
    def model(self):
        return self.training.measured

    def estimated(self):
        """The network with batch normalization re-estimated: after training it is already."""
        if self.phase == "initial":
            self.training.evaluate()
        return self.model


def _ask_network(asked):
    model, training, phase = asked.model, asked.training, asked.phase
    both = {"phase": phase, "statistics": AVERAGES}
    weights = model.get_weights()
    if phase == "trained":  # they were re-estimated as its last epoch ended
        model.set_weights(training.as_stepped)
    yield (
        "question_noise",
        noise.beside_noise(model, asked.images, asked.deformation).assign(**both),
    )
    model.set_weights(weights)
    model, both["statistics"] = asked.estimated(), REESTIMATED
    yield (
        "question_noise",
        noise.beside_noise(model, asked.images, asked.deformation).assign(**both),
    )
    if phase == "trained":
        this = asked.experiment
        options = this.shuffles, this.seed, this.network.batch_size
        given = training.data.x_train, asked.images, asked.deformation
        yield "question_shuffles", shuffles.by_shuffle(model, *given, *options)


def _ask_circular(asked):
    model, images, phase = asked.estimated(), asked.images, asked.phase
    yield "question_shifts", shifts.by_change(model, images, asked.deformation).assign(phase=phase)
    labels = asked.training.data.y_test[: len(images)]
    yield "question_consistency", shifts.consistency(model, images, labels).assign(phase=phase)


def _ask_followed(asked):
    model, training = asked.estimated(), asked.training
    images = asked.images[: asked.experiment.searched_images]
    table, displacements = worst.by_layer(model, images, asked.deformation)
    yield "question_worst", table.assign(phase=asked.phase)
    if asked.phase == "trained":
        given = images, asked.deformation, displacements
        yield "question_transfer", worst.transfer(model, *given)
        yield "question_logits", _logits(asked)
    if not is_tracked(training.step):  # step 0, and the last one
        noted = {}
        record(training, noted)
        yield from ((_TRACKED, table) for table in noted[_TRACKED])


def _ask_sized(asked):
    refuse_too_few(asked.experiment, len(asked.training.data.x_train))
    if asked.phase == "trained":
        yield "question_logits", _logits(asked)


def _logits(asked):
    table = logits.by_family(asked.model, asked.images, asked.deformation)
    return table.assign(train_images=len(asked.training.data.x_train))


_ASK = {
    NETWORK: _ask_network,
    CIRCULAR: _ask_circular,
    FOLLOWED: _ask_followed,
    SIZED: _ask_sized,
}


def tables_of(found) -> dict[str, pd.DataFrame]:
    """The tables of a run, from what was measured and what its training came to."""
    frames = {name: found[name] for name in TABLES if name in found}
    frames["question_training"] = found["training"]
    if _TRACKED in found:
        noted, last = pd.concat(found[_TRACKED]), found["training"][-1]["steps"].item()
        frames["question_moving"] = [moving.followed(noted, last)]
    return {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}


def check(tables, experiment) -> None:
    """Refuses tables of a run that are cut, or are not those of its part.

    Raises:
        ValueError: with what is wrong.
    """
    expected = (*_OF_PART[experiment.part], "question_training")
    if set(tables) != set(expected):
        raise ValueError(f"its tables are {', '.join(sorted(tables))}, not {', '.join(expected)}")
    rows = _rows(experiment, tables["question_training"])
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


def _rows(experiment, training) -> dict[str, list]:
    layers, both = experiment.representations, (AVERAGES, REESTIMATED)
    changes = [
        (phase, *change, metric, layer)
        for phase, change, metric, layer in itertools.product(
            PHASES, shifts.CHANGES, METRICS, layers
        )
    ]
    paper, last = layers[:-1], int(training["steps"].iloc[-1])  # without the logits
    tracked = [("tracked", step) for step in range(1, last) if is_tracked(step)]
    steps = [("initial", 0), *tracked, ("trained", last)]
    searched = [*paper, PREDICTION]
    permuted = (experiment.convolutions, shuffles.SHUFFLES, range(experiment.shuffles))
    return {
        "question_noise": list(itertools.product(PHASES, both, noise.NOISES, METRICS, layers)),
        "question_shifts": changes,
        "question_consistency": [(phase,) for phase in PHASES],
        "question_shuffles": list(itertools.product(*permuted)),
        "question_worst": list(itertools.product(PHASES, worst.WITHIN, searched)),
        "question_transfer": list(itertools.product(searched, paper)),
        "question_moving": [(*step, layer) for step in steps for layer in paper],
        "question_logits": list(itertools.product(logits.FAMILIES, METRICS, ["logits"])),
        "question_training": [()],
    }
