"""SensitivityCallback with more measures: each table is the measurement of its time."""

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import natural_images
from test_callbacks_resume import fit, network, times

import deformstab as ds
from deformstab.tables import (
    EQUIVARIANCE_COLUMNS,
    STABILITY_COLUMNS,
    TIME_COLUMNS,
    read_csv,
)

IMAGES = natural_images(6)
ALL = ("sensitivity", "smoothness", "stability", "equivariance")
TABLES = {
    "sensitivity": "table",
    "smoothness": "smoothness_table",
    "stability": "stability_table",
    "equivariance": "equivariance_table",
}
DEFORMATION = ds.RandomDeformation(3, 1.0)


def callback(folder=None, measures=ALL, **options):
    path = folder and folder / "table.csv"
    return ds.SensitivityCallback(IMAGES, DEFORMATION, measures=measures, csv_path=path, **options)


def tables(ours):
    return {name: getattr(ours, attribute) for name, attribute in TABLES.items()}


def files(folder):
    return {path.name: path.read_text() for path in sorted(folder.glob("*.csv"))}


@pytest.mark.parametrize("noise", ["gaussian", "grey"])
def test_tables_are_measurements_of_their_time(noise):
    model, ours = network(), callback(noise=noise, deformations=2, seed=3)
    fit(model, ours, epochs=1)
    options = {"deformations": 2, "seed": 3}
    expected = {
        "sensitivity": ds.measure_sensitivity(model, IMAGES, DEFORMATION, **options),
        "smoothness": ds.filter_smoothness(model),
        "stability": ds.measure_stability(model, IMAGES, DEFORMATION, noise=noise, **options),
        "equivariance": ds.measure_equivariance(model, IMAGES, DEFORMATION, **options),
    }
    for name, found in tables(ours).items():
        assert times(found) == [(0, 0), (1, 1)], name
        last = found[found["step"] == 1].drop(columns=["epoch", "step"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(last, expected[name], rtol=1e-5)


def test_files_are_the_tables(tmp_path):
    ours = callback(tmp_path)
    fit(network(), ours, epochs=2)
    assert [*files(tmp_path)] == [
        *("table.csv", "table_equivariance.csv", "table_smoothness.csv", "table_stability.csv")
    ]
    types = {**TIME_COLUMNS, **STABILITY_COLUMNS, **EQUIVARIANCE_COLUMNS}
    for name, found in tables(ours).items():
        file = "table.csv" if name == "sensitivity" else f"table_{name}.csv"
        pd.testing.assert_frame_equal(read_csv(tmp_path / file, types), found, check_exact=True)


def test_a_training_that_goes_on_ends_with_the_files_of_one_that_did_not_stop(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    options = {"shuffle": False}  # another order of images rounds otherwise
    keras.utils.clear_session()  # it counts automatic names
    fit(network(), callback(whole), epochs=2, **options)
    keras.utils.clear_session()
    model = network()
    fit(model, callback(parts), epochs=1, **options)
    # Another object, as in a new process.
    fit(model, callback(parts), epochs=2, initial_epoch=1, **options)
    assert files(parts) == files(whole)


@pytest.mark.parametrize("then", [ALL, ("sensitivity", "smoothness"), ("sensitivity",)])
def test_other_measures_than_those_of_the_files_are_refused(tmp_path, then):
    first = ("sensitivity", "stability") if then == ALL else ALL
    model = network()
    fit(model, callback(tmp_path, first), epochs=1)
    before, weights = files(tmp_path), model.get_weights()
    with pytest.raises(ValueError, match="move or delete it, or pass another csv_path"):
        fit(model, callback(tmp_path, then), epochs=2, initial_epoch=1)
    assert files(tmp_path) == before
    assert all(map(np.array_equal, weights, model.get_weights()))


@pytest.mark.parametrize("change", ["noise", "images"])
def test_another_measurement_is_refused(tmp_path, change):
    model = network()
    fit(model, callback(tmp_path), epochs=1)
    options = {"noise": "spectrum"} if change == "noise" else {"seed": 5}
    with pytest.raises(ValueError, match="something else than this measurement"):
        fit(model, callback(tmp_path, **options), epochs=2, initial_epoch=1)


def test_logs_have_the_euclidean_numbers():
    ours = callback()
    model = network()
    fit(model, ours, epochs=1)
    history = model.history.history
    for name, column in (("stability", "relative_stability"), ("equivariance", "ratio")):
        found = tables(ours)[name].query("step == 1 and metric == 'euclidean'")
        logged = [history[f"{name}/{layer}"][0] for layer in found["layer"]]
        np.testing.assert_array_equal(logged, found[column])
    assert not [name for name in history if name.startswith("smoothness/")]


def test_what_is_not_measured_has_an_empty_table(tmp_path):
    ours = callback(tmp_path, ["sensitivity", "equivariance"])
    fit(network(), ours, epochs=1)
    assert list(ours.stability_table.columns) == [*TIME_COLUMNS, *STABILITY_COLUMNS]
    assert ours.stability_table.empty
    assert ours.smoothness_table.empty
    assert sorted(files(tmp_path)) == ["table.csv", "table_equivariance.csv"]


def test_the_order_of_measures_does_not_matter():
    one, other = callback(measures=ALL), callback(measures=[*reversed(ALL)])
    assert one.measures == other.measures == ALL


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        (("sensitivity", "rank"), "known ones are sensitivity, smoothness, stability, equivar"),
        ("sensitivity", "must be a tuple"),
        (None, "must be a tuple"),
        (("stability",), 'must have "sensitivity" among them'),
        ((), 'must have "sensitivity" among them'),
    ],
)
def test_unknown_measures_are_refused_at_once(measures, message):
    with pytest.raises(ValueError, match=message):
        callback(measures=measures)


def test_what_a_measure_cannot_take_is_refused_at_once():
    with pytest.raises(ValueError, match="unknown noise 'pink'"):
        callback(noise="pink")
    with pytest.raises(ValueError, match="whether a map moves depends on the image's flow"):
        ds.SensitivityCallback(IMAGES, lambda x, seed: x, measures=("sensitivity", "equivariance"))


def test_it_does_not_train_differently():
    plain, watched = network(), network()
    keras.utils.set_random_seed(2)
    fit(plain, keras.callbacks.Callback(), epochs=2)
    keras.utils.set_random_seed(2)
    fit(watched, callback(), epochs=2)
    assert all(map(np.array_equal, plain.get_weights(), watched.get_weights()))


@pytest.mark.filterwarnings("ignore:`build:UserWarning")  # Keras', of what is not used
def test_a_convolution_that_is_not_used_hides_no_other_one(tmp_path):
    """Whatever was wrong with one, no smoothness was recorded, without a word."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (keras.layers.Conv2D(3, 3, name=x) for x in ("a", "b"))
            self.average = keras.layers.GlobalAveragePooling2D()

        def call(self, images):
            return self.average(self.used(images))

    model, ours = Model(), callback(tmp_path, ("sensitivity", "smoothness"))
    model.compile("sgd", "mse")
    fit(model, ours, epochs=1)
    found = ours.smoothness_table
    assert found["layer"].tolist() == ["a", "b"] * 2
    assert found["smoothness"].notna().tolist() == [True, False] * 2
    expected = ds.normalized_total_variation(model.used.kernel)
    assert found["smoothness"][2] == pytest.approx(expected)
    file = read_csv(tmp_path / "table_smoothness.csv")
    pd.testing.assert_frame_equal(file, found, check_exact=True)
