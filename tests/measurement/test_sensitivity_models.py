"""measure_sensitivity on models of many forms, and on layers that cannot be measured."""

import keras
import numpy as np
import pytest
from helpers import randomize, small_network
from keras import layers, ops

import deformstab as ds


def assert_same_rows(table, reference, names=None):
    """The numbers of two tables, row by row; `names` of the layers in the first."""
    assert table["layer"].tolist() == (names or reference["layer"].tolist())
    numbers = ["distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high"]
    np.testing.assert_allclose(table[numbers], reference[numbers], rtol=1e-5)


def convolutions():
    """The same two layers for models of every form."""
    first = layers.Conv2D(4, 3, activation="relu", name="first")
    second = layers.Conv2D(3, 3, name="second")
    return first, second


@pytest.fixture
def plain(images):
    """A functional model of the two layers with random weights, and its table."""
    first, second = convolutions()
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, second(first(inputs)))
    randomize(model)
    return model, ds.measure_sensitivity(model, images)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = convolutions()

    def call(self, images):
        return self.second(self.first(images))


def test_sequential_subclassed_and_functional_models_agree(images, plain):
    model, table = plain
    assert table["layer"].tolist() == ["input", "first", "second"]
    subclassed, sequential = (
        Subclassed(),
        keras.Sequential([keras.Input((16, 16, 3)), *convolutions()]),
    )
    subclassed(images)
    for other in (subclassed, sequential):
        other.set_weights(model.get_weights())
        assert_same_rows(ds.measure_sensitivity(other, images), table)


@pytest.mark.parametrize("make", [Subclassed, lambda: keras.Sequential(convolutions())])
def test_models_that_were_never_called(images, make):
    model = make()
    found = ds.measure_sensitivity(model, images)
    assert len(model.get_weights()) == 4
    reference = keras.Sequential([keras.Input((16, 16, 3)), *convolutions()])
    reference.set_weights(model.get_weights())
    assert_same_rows(found, ds.measure_sensitivity(reference, images))


def test_nested_models_are_named_by_path(images, plain):
    model, table = plain
    inner = keras.Sequential([keras.Input((16, 16, 3)), *convolutions()], name="inner")
    middle = keras.Sequential([keras.Input((16, 16, 3)), inner], name="middle")
    inputs = keras.Input((16, 16, 3))
    outer = keras.Model(inputs, layers.Identity(name="last")(middle(inputs)))
    outer.set_weights(model.get_weights())
    found = ds.measure_sensitivity(outer, images)
    names = ["input", "middle/inner/first", "middle/inner/second", "middle/inner", "middle", "last"]
    reference = table.iloc[[0, 1, 2, 2, 2, 2]]
    assert_same_rows(found, reference, names)
    assert found["layer_type"].tolist()[3:] == ["Sequential", "Sequential", "Identity"]
    chosen = ds.measure_sensitivity(outer, images, layers=["last", "middle/inner/first"])
    assert_same_rows(chosen, found.iloc[[1, 5]])
    assert chosen["layer_index"].tolist() == [0, 1]


def test_a_layer_that_is_called_again_has_a_number(images):
    same = layers.Conv2D(3, 3, padding="same", name="same")
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, same(same(same(inputs))))
    randomize(model)
    table = ds.measure_sensitivity(model, images)
    assert table["layer"].tolist() == ["input", "same", "same#2", "same#3"]
    once = keras.Model(inputs, same(inputs))
    assert_same_rows(table.iloc[:2], ds.measure_sensitivity(once, images))
    assert table["sensitivity"].nunique() == 4


def test_a_layer_may_be_named_input(images):
    named = layers.Rescaling(2.0, offset=1.0, name="input")
    model = keras.Sequential([keras.Input((16, 16, 3)), named, layers.Flatten(name="flat")])
    table = ds.measure_sensitivity(model, images)
    assert len(table) == 3
    assert table["layer"].is_unique
    assert table["layer_type"].tolist() == ["InputLayer", "Rescaling", "Flatten"]
    assert table["sensitivity"][0] != table["sensitivity"][1] == table["sensitivity"][2]


def test_layers_with_several_outputs_count_as_one(images):
    class Split(layers.Layer):
        def call(self, images):
            return {"left": images[:, :, :8], "right": images[:, :, 8:]}

    inputs = keras.Input((16, 16, 3))
    parts = Split(name="split")(inputs)
    model = keras.Model(inputs, layers.Concatenate(axis=2)([parts["left"], parts["right"]]))
    table = ds.measure_sensitivity(model, images)
    # The same numbers in another order: the same distances.
    np.testing.assert_allclose(table["sensitivity"], table["sensitivity"][0], rtol=1e-5)
    assert len(table) == 3


def test_channels_first_images(images):
    first = images.transpose(0, 3, 1, 2)
    model = keras.Sequential([keras.Input((3, 16, 16)), layers.Flatten()])
    deformation = ds.RandomDeformation((3, 4), 1.0, data_format="channels_first")
    found = ds.measure_sensitivity(model, first, deformation)
    last = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten()])
    expected = ds.measure_sensitivity(last, images, ds.RandomDeformation((3, 4), 1.0))
    assert_same_rows(found, expected, found["layer"].tolist())


def test_images_of_every_form(network, images):
    levels = np.round(127 * images + 127).astype("uint8")
    expected = ds.measure_sensitivity(network, levels.astype("float32"))
    for same in (levels, levels.astype("float64"), ops.convert_to_tensor(levels), list(levels)):
        assert ds.measure_sensitivity(network, same).equals(expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_networks_of_mixed_precision(images, policy):
    keras.config.set_dtype_policy(policy)
    half = small_network()
    keras.config.set_dtype_policy("float32")
    table, expected = (ds.measure_sensitivity(model, images) for model in (half, small_network()))
    assert table["note"].eq("").all()
    # The input is exact, whatever the policy; layers are known to their 11 or 8 bits.
    assert table["sensitivity"][0] == expected["sensitivity"][0]
    np.testing.assert_allclose(table["sensitivity"], expected["sensitivity"], rtol=0.1)


# ---- layers that cannot be measured keep their rows ----


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_broken_layers_are_nan_with_a_note_and_do_no_harm(images, metric):
    inputs = keras.Input((16, 16, 3))
    healthy = layers.Conv2D(2, 3, name="healthy")(inputs)
    flat = layers.Flatten(name="flat")(healthy)
    outputs = [
        layers.Dense(4, kernel_initializer="zeros", bias_initializer="ones", name="constant")(flat),
        layers.Dense(4, kernel_initializer="zeros", name="zero")(flat),
        layers.Rescaling(np.inf, name="endless")(flat),
        layers.Activation(lambda x: ops.sqrt(x), name="sometimes_nan")(flat),
        layers.Dense(4, name="last")(flat),
    ]
    table = ds.measure_sensitivity(keras.Model(inputs, outputs), images, metric=metric)
    table = table.set_index("layer")
    numbers = ["distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high"]
    notes = {
        "constant": "constant",
        "zero": "zero representation" if metric == "cosine" else "constant",
        "endless": "non-finite representation for 24 of 24 images",
        "sometimes_nan": "non-finite representation for 24 of 24 images",
    }
    for name, row in table.iterrows():
        if name in notes:
            assert row[numbers].isna().all(), name
            assert notes[name] in row["note"], name
        else:
            assert row[numbers].notna().all(), name
            assert row["note"] == "", name
    assert set(notes) <= set(table.index)
    alone = ds.measure_sensitivity(
        keras.Model(inputs, outputs[-1]), images, layers=["healthy", "last"], metric=metric
    )
    np.testing.assert_allclose(table.loc[["healthy", "last"], numbers], alone[numbers], rtol=1e-5)
    assert (table["rms_displacement"] > 0).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_negative_representations_are_as_good_as_positive_ones(images, metric):
    inputs = keras.Input((16, 16, 3))
    positive = layers.ReLU(name="positive")(inputs)
    model = keras.Model(inputs, layers.Rescaling(-1.0, name="negative")(positive))
    table = ds.measure_sensitivity(model, images, metric=metric).set_index("layer")
    assert table.loc["negative", "sensitivity"] == table.loc["positive", "sensitivity"] > 0


def test_a_zero_representation_of_some_images(images):
    images = images.copy()
    images[3] = 0
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten()])
    table = ds.measure_sensitivity(model, images)
    assert table["sensitivity"].isna().all()
    assert table["note"].str.startswith("zero representation for 2 of 24 images").all()
    euclidean = ds.measure_sensitivity(model, images, metric="euclidean")
    assert euclidean["sensitivity"].notna().all()


def test_outputs_without_a_row_for_each_image(images):
    class Patches(layers.Layer):  # folds the image's rows into the batch, as window attention does
        def call(self, images):
            return ops.reshape(images, (-1, 16, 3))

    class Total(layers.Layer):
        def call(self, images):
            return ops.sum(images)

    inputs = keras.Input((16, 16, 3))
    total = Total(name="total")(inputs)
    patches = layers.Dense(2, name="inner")(Patches(name="patches")(inputs))
    last = layers.Conv2D(2, 3, name="last")(inputs)
    table = ds.measure_sensitivity(keras.Model(inputs, [total, patches, last]), images)
    table = table.set_index("layer")
    assert np.isnan(table.loc["total", "sensitivity"])
    assert "no row for each image" in table.loc["total", "note"]
    others = table.drop(["total", "output/total"])["sensitivity"]
    assert others.notna().all()
    # The model's own reshape: an image's rows are beside each other, and are the image.
    assert others["patches"] == pytest.approx(others["input"], rel=1e-5)
