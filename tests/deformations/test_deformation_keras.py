"""RandomDeformation inside Keras: models, fit, saving; and inside tf.data."""

import copy
import json
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, ROOT, natural_images, needs_tensorflow, numpy
from keras import layers

import deformstab as ds

BY_HAND = {"control_points": (3, 4), "max_displacement": (1.5, 1.0), "seed": 7}


def identity_model(deformation, functional=True, **compiled):
    """Deformation, then a trainable layer that changes nothing: the loss is what was deformed."""
    after = layers.Dense(3, use_bias=False, kernel_initializer=keras.initializers.Identity())
    if functional:
        inputs = keras.Input((16, 16, 3))
        model = keras.Model(inputs, after(deformation(inputs)))
    else:
        model = keras.Sequential([keras.Input((16, 16, 3)), deformation, after])
    model.compile(keras.optimizers.SGD(0.0), "mean_absolute_error", **compiled)
    return model


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_fit_deforms_and_inference_does_not(images, functional, compiled):
    if BACKEND == "torch" and "jit_compile" in compiled:
        pytest.skip("slow there, and the layer is no different")
    model = identity_model(ds.RandomDeformation(seed=1), functional, **compiled)
    # 12 images in batches of 5: the last has another size than the rest.
    losses = model.fit(images, images, batch_size=5, epochs=3, verbose=0).history["loss"]
    assert min(losses) > 0.01
    assert len(set(losses)) == 3  # every epoch draws anew
    assert model.evaluate(images, images, batch_size=5, verbose=0) == 0
    np.testing.assert_array_equal(model.predict(images, batch_size=5, verbose=0), images)
    np.testing.assert_array_equal(numpy(model(images, training=False)), images)


def test_fit_repeats_with_the_same_seed(images):
    def losses(seed):
        model = identity_model(ds.RandomDeformation(seed=seed))
        fit = model.fit(images, images, batch_size=5, epochs=2, verbose=0, shuffle=False)
        return fit.history["loss"]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_a_model_deforms_as_the_layer_does(images):
    inputs = keras.Input((16, 16, 3))
    layer, alone = (ds.RandomDeformation(seed=3) for _ in range(2))
    model = keras.Model(inputs, layer(inputs))
    for batch in (12, 5, 1):
        found = numpy(model(images[:batch], training=True))
        np.testing.assert_array_equal(found, numpy(alone(images[:batch])))


def test_config_round_trip():
    layer = ds.RandomDeformation(
        **BY_HAND, interpolation="nearest", data_format="channels_first", name="d", dtype="float16"
    )
    config = layer.get_config()
    assert {key: config[key] for key in BY_HAND} == BY_HAND
    assert (config["interpolation"], config["data_format"]) == ("nearest", "channels_first")
    for again in (config, json.loads(json.dumps(config))):
        copied = ds.RandomDeformation.from_config(again)
        assert copied.get_config() == config
        assert copied.dtype_policy == layer.dtype_policy
    np.testing.assert_array_equal(numpy(copied.draw(2)), numpy(layer.draw(2)))


def test_saved_and_cloned_models_deform_alike(images, tmp_path):
    model = identity_model(ds.RandomDeformation(**BY_HAND), functional=False)
    model.save(tmp_path / "model.keras")
    copies = [
        keras.models.load_model(tmp_path / "model.keras"),  # no custom_objects
        keras.models.clone_model(model),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    expected = numpy(model(images, training=True))
    for copied in copies:
        assert copied.layers[0].get_config() == model.layers[0].get_config()
        np.testing.assert_array_equal(numpy(copied(images, training=True)), expected)


@needs_tensorflow
def test_what_is_exported_deforms_unless_it_is_left_out(images, tmp_path):
    """The docstring's line; Keras exports a model as it is called without `training`."""
    import tensorflow as tf

    model = identity_model(ds.RandomDeformation(seed=1))
    model.export(tmp_path / "deforming", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "deforming")
    assert np.abs(numpy(loaded.serve(images)) - images).max() > 0.1

    serving = keras.Model(model.input, model(model.input, training=False))
    serving.export(tmp_path / "still", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "still")
    np.testing.assert_array_equal(numpy(loaded.serve(images)), images)


# ---- tf.data, tf.function ----


@needs_tensorflow
@pytest.mark.parametrize("jit", [None, True])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_eager_compiled_and_tf_data_give_the_same(interpolation, jit):
    import tensorflow as tf

    images = natural_images(7, 20, 24)
    layer = ds.RandomDeformation((3, 4), 2.0, interpolation)
    displacements = layer.draw(7, seed=1)
    eager = numpy(layer.deform(images, displacements))
    one = lambda image, moves: layer.deform(image[None], moves[None])[0]
    dataset = tf.data.Dataset.from_tensor_slices((images, displacements))
    signature = [tf.TensorSpec((None, 20, 24, 3)), tf.TensorSpec((None, 12, 2))]
    results = {
        "compiled": tf.function(layer.deform, signature, jit_compile=jit)(images, displacements),
        "before batch": next(iter(dataset.map(one).batch(7))),
        "after batch": tf.concat(list(dataset.batch(3).map(layer.deform)), axis=0),
    }
    for name, found in results.items():
        np.testing.assert_allclose(numpy(found), eager, rtol=0, atol=1e-5, err_msg=name)


@needs_tensorflow
def test_a_compiled_call_draws_as_the_eager_one(images):
    import tensorflow as tf

    layer, eager = (ds.RandomDeformation(seed=3) for _ in range(2))
    compiled = tf.function(lambda x: layer(x))
    for _ in range(2):  # the generator moves on inside the graph
        np.testing.assert_allclose(numpy(compiled(images)), numpy(eager(images)), rtol=0, atol=1e-5)
    seeded = tf.function(lambda x, seed: layer(x, seed=seed))
    found = numpy(seeded(images, tf.constant(4, "int64")))
    np.testing.assert_allclose(found, numpy(eager(images, seed=4)), rtol=0, atol=1e-5)


@needs_tensorflow
def test_under_xla_draws_repeat_too(images):
    """TensorFlow draws other numbers under XLA than without, from the same seed."""
    import tensorflow as tf

    first, second = (ds.RandomDeformation(seed=3) for _ in range(2))
    first, second = (tf.function(layer.__call__, jit_compile=True) for layer in (first, second))
    before = None
    for _ in range(2):
        found = numpy(first(images))
        np.testing.assert_array_equal(found, numpy(second(images)))
        assert before is None or np.abs(found - before).max() > 0.1
        before = found


COMPILATIONS = """
import pathlib, sys
import keras
import numpy as np
import deformstab as ds

model = keras.Sequential([
    keras.Input((8, 8, 1)),
    keras.layers.Conv2D(1, 3),  # so that there is a gradient through the deformation
    ds.RandomDeformation(3, 1.0),
    keras.layers.GlobalAveragePooling2D(),
])
model.compile("sgd", "mse", jit_compile=True)
counts = []
count = lambda batch, logs: counts.append(len(list(pathlib.Path(sys.argv[1]).glob("*before_opt*.txt"))))
images = np.random.default_rng(0).normal(size=(12, 8, 8, 1))
model.fit(images, np.zeros(12), batch_size=4, epochs=2, verbose=0,
          callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=count)])
print(*counts)
"""


@needs_tensorflow
def test_xla_compiles_a_training_step_once_not_for_each_batch(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": f"--xla_dump_to={tmp_path}"}
    command = [sys.executable, "-c", COMPILATIONS, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = [int(count) for count in done.stdout.split()]
    assert after[0] > 0
    assert after == [after[0]] * 6


def flat_images(count):
    """Image i has colour i everywhere: whatever is done to it, it stays so, and no other does."""
    colours = np.arange(count, dtype="float32")[:, None, None, None]
    return np.broadcast_to(colours, (count, 16, 16, 1)).copy()


@needs_tensorflow
def test_tf_data_gives_each_image_its_own_draw():
    import tensorflow as tf

    flat = flat_images(11)
    ramp = np.indices((16, 16)).sum(axis=0)[..., None].astype("float32")
    same = np.broadcast_to(ramp, (11, 16, 16, 1)).copy()
    for images in (flat, same):
        dataset = tf.data.Dataset.from_tensor_slices(images)
        layer = ds.RandomDeformation(seed=1)
        for batches in (dataset.map(layer).batch(4), dataset.batch(4).map(layer)):
            found = np.concatenate(list(batches.as_numpy_iterator()))
            assert found.shape == images.shape
            if images is flat:
                np.testing.assert_array_equal(found, flat)
            else:
                for first in range(11):
                    for second in range(first):
                        assert np.abs(found[first] - found[second]).max() > 0.1


@needs_tensorflow
def test_tf_data_draws_anew_at_each_pass_and_repeats_with_the_seed(images):
    import tensorflow as tf

    def passes():
        layer = ds.RandomDeformation(seed=1)
        dataset = tf.data.Dataset.from_tensor_slices(images).batch(5).map(layer)
        return [np.concatenate(list(dataset.as_numpy_iterator())) for _ in range(2)]

    first, second = passes(), passes()
    assert (first[0] != first[1]).mean() > 0.9
    np.testing.assert_array_equal(first, second)


@needs_tensorflow
@pytest.mark.parametrize("deterministic", [True, False])
def test_seeds_of_their_own_make_parallel_maps_repeat(images, deterministic):
    import tensorflow as tf

    layer = ds.RandomDeformation(seed=1)
    expected = np.stack([numpy(layer(image, seed=i)) for i, image in enumerate(images)])
    dataset = tf.data.Dataset.from_tensor_slices(images).enumerate()
    dataset = dataset.map(
        lambda i, image: (i, layer(image, seed=i)),
        num_parallel_calls=4,
        deterministic=deterministic,
    )
    for _ in range(2):
        numbers, found = zip(*dataset.as_numpy_iterator())
        assert sorted(numbers) == list(range(12))
        np.testing.assert_allclose(np.stack(found), expected[list(numbers)], rtol=0, atol=1e-5)


@needs_tensorflow
def test_fit_takes_a_deformed_dataset(images):
    import tensorflow as tf

    layer = ds.RandomDeformation(3, 2.0, seed=2)
    dataset = tf.data.Dataset.from_tensor_slices((images, images)).batch(5)
    dataset = dataset.map(lambda x, y: (layer(x), y), num_parallel_calls=2)
    model = identity_model(layers.Identity())
    assert model.fit(dataset, epochs=1, shuffle=False, verbose=0).history["loss"][0] > 0.01


@needs_tensorflow
def test_labels_are_deformed_as_their_images_inside_tf_data():
    import tensorflow as tf

    images = natural_images(5, channels=1)
    masks = (images > 0).astype("uint16") * 300
    by_colour, by_label = (ds.RandomDeformation(3, 1.5, "nearest") for _ in range(2))
    dataset = tf.data.Dataset.from_tensor_slices((images, masks)).enumerate()
    pair = lambda i, data: (by_colour(data[0], seed=i), by_label(data[1], seed=i))
    for image, mask in dataset.map(pair, num_parallel_calls=2).as_numpy_iterator():
        assert mask.dtype == "uint16"
        np.testing.assert_array_equal(mask, (image > 0) * 300)
