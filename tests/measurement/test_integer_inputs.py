"""Models that take images as integers, which Keras would cut the deformed pixels to."""

import keras
import numpy as np
import pytest
from helpers import numpy
from keras import layers

import deformstab as ds
from deformstab.deformations.flow_layer import FlowLayer
from deformstab.measurement import layer_distances

SIZE = 24


def network(dtype="uint8"):
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), dtype=dtype, name="image")
    maps = layers.Conv2D(4, 3, name="conv")(layers.Rescaling(1 / 255, name="rescaled")(image))
    answers = layers.Dense(3, name="answers")(layers.GlobalMaxPooling2D()(maps))
    return keras.Model(image, answers)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype("uint8")


def callback(model, pixels, **options):
    model.compile("sgd", "mse")
    recorded = ds.SensitivityCallback(pixels, **options)
    model.fit(pixels, np.zeros((4, 3)), epochs=1, verbose=0, callbacks=[recorded])


@pytest.mark.parametrize(
    "measure",
    [
        ds.measure_sensitivity,
        ds.measure_stability,
        ds.measure_equivariance,
        ds.sensitivity_by_part,
        lambda *given: ds.sensitivity_by_strength(*given, max_displacements=[1.0]),
        lambda *given: ds.worst_deformation(*given, "conv"),
        ds.prediction_consistency,
        ds.shift_consistency,
        lambda *given: ds.plot_examples(*given, layer="conv"),
        callback,
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_refused_before_anything_is_deformed(pixels, monkeypatch, measure, dtype):
    def deforming(*arguments):
        raise AssertionError("it was deformed")

    monkeypatch.setattr(FlowLayer, "deform", deforming)
    with pytest.raises(ValueError, match=f"takes images as {dtype} .*clone_model"):
        measure(network(dtype), pixels)


@pytest.mark.parametrize("outer", ["sequential", "functional"])
def test_also_where_a_model_within_takes_them(pixels, outer):
    inner = network()
    if outer == "sequential":
        model = keras.Sequential([inner])
    else:
        image = keras.Input((SIZE, SIZE, 3))
        model = keras.Model(image, inner(layers.Rescaling(1.0)(image)))
    with pytest.raises(ValueError, match=r"takes images as uint8 \(its input 'image'\)"):
        ds.measure_sensitivity(model, pixels)


def test_integers_of_other_shapes_within_are_no_images(pixels):
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.Model(tokens, layers.Flatten()(layers.Embedding(7, 2)(tokens)))
    image, words = keras.Input((SIZE, SIZE, 3)), keras.Input((5,), dtype="int32")
    maps = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, name="conv")(image))
    model = keras.Model([image, words], layers.Concatenate()([maps, embedded(words)]))
    table = ds.measure_sensitivity(model, [pixels, np.zeros((4, 5), "int32")], layers=["conv"])
    assert table["sensitivity"].gt(0).all()


def test_of_several_models_before_the_first_is_measured(pixels, monkeypatch):
    monkeypatch.setattr(layer_distances, "layer_distances", None)
    models = {"floats": network("float32"), "integers": network()}
    for measure in ("sensitivity", "stability", "equivariance"):
        with pytest.raises(ValueError, match="takes images as uint8"):
            ds.compare_sensitivity(models, pixels, measure=measure)


@pytest.mark.parametrize(
    "deformation",
    [
        ds.RandomTranslation(2.0, integer=True, padding="circular"),
        ds.RandomDeformation(3, 2.0, "nearest"),
        lambda images, seed: images[:, :, ::-1],
    ],
)
def test_pixels_that_only_change_places_stay_integers(pixels, deformation):
    floats, integers = (
        ds.measure_sensitivity(network(dtype), pixels, deformation)
        for dtype in ("float32", "uint8")
    )
    np.testing.assert_allclose(integers["sensitivity"], floats["sensitivity"], rtol=1e-5)
    noisy = lambda images, seed: images + 0.5
    with pytest.raises(ValueError, match="takes images as uint8"):
        ds.measure_sensitivity(network(), pixels, noisy)
    with pytest.raises(ValueError, match="takes images as uint8"):  # beside noise
        ds.measure_stability(network(), pixels, deformation)


def test_what_makes_no_fractions(pixels):
    floats, integers = network("float32"), network()
    rows = [
        ds.shift_consistency(model, pixels, protocol="circular") for model in (floats, integers)
    ]
    assert rows[1].equals(rows[0])
    table = ds.compare_sensitivity(
        {"floats": floats, "integers": integers}, pixels, measure="smoothness"
    )
    assert (table["ratio"] == 1).all()


def test_the_way_out_that_the_error_names(pixels):
    integers = network()
    floats = keras.models.clone_model(integers, input_tensors=keras.Input((SIZE, SIZE, 3)))
    floats.set_weights(integers.get_weights())
    np.testing.assert_allclose(numpy(floats(pixels)), numpy(integers(pixels)), rtol=1e-6)
    found, expected = (ds.measure_sensitivity(x, pixels) for x in (floats, network("float32")))
    np.testing.assert_allclose(found["sensitivity"], expected["sensitivity"], rtol=1e-6)


@pytest.mark.parametrize("inputs", [dict, list])
def test_integers_beside_the_image_are_found_by_name(pixels, inputs):
    """The keys of a dict come in their own order, a model's list in another."""
    number = keras.Input((2,), dtype="int32", name="number")
    image = keras.Input((SIZE, SIZE, 3), name="image")
    words = layers.Flatten()(layers.Embedding(9, 4)(number))
    sums = layers.Add(name="sum")([layers.Dense(8)(layers.Flatten()(image)), words])
    taken = [number, image]
    model = keras.Model({x.name: x for x in taken} if inputs is dict else taken, sums)
    given = {"image": pixels.astype("float32"), "number": np.arange(8).reshape(4, 2)}
    table = ds.measure_sensitivity(model, given, layers="sum")
    assert table["sensitivity"].item() > 0
