"""What claims.md says of the reader's note on convolution and pooling: a section."""

import pandas as pd


def section(table: pd.DataFrame) -> list[str]:
    """The lines of the section; none where nothing of it was run.

    Args:
        table: of `note_statements`.
    """
    if not len(table):
        return []
    lines = [
        "",
        "## The note on convolution and pooling",
        "",
        "The statements of the note that this project began from, measured on small networks. No "
        "claim of the paper reads them. Errors are squared, and relative: 0 is none, 2 that of two maps "
        "with nothing in common. What does not move with its image is told in squared distances "
        "between maps of different images. Gain is the sensitivity (cosine) of maxima over groups of "
        "filters, over that in random groups: below 1, the groups are more stable. Intervals are "
        "95 %, Student's t.",
        "",
        "| statement | what | on paper | measured | over |",
        "|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        over = f"{row.count:,} {row.over}" if row.count > 1 else ""
        lines.append(
            f"| {row.statement} | {row.quantity} | {number(row.expected)} | {with_interval(row)} "
            f"| {over} |"
        )
    return lines


def with_interval(row) -> str:
    """Its value, with the interval where there is one that is wider than nothing."""
    if pd.isna(row.low) or row.low == row.high:
        return number(row.value)
    return f"{number(row.value)} ({number(row.low)} to {number(row.high)})"


def number(value) -> str:
    """Whole numbers whole, others with four digits; nothing for NaN."""
    if pd.isna(value):
        return ""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
