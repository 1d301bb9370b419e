"""Steps and rows of models that train in ways of their own, and that are compiled anew."""

import functools

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, needs_tensorflow
from keras import layers
from test_callbacks import fit, quick_network, times, without_time

import deformstab as ds
from deformstab.tables import read_csv

NONE = "rmsprop" if BACKEND == "jax" else None  # Keras on JAX trains no model without one


def watcher(images, **options):
    return ds.SensitivityCallback(images, layers=["input", "last"], **options)


class OwnWay(keras.Model):
    """It shrinks its weights at each batch; Keras' optimizer, where there is one, counts nothing."""

    def train_step(self, *args):
        if BACKEND == "jax":
            (trainable, *others), _ = args
            return {"loss": 0.0}, ([0.9 * value for value in trainable], *others)
        for variable in self.trainable_variables:
            variable.assign(0.9 * variable)
        return {"loss": 0.0}


class Wrapped(keras.Model):
    """As Keras trains, in a method of its own."""

    def train_step(self, *args, **kwargs):
        return super().train_step(*args, **kwargs)


def own_model(kind=OwnWay, optimizer="rmsprop", **options):
    given = quick_network()
    model = kind(given.inputs, given.outputs)
    model.compile(optimizer, "mse", **options)
    return model


# ---- a new optimizer ----


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("options", [{}, {"steps": "log"}, {"steps": 2, "every": 2}])
def test_a_new_optimizer_keeps_every_row(images, tmp_path, optimizer, options):
    """Fine-tuning: `fit`, `compile`, `fit`; 3 steps an epoch."""
    callback, model = watcher(images, csv_path=tmp_path / "table.csv", **options), quick_network()
    fit(model, [callback], epochs=3)
    before, start = callback.table, times(callback.table)
    model.get_layer("convolution").trainable = False
    model.compile(optimizer, "mse")
    fit(model, [callback], epochs=5, initial_epoch=3)
    later = {
        "{}": [(4, 12), (5, 15)],
        "{'steps': 'log'}": [(5, 16)][:0],
        "{'steps': 2, 'every': 2}": [(3, 10), (4, 12), (4, 14)],
    }[str(options)]
    assert times(callback.table) == times(callback.smoothness_table) == [*start, *later]
    pd.testing.assert_frame_equal(callback.table.head(len(before)), before)
    assert times(read_csv(tmp_path / "table.csv")) == times(callback.table)
    last = callback.table[callback.table["step"] == 15].drop(columns=["epoch", "step"])
    if len(last):
        expected = ds.measure_sensitivity(model, images, layers=["input", "last"])
        pd.testing.assert_frame_equal(last.reset_index(drop=True), expected)


def test_new_optimizers_again_and_again(images):
    """Epochs may begin at 0, a training may end within one, or go on without the callback."""

    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    callback, model = watcher(images), quick_network()
    fit(model, [callback], epochs=1)
    model.compile("adam", "mse")
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Fail()], epochs=1)  # 2 batches
    model.compile("sgd", "mse")
    fit(model, [callback], epochs=1)
    assert times(callback.table) == [(0, 0), (1, 3), (0, 5), (1, 8)]
    fit(model, [], epochs=1)
    fit(model, [callback], epochs=1)
    assert times(callback.table)[4:] == [(0, 11), (1, 14)]
    model.optimizer.iterations.assign(0)  # a schedule of learning rates that begins again
    fit(model, [callback], epochs=1)
    assert times(callback.table)[6:] == [(1, 17)]


def test_best_weights_that_were_restored_keep_every_row(images):
    """By EarlyStopping: the weights are earlier ones, the training is not."""
    callback, model = watcher(images), quick_network()
    worse = keras.callbacks.LambdaCallback(on_epoch_end=lambda n, logs: logs.update(worse=n))
    stopping = keras.callbacks.EarlyStopping(
        "worse", patience=2, mode="min", restore_best_weights=True
    )
    fit(model, [callback, worse, stopping], epochs=9)
    before = [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert times(callback.table) == before
    first = callback.table[callback.table["epoch"] == 1]
    expected = ds.measure_sensitivity(model, images, layers=["input", "last"])
    pd.testing.assert_frame_equal(without_time(first), expected)  # they are those of epoch 1
    fit(model, [callback], epochs=4, initial_epoch=3)
    model.set_weights([0.99 * each for each in model.get_weights()])
    model.compile("sgd", "mse")
    fit(model, [callback], epochs=5, initial_epoch=4)
    assert times(callback.table) == [*before, (4, 12), (5, 15)]


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_and_count_set_back_take_later_rows_with_them(images, tmp_path, compiled):
    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.save_weights(tmp_path / f"{epoch + 1}.weights.h5")

    callback, model = watcher(images), quick_network()
    fit(model, [callback, Save()], epochs=3)
    before = callback.table
    if compiled:  # a new optimizer takes up the count of the old one
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
    model.load_weights(tmp_path / "1.weights.h5")
    fit(model, [callback], epochs=2, initial_epoch=1)
    assert times(callback.table) == [(0, 0), (1, 3), (2, 6)]
    pd.testing.assert_frame_equal(callback.table.head(4), before.head(4))


def test_weights_and_epoch_set_back_take_later_rows_with_them(images):
    """Without the optimizer's state, which such a checkpoint does not have."""
    callback, model = watcher(images), quick_network()
    fit(model, [callback], epochs=1)
    weights = model.get_weights()
    fit(model, [callback], epochs=3, initial_epoch=1)
    model.set_weights(weights)
    model.compile("sgd", "mse")
    fit(model, [callback], epochs=2, initial_epoch=1)
    assert times(callback.table) == [(0, 0), (1, 3), (2, 6)]


def test_new_weights_in_the_same_model_are_a_new_training(images):
    callback, model = watcher(images), quick_network()
    fit(model, [callback], epochs=2)
    model.set_weights(quick_network().get_weights())
    model.compile("sgd", "mse")
    expected = ds.measure_sensitivity(model, images, layers=["input", "last"])
    fit(model, [callback], epochs=1)
    assert times(callback.table) == [(0, 0), (1, 3)]
    start = callback.table[callback.table["step"] == 0]
    pd.testing.assert_frame_equal(without_time(start), expected)


# ---- no optimizer that counts ----


@pytest.mark.parametrize("optimizer", ["rmsprop", NONE])
def test_batches_are_counted_where_no_optimizer_counts(images, optimizer):
    model, callback = own_model(optimizer=optimizer), watcher(images, steps="log", every=2)
    fit(model, [callback], epochs=2)
    assert times(callback.table) == [(0, 0), (0, 1), (0, 2), (1, 4), (2, 6)]
    fit(model, [callback], epochs=3, initial_epoch=2)
    fit(model, [callback], epochs=1)
    expected = [(0, 0), (0, 1), (0, 2), (1, 4), (2, 6), (2, 8), (0, 9)]
    assert times(callback.table) == times(callback.smoothness_table) == expected
    model.compile(optimizer, "mse")
    fit(model, [callback], epochs=2)
    assert times(callback.table) == [*expected, (1, 16), (2, 18)]


def test_their_weights_are_those_of_the_time(images):
    """Each batch multiplies kernels and biases by 0.9; so the total variation's numbers follow."""
    callback = ds.SensitivityCallback(images, steps=1)
    fit(own_model(), [callback], epochs=2)
    norms = callback.smoothness_table["norm"].to_numpy()
    np.testing.assert_allclose(norms / norms[0], 0.9 ** np.arange(7), rtol=1e-5)
    assert callback.smoothness_table["step"].tolist() == list(range(7))


def test_epochs_alone_of_a_model_without_a_count(images):
    callback, model = watcher(images), own_model()
    fit(model, [callback], epochs=2)
    fit(model, [callback], epochs=4, initial_epoch=2)
    assert times(callback.table) == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch has steps_per_execution 1 only")
def test_batches_of_several_an_execution(images):
    callback, model = watcher(images, steps=[1, 4]), own_model(steps_per_execution=2)
    fit(model, [callback], epochs=2)  # Keras reports after batches 2, 3; 5, 6
    assert times(callback.table) == [(0, 0), (0, 2), (1, 5)]


@pytest.mark.parametrize("accumulated", [None, 2])
def test_a_train_step_of_its_own_with_keras_optimizer_counts_its_updates(images, accumulated):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulated)
    callback, model = watcher(images, steps=1), own_model(Wrapped, optimizer)
    fit(model, [callback], epochs=2)
    count = 6 // (accumulated or 1)
    assert [step for _, step in times(callback.table)] == list(range(count + 1))
    fit(model, [callback], epochs=2)
    assert times(callback.table)[-1] == (2, 2 * count)


def test_interrupted_and_set_back_without_a_count(images, tmp_path):
    """The epoch and the weights tell where it is, in another object."""

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    backup = functools.partial(keras.callbacks.BackupAndRestore, tmp_path / "backup")
    files = {"csv_path": tmp_path / "table.csv", "steps": 2, "every": 1}
    callback, model = watcher(images, **files), own_model(optimizer=NONE)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Fail(), backup()], epochs=3)
    before = callback.table
    assert times(before) == [(0, 0), (0, 2), (1, 3), (1, 4), (2, 6)]
    new = own_model(optimizer=NONE)  # as a new process has it
    callback = watcher(images, **files)
    fit(new, [callback, backup()], epochs=3)
    expected = [(0, 0), (0, 2), (1, 3), (1, 4), (2, 6), (2, 8), (3, 9)]
    assert times(callback.table) == expected
    pd.testing.assert_frame_equal(callback.table.head(len(before)), before, rtol=1e-5)


@needs_tensorflow
def test_a_generative_adversarial_network(images):
    """Two optimizers of its own; a second `fit` keeps the rows of the first."""
    import tensorflow as tf

    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.discriminator = quick_network()
            self.generator = keras.Sequential([layers.Dense(16 * 16 * 3)])
            self.reshape = layers.Reshape((16, 16, 3))

        def compile(self, d_optimizer, g_optimizer):
            super().compile()
            self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

        def build(self, shape):
            self.generator.build((None, 4))

        def call(self, x):
            return self.discriminator(x)

        def made(self, count):
            return self.reshape(self.generator(tf.random.normal((count, 4))))

        def train_step(self, data):
            x = tf.cast(data[0], "float32")
            with tf.GradientTape() as tape:
                scores = self.discriminator(x) - self.discriminator(self.made(tf.shape(x)[0]))
                loss = tf.reduce_mean(tf.square(scores))
            weights = self.discriminator.trainable_weights
            self.d_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.discriminator(self.made(tf.shape(x)[0])))
            weights = self.generator.trainable_weights
            self.g_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
            return {"loss": loss}

    model = Gan()
    model.build(images.shape)
    model(images)
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01))
    callback = ds.SensitivityCallback(images, layers=["input", "*/last"], steps="log")
    fit(model, [callback], epochs=2)
    fit(model, [callback], epochs=4, initial_epoch=2)
    assert times(callback.table) == [(0, 0), (0, 1), (0, 2), (1, 4), (2, 8)]
    assert int(model.d_optimizer.iterations) == 12
    assert callback.table["sensitivity"].nunique() > 5


def test_an_optimizer_that_is_set_back_within_fit(images):
    """A callback that restores weights when a loss explodes: no later steps are left behind."""

    class Restore(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.weights = self.model.get_weights()
            if epoch == 1:
                self.model.set_weights(self.weights)
                self.model.optimizer.iterations.assign(3)

    callback = watcher(images)
    fit(quick_network(), [callback, Restore()], epochs=3)
    assert times(callback.table) == [(0, 0), (1, 3), (3, 6)]


@pytest.mark.parametrize("every", [False, np.True_])
def test_booleans_are_no_epochs_and_no_steps(images, every):
    with pytest.raises(ValueError, match="every must be an int"):
        ds.SensitivityCallback(images, every=every)
    with pytest.raises(ValueError, match="steps must be an int"):
        ds.SensitivityCallback(images, steps=every)
    with pytest.raises(ValueError, match="steps must be an int"):
        ds.SensitivityCallback(images, steps=[1, every])


@pytest.mark.parametrize("logs", [None, 1, "loss"])
def test_logs_are_on_or_off(images, logs):
    with pytest.raises(ValueError, match="logs must be True or False, received"):
        ds.SensitivityCallback(images, logs=logs)
