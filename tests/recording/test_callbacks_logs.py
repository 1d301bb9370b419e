"""SensitivityCallback's scalars in Keras' logs: whoever is listed after it finds them."""

import csv
import math
import os

import keras
import numpy as np
import pytest
from helpers import needs_tensorflow
from test_callbacks import data, fit, quick_network

import deformstab as ds

NAMES = ["sensitivity/input", "sensitivity/last"]


def watcher(images, **options):
    return ds.SensitivityCallback(images, layers=["input", "last"], **options)


def expected(callback, epochs):
    """Of each epoch the last measurement in the table, NaN where there is none: name → values."""
    found = {}
    for name in NAMES:
        rows = callback.table[callback.table["layer"] == name.removeprefix("sensitivity/")]
        rows = rows[rows["step"] > 0]
        # 3 steps an epoch: epoch 0 takes steps 1, 2, 3.
        last = rows.assign(of=(rows["step"] - 1) // 3).groupby("of")["sensitivity"].last()
        found[name] = [last.get(epoch, math.nan) for epoch in range(epochs)]
    return found


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        ({}, [True, True, True, True]),
        ({"every": 2}, [False, True, False, True]),
        ({"every": 9}, [False, False, False, False]),
        ({"steps": [1, 2, 7]}, [True, False, True, False]),
        ({"steps": 3}, [True, True, True, True]),
    ],
)
def test_the_history_has_a_value_for_each_epoch(images, options, measured):
    callback = watcher(images, **options)
    history = fit(quick_network(), [callback], epochs=4, validation_data=data(6)).history
    assert {len(values) for values in history.values()} == {4}
    for name, values in expected(callback, 4).items():
        assert [math.isfinite(value) for value in values] == measured
        np.testing.assert_array_equal(history[name], values)
        assert all(type(value) is float for value in history[name])
    assert set(history) == {"loss", "val_loss", *NAMES}


def test_a_second_fit_has_them_as_well(images):
    callback, model = watcher(images, every=2), quick_network()
    fit(model, [callback], epochs=2)
    history = fit(model, [callback], epochs=3, initial_epoch=2).history
    assert all(np.isnan(history[name]).tolist() == [True] for name in NAMES)


def test_layers_without_a_number_are_in_the_logs(images):
    model = quick_network()
    model.get_layer("last").kernel.assign(np.zeros(model.get_layer("last").kernel.shape))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = fit(model, [watcher(images)]).history
    assert np.isnan(history["sensitivity/last"]).all()
    assert np.isfinite(history["sensitivity/input"]).all()


def test_logs_can_be_left_alone(images):
    callback = watcher(images, logs=False)
    history = fit(quick_network(), [callback], epochs=1).history
    assert list(history) == ["loss"]
    assert len(callback.table) == 4


def test_csv_logger(images, tmp_path):
    callback, file = watcher(images, every=2), tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(file)
    fit(quick_network(), [callback, logger], epochs=4)
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    for name, values in expected(callback, 4).items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], values)


@needs_tensorflow
def test_tensorboard(images, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorFlow writes no scalars without tensorboard")
    import tensorflow as tf
    from tensorflow.core.util.event_pb2 import Event

    callback = watcher(images, steps=[1, 7])
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    fit(quick_network(), [callback, board], epochs=3)
    (file,) = (tmp_path / "train").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(os.fspath(file)):
        event = Event.FromString(record.numpy())
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor).item()
    for name, values in expected(callback, 3).items():
        written = found[f"epoch_{name}"]
        assert list(written) == [0, 1, 2]
        np.testing.assert_allclose(list(written.values()), values, rtol=1e-6)


def test_early_stopping(images):
    callback = watcher(images)
    stopping = keras.callbacks.EarlyStopping(
        "sensitivity/input", patience=2, mode="min", min_delta=0.1
    )
    fit(quick_network(), [callback, stopping], epochs=9)
    assert stopping.stopped_epoch == 2  # the input's does not change
    assert stopping.best == callback.table["sensitivity"].iloc[0]


def test_model_checkpoint(images, tmp_path):
    callback = watcher(images)
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.keras", monitor="sensitivity/last", mode="max", save_best_only=True
    )
    fit(quick_network(), [callback, checkpoint], epochs=4)
    values = callback.table[callback.table["layer"] == "last"]["sensitivity"].to_numpy()
    assert checkpoint.best == values[1:].max()
    assert (tmp_path / f"{values[1:].argmax() + 1}.keras").exists()


def test_listed_before_they_see_nothing_and_nothing_breaks(images, tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    fit(quick_network(), [logger, watcher(images)], epochs=2)
    assert "sensitivity" not in (tmp_path / "log.csv").read_text()
