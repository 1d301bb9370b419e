"""What claims.md says of the open questions: a section."""

import pandas as pd

from deformstab.paper.pages.note_page import with_interval


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
        "What the paper and its successors left open. The rule of each answer is in "
        "`deformstab/paper/verdicts/questions.py`, written before the networks were trained. Values are "
        "ratios with 95 % intervals over seeds (Student's t, of logs that are paired by seed and are "
        "means over the paper's layers, the input left out). A verdict is given where the whole "
        "interval lies in one region, whose bounds are 10 % from 1, and p is below 0.05: the t test of "
        "the bound, adjusted for all decisive rows of all questions (Holm). Rows without a verdict are "
        "context; no rule reads them. R is the sensitivity to deformations over that to noise of the "
        "same length (`ds.measure_stability`).",
        "",
        *_networks(results),
    ]
    for (question, asks), rows in table.groupby(["question", "asks"], sort=False):
        lines += [
            "",
            f"**Question {question}.** {asks}",
            "",
            "| what | measured | ratio (95 % interval) | seeds | p (Holm) | verdict |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows[rows["decisive"] | (rows["seeds"] > 0)].itertuples():
            p = "" if pd.isna(row.p) else f"{row.p:.2g}" if row.p > 1e-4 else "< 0.0001"
            verdict = f"**{row.verdict}**" if row.decisive else ""
            verdict = ": ".join(filter(None, [verdict, row.note]))
            cells = row.what, row.condition, with_interval(row), row.seeds, p, verdict
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _networks(results) -> list[str]:
    """What was trained: a line of a table for each kind."""
    training = results.tables.get("question_training", pd.DataFrame())
    if not len(training):
        return []
    lines = [
        "| networks | kind | seeds | training images | epochs | accuracy, training | test |",
        "|---|---|---|---|---|---|---|",
    ]
    for (part, kind), rows in training.groupby(["part", "downsampling"], sort=False):
        means = rows[["epochs", "accuracy_train", "accuracy_test"]].mean()
        lines.append(
            f"| {part} | {kind} | {len(rows)} | {rows['train_images'].max()} | {means['epochs']:.3g} "
            f"| {means['accuracy_train']:.3f} | {means['accuracy_test']:.3f} |"
        )
    return lines
