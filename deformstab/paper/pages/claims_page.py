"""claims.md: the claims, their verdicts, and what moves them."""

import itertools
import math

import numpy as np
import pandas as pd

from deformstab.networks.downsampling import DOWNSAMPLING_KINDS
from deformstab.paper.pages import note_page, other_networks_page, questions_page
from deformstab.paper.runs.pretrained_experiments import PRETRAINED
from deformstab.paper.runs.question_experiments import QUESTIONS
from deformstab.paper.runs.training import TRACKED_IMAGES
from deformstab.paper.verdicts.changes_by_kind import QUANTITIES
from deformstab.paper.verdicts.claims import (
    ACCURACY_TOLERANCE,
    EVIDENCE,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    SIGNIFICANCE,
)

SOURCE = (
    "Ruderman, Rabinowitz, Morcos, Zoran: *Pooling is neither necessary nor sufficient for "
    "appropriate deformation stability in CNNs* (2018, arXiv 1804.04438)"
)
_SCALINGS = {"symmetric": "[-1, 1]", "unit": "[0, 1]", "standardized": "standardized"}
_DEFAULT = "[-1, 1] with moving averages"
_VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED)


def claims_page(results, tables) -> str:
    """claims.md: every claim with its statistic, interval and verdict, the rule, and what moves it.

    Args:
        results: of the runs.
        tables: made from them: `claims`, `changes_by_kind`, `claims_by_choice`, `paths`,
            `other_networks`, `note_statements`, `questions`.
    """
    claims, asked = tables["claims"], tables.get("questions", pd.DataFrame())
    if len(asked) and claims["verdict"].eq(NOT_TESTED).all():  # a folder of open questions alone
        title = f"# What the paper left open ({results.preset.name})"
        return "\n".join([title, "", SOURCE + ".", *questions_page.section(results, asked), ""])
    counts = claims["verdict"].value_counts()
    summary = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in _VERDICTS)
    lines = [f"# The claims of the paper ({results.preset.name})", "", SOURCE + ".", ""]
    if results.preset.demonstration:
        lines += [f"> **{results.preset.demonstration}**", ""]
    lines += [f"{len(claims)} rows: {summary}.", ""]
    seeds = results.seeds("main")
    if seeds < EVIDENCE:
        lines += [f"{seeds} seeds describe; evidence needs {EVIDENCE}.", ""]
    others = tables.get("other_networks", pd.DataFrame())
    below = other_networks_page.lines_below(others, _with_interval)
    lines += [*claims_table(claims, below), "", *_rule(), "", *_data(results)]
    lines += [*other_networks_page.section(results, others, _with_interval), *_choices(results)]
    lines += [*note_page.section(tables.get("note_statements", pd.DataFrame()))]
    lines += [*questions_page.section(results, asked)]
    lines += [*_changes_by_kind(tables["changes_by_kind"])]
    lines += [*_claims_by_choice(tables["claims_by_choice"]), *_paths(tables["paths"]), ""]
    return "\n".join(lines)


def claims_table(claims: pd.DataFrame, below=None) -> list[str]:
    """The lines of a Markdown table, a row a claim, with lines that stand `below` some of them."""
    lines = [
        "| claim | sentence | figure | statistic | claimed | value (95 % interval) | seeds "
        "| p (Holm) | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in claims.itertuples():
        value = _with_interval(row)
        p = "" if pd.isna(row.p_holm) else f"{row.p_holm:.2g}" if row.p_holm > 1e-4 else "< 0.0001"
        verdict = f"**{row.verdict}**" + (f": {row.note}" if row.note else "")
        lines.append(
            f"| {row.claim} | {row.sentence} | {row.figure} | {row.statistic} | {row.claimed} "
            f"| {value} | {row.seeds} | {p} | {verdict} |"
        )
        if below and (row.claim, row.figure) in below:
            lines.append(below[row.claim, row.figure])
    return lines


def short_table(claims: pd.DataFrame) -> list[str]:
    """As `claims_table`, with fewer columns: what the README shows."""
    lines = ["| claim | figure | statistic | claimed | measured (95 % interval) | verdict |"]
    lines.append("|---|---|---|---|---|---|")
    for row in claims.itertuples():
        lines.append(
            f"| {row.claim} | {row.figure} | {row.statistic} | {row.claimed} | {_with_interval(row)} "
            f"| {row.verdict} |"
        )
    return lines


def _rule():
    return [
        "## The rule",
        "",
        "In `deformstab/paper/verdicts/claims.py`, written before the sensitivities and filters of the "
        "runs of `cifar10-small` were looked at (`docs/findings.md` says what was mended since). "
        "Seeds are the unit. Sensitivities "
        "are summarized by the mean of their logs over all layers but the input, smoothness over the "
        "3×3 filters; networks of one seed are compared with each other. Values that are factors are "
        "means over seeds of such logs, their interval Student's t. A *spread* between kinds is the "
        "root of the variance between kinds of those logs in a layer, mean over layers, with the "
        "variance between seeds taken out; the interval of a ratio of spreads is Fieller's (from 0: "
        "the variance between seeds is enough to explain the upper one; to inf: the lower one). The "
        "value is the effect size. Kinds start equal in smoothness: there is no spread beyond that "
        "between seeds that the one after training could be a multiple of, so it is compared with the "
        "mean change. "
        "p: the two-sided t test of the claimed bound, adjusted for the number of rows (Holm). A claim "
        f"is *reproduced* when p is below {SIGNIFICANCE}, the bound outside the interval and the value "
        "on the claimed side of the bound, *not reproduced* when it is on the other, *inconclusive* "
        "otherwise. Claims of likeness have a margin for bound: 0.5 means at most half as far apart. "
        "*Not tested*: the runs are missing, or training accuracy in inference mode and with batch "
        f"statistics differ by more than {ACCURACY_TOLERANCE}. Three seeds describe; evidence "
        f"needs {EVIDENCE}.",
    ]


def _data(results):
    if {*results.preset.studies} in ({PRETRAINED}, {QUESTIONS}):
        return []
    lines = ["## What was trained", ""]
    for study in ("main", "large", "tasks"):
        lines.append(f"- {study}: {results.describe(study)}.")
    training = results.tables.get("training", pd.DataFrame())
    if not training.empty:
        lines += [
            "",
            "Accuracies and epochs are means over seeds (and, of the tasks, over C).",
            "",
            "| study | labels | kind | networks | epochs | accuracy in `fit` | training, batch "
            "statistics | training, inference | test |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        columns = ["in_fit", "batch_statistics", "train", "test"]
        columns = [f"accuracy_{name}" for name in columns]
        by = ["study", "choice", "task", "downsampling"]
        for (study, choice, task, kind), rows in training.groupby(by, sort=False):
            study = f"{study}: {choice.replace('_', ' ')}" if choice else study
            numbers = " | ".join(f"{value:.3f}" for value in rows[columns].mean())
            epochs = f"{len(rows)} | {rows['epochs'].mean():.3g}"
            lines.append(f"| {study} | {task} | {kind} | {epochs} | {numbers} |")
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


def _changes_by_kind(table):
    if table.empty:
        return []
    shown = [name for name in QUANTITIES if name in set(table["quantity"])]
    lines = [
        "",
        "## What training does to each kind",
        "",
        "Claims are about means over kinds. Factors with 95 % intervals over seeds, of means over "
        "layers; bold: 1 is outside the interval. After the first step batch normalization is "
        f"re-estimated over {TRACKED_IMAGES} training images, in the trained network over all, before "
        "it is not; own statistics: those of the measured images, both times.",
        "",
        f"| labels | kind | {' | '.join(QUANTITIES[name] for name in shown)} |",
        "|---|---|" + "---|" * len(shown),
    ]
    for (task, kind), rows in table.groupby(["task", "downsampling"], sort=False):
        rows, cells = rows.set_index("quantity"), []
        for name in shown:
            text = _with_interval(rows.loc[name]) if name in rows.index else ""
            clear = text and not rows.loc[name, "low"] <= 1 <= rows.loc[name, "high"]
            cells.append(f"**{text}**" if clear and rows.loc[name, "seeds"] > 1 else text)
        lines.append(f"| {task} | {kind} | {' | '.join(cells)} |")
    return lines


def _claims_by_choice(table):
    if table.empty:
        return []
    claims = list(dict.fromkeys(zip(table["claim"], table["figure"], table["claimed"])))
    pairs = "over the median of pairs of images of different classes, or of one; "
    if "pairs_within_classes" not in set(table["choice"]):
        pairs = ""
    lines = [
        "",
        "## How far the open choices move the claims",
        "",
        "Values of claims with 95 % intervals, where something that the paper "
        "leaves open is done otherwise; bold: off the bound by an unadjusted t test (p < 0.05). The "
        "same networks are measured otherwise: on training images; before ReLU; with batch "
        "normalization by the statistics of the measured images (own statistics), or re-estimated at "
        f"the start already, after the first step; {pairs}by other summaries. Then a kind is "
        "left out. Last, other networks: the recipes, below the networks as stated of the same seeds.",
        "",
        f"| choice | {' | '.join(f'{claim} ({bound})' for claim, _, bound in claims)} |",
        "|---|" + "---|" * len(claims),
    ]
    for choice, rows in table.groupby("choice", sort=False):
        rows = rows.set_index(["claim", "figure"])
        cells = []
        for claim, figure, _ in claims:
            row = rows.loc[(claim, figure)] if (claim, figure) in rows.index else None
            cells.append("" if row is None else _cell(row))
        lines.append(f"| {choice.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def _cell(row) -> str:
    if pd.isna(row.low):
        return row.verdict
    text = _with_interval(row)
    text = f"**{text}**" if row.p < SIGNIFICANCE else text
    return text + (f": {NOT_TESTED}" if row.verdict == NOT_TESTED else "")


def _with_interval(row) -> str:
    """A value with its interval, in as many decimals as tell its width by two digits."""
    if pd.isna(row.value):
        return ""
    if pd.isna(row.low):
        return f"{row.value:.3g}"
    width = row.high - row.low
    if not 0 < width < np.inf:
        return f"{row.value:.3g} ({row.low:.3g} to {row.high:.3g})"
    decimals = max(0, 1 - math.floor(math.log10(width)))
    value, low, high = (f"{number:.{decimals}f}" for number in (row.value, row.low, row.high))
    return f"{value} ({low} to {high})"


def _paths(table):
    """How monotone training's path is, and when half of it is done, over networks and layers."""
    if table.empty:
        return []
    lines = [
        "",
        "## When filters become smooth",
        "",
        "Paths of the logs through training, measured at steps 1, 2, 3, 4, 6, 8, 11, … Change: of the "
        "mean over layers, as a factor. Monotonicity: a path's change over its length, 1 or -1 if it "
        "only rises or only falls. Half way: the step after which half of the change is never lost "
        "again, and the training accuracy then. Medians over seeds and layers.",
        "",
        "| | labels | kind | change | monotonicity | half way | accuracy then |",
        "|---|---|---|---|---|---|---|",
    ]
    table = table[(table["study"] == "main") & (table["layer"] != "input")]
    quantities = sorted(table["quantity"].unique(), reverse=True)  # smoothness first
    tasks = sorted(table["task"].unique(), reverse=True)  # true labels first
    groups = dict(list(table.groupby(["quantity", "task", "downsampling"])))
    for key in itertools.product(quantities, tasks, DOWNSAMPLING_KINDS):
        if key not in groups:
            continue
        change = np.exp(groups[key]["change"].mean())
        middle = groups[key][["monotonicity", "half_step", "half_accuracy"]].median()
        lines.append(
            f"| {' | '.join(key)} | {change:.3f} | {middle.monotonicity:.2f} "
            f"| {middle.half_step:.0f} | {middle.half_accuracy:.2f} |"
        )
    return lines
