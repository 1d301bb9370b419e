#!/usr/bin/env python3
"""Draws docs/study.png, the README's figure of the study, from the committed tables.

It is panels c and d of Figure 2 on an axis of ratios: the claims are about ratios of kinds.
"""

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
fig = figure2.plot(results, "cd")
for axis, title in zip(fig.axes, ("(a) before training", "(b) trained")):
    axis.set_title(title, loc="left", fontsize=9)
    axis.set_yscale("log")
    axis.set_ylim(0.025, 0.55)
    axis.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
    axis.tick_params(axis="x", labelsize=7)
    axis.minorticks_off()
fig.axes[0].set_ylabel("normalized sensitivity\n(lower is more stable)")
save_picture(fig, root / "docs" / "study.png")
