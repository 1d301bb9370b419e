"""The kinds of tables that measurements give: the number to show of each, and what is better."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Kind:
    """Tables of one measure, a row a layer.

    Attributes:
        name: of the measure, for a reader.
        value: the column to show; its interval is in `<value>_low` and `<value>_high`.
        tells: columns that tell such a table from others.
        better: what a reader makes of the number.
        ratio: whether 1 is its middle: shown on a logarithmic scale.
        makers: the functions that make such tables.
    """

    name: str
    value: str
    tells: tuple[str, ...]
    better: str
    ratio: bool
    makers: str

    @property
    def numbers(self) -> tuple[str, str, str]:
        """The columns of the value and its interval."""
        return self.value, f"{self.value}_low", f"{self.value}_high"

    def label(self, table: pd.DataFrame) -> str:
        """Of an axis or a colour bar, in two lines, with the metric or the reference."""
        column, words = (
            ("reference", " / that of {}") if self is COMPARISON else ("metric", " ({})")
        )
        same = column in table and table[column].nunique() == 1
        return f"{self.name}{words.format(table[column].iloc[0]) if same else ''}\n{self.better}"


SENSITIVITY = Kind(
    "normalized sensitivity",
    "sensitivity",
    ("sensitivity", "sensitivity_low", "sensitivity_high"),
    "lower is more stable",
    False,
    "ds.measure_sensitivity, ds.sensitivity_by_strength, ds.sensitivity_by_part or "
    "ds.SensitivityCallback",
)
COMPARISON = Kind(
    "sensitivity",
    "ratio",
    ("reference", "ratio", "ratio_low", "ratio_high"),
    "below 1: more stable than the reference",
    True,
    "ds.compare_sensitivity",
)
STABILITY = Kind(
    "deformation / equal noise",
    "relative_stability",
    ("relative_stability", "relative_stability_low", "relative_stability_high"),
    "below 1: more stable than that size explains",
    True,
    "ds.measure_stability",
)
EQUIVARIANCE = Kind(
    "moves with / stays",
    "ratio",
    ("moves_with", "ratio", "ratio_low", "ratio_high"),
    "below 1: moves with the image; above 1: stays",
    True,
    "ds.measure_equivariance",
)
# Tables of the later ones have columns of the first: what is special comes first.
KINDS = (COMPARISON, EQUIVARIANCE, STABILITY, SENSITIVITY)
WORST_COLUMNS = ("layer", "image", "mean", "worst", "mean_sensitivity", "worst_sensitivity")
WORST_MAKERS = "ds.worst_deformation (the first of the pair it returns)"


def kind_of(table) -> Kind | None:
    """The kind of a table with a row a layer, `None` of any other thing."""
    columns = set(getattr(table, "columns", ()))
    if not {"layer", "layer_index"} <= columns:
        return None
    return next((kind for kind in KINDS if columns.issuperset(kind.tells)), None)
