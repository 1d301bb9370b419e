"""SensitivityCallback: its tables are measurements, and the training does not notice them."""

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import natural_images, small_network
from keras import layers

import deformstab as ds
from deformstab.tables import (
    SENSITIVITY_COLUMNS,
    SMOOTHNESS_COLUMNS,
    TIME_COLUMNS,
    read_csv,
)

TYPES = {**TIME_COLUMNS, **SENSITIVITY_COLUMNS}


def network(seed=0, learning_rate=0.1):
    """Dropout, augmentation and batch normalization inside: everything that has a state."""
    inputs = keras.Input((16, 16, 3))
    tensor = ds.RandomDeformation(3, 1.0, seed=1)(inputs)
    tensor = layers.Dropout(0.2, seed=2)(small_network(seed=seed)(tensor))
    model = keras.Model(inputs, layers.Dense(3, kernel_initializer="ones", name="last")(tensor))
    model.compile(keras.optimizers.Adam(learning_rate), "mse")
    return model


def data(count=20):
    return natural_images(count, seed=3), np.random.default_rng(0).normal(size=(count, 3))


def fit(model, callbacks, epochs=2, **kwargs):
    keras.utils.set_random_seed(1)  # of the order of the images
    return model.fit(*data(), batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)


def without_time(table):
    return table.drop(columns=["epoch", "step"]).reset_index(drop=True)


def test_every_epoch_is_measured_and_the_start(images):
    model = network()
    before = ds.measure_sensitivity(model, images)
    smoothness_before = ds.filter_smoothness(model)
    callback = ds.SensitivityCallback(images)
    fit(model, [callback], epochs=3)
    table = callback.table
    assert list(table.columns) == ["epoch", "step", *SENSITIVITY_COLUMNS]
    assert list(callback.smoothness_table.columns) == ["epoch", "step", *SMOOTHNESS_COLUMNS]
    assert table.index.tolist() == list(range(len(table)))
    for name, dtype in TYPES.items():
        assert dtype == "str" or table[name].dtype == dtype, name
    # 20 images in batches of 8 are 3 steps an epoch.
    times = table[["epoch", "step"]].drop_duplicates().to_numpy().tolist()
    assert times == [[0, 0], [1, 3], [2, 6], [3, 9]]
    epochs = dict(list(table.groupby("epoch")))
    assert without_time(epochs[0]).equals(before)
    assert without_time(epochs[3]).equals(ds.measure_sensitivity(model, images))
    assert (epochs[1]["sensitivity"].to_numpy() != epochs[2]["sensitivity"].to_numpy()).any()
    smoothness = dict(list(callback.smoothness_table.groupby("epoch")))
    assert list(smoothness) == [0, 1, 2, 3]
    assert without_time(smoothness[0]).equals(smoothness_before)
    assert without_time(smoothness[3]).equals(ds.filter_smoothness(model))


@pytest.mark.parametrize(
    ("every", "epochs", "measured"), [(2, 5, [0, 2, 4]), (3, 3, [0, 3]), (5, 2, [0])]
)
def test_every_so_many_epochs(images, every, epochs, measured):
    callback = ds.SensitivityCallback(images, layers=["input"], every=every)
    fit(network(), [callback], epochs=epochs)
    assert callback.table["epoch"].tolist() == measured
    assert callback.smoothness_table["epoch"].drop_duplicates().tolist() == measured


def test_the_same_deformations_every_time(images):
    """Without learning nothing but the moving averages could change: and they have none here."""
    inputs = keras.Input((16, 16, 3))
    tensor = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(tensor))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    callback = ds.SensitivityCallback(images, ds.RandomDeformation(3, 1.0))
    fit(model, [callback], epochs=2)
    first, *others = (without_time(rows) for _, rows in callback.table.groupby("epoch"))
    assert len(others) == 2
    for other in others:
        assert other.equals(first)


def test_the_training_is_the_same_with_and_without(images):
    plain, watched = network(), network()
    history = fit(plain, [], validation_data=data(6)).history
    callback = ds.SensitivityCallback(images, deformations=2)
    assert fit(watched, [callback], validation_data=data(6)).history == history
    for a, b in zip(plain.get_weights(), watched.get_weights()):
        np.testing.assert_array_equal(a, b)
    # Also what training goes on from: optimizer and seeds.
    for a, b in zip(plain.optimizer.variables, watched.optimizer.variables):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert fit(watched, [], epochs=1).history == fit(plain, [], epochs=1).history


def test_its_images_are_its_own(images):
    given = images.copy()
    callback = ds.SensitivityCallback(given, layers=["input"])
    given[:] = 0
    fit(network(), [callback], epochs=1)
    assert (callback.table["sensitivity"] > 0).all()


def test_options_are_those_of_a_measurement(images):
    deformation = ds.RandomDeformation(4, 0.5)
    options = {
        "layers": ["last", "input"],
        "metric": "euclidean",
        "deformations": 2,
        "batch_size": 5,
        "intervals": False,
        "seed": 9,
    }
    model = network()
    expected = ds.measure_sensitivity(model, images, deformation, **options)
    callback = ds.SensitivityCallback(images, deformation, **options)
    fit(model, [callback], epochs=1)
    found = without_time(callback.table[callback.table["epoch"] == 0])
    assert found["layer"].tolist() == ["input", "last"]
    pd.testing.assert_frame_equal(found, expected)


def test_the_csv_is_complete_after_every_measurement(images, tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    callback = ds.SensitivityCallback(images, csv_path=str(path))
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found = read_csv(path, TYPES)
            pd.testing.assert_frame_equal(found, callback.table)
            smoothness = read_csv(path.with_name("table_smoothness.csv"))
            assert len(smoothness) == len(callback.smoothness_table)
            np.testing.assert_array_equal(
                smoothness["smoothness"], callback.smoothness_table["smoothness"]
            )
            seen.append(found["epoch"].max())

    fit(network(), [callback, Reader()])
    assert seen == [1, 2]
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "table.csv",
        "table_smoothness.csv",
    ]


def test_training_may_go_on(images):
    callback = ds.SensitivityCallback(images, layers=["input", "last"])
    model = network()
    fit(model, [callback], epochs=2)
    fit(model, [callback], epochs=3, initial_epoch=2)
    times = callback.table[["epoch", "step"]].drop_duplicates().to_numpy().tolist()
    assert times == [[0, 0], [1, 3], [2, 6], [3, 9]]


def test_a_training_that_starts_later_is_measured_at_its_start(images):
    callback = ds.SensitivityCallback(images, layers=["input"], every=2)
    fit(network(), [callback], epochs=6, initial_epoch=3)
    assert callback.table["epoch"].tolist() == [3, 4, 6]


def test_models_without_convolutions(images, tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", "mse")
    callback = ds.SensitivityCallback(images, csv_path=tmp_path / "table.csv")
    fit(model, [callback], epochs=1)
    assert callback.table["epoch"].drop_duplicates().tolist() == [0, 1]
    assert callback.smoothness_table.empty
    assert list(callback.smoothness_table.columns) == ["epoch", "step", *SMOOTHNESS_COLUMNS]
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_tables_are_there_before_training(images):
    callback = ds.SensitivityCallback(images)
    assert callback.table.empty
    assert list(callback.table.columns) == list(TYPES)


@pytest.mark.parametrize("every", [0, -1, 1.5, "1", None])
def test_impossible_epochs(images, every):
    with pytest.raises(ValueError, match=r"every must be an int of at least 1 epochs, received"):
        ds.SensitivityCallback(images, every=every)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "cos"}, "unknown metric 'cos'"),
        ({"deformations": 0}, "deformations must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"deformation": 2.0}, "RandomDeformation"),
    ],
)
def test_what_a_measurement_would_refuse_is_refused_before_training(images, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ds.SensitivityCallback(images, **options)
    with pytest.raises(ValueError, match="at least two"):
        ds.SensitivityCallback(images[:1])
