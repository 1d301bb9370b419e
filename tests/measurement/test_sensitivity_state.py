"""What measure_sensitivity keeps between calls, and what it leaves untouched."""

import copy
import gc
import pickle
import random
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, needs_tensorflow, numpy, randomize, small_network
from keras import layers

import deformstab as ds

# ---- what is kept between calls ----


def test_later_weights_are_seen(images, network):
    before = ds.measure_sensitivity(network, images)
    weights = network.get_weights()
    randomize(network, seed=9)
    fresh = small_network(seed=9)
    assert ds.measure_sensitivity(network, images).equals(ds.measure_sensitivity(fresh, images))
    network.set_weights(weights)
    assert ds.measure_sensitivity(network, images).equals(before)


def test_layers_added_and_removed_later_are_seen(images):
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(3, 3, name="stays")])
    for number in range(4):
        name = f"comes_and_goes{number}"
        model.add(layers.Conv2D(2 + number, 3, name=name))
        table = ds.measure_sensitivity(model, images)
        assert table["layer"].tolist() == ["input", "stays", name]
        copied = keras.models.clone_model(model)
        copied.set_weights(model.get_weights())
        assert table.equals(ds.measure_sensitivity(copied, images))
        model.pop()
        assert ds.measure_sensitivity(model, images)["layer"].tolist() == ["input", "stays"]
        gc.collect()


class Counting(layers.Layer):
    """Counts how often Python passes through it."""

    calls = 0

    def call(self, images):
        Counting.calls += 1
        return images


@needs_tensorflow
def test_a_second_call_does_not_trace(images):
    model = keras.Sequential([keras.Input((16, 16, 3)), Counting(), layers.Flatten()])
    first = ds.measure_sensitivity(model, images, batch_size=5)
    calls = Counting.calls
    assert ds.measure_sensitivity(model, images, batch_size=5).equals(first)
    for arguments in (
        {"seed": 1},
        {"intervals": False},
        {"deformation": ds.RandomDeformation(4, 0.5)},
    ):
        ds.measure_sensitivity(model, images, batch_size=5, **arguments)
        ds.measure_sensitivity(model, images[:7], batch_size=5, **arguments)  # 5 and 2, as before
    assert Counting.calls == calls
    ds.measure_sensitivity(model, images[:, :12], batch_size=5)  # another size is another trace
    assert Counting.calls > calls


def test_arguments_of_one_call_do_not_stay_for_the_next(images, network):
    whole = ds.measure_sensitivity(network, images)
    assert len(ds.measure_sensitivity(network, images, layers="relu1")) == 1
    euclidean = ds.measure_sensitivity(network, images, metric="euclidean")
    assert (euclidean["distance"] != whole["distance"]).all()
    several = ds.measure_sensitivity(network, images, deformations=2)
    assert (several["distance"] != whole["distance"]).all()
    assert ds.measure_sensitivity(network, images).equals(whole)
    assert euclidean.equals(ds.measure_sensitivity(small_network(), images, metric="euclidean"))


def test_a_measured_model_is_let_go(images):
    model = small_network()
    ds.measure_sensitivity(model, images)
    watched = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert watched() is None


# ---- what is left untouched ----


def test_nothing_of_the_model_changes(images):
    inputs = keras.Input((16, 16, 3))
    tensor = layers.RandomFlip(seed=1)(inputs)
    tensor = layers.GaussianNoise(0.5, seed=2)(layers.BatchNormalization()(tensor))
    tensor = ds.RandomDeformation(seed=3)(layers.Dropout(0.5, seed=4)(tensor))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(tensor)))
    generators = [
        value
        for layer in model.layers
        for value in vars(layer).values()
        if isinstance(value, keras.random.SeedGenerator)
    ]
    assert len(generators) >= 4
    state = lambda: [
        np.asarray(v).copy() for v in [*model.variables, *(g.state for g in generators)]
    ]
    own = ds.RandomDeformation(3, 1.0, seed=7)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = state(), np.asarray(own.generator.state).copy()
    python, legacy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    images = images.copy()
    pixels = images.copy()
    ds.measure_sensitivity(model, images, own, deformations=2)
    for then, now in zip(before[0], state()):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(np.asarray(own.generator.state), before[1])
    np.testing.assert_array_equal(images, pixels)
    assert random.getstate() == python
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert keras.layers.Layer.__call__.__qualname__ == "Layer.__call__"


def test_seeds_of_a_model_that_was_never_called_do_not_move(images):
    augmentation, untouched = (ds.RandomDeformation(3, 1.0, seed=3) for _ in range(2))
    ds.measure_sensitivity(keras.Sequential([augmentation, layers.Flatten()]), images)
    np.testing.assert_array_equal(numpy(augmentation.draw(2)), numpy(untouched.draw(2)))


def test_a_failure_leaves_keras_as_it_was(images):
    class Failing(layers.Layer):
        def call(self, images):
            if images.shape[-1] == 3:
                raise RuntimeError("on purpose")
            return images

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.failing = Failing()

        def call(self, images):
            return self.failing(images)

    original = keras.layers.Layer.__call__
    model = Model()
    model(images[..., :1])
    with pytest.raises(RuntimeError, match="on purpose"):
        ds.measure_sensitivity(model, images)
    assert keras.layers.Layer.__call__ is original


def test_a_measured_model_is_saved_loaded_pickled_and_cloned(images, network, tmp_path):
    table = ds.measure_sensitivity(network, images)
    network.save(tmp_path / "model.keras")
    network.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(network)
    clone.load_weights(tmp_path / "model.weights.h5")
    for other in (
        keras.models.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(network)),
        copy.deepcopy(network),
        clone,
    ):
        np.testing.assert_array_equal(numpy(other(images)), numpy(network(images)))
        assert ds.measure_sensitivity(other, images).equals(table)
    if BACKEND == "tensorflow":
        network.export(tmp_path / "exported", verbose=False)


def test_a_measured_model_trains_on(images, network):
    network.compile("sgd", "mse")
    before = ds.measure_sensitivity(network, images)
    network.fit(images, np.ones((12, 5)), verbose=0)
    after = ds.measure_sensitivity(network, images)
    assert (before["sensitivity"][1:] != after["sensitivity"][1:]).all()
    assert before["sensitivity"][0] == after["sensitivity"][0]
    assert isinstance(after, pd.DataFrame)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own ways")
def test_modules_of_pytorch_are_measured_in_inference_mode(images):
    """And the layer is in its own mode again."""
    import torch

    class Noisy(layers.Layer):
        def call(self, inputs):
            return torch.nn.functional.dropout(inputs, 0.9, training=self.training)

    noisy = Noisy()
    model = keras.Sequential([keras.Input(images.shape[1:]), noisy])
    table = ds.measure_sensitivity(model, images)
    assert table["sensitivity"][1] == pytest.approx(table["sensitivity"][0], rel=1e-5)
    assert noisy.training
    assert model.training
