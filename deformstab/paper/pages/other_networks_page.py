"""What claims.md says of networks that others trained: a line below a claim, and a section."""

import pandas as pd

from deformstab.paper.verdicts.other_networks import EVIDENCE, measured, title

_QUANTITIES = {
    "sensitivity": "sensitivity, trained / random",
    "sensitivity_normalized": "the same, batch normalization by the photographs' statistics",
    "smoothness": "TV/‖W‖₁, trained / random",
    "depth": "the same, from layer to layer",
}


def lines_below(table: pd.DataFrame, told) -> dict[tuple, str]:
    """(claim, figure) of a row of the table of claims → the line that stands below it.

    Args:
        table: of `other_networks`.
        told: a row → its value with its interval.
    """
    found = {}
    for each in EVIDENCE if len(table) else ():
        rows = table[table["quantity"] == each.quantity]
        values = "; ".join(
            f"{row.network}{f' ({row.halved})' if row.halved else ''} {told(row)}"
            for row in rows.itertuples()
        )
        found[each.claim, each.below] = (
            f"| ↳ other networks | *Evidence of networks that others trained, not the paper's runs.* "
            f"| {each.figure} | {each.statistic} | {each.claimed} | {values} "
            f"| {rows['seeds'].max()} random draws | | no verdict: other networks |"
        )
    return found


def section(results, table: pd.DataFrame, told) -> list[str]:
    """The lines of the section about them; none where there are none."""
    networks = measured(results)
    if not len(networks) or not len(table):
        return []
    shown = [name for name in _QUANTITIES if name in set(table["quantity"])]
    lines = [
        "",
        "## Networks that others trained",
        "",
        "In place of the paper's ImageNet networks, which were not trained here: other networks, "
        "trained by others on other things, one of each. No rule reads them and no verdict follows "
        f"from them. Measured on {results.describe_photographs()}, each as its package prepares "
        "images, beside the same architecture with random weights. Factors are means over layers, "
        "with 95 % intervals over the draws of random weights: the trained network is one, so "
        "intervals say nothing of what another training would have given.",
        "",
        f"| network | what | halves by | right of photographs of known class "
        f"| {' | '.join(_QUANTITIES[name] for name in shown)} |",
        "|---|---|---|---|" + "---|" * len(shown),
    ]
    for row in networks.itertuples():
        mine = table[table["network"] == row.network].set_index("quantity")
        cells = [told(mine.loc[name]) if name in mine.index else "" for name in shown]
        right = f"{row.top1:.1%} of {row.answers}" if row.answers else ""
        halved = row.halved if isinstance(row.halved, str) else ""
        what = f"{row.network} | {title(row.network)} | {halved} | {right}"
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines
