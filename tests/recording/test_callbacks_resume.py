"""SensitivityCallback in trainings that are killed: its tables end as if nothing had happened."""

import functools
import json
import multiprocessing
import os
import pathlib
import tempfile

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import natural_images, randomize
from keras import layers

import deformstab as ds
from deformstab.recording import files
from deformstab.tables import SENSITIVITY_COLUMNS, TIME_COLUMNS, read_csv, write_csv

EPOCHS, KILLED = 4, 9
IMAGES = natural_images(6)
# New processes, forked from one that has imported much and computed nothing: an import takes longer
# than a training here.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["keras", "deformstab", "pytest"])
TYPES = {**TIME_COLUMNS, **SENSITIVITY_COLUMNS}


def network(convolutions=True):
    inputs = keras.Input((16, 16, 3))
    tensor = inputs
    if convolutions:
        tensor = layers.Conv2D(2, 3, name="convolution")(tensor)
        tensor = layers.BatchNormalization(name="normalization")(tensor)
    model = keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(tensor)))
    randomize(model)
    # Momentum: what the optimizer remembers has to be restored as well.
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


class Kill(keras.callbacks.Callback):
    """Ends the process when `hook` is called the n-th time, at once and without a farewell."""

    def __init__(self, hook, n):
        super().__init__()
        calls = iter(range(n - 1))
        setattr(self, hook, lambda *_, **__: next(calls, None) is None and os._exit(KILLED))


def kill_after_writes(n):
    """Ends the process after the n-th file is written."""
    calls, write = iter(range(n - 1)), files.write_text

    def write_and_die(*args):
        write(*args)
        if next(calls, None) is None:
            os._exit(KILLED)

    files.write_text = write_and_die


def train(folder, order="backup ours", kill=None, save_freq="epoch", **options):
    """20 images in batches of 8: 3 steps an epoch.

    Args:
        folder: of the backup and the tables, `None` for neither.
        order: of the callbacks.
        kill: (hook, n), or ("write", n), or None.
        save_freq: of the backup.
        **options: of the SensitivityCallback.
    """
    csv_path = None if folder is None else pathlib.Path(folder, "table.csv")
    ours = ds.SensitivityCallback(IMAGES, layers=["input", "last"], csv_path=csv_path, **options)
    callbacks = {"ours": ours}
    if folder is not None:
        backup = keras.callbacks.BackupAndRestore(pathlib.Path(folder, "backup"), save_freq)
        callbacks["backup"] = backup
    if kill is not None:
        if kill[0] == "write":
            kill_after_writes(kill[1])
        else:
            callbacks["kill"] = Kill(*kill)
    callbacks = [callbacks[name] for name in order.split() if name in callbacks]
    x, y = natural_images(20, seed=3), np.random.default_rng(0).normal(size=(20, 3))
    arguments = {"batch_size": 8, "epochs": EPOCHS, "verbose": 0, "shuffle": False}
    network().fit(x, y, callbacks=callbacks, **arguments)
    return ours


def train_elsewhere(folder, **arguments):
    """`train` in a process of its own; returns whether it was killed."""
    process = PROCESSES.Process(target=train, args=(folder,), kwargs=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED), "its error is in the captured stderr"
    return process.exitcode == KILLED


@functools.cache
def undisturbed(options):
    return train(None, **json.loads(options))


def times(table):
    return list(table[["epoch", "step"]].drop_duplicates().itertuples(index=False, name=None))


def assert_same(found, expected):
    assert times(found) == times(expected)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)  # threads add up in any order


def assert_as_undisturbed(ours, folder, **options):
    expected = undisturbed(json.dumps(options))
    assert_same(ours.table, expected.table)
    assert_same(ours.smoothness_table, expected.smoothness_table)
    assert_on_disk(ours, folder)


def assert_on_disk(ours, folder):
    pd.testing.assert_frame_equal(read_csv(folder / "table.csv", TYPES), ours.table)
    smoothness = read_csv(folder / "table_smoothness.csv", {"note": "str"})
    pd.testing.assert_frame_equal(smoothness, ours.smoothness_table)


# Of each measurement three files are written: record, smoothness, table. 1 to 3 before training, 4
# to 6 after an epoch, and so on.
KILLS = {
    "within an epoch": ("backup ours kill", ("on_train_batch_end", 5), {}),
    "rows later than the backup": (
        "ours kill backup",
        ("on_train_batch_end", 6),
        {"steps": 2, "every": 2},
    ),
    "before the first backup": ("backup ours kill", ("on_train_batch_end", 3), {"steps": "log"}),
    "between backup and measurement": ("backup kill ours", ("on_epoch_end", 2), {}),
    "between measurement and backup": ("ours kill backup", ("on_epoch_end", 2), {}),
    "after the record, after the backup": ("backup ours", ("write", 7), {}),
    "after the record, before the backup": ("ours backup", ("write", 7), {}),
    "between the tables, after the backup": ("backup ours", ("write", 8), {}),
    "between the tables, before the backup": ("ours backup", ("write", 8), {}),
    "after the first record": ("backup ours", ("write", 1), {}),
    "between the first tables": ("backup ours", ("write", 2), {}),
    "where the epoch's end is a step": ("backup kill ours", ("on_epoch_end", 1), {"steps": [3, 7]}),
    "where nothing is due": ("backup ours kill", ("on_epoch_begin", 2), {"every": 2}),
}


@pytest.mark.parametrize("case", KILLS)
def test_killed_and_resumed(case, tmp_path):
    order, kill, options = KILLS[case]
    assert train_elsewhere(tmp_path, order=order, kill=kill, **options)
    ours = train(tmp_path, order, **options)
    assert_as_undisturbed(ours, tmp_path, **options)


def test_killed_and_resumed_in_new_processes_again_and_again(tmp_path):
    options = {"steps": "log", "every": 1}
    kills = [("on_train_batch_end", 5), ("write", 1), ("on_epoch_end", 2)]
    for kill in kills:
        assert train_elsewhere(tmp_path, order="ours backup kill", kill=kill, **options)
    assert not train_elsewhere(tmp_path, order="ours backup", **options)
    expected = undisturbed(json.dumps(options))
    assert_same(read_csv(tmp_path / "table.csv", TYPES), expected.table)
    smoothness = read_csv(tmp_path / "table_smoothness.csv", {"note": "str"})
    assert_same(smoothness, expected.smoothness_table)


def test_a_backup_within_an_epoch(tmp_path):
    """Backup after step 4, in the second epoch, which Keras begins again there: ends at 7, 10, 13."""
    options = {"steps": [1, 5, 8], "every": 1}
    kill = ("on_train_batch_end", 5)
    assert train_elsewhere(tmp_path, order="ours backup kill", kill=kill, save_freq=2, **options)
    killed = read_csv(tmp_path / "table.csv", TYPES)
    assert times(killed) == [(0, 0), (0, 1), (1, 3), (1, 5)]
    ours = train(tmp_path, save_freq=2, **options)
    expected = [(0, 0), (0, 1), (1, 3), (1, 5), (2, 7), (2, 8), (3, 10), (4, 13)]
    assert times(ours.table) == times(ours.smoothness_table) == expected
    kept = killed[killed["step"] <= 4]
    pd.testing.assert_frame_equal(ours.table.head(len(kept)), kept)
    # Step 5 is another one now: of the epoch's first batch.
    tables = (ours.table, killed)
    again, before = (rows[rows["step"] == 5]["sensitivity"].iloc[1] for rows in tables)
    assert again != before
    assert_on_disk(ours, tmp_path)


# ---- files of another process, and a model that is as far as they are, or not ----


def ours_in(folder, **options):
    options = {"images": IMAGES, "layers": ["input", "last"], **options}
    return ds.SensitivityCallback(csv_path=folder / "table.csv", **options)


def fit(model, callback, *others, epochs, **arguments):
    """One step an epoch."""
    arguments = {"batch_size": 20, "epochs": epochs, "verbose": 0, **arguments}
    model.fit(
        natural_images(20, seed=3), np.zeros((20, 3)), callbacks=[callback, *others], **arguments
    )
    return callback


@functools.cache
def trained():
    """A model after two epochs, and the content of each file: tables and its weights."""
    with tempfile.TemporaryDirectory() as name:
        folder, model = pathlib.Path(name), network()
        fit(model, ours_in(folder), epochs=2)
        model.save_weights(folder / "model.weights.h5")
        return model, {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def model(tmp_path):
    """It is at step 2, and `tmp_path` has the tables until there."""
    model, files = trained()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    model.load_weights(tmp_path / "model.weights.h5")
    return model


def test_rows_come_from_the_files(model, tmp_path):
    before = read_csv(tmp_path / "table.csv", TYPES)
    callback = fit(model, ours_in(tmp_path), epochs=3, initial_epoch=2)
    assert times(callback.table) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert times(callback.smoothness_table) == times(callback.table)
    pd.testing.assert_frame_equal(callback.table.head(len(before)), before)
    assert_on_disk(callback, tmp_path)


def test_models_without_convolutions(tmp_path):
    model = network(convolutions=False)
    fit(model, ours_in(tmp_path), epochs=1)
    callback = fit(model, ours_in(tmp_path), epochs=2, initial_epoch=1)
    assert times(callback.table) == [(0, 0), (1, 1), (2, 2)]
    assert callback.smoothness_table.empty
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["table.csv", "table_training.json"]


def test_empty_files_are_none(tmp_path):
    """As those of the `tempfile` module."""
    (tmp_path / "table.csv").touch()
    callback = fit(network(), ours_in(tmp_path), epochs=1)
    assert_on_disk(callback, tmp_path)


def test_files_of_a_model_with_convolutions_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"table_smoothness\.csv holds .*\(other layers\)"):
        fit(network(convolutions=False), ours_in(tmp_path), epochs=1)


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"layers": ["input"]}, "other layer, layer_type"),
        ({"layers": ["input", "convolution"]}, "other layer, layer_type"),
        ({"layers": None}, "other layers"),
        ({"metric": "euclidean"}, "other metric"),
        ({"deformations": 2}, "other deformations"),
        ({"images": IMAGES[:5]}, "other images"),
        ({"images": IMAGES[::-1].copy()}, "other pixels"),
        ({"seed": 1}, "other displacements"),
        ({"deformation": ds.RandomDeformation(3, 0.5)}, "other displacements"),
    ],
)
def test_files_of_another_measurement_are_refused(model, tmp_path, options, why, new):
    if new:
        model.optimizer.iterations.assign(0)
    before = [(tmp_path / name).read_bytes() for name in ("table.csv", "table_smoothness.csv")]
    message = rf"table\.csv holds something else .*\({why}.*\): move or delete it, or pass another"
    with pytest.raises(ValueError, match=message):
        fit(model, ours_in(tmp_path, **options), epochs=3, initial_epoch=2)
    after = [(tmp_path / name).read_bytes() for name in ("table.csv", "table_smoothness.csv")]
    assert after == before


def test_files_that_were_refused_leave_nothing_behind(model, tmp_path):
    callback = ours_in(tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="other columns"):
        fit(model, callback, epochs=3, initial_epoch=2)
    for name in ("table.csv", "table_smoothness.csv"):
        (tmp_path / name).unlink()
    fit(model, callback, epochs=3, initial_epoch=2)
    assert times(callback.table) == times(callback.smoothness_table) == [(2, 2), (3, 3)]


def write(text):
    return lambda path: path.write_bytes(text)


def change(**columns):
    return lambda path: write_csv(read_csv(path).assign(**columns), path)


@pytest.mark.parametrize(
    ("file", "do", "why"),
    [
        ("table.csv", write(b"name,price\nbread,1.5\n"), "other columns"),
        ("table.csv", write(b"\xff\x00\x01"), "it cannot be read"),
        ("table.csv", write(b'a,b\n"c'), "it cannot be read"),
        ("table.csv", change(step="later"), "it cannot be read"),
        ("table.csv", pathlib.Path.unlink, "they are not of the same times"),
        ("table_smoothness.csv", write(b"a,b\n"), "other columns"),
        ("table_smoothness.csv", change(layer="other"), "other layer"),
        ("table_smoothness.csv", change(step=2), "they are not of the same times"),
        ("table_smoothness.csv", pathlib.Path.unlink, "they are not of the same times"),
    ],
)
def test_files_of_something_else_are_refused(model, tmp_path, file, do, why):
    do(tmp_path / file)
    names = sorted(path.name for path in tmp_path.iterdir())
    message = rf"{file}.* holds something else .*\({why}\)"
    with pytest.raises(ValueError, match=message):
        fit(model, ours_in(tmp_path), epochs=3, initial_epoch=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
