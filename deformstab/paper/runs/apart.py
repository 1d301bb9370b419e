"""The studies whose runs are no networks of the paper's figures: how they are measured and checked."""

from deformstab.paper.runs import (
    note_measurements,
    pretrained_measurements,
    question_measurements,
)
from deformstab.paper.runs.note_experiments import NOTE
from deformstab.paper.runs.pretrained_experiments import PRETRAINED
from deformstab.paper.runs.question_experiments import QUESTIONS

# Study → a module with check(tables, experiment), and measure(experiment) → tables; of those that
# are trained as the paper's are, measure(experiment, training, phase, found) and tables_of(found).
MEASUREMENTS = {
    PRETRAINED: pretrained_measurements,
    NOTE: note_measurements,
    QUESTIONS: question_measurements,
}
TRAINED = (QUESTIONS,)
_MODULES = tuple(MEASUREMENTS.values())
TABLES = tuple(name for module in _MODULES for name in module.TABLES)
TYPES = {name: kind for module in _MODULES for name, kind in module.TYPES.items()}
TEXTS = (*note_measurements.TEXTS, *question_measurements.TEXTS)


def networks_of(experiments) -> list:
    """Of experiments of all studies, those that are trained on the data of a preset, as `Experiment`."""
    asked = [each.network if each.study in TRAINED else each for each in experiments]
    return [
        each for each, of in zip(asked, experiments) if of.study not in {*MEASUREMENTS} - {*TRAINED}
    ]
