"""The pages of an output folder: claims.md, README.md (the index), provenance.json."""

import pandas as pd

from deformstab._version import __version__
from deformstab.paper.claims import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
)
from deformstab.paper.figures import FIGURES

SOURCE = (
    "Ruderman, Rabinowitz, Morcos, Zoran: *Pooling is neither necessary nor sufficient for "
    "appropriate deformation stability in CNNs* (2018, arXiv 1804.04438)"
)
_SCALINGS = {"symmetric": "[-1, 1]", "unit": "[0, 1]", "standardized": "standardized"}
_DEFAULT = "[-1, 1] with moving averages"
_VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED)


def claims_page(claims: pd.DataFrame, results) -> str:
    """claims.md: every claim with its statistic, interval and verdict, and the rule."""
    counts = claims["verdict"].value_counts()
    summary = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in _VERDICTS)
    lines = [f"# The claims of the paper ({results.preset.name})", "", SOURCE + ".", ""]
    if results.preset.demonstration:
        lines += [f"> **{results.preset.demonstration}**", ""]
    lines += [
        f"{len(claims)} rows: {summary}.",
        "",
        "| claim | sentence | figure | statistic | claimed | value (95 % interval) | seeds | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in claims.itertuples():
        value = "" if pd.isna(row.value) else f"{row.value:.3g}"
        if not pd.isna(row.low):
            value += f" ({row.low:.3g} to {row.high:.3g})"
        if not pd.isna(row.ratio):
            value += f": a factor of {row.ratio:.2f}"
        verdict = f"**{row.verdict}**" + (f": {row.note}" if row.note else "")
        lines.append(
            f"| {row.claim} | {row.sentence} | {row.figure} | {row.statistic} | {row.claimed} "
            f"| {value} | {row.seeds} | {verdict} |"
        )
    lines += ["", *_rule(), "", *_data(results), *_choices(results), ""]
    return "\n".join(lines)


def _rule():
    return [
        "## The rule",
        "",
        "Written in `deformstab/paper/claims.py` before the runs. Seeds are the unit: one number a "
        "seed, its mean with Student's t interval. A claim of direction is *reproduced* when the "
        "interval lies on the claimed side, *not reproduced* when it lies on the other, "
        "*inconclusive* otherwise; a claim of likeness has a margin in place of zero. *Not tested*: "
        "the runs are missing, or training accuracy in inference mode and with batch statistics "
        "differ by more than 0.05. Logs are natural; sensitivities are summarized by the mean of "
        "their logs over all layers but the input, smoothness over the 3×3 filters. Intervals are "
        "for each row alone: with this many rows, one in twenty is expected to miss. Three seeds "
        "describe; evidence needs five.",
    ]


def _data(results):
    lines = ["## What was trained", ""]
    for study in ("main", "large", "tasks"):
        lines.append(f"- {study}: {results.describe(study)}.")
    training = results.tables.get("training", pd.DataFrame())
    if not training.empty:
        lines += [
            "",
            "| study | labels | kind | accuracy in `fit` | training, batch statistics | training, "
            "inference | test |",
            "|---|---|---|---|---|---|---|",
        ]
        columns = ["in_fit", "batch_statistics", "train", "test"]
        columns = [f"accuracy_{name}" for name in columns]
        means = training.groupby(["study", "task", "downsampling"], sort=False)[columns].mean()
        for (study, task, kind), row in means.iterrows():
            numbers = " | ".join(f"{value:.3f}" for value in row)
            lines.append(f"| {study} | {task} | {kind} | {numbers} |")
    return lines


def _choices(results):
    table = results.choices()
    if table.empty:
        return []
    wide = table.pivot(
        index=["input_scaling", "batch_statistics"], columns="downsampling", values="sensitivity"
    )
    kinds = list(dict.fromkeys(table["downsampling"]))
    lines = [
        "",
        "## What the open choices move",
        "",
        "The paper names neither the scaling of the inputs nor the mode of batch normalization. "
        f"Sensitivity of the last downsampling layer at initialization, one seed: {_DEFAULT} is what "
        "everything else here uses.",
        "",
        f"| inputs | batch normalization | {' | '.join(kinds)} |",
        "|---|---|" + "---|" * len(kinds),
    ]
    for (scaling, batch_statistics), row in wide.iterrows():
        mode = "batch statistics" if batch_statistics else "moving averages"
        numbers = " | ".join(f"{row[kind]:.3f}" for kind in kinds)
        lines.append(f"| {_SCALINGS[scaling]} | {mode} | {numbers} |")
    return lines


def index_page(results, claims: pd.DataFrame, drawn, written, command: str, seconds: float) -> str:
    """README.md of the folder: figure → table → command → claims, with each figure and caption.

    Args:
        results: the tables.
        claims: their verdicts.
        drawn, written: names of the figures and of the tables that are there.
        command: what was typed.
        seconds: the runs took.
    """
    lines = [f"# Results: {results.preset.name}", "", SOURCE + ".", ""]
    if results.preset.demonstration:
        lines += [f"> **{results.preset.demonstration}**", ""]
    lines += [
        f"Made by `{command}` with deformstab {__version__}, {seconds / 60:.1f} minutes of runs. The "
        "claims and their verdicts: [claims.md](claims.md). Versions, flags, device and time per "
        "run: [provenance.json](provenance.json).",
        "",
        "| figure | what | tables | to draw it alone | claims |",
        "|---|---|---|---|---|",
    ]
    verdicts = claims.groupby("claim")["verdict"].agg(lambda found: " / ".join(found))
    for name in drawn:
        spec = FIGURES[name]
        tables = [table for table in spec.tables if table in written]
        tables = ", ".join(f"[{table}](tables/{table}.csv)" for table in tables)
        shown = "; ".join(f"{claim}: {verdicts[claim]}" for claim in spec.claims)
        lines.append(
            f"| [{name}](#figure-{name.lower()}) | {spec.title} | {tables} "
            f"| `{command} --figures={name}` | {shown} |"
        )
    for name in drawn:
        lines += [
            "",
            f"## Figure {name}",
            "",
            f"![{FIGURES[name].title}](figures/figure_{name}.png)",
            "",
            FIGURES[name].caption(results),
        ]
    return "\n".join([*lines, ""])
