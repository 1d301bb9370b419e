"""A folder's sensitivities as one page to explore in a browser: its report.html."""

import numpy as np
import pandas as pd

from deformstab.paper.figures.style import KIND_LABELS
from deformstab.paper.verdicts.result_tables import Results
from deformstab.presentation.report import write_report

_KEY = ["study", "task", "phase", "network", "metric", "step", "layer", "layer_index"]
_KEPT = ["layer_type", "images", "deformations", "rms_displacement", "folded_fraction"]


def browser_tables(results: Results) -> list[pd.DataFrame]:
    """Means over seeds of what was measured, with ±2 standard deviations, as figures have them.

    Returns:
        Tables for `ds.write_report`, with the columns of `ds.measure_sensitivity` and `study`, `task`,
        `phase`, `network` (the condition, the kind of downsampling mostly), `seeds`; those of
        training with `step` as well.

    Raises:
        ValueError: there are no sensitivities.
    """
    found = [_over_seeds(part) for part in _parts(results) if part is not None and len(part)]
    if not found:
        raise ValueError("none of these figures measures the sensitivity of a network")
    return found


def write_browser_page(results: Results, path, command: str) -> None:
    """Writes them as one HTML file."""
    settings = {"preset": results.preset.name, "called by": command}
    settings["bars"] = "±2 standard deviations over seeds"
    title = f"Sensitivity to deformations: {results.preset.name}"
    write_report(path, {"": browser_tables(results)}, title=title, settings=settings)


def _parts(results):
    tables = results.tables
    return [
        _measured(tables.get("sensitivity")),
        _tracked(tables.get("trajectory")),
        _pretrained(tables.get("pretrained_sensitivity")),
    ]


def _measured(table):
    if table is None or table.empty:
        return None
    return table.assign(network=[_condition(row) for row in table.to_dict("records")])


def _tracked(table):
    if table is None or table.empty:
        return None
    table = table[table["quantity"] == "sensitivity"]
    named = {"network": [_condition(row) for row in table.to_dict("records")]}
    named |= {"phase": "while it trains", "metric": "cosine", "sensitivity": table["value"]}
    return table.assign(**named)


def _pretrained(table):
    if table is None or table.empty:
        return None
    return table.assign(study="pretrained", task="", phase=table["state"])


def _condition(row) -> str:
    """What tells a network of a study from its others."""
    kind = KIND_LABELS.get(row["downsampling"], row["downsampling"])
    if row["study"] == "filters":
        return f"σ = {row['sigma']:g} px"
    if row["study"] == "tasks":
        return f"C = {row['class_displacement']:g} px"
    if row["study"] == "choices":
        statistics = "of the batch" if row["batch_statistics"] else "moving averages"
        return f"{kind}, {row['input_scaling']}, {statistics}"
    named = f"{kind}, {row['choice']}" if row["choice"] else kind
    strength = row["class_displacement"]  # of recipes of tasks; 0 where classes are not deformed
    return f"{named}, C = {strength:g} px" if strength else named


def _over_seeds(table) -> pd.DataFrame:
    """A row for the networks of one condition that differ in their seed."""
    table = table.copy()
    key = [name for name in _KEY if name in table]
    kept = [name for name in _KEPT if name in table]
    # The choice of a network without one is "", or NaN where pandas read the file.
    grouped = table.fillna({"choice": ""} if "choice" in table else {}).groupby(key, sort=False)
    if (grouped["seed"].nunique() < grouped.size()).any():
        raise ValueError(
            "several networks of one seed would be averaged as if they were seeds: name what tells "
            "them apart in their condition"
        )
    mean, spread = grouped["sensitivity"].mean(), grouped["sensitivity"].std()
    found = grouped[kept].first() if kept else pd.DataFrame(index=mean.index)
    found["sensitivity"] = mean
    found["sensitivity_low"] = np.maximum(mean - 2 * spread, 0)
    found["sensitivity_high"] = mean + 2 * spread
    found["seeds"] = grouped["seed"].nunique()
    found["note"] = [f"mean of {count} networks" for count in found["seeds"]]
    return found.reset_index()
