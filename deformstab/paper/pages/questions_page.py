"""What claims.md says of the open questions: a section."""

import pandas as pd

from deformstab.paper.pages.note_page import with_interval
from deformstab.paper.verdicts.question_rules import MARGIN
from deformstab.paper.verdicts.questions import STATISTICS


def section(results, table: pd.DataFrame) -> list[str]:
    """The lines of the section; none where no network was asked.

    Args:
        results: of the runs.
        table: of `deformstab.paper.verdicts.questions`.
    """
    if not len(table):
        return []
    lines = [
        "",
        "## Open questions",
        "",
        "What the paper and its successors left open. The rules of the answers are in "
        "`deformstab/paper/verdicts/questions_of_….py`, written before the measurements. Values are "
        "ratios, unless a row names a slope, a share or a correlation, with 95 % intervals over seeds "
        "(Student's t; of ratios, of logs, which are paired by seed and, but for question 6, means over "
        "the paper's layers, the input left out). A verdict is given where the whole interval lies in "
        "one region, whose bounds are 10 % from 1 if nothing else is said, and p is below 0.05: the t "
        "test of the bound, adjusted for all decisive rows of all questions (Holm). Rows without a "
        "verdict are context; no rule reads them. R is the sensitivity to deformations over that to "
        "noise of the same length (`ds.measure_stability`).",
        "",
        *_networks(results),
    ]
    there = table[table["decisive"] | (table["seeds"] > 0)]
    for (question, asks), rows in there.groupby(["question", "asks"], sort=False):
        lines += [
            "",
            f"**Question {question}.** {asks}{_bounds(asks)}",
            "",
            "| what | measured | ratio (95 % interval) | seeds | p (Holm) | verdict |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows.itertuples():
            p = "" if pd.isna(row.p) else f"{row.p:.2g}" if row.p > 1e-4 else "< 0.0001"
            verdict = f"**{row.verdict}**" if row.decisive else ""
            verdict = ": ".join(filter(None, [verdict, row.note]))
            cells = row.what, row.condition, with_interval(row), row.seeds, p, verdict
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _bounds(asks) -> str:
    """What lies between the verdicts, where it is not 10 %."""
    rule = next(each.rule for each in STATISTICS if each.rule.asks == asks)
    decides = any(each.decisive for each in STATISTICS if each.rule == rule)
    usual = {1 / MARGIN, MARGIN}
    if not decides or usual.issuperset(rule.bounds):
        return ""
    return f" (Bounds: {' and '.join(f'{bound:.3g}' for bound in rule.bounds)}.)"


def _networks(results) -> list[str]:
    """What was trained: a line of a table for each kind."""
    training = results.tables.get("question_training", pd.DataFrame())
    if not len(training):
        return []
    lines = [
        "| networks | kind | seeds | training images | epochs | accuracy, training | test |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = training.groupby(["part", "train_images", "downsampling"], sort=False)
    for (part, images, kind), rows in groups:
        means = rows[["epochs", "accuracy_train", "accuracy_test"]].mean()
        lines.append(
            f"| {part} | {kind} | {len(rows)} | {images} | {means['epochs']:.3g} "
            f"| {means['accuracy_train']:.3f} | {means['accuracy_test']:.3f} |"
        )
    return lines
