"""The statements of the reader's note, each with what follows on paper and what was measured."""

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import mean_interval
from deformstab.paper.runs.note_experiments import STATES

SPARSE = "sparse interactions"
SHARED = "parameter sharing"
EQUIVARIANT = "equivariance"
MAXIMA = "small shifts"
FEWER = "fewer units"
LEARNED = "learned invariance"


def note_statements(results) -> pd.DataFrame:
    """What the study `note` found.

    Returns:
        A row a number: `statement`, `quantity`, `expected` (what follows on paper, NaN where nothing
        does), `value`, its 95 % interval `low`, `high` (NaN for counts), `count` of what it is over,
        and `over`, what that is. Empty without runs.
    """
    rows = []
    for name, rows_of in _ROWS.items():
        table = results.tables.get(name, pd.DataFrame())
        if len(table):
            rows += rows_of(table)
    columns = ["statement", "quantity", "expected", "value", "low", "high", "count", "over"]
    return pd.DataFrame(rows, columns=columns)


def _row(statement, quantity, expected, value, low=np.nan, high=np.nan, count=1, over="") -> dict:
    row = {"statement": statement, "quantity": quantity, "expected": expected, "value": value}
    return row | {"low": low, "high": high, "count": count, "over": over}


def _sparse(table):
    pairs = int(table["pairs_outside"].sum())
    changed = table["changed_outside"].sum()
    right = table["field_y"].eq(table["field"]) & table["field_x"].eq(table["field"])
    yield _row(
        SPARSE,
        "units outside that changed",
        0,
        changed,
        count=pairs,
        over="pairs of pixel and unit",
    )
    yield _row(
        SPARSE,
        "largest change outside",
        0,
        table["largest_outside"].max(),
        count=pairs,
        over="pairs",
    )
    yield _row(
        SPARSE, "layers that see what was calculated", len(table), right.sum(), over="layers"
    )


def _counts(table):
    found = table.iloc[0]
    for name in ("parameters", "operations", "matrix_entries", "ratio"):
        yield _row(SHARED, f"edges: {name.replace('_', ' ')}", np.nan, found[name])


def _sharing(table):
    for row in table.itertuples():
        alike = row.weights in ("shared", "equal copies")
        expected = 0 if alike else np.nan
        yield _row(SHARED, f"does not move with the image: {row.weights}", expected, row.moves_with)
        if row.weights == "equal copies":
            yield _row(SHARED, "difference of equal copies", 0, row.largest_difference)


def _symmetries(table):
    for row in table.itertuples():
        quantity = f"error under {row.transform}, {row.filters} filters, {row.image}"
        numbers = row.expected, row.error, row.low, row.high, row.count
        yield _row(EQUIVARIANT, quantity, *numbers, "kernels")


def _maxima(table):
    for row in table.itertuples():
        where = "" if row.place == "any" else f", {row.place}"
        quantity = f"maxima that stay, {row.window}×{row.window}, {row.image}{where}"
        numbers = row.expected, row.kept, row.low, row.high, row.count
        yield _row(MAXIMA, quantity, *numbers, "images")


def _units(table):
    whole = table.set_index("kind").loc["none"]
    for row in table.itertuples():
        if row.kind != "none":
            yield _row(
                FEWER, f"units, of those without: {row.kind}", np.nan, row.units / whole.units
            )
            yield _row(FEWER, f"multiplications, of those without: {row.kind}", np.nan, row.of_none)


def _turns(table):
    for row in table.itertuples():
        quantity = f"change by a quarter turn, {row.filters}, {row.output}"
        expected = 0 if row.filters == "maximum over its turns" else np.nan
        numbers = expected, row.error, row.low, row.high, row.count
        yield _row(LEARNED, quantity, *numbers, "kernels")


def _filters(table):
    for state in STATES:
        rows = table[table["state"] == state]
        for name in ("entropy", "accuracy_test", "accuracy_turned"):
            if len(rows) and rows[name].notna().all():
                values = mean_interval(rows[name])
                quantity = f"{name.replace('_', ' ')}: {state}"
                yield _row(LEARNED, quantity, np.nan, *values, len(rows), "seeds")


def _gains(table):
    table = table[table["metric"] == "cosine"]
    for (state, output, deformation), rows in table.groupby(
        ["state", "output", "deformation"], sort=False
    ):
        value, low, high = np.exp(mean_interval(np.log(rows["gain"])))
        expected = 1 if state == "initial" else np.nan
        if (state, output, deformation) == (STATES[3], "maximum of the map", "quarter turn"):
            expected = 0
        quantity = f"Gain, {deformation}, {output}: {state}"
        yield _row(LEARNED, quantity, expected, value, low, high, len(rows), "seeds")


_ROWS = {
    "note_sparse": _sparse,
    "note_counts": _counts,
    "note_sharing": _sharing,
    "note_symmetries": _symmetries,
    "note_maxima": _maxima,
    "note_units": _units,
    "note_turns": _turns,
    "note_filters": _filters,
    "note_gains": _gains,
}
