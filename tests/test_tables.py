"""Tables: exact types, exact floats, and files that are old or new but never half."""

import json
import os
import stat
import threading

import numpy as np
import pandas as pd
import pytest

from deformstab import tables

# ---- columns and types ----


def test_columns_are_those_the_design_names():
    assert (
        list(tables.SENSITIVITY_COLUMNS)
        == (
            "layer layer_index layer_type metric distance baseline sensitivity sensitivity_low "
            "sensitivity_high images deformations rms_displacement folded_fraction note"
        ).split()
    )


def test_a_table_has_the_columns_in_order_and_of_their_types():
    columns = {"b": "float64", "a": "int64", "text": "str"}
    frame = tables.table([{"a": 1, "b": 2, "text": "x"}, {"text": "y", "a": 3, "b": 0.5}], columns)
    assert list(frame.columns) == ["b", "a", "text"]
    assert list(frame.index) == [0, 1]
    assert frame["b"].dtype == "float64"
    assert frame["a"].dtype == "int64"
    assert pd.api.types.is_string_dtype(frame["text"])
    empty = tables.table([], columns)
    assert list(empty.columns) == ["b", "a", "text"]
    assert dict(empty.dtypes) == dict(frame.dtypes)


# ---- CSV ----


def awkward_floats():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, 3000, dtype="uint64").view("float64")  # any pattern there is
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 2.2250738585072014e-308, 0.1, 1 / 3]
    special += [np.finfo("float64").max, np.nextafter(1, 2), np.nextafter(1, 0), 1e22, 1e23, 2**53]
    return np.concatenate([special, bits[~np.isnan(bits)]])


def test_a_csv_keeps_every_bit_of_every_float(tmp_path):
    values = awkward_floats()
    path = tmp_path / "table.csv"
    tables.write_csv(pd.DataFrame({"x": values, "number": np.arange(len(values))}), path)
    for columns in (None, {"x": "float64", "number": "int64"}):
        frame = tables.read_csv(path, columns)
        np.testing.assert_array_equal(
            frame["x"].to_numpy().view("uint64")[~np.isnan(values)],
            values.view("uint64")[~np.isnan(values)],
        )
        np.testing.assert_array_equal(frame["x"].isna(), np.isnan(values))
        assert frame["number"].dtype == "int64"


def test_a_csv_keeps_types_where_the_values_do_not_show_them(tmp_path):
    columns = {"layer": "str", "count": "int64", "value": "float64", "note": "str"}
    frame = tables.table(
        [
            {"layer": "1", "count": 2**62 + 1, "value": 1, "note": ""},
            {"layer": "02", "count": -1, "value": np.nan, "note": 'a "b",\nc ‖W‖₁'},
        ],
        columns,
    )
    path = tmp_path / "table.csv"
    tables.write_csv(frame, path)
    pd.testing.assert_frame_equal(tables.read_csv(path, columns), frame, check_exact=True)
    assert b"\r" not in path.read_bytes()


def test_a_csv_keeps_text_that_looks_like_a_missing_value(tmp_path):
    columns = {"layer": "str"}
    frame = tables.table([{"layer": name} for name in ("NA", "null", "nan", "None", "")], columns)
    tables.write_csv(frame, tmp_path / "table.csv")
    found = tables.read_csv(tmp_path / "table.csv", columns)["layer"]
    assert list(found) == ["NA", "null", "nan", "None", ""]


def test_types_of_columns_a_file_does_not_have_are_not_asked_for(tmp_path):
    tables.write_csv(pd.DataFrame({"x": [1.0]}), tmp_path / "table.csv")
    columns = {"x": "float64", "epoch": "int64", "note": "str"}
    assert list(tables.read_csv(tmp_path / "table.csv", columns)) == ["x"]


# ---- JSON ----


def test_json_is_what_any_reader_takes(tmp_path):
    path = tmp_path / "value.json"
    value = {"σ": [1, 0.1, None, True], "text": "ü"}
    tables.write_json(value, path)
    assert json.loads(path.read_bytes().decode("utf-8")) == value


def test_nan_becomes_null_in_json(tmp_path):
    path = tmp_path / "value.json"
    tables.write_json({"a": float("nan"), "b": [1.0, float("nan")]}, path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": None, "b": [1.0, None]}


# ---- atomic writing ----


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace", "os.chmod"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path, monkeypatch, broken, error
):
    path = tmp_path / "table.csv"
    tables.write_csv(pd.DataFrame({"x": [1]}), path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(broken, fail)
        with pytest.raises(type(error)):
            tables.write_csv(pd.DataFrame({"x": range(1000)}), path)
        with pytest.raises(type(error)):
            tables.write_text("new", tmp_path / "other.txt")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["table.csv"]
    tables.write_csv(pd.DataFrame({"x": [2]}), path)
    assert path.read_text() == "x\n2\n"


def test_what_cannot_be_written_keeps_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    tables.write_json([1], path)
    with pytest.raises(TypeError):
        tables.write_json([object()], path)
    with pytest.raises(TypeError):
        tables.write_bytes("text", path)
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_reader_sees_the_old_content_or_the_new(tmp_path):
    path = tmp_path / "table.txt"
    contents = ["a" * 100_000, "b" * 70_000]
    tables.write_text(contents[0], path)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(40):
            tables.write_text(contents[number % 2], path)
    finally:
        stop.set()
        reader.join()
    assert seen
    assert seen <= set(contents)


def test_folders_are_made_and_files_are_for_whom_the_umask_says(tmp_path):
    path = tmp_path / "a" / "b" / "table.csv"
    old = os.umask(0o027)
    try:
        tables.write_csv(pd.DataFrame({"x": [1]}), path)
        assert os.umask(0o027) == 0o027  # left as it was
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
