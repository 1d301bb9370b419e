"""One contract for every layer of the package: configuration, shapes, dtypes, batches, saving."""

import json

import keras
import numpy as np
import pytest
from helpers import numpy
from keras import ops

import deformstab as ds
from deformstab.deformations.flow_layer import FlowLayer
from deformstab.networks.downsampling import BlurPooling2D, Subsample2D

LAYERS = {
    "bilinear": lambda **kwargs: ds.RandomDeformation(3, (1.0, 0.5), seed=3, **kwargs),
    "nearest": lambda **kwargs: ds.RandomDeformation((2, 3), 1.0, "nearest", seed=3, **kwargs),
    "diffeomorphism": lambda **kwargs: ds.RandomDiffeomorphism(2, 0.25, seed=3, **kwargs),
    "translation": lambda **kwargs: ds.RandomTranslation(1.25, seed=3, **kwargs),
    "rotation": lambda **kwargs: ds.RandomRotation(0.7, seed=3, **kwargs),
    "scaling": lambda **kwargs: ds.RandomScaling(0.7, seed=3, **kwargs),
    "subsample": lambda **kwargs: Subsample2D(**kwargs),
    "blur": lambda **kwargs: BlurPooling2D(3, 2, "same", **kwargs),
}
POLICIES = ["float32", "mixed_float16", "bfloat16"]


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_config_makes_the_same_layer_again(make, data_format, policy):
    layer = make(data_format=data_format, dtype=policy, name="mine", trainable=False)
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert (again.name, again.trainable, again.dtype_policy.name) == ("mine", False, policy)
    assert again.data_format == data_format
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(revived) is type(layer)
    assert revived.get_config() == layer.get_config()


def test_the_data_format_is_by_default_that_of_keras(make):
    assert make().data_format == "channels_last"
    keras.config.set_image_data_format("channels_first")
    assert make().data_format == "channels_first"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_symbolic_shapes_and_dtypes_are_the_eager_ones(make, data_format, policy):
    shape = (9, 12, 5) if data_format == "channels_last" else (5, 9, 12)
    layer = make(data_format=data_format, dtype=policy)
    symbolic = layer(keras.Input(shape))
    assert symbolic.shape[0] is None
    assert tuple(layer.compute_output_shape((None, *shape))) == symbolic.shape
    for batch in (1, 3):
        images = np.ones((batch, *shape), "float32")
        for training in (True, False):
            eager = layer(
                images, **({"training": training} if layer._call_has_training_arg else {})
            )
            assert tuple(eager.shape) == (batch, *symbolic.shape[1:])
            assert dtype_of(eager) == dtype_of(symbolic)


def test_layers_have_nothing_to_train_or_to_count(make):
    layer = make()
    layer(np.ones((1, 8, 8, 2), "float32"))
    assert layer.trainable_weights == layer.weights == []


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_broken_pixels_stay_in_their_image(make, fill):
    images = np.random.default_rng(0).random((3, 8, 8, 1)).astype("float32")
    layer, again = make(), make()
    expected = numpy(layer(images))
    images[1] = fill
    found = numpy(again(images))
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
    assert not np.isfinite(found[1]).all()


def test_saved_models_hold_the_layer_without_custom_objects(make, tmp_path):
    model = keras.Sequential([keras.Input((8, 10, 2)), make(name="mine")])
    images = np.random.default_rng(0).random((4, 8, 10, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("mine").get_config() == model.get_layer("mine").get_config()
    for training in (False, True):
        np.testing.assert_array_equal(
            numpy(loaded(images, training=training)), numpy(model(images, training=training))
        )


def test_batches_of_any_size_pass_one_model(make):
    inputs = keras.Input((8, 10, 2))
    model = keras.Model(inputs, make()(inputs))
    for batch in (1, 4, 2):
        images = np.random.default_rng(batch).random((batch, 8, 10, 2)).astype("float32")
        alone = [numpy(model(image[None], training=False))[0] for image in images]
        np.testing.assert_array_equal(numpy(model(images, training=False)), alone)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "float16"])
def test_integers_and_halves_are_taken(make, dtype):
    bilinear = isinstance(make(), FlowLayer) and make().interpolation == "bilinear"
    if bilinear and dtype in ("int32", "bool"):
        pytest.skip("labels: bilinear interpolation would mix them, and they are refused")
    images = ops.cast(np.random.default_rng(0).integers(0, 2, (2, 8, 8, 1)).astype("int32"), dtype)
    found = numpy(ops.cast(make()(images), "float32"))
    expected = numpy(make()(ops.cast(images, "float32")))
    np.testing.assert_array_equal(found, expected)
