"""SensitivityCallback: its tables are measurements, and the training does not notice them."""

import gc
import random
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, natural_images, small_network
from keras import layers

import deformstab as ds
from deformstab.backend import variable_to_numpy
from deformstab.recording.schedules import next_step
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


def quick_network():
    """Of a few layers, where it is about times."""
    inputs = keras.Input((16, 16, 3))
    tensor = layers.Flatten()(layers.Conv2D(2, 3, name="convolution")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="last")(tensor))
    model.compile("sgd", "mse")
    return model


def data(count=20):
    return natural_images(count, seed=3), np.random.default_rng(0).normal(size=(count, 3))


def fit(model, callbacks, epochs=2, **kwargs):
    keras.utils.set_random_seed(1)  # of the order of the images
    return model.fit(*data(), batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)


def times(table):
    """The (epoch, step) of each measurement, in order."""
    pairs = table[["epoch", "step"]]
    return list(map(tuple, pairs[(pairs != pairs.shift()).any(axis=1)].to_numpy().tolist()))


def without_time(table):
    return table.drop(columns=["epoch", "step"]).reset_index(drop=True)


@pytest.mark.parametrize("kind", ["generator", "list"])
def test_layers_are_those_given_at_the_start(images, kind):
    """A generator was empty at the second measurement; a list may be changed meanwhile."""
    layers = ["input", "last"]
    callback = ds.SensitivityCallback(
        images, layers=iter(layers) if kind == "generator" else layers
    )
    model = quick_network()
    callback.figure = lambda *_: layers.clear()
    fit(model, [callback], epochs=2)
    assert callback.table["layer"].tolist() == ["input", "last"] * 3


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
    assert times(table) == [(0, 0), (1, 3), (2, 6), (3, 9)]
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
    fit(quick_network(), [callback], epochs=epochs)
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


SCHEDULES = [{}, {"steps": "log"}, {"steps": 2, "every": 2, "deformations": 2}]


@pytest.mark.parametrize("options", SCHEDULES)
def test_the_training_is_the_same_with_and_without(images, options):
    plain, watched = network(), network()
    history = fit(plain, [], validation_data=data(6)).history
    callback = ds.SensitivityCallback(images, **options)
    logged = fit(watched, [callback], validation_data=data(6)).history
    assert {name: values for name, values in logged.items() if "sensitivity" not in name} == history
    assert_same_state(plain, watched)
    # And what it goes on with: the order of batches, dropout and augmentation.
    assert fit(watched, [], epochs=1).history == fit(plain, [], epochs=1).history
    assert_same_state(plain, watched)


def assert_same_state(a, b):
    """Weights, moving averages, seed generators, and the optimizer's variables."""
    assert any("seed" in variable.path for variable in a.variables)
    for ours, theirs in ((a, b), (a.optimizer, b.optimizer)):
        assert len(ours.variables) == len(theirs.variables)
        for x, y in zip(ours.variables, theirs.variables):
            np.testing.assert_array_equal(variable_to_numpy(x), variable_to_numpy(y))


def test_no_global_generator_is_drawn_from(images):
    model = network()
    callback = ds.SensitivityCallback(images, layers=["input"])
    callback.set_model(model)
    draws = []
    for measured in (False, True):
        keras.utils.set_random_seed(3)
        if measured:
            callback.on_train_begin()
            callback.on_epoch_begin(0)
        of_numpy = np.random.random()  # noqa: NPY002 - the global one, which Keras shuffles with
        draws.append((random.random(), of_numpy, float(keras.random.uniform(()))))
    assert draws[0] == draws[1]


def test_its_images_are_its_own(images):
    given = images.copy()
    callback = ds.SensitivityCallback(given, layers=["input"])
    given[:] = 0
    fit(quick_network(), [callback], epochs=1)
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

    fit(quick_network(), [callback, Reader()])
    assert seen == [1, 2]
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "table.csv",
        "table_smoothness.csv",
        "table_training.json",
    ]


# ---- steps ----


class Weights(keras.callbacks.Callback):
    """Keeps the model's variables after each batch; listed after ours."""

    def __init__(self):
        super().__init__()
        self.at = {}

    def on_train_batch_end(self, batch, logs=None):
        model = self.model
        step = int(variable_to_numpy(model.optimizer.iterations))
        self.at[step] = [variable_to_numpy(v).copy() for v in model.variables]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 2}, [(0, 0), (0, 2), (1, 4), (2, 6), (2, 8)]),
        ({"steps": "log"}, [(0, 0), (0, 1), (0, 2), (1, 4), (2, 8)]),
        ({"steps": [5, 0, 3, 3, 100]}, [(0, 0), (1, 3), (1, 5)]),
        ({"steps": (4,), "every": 2}, [(0, 0), (1, 4), (2, 6)]),
        ({"steps": np.array([7]), "every": 1}, [(0, 0), (1, 3), (2, 6), (2, 7), (3, 9)]),
    ],
)
def test_steps_within_epochs_see_the_weights_of_their_time(images, options, expected):
    """Step 3 and 6 are ends of epochs: there is one measurement, of the finished epoch."""
    callback, weights, model = ds.SensitivityCallback(images, **options), Weights(), network()
    fit(model, [callback, weights], epochs=3)
    assert times(callback.table) == expected
    assert times(callback.smoothness_table) == expected
    for (_, step), rows in callback.table.groupby(["epoch", "step"]):
        if step:
            for variable, value in zip(model.variables, weights.at[step]):
                variable.assign(value)
            pd.testing.assert_frame_equal(
                without_time(rows), ds.measure_sensitivity(model, images), rtol=1e-5
            )
            here = callback.smoothness_table[callback.smoothness_table["step"] == step]
            pd.testing.assert_frame_equal(without_time(here), ds.filter_smoothness(model))


class Seen(keras.callbacks.Callback):
    """The time of the last measurement that there is after each batch."""

    def __init__(self, callback):
        super().__init__()
        self.callback, self.last = callback, []

    def on_train_batch_end(self, batch, logs=None):
        self.last.append(times(self.callback.table)[-1])


def test_measurements_are_there_for_callbacks_after_ours(images):
    callback = ds.SensitivityCallback(images, layers=["input"], steps=1)
    seen = Seen(callback)
    fit(quick_network(), [callback, seen], epochs=2)
    assert seen.last == [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6)]


def test_the_model_is_left_alone_while_nothing_can_be_due(images):
    """On JAX each look at it costs a copy of references to all of its state."""
    looks, batches = [], []

    class Watched(ds.SensitivityCallback):
        @property
        def model(self):
            looks.append(len(batches))
            return super().model

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            batches.append(batch)

    model = quick_network()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    callback = Watched(images, layers=["input"], steps=[8])
    model.fit(*data(18), batch_size=1, verbose=0, callbacks=[callback, Count()])
    assert times(callback.table) == [(0, 0), (0, 8)]
    # 8 updates take 16 batches: half of what is missing each time, and the epoch's begin and end.
    assert sorted(set(looks)) == [0, 7, 11, 13, 14, 15, 18]


def test_steps_that_come_between_reports_are_seen_at_the_end_of_the_epoch(images):
    """As with a train_step of several updates."""

    class Jump(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.iterations.assign_add(10)

    callback = ds.SensitivityCallback(images, layers=["input"], steps=[20])
    fit(quick_network(), [callback, Jump()], epochs=1)
    assert times(callback.table) == [(0, 0), (1, 33)]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch has steps_per_execution 1 only")
def test_several_steps_an_execution(images):
    model = quick_network()
    model.compile("sgd", "mse", steps_per_execution=2)
    callback = ds.SensitivityCallback(images, layers=["input"], steps=[1, 4, 9], every=2)
    seen = Seen(callback)
    fit(model, [callback, seen], epochs=3)  # Keras reports after steps 2, 3; 5, 6; 8, 9
    assert times(callback.table) == [(0, 0), (0, 2), (1, 5), (2, 6), (3, 9)]
    assert seen.last == [(0, 2), (0, 2), (1, 5), (1, 5), (2, 6), (3, 9)]


def test_accumulated_gradients_are_one_step(images):
    model = quick_network()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    callback = ds.SensitivityCallback(images, layers=["input"], steps=2)
    fit(model, [callback], epochs=3)  # 9 batches
    assert times(callback.table) == [(0, 0), (1, 2), (2, 4)]
    callback = ds.SensitivityCallback(images, layers=["input"])
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=6), "mse")
    fit(model, [callback], epochs=3)
    assert times(callback.table) == [(0, 0), (1, 0), (2, 1), (3, 1)]  # no epoch is lost


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_data_without_a_length(images, tmp_path):
    """What was measured after the last batch is found to be the epoch's when it ends."""

    def batches():
        for start in range(0, 20, 8):
            yield tuple(part[start:][:8] for part in data())

    callback = ds.SensitivityCallback(images, steps=3, csv_path=tmp_path / "table.csv")
    seen = Seen(callback)
    quick_network().fit(batches(), verbose=0, shuffle=False, callbacks=[callback, seen])
    assert seen.last == [(0, 0), (0, 0), (0, 3)]
    assert times(callback.table) == times(callback.smoothness_table) == [(0, 0), (1, 3)]
    for name in ("table.csv", "table_smoothness.csv"):
        assert times(read_csv(tmp_path / name)) == [(0, 0), (1, 3)]


def test_training_that_is_stopped_within_an_epoch(images):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    callback = ds.SensitivityCallback(images, layers=["input"], steps=[1, 2, 3])
    fit(quick_network(), [callback, Stop()])
    assert times(callback.table) == [(0, 0), (0, 1), (1, 2)]


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch traces nothing")
def test_nothing_is_traced_after_the_first_epoch(images):
    traces = []

    class Noted(layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    inputs = keras.Input((16, 16, 3))
    tensor = layers.Dense(3)(layers.Flatten()(Noted()(layers.Conv2D(2, 3)(inputs))))
    model = keras.Model(inputs, tensor)
    model.compile("sgd", "mse")

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counts.append(len(traces))

    counts = []
    callback = ds.SensitivityCallback(images, steps=1)
    model.fit(*data(16), batch_size=8, epochs=4, verbose=0, callbacks=[callback, Count()])
    assert counts[0] > 0
    assert len(set(counts)) == 1
    fit(model, [callback], epochs=1)


def test_models_are_not_kept(images):
    callback = ds.SensitivityCallback(images, layers=["input"], steps=1)
    model = quick_network()
    fit(model, [callback], epochs=1)
    gone = weakref.ref(model)
    callback.set_model(None)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


# ---- fit called again ----


def test_training_may_go_on(images):
    callback = ds.SensitivityCallback(images, layers=["input", "last"])
    model = quick_network()
    fit(model, [callback], epochs=2)
    before = callback.table
    fit(model, [callback], epochs=4, initial_epoch=2)
    assert times(callback.table) == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)]
    pd.testing.assert_frame_equal(callback.table.head(len(before)), before)
    assert times(callback.smoothness_table) == times(callback.table)


def test_epochs_may_begin_again_at_zero(images):
    """Steps go on: nothing is measured twice, and nothing is dropped."""
    callback = ds.SensitivityCallback(images, layers=["input"])
    model = quick_network()
    fit(model, [callback], epochs=2)
    fit(model, [callback], epochs=2)
    assert times(callback.table) == [(0, 0), (1, 3), (2, 6), (1, 9), (2, 12)]
    rare = ds.SensitivityCallback(images, layers=["input"], every=2)
    fit(model, [rare], epochs=3)
    fit(model, [rare], epochs=1)  # its start had not been measured
    assert times(rare.table) == [(0, 12), (2, 18), (0, 21)]


def test_steps_go_on(images):
    callback = ds.SensitivityCallback(images, layers=["input"], steps=[2, 5, 8])
    model = quick_network()
    fit(model, [callback], epochs=1)
    fit(model, [], epochs=1)  # without it: step 5 has passed
    fit(model, [callback], epochs=1)
    fit(model, [callback], epochs=1)
    assert times(callback.table) == [(0, 0), (0, 2), (0, 6), (0, 8)]


def test_a_new_model_is_measured_anew(images):
    callback = ds.SensitivityCallback(images)
    fit(network(0), [callback])
    model = network(1)
    start = ds.measure_sensitivity(model, images)
    fit(model, [callback])
    assert times(callback.table) == times(callback.smoothness_table) == [(0, 0), (1, 3), (2, 6)]
    assert without_time(callback.table[callback.table["step"] == 0]).equals(start)


def test_weights_set_back_take_later_rows_with_them(images, tmp_path):
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 8:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    callback = ds.SensitivityCallback(images, layers=["input", "last"], steps=1)
    model = quick_network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, backup, Fail()], epochs=3)
    before = callback.table
    assert times(before)[-1] == (2, 8)
    fit(model, [callback, backup], epochs=3)
    assert times(callback.table) == [*times(before), (3, 9)]
    upto = before["step"] <= 6
    pd.testing.assert_frame_equal(callback.table[: upto.sum()], before[upto])
    assert times(before)[-1] == (2, 8)  # a table that was given away stays as it was


def test_a_training_that_starts_later_is_measured_at_its_start(images):
    callback = ds.SensitivityCallback(images, layers=["input"], every=2)
    fit(quick_network(), [callback], epochs=6, initial_epoch=3)
    assert callback.table["epoch"].tolist() == [3, 4, 6]


def test_epochs_without_a_step_are_measured_once(images, tmp_path):
    """Epoch 3 ends in the middle of an accumulated gradient, and a second time."""

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    callback, model = ds.SensitivityCallback(images, layers=["input"]), quick_network()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=6), "mse")
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Fail(), backup], epochs=4)
    assert times(callback.table) == [(0, 0), (1, 0), (2, 1), (3, 1)]
    fit(model, [callback, backup], epochs=4)
    assert times(callback.table) == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    assert len(callback.table) == len(callback.smoothness_table) == 5


def test_models_without_convolutions(images, tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", "mse")
    callback = ds.SensitivityCallback(images, csv_path=tmp_path / "table.csv")
    fit(model, [callback], epochs=1)
    assert callback.table["epoch"].drop_duplicates().tolist() == [0, 1]
    assert callback.smoothness_table.empty
    assert list(callback.smoothness_table.columns) == ["epoch", "step", *SMOOTHNESS_COLUMNS]
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["table.csv", "table_training.json"]


def test_tables_are_there_before_training(images):
    callback = ds.SensitivityCallback(images)
    assert callback.table.empty
    assert list(callback.table.columns) == list(TYPES)


@pytest.mark.parametrize("every", [0, -1, 1.5, "1", True])
def test_impossible_epochs(images, every):
    with pytest.raises(ValueError, match=r"every must be an int of at least 1 epochs, received"):
        ds.SensitivityCallback(images, every=every)


@pytest.mark.parametrize(
    "steps",
    [
        *(0, -1, 1.5, True, "logs", "", [], (), [1.0], [-1], ["1"], [True], {1}, np.array(1.0)),
        *(np.array([[1, 2]]), np.array([0.5]), np.zeros(0, int)),
    ],
)
def test_impossible_steps(images, steps):
    message = r'steps must be an int of .* a list of steps .* "log" .* or None, received'
    with pytest.raises(ValueError, match=message) as error:
        ds.SensitivityCallback(images, steps=steps)
    assert str(error.value).endswith(repr(steps))


@pytest.mark.parametrize(
    ("steps", "due"),
    [
        (None, []),
        (np.int32(7), [7, 14, 21, 28, 35, 42, 49]),
        ("log", [1, 2, 4, 8, 16, 32]),
        ([40, 0, 3, 3], [3, 40]),
        (range(0, 50, 20), [20, 40]),
        (np.array([1, 2]), [1, 2]),
    ],
)
def test_schedules(steps, due):
    following, found, step = next_step(steps), [], 0
    while (step := following(step)) <= 50:
        found.append(step)
    assert found == due
    for step in range(50):
        assert min(following(step), 51) == min([each for each in due if each > step], default=51)


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
    with pytest.raises(ValueError, match="return_distances"):
        ds.SensitivityCallback(images, return_distances=True)
    with pytest.raises(TypeError, match="metrics"):
        ds.SensitivityCallback(images, metrics="cosine")
