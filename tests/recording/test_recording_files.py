"""The life of a recording's files: each row of the table in `deformstab.recording.files`."""

import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, TESTS, natural_images, randomize
from keras import layers
from test_callbacks_resume import IMAGES, TYPES, fit, network, ours_in, times

import deformstab as ds
from deformstab.tables import read_csv, write_csv

FILES = ("table.csv", "table_smoothness.csv", "table_training.json")


class Keep(keras.callbacks.Callback):
    """Copies files and weights after each step, listed after ours."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def save(self, step):
        (self.folder / str(step)).mkdir()
        self.model.save_weights(self.folder / f"{step}/model.weights.h5")
        for name in FILES:
            shutil.copy(self.folder / name, self.folder / str(step))

    def on_train_batch_begin(self, batch, logs=None):
        if not (self.folder / "0").exists():
            self.save(0)

    def on_epoch_end(self, epoch, logs=None):
        self.save(epoch + 1)


@pytest.fixture(scope="module")
def kept():
    """A training of two epochs, a step each: `finished`, and after each step files and weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        fit(network(), ours_in(folder), Keep(folder), epochs=2)
        (folder / "finished").mkdir()
        for file in FILES:
            shutil.copy(folder / file, folder / "finished")
        yield folder


@pytest.fixture
def interrupted(kept, tmp_path):
    """The files of the training after its second step: it was killed then."""
    return copy(kept / "2", tmp_path)


@pytest.fixture
def finished(kept, tmp_path):
    return copy(kept / "finished", tmp_path)


def copy(source, folder):
    for file in FILES:
        shutil.copy(source / file, folder)
    return folder


def model_at(kept, step):
    """A new object with the weights and the optimizer of a step."""
    model = network()
    if step:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(kept / f"{step}/model.weights.h5")
    return model


def other_network(seed=7):
    """Of the same layers, with other weights."""
    model = network()
    randomize(model, seed)
    return model


def on_disk(folder):
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def assert_continued(callback, folder, before, expected, kept=None):
    """The files have these times, and the first rows are those from before, unchanged."""
    assert times(callback.table) == times(callback.smoothness_table) == expected
    pd.testing.assert_frame_equal(read_csv(folder / "table.csv", TYPES), callback.table)
    kept = len(expected) - 1 if kept is None else kept
    found = read_csv(folder / "table.csv", TYPES)
    found = found[[time in expected[:kept] for time in zip(found["epoch"], found["step"])]]
    pd.testing.assert_frame_equal(found, before.head(len(found)))
    assert len(found) == 2 * kept


def assert_refused(folder, message, call):
    before = on_disk(folder)
    with pytest.raises(ValueError, match=message):
        call()
    assert on_disk(folder) == before
    assert not list(folder.glob(".*"))  # no lock, nothing half written


# ---- nothing there ----


@pytest.mark.parametrize("empty", [(), FILES[:1], FILES[:2]])
def test_new(tmp_path, empty):
    for name in empty:
        (tmp_path / name).touch()
    callback = fit(network(), ours_in(tmp_path), epochs=2)
    assert times(callback.table) == [(0, 0), (1, 1), (2, 2)]
    assert set(on_disk(tmp_path)) == set(FILES)
    # The files are those that the tables as a whole would give, byte for byte.
    for table, name in ((callback.table, FILES[0]), (callback.smoothness_table, FILES[1])):
        write_csv(table, tmp_path / "expected.csv")
        assert (tmp_path / name).read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_a_file_of_the_users_is_not_taken_for_a_record(tmp_path):
    (tmp_path / FILES[2]).write_text('{"learning_rate": 0.1}')
    message = r"table_training\.json holds something else .*no record of a training"
    assert_refused(tmp_path, message, lambda: fit(network(), ours_in(tmp_path), epochs=1))


# ---- interrupted ----


def test_interrupted_and_continued_at_its_last_step(kept, interrupted):
    before = read_csv(interrupted / "table.csv", TYPES)
    model = model_at(kept, 2)
    callback = fit(model, ours_in(interrupted), epochs=3, initial_epoch=2)
    assert_continued(callback, interrupted, before, [(0, 0), (1, 1), (2, 2), (3, 3)])


def test_interrupted_and_continued_from_a_later_step(kept, interrupted):
    """A checkpoint that was written after the last record: the optimizer's count tells the step."""
    before = read_csv(interrupted / "table.csv", TYPES)
    model = model_at(kept, 2)
    model.fit(natural_images(20, seed=3), np.zeros((20, 3)), batch_size=4, verbose=0)
    callback = fit(model, ours_in(interrupted), epochs=4, initial_epoch=3)
    assert_continued(
        callback, interrupted, before, [(0, 0), (1, 1), (2, 2), (3, 7), (4, 8)], kept=3
    )


@pytest.mark.parametrize("step", [0, 1])
def test_interrupted_and_set_back(kept, interrupted, step):
    """To a checkpoint, or to its start before the first one: what follows is as it was."""
    before = read_csv(interrupted / "table.csv", TYPES)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(times(read_csv(interrupted / "table.csv", TYPES)))
            seen.append(times(read_csv(interrupted / "table_smoothness.csv")))

    model = model_at(kept, step)
    callback = fit(model, ours_in(interrupted), Look(), epochs=2, initial_epoch=step)
    expected = [(0, 0), (1, 1), (2, 2)]
    assert_continued(callback, interrupted, before, expected, kept=step + 1)
    assert seen[:2] == [expected[: step + 1]] * 2  # gone before an epoch has passed
    pd.testing.assert_frame_equal(callback.table, before, rtol=1e-4)


@pytest.mark.parametrize("state", ["1", "finished"])
@pytest.mark.parametrize("batches", [0, 1, 5])
def test_another_training_is_refused(kept, tmp_path, state, batches):
    """New weights; or another training, as far as this one, or farther."""
    copy(kept / state, tmp_path)
    model, x = other_network(), natural_images(20, seed=4)
    if batches:
        model.fit(x, np.ones((20, 3)), batch_size=20, epochs=batches, verbose=0)
    message = (
        rf"table\.csv holds a training that was {'finished' if state != '1' else 'interrupted'} at "
        r"epoch \d, step \d, and the model's weights are not of that training.*move or delete .*"
        r"table\.csv and .*table_smoothness\.csv, or pass another csv_path"
    )
    begin = {"epochs": batches + 1, "initial_epoch": batches}
    assert_refused(tmp_path, message, lambda: fit(model, ours_in(tmp_path), **begin))


# ---- finished ----


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("epoch", [0, 2])
def test_finished_and_gone_on(kept, finished, compiled, epoch):
    before = read_csv(finished / "table.csv", TYPES)
    model = model_at(kept, 2)
    if compiled:
        model.compile(keras.optimizers.Adam(0.01), "mse")
    callback = fit(model, ours_in(finished), epochs=epoch + 1, initial_epoch=epoch)
    assert_continued(callback, finished, before, [(0, 0), (1, 1), (2, 2), (epoch + 1, 3)])
    # A training that began with another optimizer is continued as well.
    again = fit(model, ours_in(finished), epochs=epoch + 2, initial_epoch=epoch + 1)
    assert times(again.table) == [(0, 0), (1, 1), (2, 2), (epoch + 1, 3), (epoch + 2, 4)]


def test_finished_and_gone_on_from_its_best_weights(kept, finished):
    before = read_csv(finished / "table.csv", TYPES)
    model = network()
    model.set_weights(model_at(kept, 1).get_weights())
    model.compile(keras.optimizers.Adam(0.01), "mse")
    callback = fit(model, ours_in(finished), epochs=3, initial_epoch=2)
    assert_continued(callback, finished, before, [(0, 0), (1, 1), (2, 2), (3, 3)])


def test_gone_on_from_best_weights_and_interrupted(kept, finished):
    """The rows of that step are those of other weights: nothing is wrong with them."""
    best = model_at(kept, 1).get_weights()
    stop = keras.callbacks.LambdaCallback(on_train_batch_begin=_interrupt)
    for others, expected in (([stop], None), ([], [(0, 0), (1, 1), (2, 2), (3, 3)])):
        model = network()
        model.set_weights(best)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        callback = ours_in(finished)
        arguments = {"epochs": 3, "initial_epoch": 2}
        if others:
            with pytest.raises(KeyboardInterrupt):
                fit(model, callback, *others, **arguments)
        else:
            assert times(fit(model, callback, **arguments).table) == expected


def _interrupt(batch, logs=None):
    raise KeyboardInterrupt


def test_weights_that_the_optimizer_puts_in_at_the_end(tmp_path):
    """Moving averages of the weights, which `fit` ends with: a model saved after it goes on."""
    model = network()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    fit(model, ours_in(tmp_path), epochs=2)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    model.compile("sgd", "mse")
    callback = fit(model, ours_in(tmp_path), epochs=1)
    assert times(callback.table) == [(0, 0), (1, 1), (2, 2), (1, 3)]


@pytest.mark.parametrize("step", [0, 1])
def test_finished_and_set_back_is_refused(kept, finished, step):
    """With step 0: a script that is run again, with the same seeds."""
    message = (
        r"table\.csv holds a training that was finished at epoch 2, step 2, and this one begins at "
        rf"its step {step}, so that later rows would be lost\. Its rows are not overwritten: move"
    )
    model = model_at(kept, step)
    arguments = {"epochs": 2, "initial_epoch": step}
    assert_refused(finished, message, lambda: fit(model, ours_in(finished), **arguments))


# ---- another model, something else ----


def wider():
    """Of equal names and classes."""
    inputs = keras.Input((16, 16, 3))
    tensor = layers.Conv2D(4, 3, name="convolution")(inputs)
    tensor = layers.BatchNormalization(name="normalization")(tensor)
    model = keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(tensor)))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


def test_a_model_of_equal_names_is_refused(finished):
    model = wider()
    message = "the model is another one: of other layers or shapes"
    assert_refused(finished, message, lambda: fit(model, ours_in(finished), epochs=1))
    model.fit(natural_images(20), np.zeros((20, 3)), batch_size=4, verbose=0)  # 5 steps
    call = functools.partial(fit, model, ours_in(finished), epochs=6, initial_epoch=5)
    assert_refused(finished, message, call)


def test_another_function_of_the_same_weights_is_refused(kept, finished):
    model = model_at(kept, 2)
    model.get_layer("last").activation = keras.activations.softmax
    message = "other sensitivities of the same weights, at step 2"
    call = functools.partial(fit, model, ours_in(finished), epochs=3, initial_epoch=2)
    assert_refused(finished, message, call)


def rows(order):
    """Rows of the table in another order, or more or fewer of them."""
    return lambda folder: write_csv(
        read_csv(folder / "table.csv", TYPES).iloc[order], folder / "table.csv"
    )


def twice(folder):
    lines = (folder / "table.csv").read_text().splitlines(keepends=True)
    (folder / "table.csv").write_text("".join(lines + lines[1:]))


ORDER = "its rows are doubled, missing or out of order"


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (twice, ORDER),
        (rows([0, 1, 2, 3, 4, 5, 5]), ORDER),
        (rows([0, 1, 2, 3, 4]), ORDER),
        (rows([0, 0, 2, 3, 4, 5]), ORDER),
        (rows([1, 0, 2, 3, 4, 5]), ORDER),
        (rows([2, 3, 0, 1, 4, 5]), ORDER),
        (rows([0, 1, 4, 5, 2, 3]), ORDER),
        (rows([0, 2, 1, 3, 4, 5]), ORDER),
        (rows([0, 1, 4, 5]), "they are not of the same times"),
        (lambda folder: (folder / FILES[2]).unlink(), "record table_training.json is missing"),
        (lambda folder: (folder / FILES[2]).write_text("{"), "no record of a training"),
        (lambda folder: (folder / FILES[2]).write_text("{}"), "no record of a training"),
        (lambda folder: (folder / FILES[2]).write_bytes(b"\xff\x00"), "no record of a training"),
        (lambda folder: shutil.rmtree(folder / "other"), None),
    ],
)
def test_damaged_files_are_refused(kept, finished, do, why):
    (finished / "other").mkdir()
    do(finished)
    call = functools.partial(fit, model_at(kept, 2), ours_in(finished), epochs=3, initial_epoch=2)
    if why is None:  # the case is told apart from what always fails
        assert times(call().table)[-1] == (3, 3)
    else:
        assert_refused(finished, why, call)


# ---- one object again ----


def test_what_was_changed_since_is_refused_and_what_was_deleted_is_written_again(tmp_path):
    callback, model = ours_in(tmp_path), network()
    fit(model, callback, epochs=1)
    others = (tmp_path / FILES[0]).read_text().replace("last", "tail")
    (tmp_path / FILES[0]).write_text(others)
    message = r"table\.csv was changed by something else since this callback wrote it"
    call = functools.partial(fit, model, callback, epochs=2, initial_epoch=1)
    assert_refused(tmp_path, message, call)
    for name in FILES:
        (tmp_path / name).unlink()
    call()
    assert times(callback.table) == times(callback.smoothness_table) == [(0, 0), (1, 1), (2, 2)]
    pd.testing.assert_frame_equal(read_csv(tmp_path / FILES[0], TYPES), callback.table)
    assert set(on_disk(tmp_path)) == set(FILES)


@pytest.mark.parametrize("convolutions", [True, False])
def test_an_object_used_again_on_another_model(tmp_path, convolutions):
    """Its files are not overwritten; in memory, or after they were moved, it begins anew."""
    other, first = network(convolutions), network()
    randomize(other, 7)
    callback = fit(first, ours_in(tmp_path), epochs=1)
    old = callback.table
    why = "weights are not of that training" if convolutions else "of other layers or shapes"
    assert_refused(tmp_path, why, lambda: fit(other, callback, epochs=1))
    assert callback.table.equals(old)
    expected = ds.measure_sensitivity(other, IMAGES, layers=["input", "last"])
    for name in FILES:
        (tmp_path / name).unlink()
    fit(other, callback, epochs=1)
    assert times(callback.table) == [(0, 0), (1, 1)]
    assert times(callback.smoothness_table) == ([(0, 0), (1, 1)] if convolutions else [])
    start = callback.table[callback.table["step"] == 0].drop(columns=["epoch", "step"])
    pd.testing.assert_frame_equal(start, expected)
    pd.testing.assert_frame_equal(read_csv(tmp_path / FILES[0], TYPES), callback.table)
    assert (FILES[1] in on_disk(tmp_path)) is convolutions


@pytest.mark.parametrize("convolutions", [True, False])
def test_an_object_without_files_used_again_on_another_model(convolutions):
    callback = ds.SensitivityCallback(IMAGES, layers=["input", "last"])
    fit(network(), callback, epochs=2)
    other = network(convolutions)
    randomize(other, 7)
    # As many steps as the first one has: its count would fit.
    other.fit(natural_images(20, seed=3), np.zeros((20, 3)), batch_size=10, verbose=0)
    fit(other, callback, epochs=1)
    assert times(callback.table) == [(0, 2), (1, 3)]
    assert times(callback.smoothness_table) == ([(0, 2), (1, 3)] if convolutions else [])


def test_a_model_that_was_loaded_again_goes_on(tmp_path):
    callback = ds.SensitivityCallback(IMAGES, layers=["input", "last"])
    model = network()
    fit(model, callback, epochs=2)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    fit(model, callback, epochs=3, initial_epoch=2)
    assert times(callback.table) == [(0, 0), (1, 1), (2, 2), (3, 3)]


# ---- one writer at a time ----

HOLDER = """
import pathlib, sys, time, keras
from test_callbacks_resume import fit, network, ours_in

class Wait(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("training", flush=True)
        time.sleep(600)

fit(network(), ours_in(pathlib.Path(sys.argv[1])), Wait(), epochs=1)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    path = os.pathsep.join(map(str, [ROOT, TESTS, TESTS / "recording"]))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout.readline() == "training\n"
        before = on_disk(tmp_path)
        assert set(before) == set(FILES)
        message = r"csv_path: another process is writing .*table\.csv: wait for it, or pass another"
        with pytest.raises(ValueError, match=message):
            fit(network(), ours_in(tmp_path), epochs=1)
        assert on_disk(tmp_path) == before
        (tmp_path / "other").mkdir()
        assert len(fit(network(), ours_in(tmp_path / "other"), epochs=1).table) == 4
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    callback = fit(network(), ours_in(tmp_path), epochs=1)
    assert times(callback.table) == [(0, 0), (1, 1)]
    assert not list(tmp_path.glob(".*"))


def test_two_callbacks_of_one_training_are_refused(tmp_path):
    both = ours_in(tmp_path), ours_in(tmp_path)
    with pytest.raises(ValueError, match="something else in this process has begun to write"):
        fit(network(), *both, epochs=1)
    assert not (tmp_path / "table.csv").exists()


def test_two_threads_are_refused(tmp_path):
    """The second one, and the first goes on."""
    errors = []

    def train():
        try:
            fit(other_network(), ours_in(tmp_path), epochs=1)
        except ValueError as error:
            errors.append(str(error))

    class Other(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()

    callback = fit(network(), ours_in(tmp_path), Other(), epochs=1)
    assert len(errors) == 1
    assert "another thread is writing" in errors[0]
    assert times(read_csv(tmp_path / "table.csv", TYPES)) == times(callback.table)


def test_a_training_that_failed_holds_nobody_up(tmp_path):
    """An exception ends it without a word to callbacks, and the object may still be there."""

    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    failed = ours_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), failed, Fail(), epochs=1)
    callback = fit(network(), ours_in(tmp_path), epochs=1)
    assert times(callback.table) == [(0, 0), (1, 1)]
    assert times(failed.table) == [(0, 0)]
    assert not list(tmp_path.glob(".*"))


# ---- paths ----


@pytest.mark.parametrize(
    "csv_path", [5, True, 1.5, b"table.csv", ["table.csv"], "", "folder/", "a\0b"]
)
def test_what_is_no_path_is_refused_at_once(csv_path):
    with pytest.raises(ValueError, match=r"csv_path must be the path of a file.*received") as error:
        ds.SensitivityCallback(IMAGES, csv_path=csv_path)
    assert str(error.value).endswith(repr(csv_path))


@pytest.mark.parametrize("name", [*FILES, "null"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / "table.csv"
    if name == "null":
        path = pathlib.Path(os.devnull)
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=rf"csv_path: .*{name} is not a file"):
        ds.SensitivityCallback(IMAGES, csv_path=path)


@pytest.mark.parametrize("name", ["file/table.csv", "file/new/table.csv", f"{300 * 'x'}.csv"])
def test_where_nothing_can_be_written_nothing_is_trained(tmp_path, name):
    (tmp_path / "file").touch()
    callback = ds.SensitivityCallback(IMAGES, csv_path=tmp_path / name)
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"csv_path: .*\.csv cannot be written: "):
        fit(model, callback, epochs=1)
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_path_stays_where_it_was(tmp_path, monkeypatch):
    """A process may go to another folder meanwhile."""
    monkeypatch.chdir(tmp_path)
    callback = ds.SensitivityCallback(IMAGES, layers=["input"], csv_path="table.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fit(network(), callback, epochs=1)
    assert set(on_disk(tmp_path)) == set(FILES)
    assert not list((tmp_path / "elsewhere").iterdir())
