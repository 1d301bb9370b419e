#!/usr/bin/env python3
"""Draws docs/study.png, the README's figure of the study, from the committed tables."""

import pathlib

from deformstab.paper.figures import figure2
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.verdicts.result_tables import Results
from deformstab.presentation.pictures import save_picture
from deformstab.tables import SENSITIVITY_COLUMNS, read_csv

root = pathlib.Path(__file__).resolve().parent.parent
tables = root / "results" / "cifar10-small" / "tables"
sensitivity = read_csv(tables / "sensitivity.csv", SENSITIVITY_COLUMNS)
results = Results(PRESETS["cifar10-small"], {"sensitivity": sensitivity})
save_picture(figure2.plot(results, "cd"), root / "docs" / "study.png")
