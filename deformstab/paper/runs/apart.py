"""The studies whose runs are no networks of the paper: by what they are measured and checked."""

from deformstab.paper.runs import note_measurements, pretrained_measurements
from deformstab.paper.runs.note_experiments import NOTE
from deformstab.paper.runs.pretrained_experiments import PRETRAINED

# Study → a module with measure(experiment) → tables, and check(tables, experiment).
MEASUREMENTS = {PRETRAINED: pretrained_measurements, NOTE: note_measurements}
TABLES = (*pretrained_measurements.TABLES, *note_measurements.TABLES)
TYPES = {**pretrained_measurements.TYPES, **note_measurements.TYPES}
TEXTS = note_measurements.TEXTS
