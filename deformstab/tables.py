"""Column names of every table, and their files."""

import io
import json
import math
import pathlib

import pandas as pd

from deformstab.files import remove_temporaries as remove_temporaries
from deformstab.files import write_bytes as write_bytes

SENSITIVITY_COLUMNS = {
    "layer": "str",
    "layer_index": "int64",
    "layer_type": "str",
    "metric": "str",
    "distance": "float64",
    "baseline": "float64",
    "sensitivity": "float64",
    "sensitivity_low": "float64",
    "sensitivity_high": "float64",
    "images": "int64",
    "deformations": "int64",
    "rms_displacement": "float64",
    "folded_fraction": "float64",
    "note": "str",
}
STRENGTH_COLUMNS = {"max_displacement": "float64"}
PART_COLUMNS = {
    "part": "str",
    **SENSITIVITY_COLUMNS,
    "share": "float64",
    "share_low": "float64",
    "share_high": "float64",
}
STABILITY_COLUMNS = {
    "layer": "str",
    "layer_index": "int64",
    "layer_type": "str",
    "metric": "str",
    "sensitivity": "float64",
    "noise_sensitivity": "float64",
    "relative_stability": "float64",
    "relative_stability_low": "float64",
    "relative_stability_high": "float64",
    "relative_stability_median": "float64",
    "noise": "str",
    "images": "int64",
    "deformations": "int64",
    "rms_displacement": "float64",
    "folded_fraction": "float64",
    "note": "str",
}
EQUIVARIANCE_COLUMNS = {
    "layer": "str",
    "layer_index": "int64",
    "layer_type": "str",
    "metric": "str",
    "moves_with": "float64",
    "stays": "float64",
    "ratio": "float64",
    "ratio_low": "float64",
    "ratio_high": "float64",
    "ratio_with_border": "float64",
    "floor": "float64",
    "stride": "float64",
    "offset": "float64",
    "border": "float64",
    "images": "int64",
    "deformations": "int64",
    "rms_displacement": "float64",
    "folded_fraction": "float64",
    "note": "str",
}
COMPARISON_COLUMNS = {
    "model": "str",
    "reference": "str",
    "layer": "str",
    "layer_index": "int64",
    "depth": "float64",
    "metric": "str",
    "sensitivity": "float64",
    "reference_sensitivity": "float64",
    "difference": "float64",
    "difference_low": "float64",
    "difference_high": "float64",
    "ratio": "float64",
    "ratio_low": "float64",
    "ratio_high": "float64",
    "images": "int64",
    "deformations": "int64",
    "note": "str",
}
CONSISTENCY_COLUMNS = {
    "consistency": "float64",
    "consistency_low": "float64",
    "consistency_high": "float64",
    "accuracy": "float64",
    "deformed_accuracy": "float64",
    "correct_consistency": "float64",
    "layer": "str",
    "sensitivity": "float64",
    "sensitivity_low": "float64",
    "sensitivity_high": "float64",
    "images": "int64",
    "deformations": "int64",
    "rms_displacement": "float64",
    "folded_fraction": "float64",
    "note": "str",
}
# Of answers for each pixel, beside those of CONSISTENCY_COLUMNS.
_DENSE = ("unmoved_consistency", "mean_iou", "unmoved_mean_iou")
_AT = list(CONSISTENCY_COLUMNS).index("accuracy")
DENSE_CONSISTENCY_COLUMNS = {
    **dict(list(CONSISTENCY_COLUMNS.items())[:_AT]),
    **dict.fromkeys(_DENSE, "float64"),
    **dict(list(CONSISTENCY_COLUMNS.items())[_AT:]),
}
SHIFT_COLUMNS = {
    "consistency": "float64",
    "consistency_low": "float64",
    "consistency_high": "float64",
    "customary_consistency": "float64",
    "accuracy": "float64",
    "unshifted_accuracy": "float64",
    "worst_accuracy": "float64",
    "consistency_of_right": "float64",
    "consistency_of_wrong": "float64",
    "chance": "float64",
    "offsets": "int64",
    "images": "int64",
    "protocol": "str",
    "note": "str",
}
DISTANCE_COLUMNS = {  # of each image and draw
    "layer": "str",
    "layer_index": "int64",
    "metric": "str",
    "image": "int64",
    "deformation": "int64",
    "distance": "float64",
    "baseline": "float64",
    "rms_displacement": "float64",
    "folded": "bool",
}
WORST_COLUMNS = {  # of each image
    "layer": "str",
    "metric": "str",
    "within": "str",
    "image": "int64",
    "mean": "float64",
    "best_of_k": "float64",
    "search": "float64",
    "worst": "float64",
    "baseline": "float64",
    "mean_sensitivity": "float64",
    "worst_sensitivity": "float64",
    "passes": "int64",
    "rms_displacement": "float64",
    "max_displacement": "float64",
    "folded": "bool",
    "note": "str",
}
# Of the prediction, beside those: whether the answer stays, and whether it is right all the same.
WORST_PREDICTION_COLUMNS = {**WORST_COLUMNS, "unchanged": "bool", "accuracy": "float64"}
SMOOTHNESS_COLUMNS = {
    "layer": "str",
    "layer_index": "int64",
    "layer_type": "str",
    "kernel_height": "int64",
    "kernel_width": "int64",
    "total_variation": "float64",
    "norm": "float64",
    "smoothness": "float64",
    "note": "str",
}
TIME_COLUMNS = {"epoch": "int64", "step": "int64"}


def table(rows, columns: dict) -> pd.DataFrame:
    """A DataFrame with exactly these columns, in this order and of these types."""
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def write_text(text: str, path) -> None:
    """Writes a text file, atomically, in UTF-8."""
    write_bytes(text.encode(), path)


def write_csv(frame: pd.DataFrame, path, digits: int | None = None) -> None:
    """Writes a table as CSV, atomically; floats with so many digits, by default all they have."""
    floats = None if digits is None else f"%.{digits}g"
    write_text(frame.to_csv(index=False, lineterminator="\n", float_format=floats), path)


def write_json(value, path) -> None:
    """Writes a JSON file, atomically; NaN and infinities are written as `null`."""
    write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n", path)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_csv(path, columns: dict | None = None) -> pd.DataFrame:
    """Reads a table that `write_csv` wrote: every float has the bits it had.

    Args:
        path: of the file.
        columns: name → type of columns whose values may not show it, an empty one for example;
            those that the file does not have are passed over.
    """
    return from_csv(pathlib.Path(path).read_text(encoding="utf-8"), columns)


def from_csv(text: str, columns: dict | None = None) -> pd.DataFrame:
    """The table in a text as `DataFrame.to_csv(index=False)` gives it; see `read_csv`."""
    if not text.strip():
        return pd.DataFrame()
    # As text first: pandas' own parsing may miss a float's last bit, and reads the text "NA" as NaN.
    frame = pd.read_csv(io.StringIO(text), dtype="str", keep_default_na=False)
    return frame.apply(lambda column: _typed(column, (columns or {}).get(column.name)))


def _typed(column: pd.Series, kind: str | None) -> pd.Series:
    if kind == "str" or (kind is None and (column == "").all()):
        return column
    if kind == "bool" or (kind is None and column.isin(["True", "False"]).all()):
        return column == "True"
    for candidate in [kind] if kind else ["int64", "float64"]:
        try:
            return column.where(column != "", "nan").astype(candidate)
        except ValueError:
            if kind:
                raise
    return column
