"""Tables → what a report's page draws: points of a layer each, in one long form."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from deformstab.presentation.drawing import merged
from deformstab.presentation.kinds import (
    COMPARISON,
    EQUIVARIANCE,
    KINDS,
    SENSITIVITY,
    STABILITY,
    WORST_COLUMNS,
    kind_of,
)

# What points of a measure may differ in, beside layer and step: name for a reader → columns.
DIMENSIONS = {
    "network": ("network", "model"),
    "metric": ("metric",),
    "phase": ("phase",),
    "family": ("family",),
    "part": ("part",),
    "noise": ("noise",),
    "strength": ("max_displacement", "strength"),
    "estimate": ("estimate",),
    "study": ("study",),
    "task": ("task",),
}
_NAMES = {  # of the measures, in the order of the page
    SENSITIVITY: ("sensitivity", "Normalized sensitivity"),
    COMPARISON: ("comparison", "Sensitivity over that of the reference"),
    STABILITY: ("stability", "Deformations over noise of the same size"),
    EQUIVARIANCE: ("equivariance", "Moves with the image over stays"),
}
WORST = "worst"
MEASURES = {
    **{
        key: {"name": name, "better": kind.better, "ratio": kind.ratio}
        for kind, (key, name) in _NAMES.items()
    },
    WORST: {
        "name": "Worst deformation found, and the mean of draws",
        "better": "sensitivity of an image, medians with quartiles over images: lower is more stable",
        "ratio": False,
    },
}


def named(tables) -> list[tuple[str, pd.DataFrame]]:
    """(name of the network, table) of all that was passed, in its order.

    Raises:
        ValueError: something in it is no DataFrame with rows and the column `layer`, or there is
            nothing.
    """
    given = tables.items() if isinstance(tables, Mapping) else [("", tables)]
    found = []
    for name, several in given:
        several = [several] if isinstance(several, pd.DataFrame) else several
        if not isinstance(several, (list, tuple)):
            raise ValueError(_refusal(name, several))
        for table in several:
            if not isinstance(table, pd.DataFrame) or "layer" not in table or not len(table):
                raise ValueError(_refusal(name, table))
            found.append((str(name), table))
    if not found:
        raise ValueError("tables is empty: pass a table, or {name of a network: its tables}")
    return found


def _refusal(name, thing) -> str:
    received = repr(thing)
    if isinstance(thing, pd.DataFrame):
        received = f"columns {list(thing.columns)} and {len(thing)} rows"
    makers = ", ".join(kind.makers for kind in KINDS)
    return (
        f"tables must be a table of {makers} or ds.worst_deformation, with rows and the column layer, "
        f"or {{name of a network: its table, or a list of them}}; received {received}"
        + (f" for {name!r}" if name else "")
    )


def points(tables: list[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """A row for each number of a layer that a chart can show.

    Args:
        tables: of `named`.

    Returns:
        A DataFrame with `measure` (a key of `MEASURES`), `DIMENSIONS` ("" where a table has none),
        `step`, `epoch` (NaN without), `layer`, `order` (of the layers of all tables), `type`,
        `value`, `low`, `high`, `images`, `rms`, `note`.
    """
    parts, seen = [], {}
    for name, table in tables:
        part = _points_of(name, table)
        if part is None:
            continue
        # Two tables of one network that nothing tells apart stay two lines.
        key = ["measure", *DIMENSIONS, "step", "layer"]
        keys = set(part[key].fillna({"step": -1}).itertuples(index=False, name=None))
        number = 1
        while not keys.isdisjoint(seen.get((name, number), set())):
            number += 1
        seen.setdefault((name, number), set()).update(keys)
        if number > 1:
            part["network"] = f"{part['network'].iloc[0]} ({number})".strip()
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=["measure", *DIMENSIONS, "layer", "order", "value"])
    whole = pd.concat(parts, ignore_index=True)
    orders = [list(part["layer"].drop_duplicates()) for part in parts]
    places = {layer: place for place, layer in enumerate(merged(sorted(orders, key=len)[::-1]))}
    return whole.assign(order=whole["layer"].map(places))


def _points_of(name, table) -> pd.DataFrame | None:
    kind = kind_of(table)
    if kind is None:
        return _worst_points(name, table) if set(WORST_COLUMNS) <= set(table.columns) else None
    rows = table.sort_values("layer_index", kind="stable").reset_index(drop=True)
    found = {"measure": _NAMES[kind][0], **_dimensions(name, rows)}
    for column in ("step", "epoch"):
        found[column] = _numbers(rows, column)
    found |= {"layer": rows["layer"].astype(str), "type": _words(rows, "layer_type")}
    for column, own in zip(("value", "low", "high"), kind.numbers):
        found[column] = _numbers(rows, own)
    found |= {"images": _numbers(rows, "images"), "rms": _numbers(rows, "rms_displacement")}
    return pd.DataFrame({**found, "note": _words(rows, "note")})


def _worst_points(name, table) -> pd.DataFrame:
    """Medians over images, with quartiles."""
    by_layer = table.assign(layer=table["layer"].astype(str)).groupby("layer", sort=False)
    counts, parts = by_layer["image"].count(), []
    for column, estimate in (
        ("mean_sensitivity", "mean of draws"),
        ("worst_sensitivity", "worst found"),
    ):
        numbers = by_layer[column].quantile([0.25, 0.5, 0.75]).unstack().loc[counts.index]
        rows = pd.DataFrame({"layer": numbers.index, "estimate": estimate})
        for own, share in (("value", 0.5), ("low", 0.25), ("high", 0.75)):
            rows[own] = numbers[share].to_numpy()
        first = by_layer.first().loc[counts.index]
        rows["metric"] = first["metric"].to_numpy() if "metric" in first else ""
        rows["images"] = counts.to_numpy()
        if "rms_displacement" in table and estimate == "worst found":
            rows["rms"] = by_layer["rms_displacement"].median().loc[counts.index].to_numpy()
        parts.append(rows)
    rows = pd.concat(parts, ignore_index=True)
    found = {"measure": WORST, **_dimensions(name, rows), "step": np.nan, "epoch": np.nan}
    found |= {"layer": rows["layer"], "type": ""}
    found |= {column: rows[column] for column in ("value", "low", "high", "images")}
    return pd.DataFrame({**found, "rms": _numbers(rows, "rms"), "note": ""})


def _dimensions(name, rows) -> dict:
    found = {}
    for dimension, columns in DIMENSIONS.items():
        own = next((column for column in columns if column in rows), None)
        if own is None:
            found[dimension] = ""
        elif own in ("max_displacement", "strength"):
            found[dimension] = [f"{each:g} px" for each in _numbers(rows, own)]
        else:
            found[dimension] = rows[own].astype(str)
    if isinstance(found["network"], str):
        found["network"] = name
    elif name:
        found["network"] = [f"{name}: {each}" for each in found["network"]]
    return found


def _numbers(rows, column):
    return pd.to_numeric(rows[column], errors="coerce") if column in rows else np.nan


def _words(rows, column):
    return rows[column].fillna("").astype(str) if column in rows else ""


def packed(frame: pd.DataFrame) -> dict:
    """A table as JSON takes it, small: numbers with six digits, texts as numbers of a list."""
    found = {}
    for name in frame:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            found[name] = [_rounded(each) for each in column]
        else:
            codes, values = pd.factorize(column.astype(str))
            found[name] = {"codes": codes.tolist(), "values": list(values)}
    return found


def _rounded(number):
    if not np.isfinite(number):
        return None
    return int(number) if number == int(number) else float(f"{number:.6g}")
