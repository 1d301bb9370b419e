"""What networks of others do: operations, layers made within calls, windows, dense answers, copies."""

import re

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import natural_images, numpy, randomize
from keras import layers, ops

import deformstab as ds
from deformstab.measurement import dense_consistency

COUNT = 10
DEFORMATION = ds.RandomDeformation(3, 2.0)


@pytest.fixture
def images():
    return natural_images(COUNT)


def measured(model, images, layers=None, **options):
    return ds.measure_sensitivity(model, images, DEFORMATION, layers, **options).set_index("layer")


def by_hand(function, images):
    """The sensitivity of what a function computes, by plain loops."""
    moves = numpy(DEFORMATION.draw(len(images), seed=0))
    deformed = numpy(DEFORMATION.deform(images, moves))
    plain, moved = (np.asarray(function(x)).reshape(len(images), -1) for x in (images, deformed))

    def apart(a, b):
        a, b = a.astype("float64"), b.astype("float64")
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))

    pairs = [apart(plain[i], plain[j]) for i in range(len(images)) for j in range(i)]
    return np.mean([apart(*both) for both in zip(plain, moved)]) / np.median(pairs)


# ---- outputs and operations ----


def ends_with_an_operation():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="conv2")(x) + x
    x = layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(inputs, ops.sigmoid(layers.Dense(3, name="dense")(x)))
    randomize(model)
    return model


def test_the_output_has_a_row_where_an_operation_comes_last(images):
    model = ends_with_an_operation()
    table = measured(model, images)
    assert table.index[-1] == "output"
    assert table.loc["output", "layer_type"] == "Output"
    expected = by_hand(lambda x: model.predict(x, verbose=0), images)
    assert table.loc["output", "sensitivity"] == pytest.approx(expected, rel=1e-4)


def test_operations_of_a_functional_model_have_rows(images):
    model = ends_with_an_operation()
    (name,) = (each.name for each in model.operations if type(each).__name__ == "Add")
    table = measured(model, images)
    first, second = model.get_layer("conv1"), model.get_layer("conv2")
    expected = by_hand(lambda x: numpy(second(first(x)) + first(x)), images)
    assert table.loc[name, "sensitivity"] == pytest.approx(expected, rel=1e-4)
    assert table.loc[name, "layer_type"] == "Add"
    only = measured(model, images, [name])
    assert list(only.index) == [name]
    assert only.loc[name, "sensitivity"] == table.loc[name, "sensitivity"]


def test_an_output_that_a_layer_gives_is_measured_if_asked_for(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(inputs)))
    assert list(measured(model, images).index)[-1] == "last"
    both = measured(model, images, ["last", "output"])
    assert both.loc["output", "sensitivity"] == both.loc["last", "sensitivity"]


def test_several_outputs_have_names(images):
    inputs = keras.Input((16, 16, 3))
    flat = layers.Flatten()(inputs)
    heads = {"depth": layers.Dense(3)(flat), "class": layers.Dense(4)(flat)}
    model = keras.Model(inputs, {name: ops.tanh(x) for name, x in heads.items()})
    table = measured(model, images, ["output/*"])
    assert set(table.index) == {"output/depth", "output/class"}
    expected = by_hand(lambda x: model.predict(x, verbose=0)["class"], images)
    assert table.loc["output/class", "sensitivity"] == pytest.approx(expected, rel=1e-4)


class EndsWithAnOperation(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, images):
        return ops.softmax(self.dense(ops.reshape(images, (-1, 768))))


def test_a_subclassed_model_has_an_output_too(images):
    model = EndsWithAnOperation()
    model(images[:1])
    randomize(model)
    expected = by_hand(lambda x: model.predict(x, verbose=0), images)
    assert measured(model, images).loc["output", "sensitivity"] == pytest.approx(expected, rel=1e-4)


# ---- automatic names ----


class MadeWithinTheCall(layers.Layer):
    """Makes a layer each time it is called, whose automatic name counts on."""

    def call(self, images):
        pooled = layers.AveragePooling2D(2)(images)
        return layers.MaxPooling2D(2)(layers.AveragePooling2D(2)(pooled))


def test_layers_made_within_a_call_are_found_again(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Flatten()(MadeWithinTheCall(name="block")(inputs)))
    for _ in range(2):
        table = measured(model, images)
        names = [f"block/{name}" for name in ("average_pooling2d", "average_pooling2d#2")]
        assert [name for name in table.index if "block/" in name] == [*names, "block/max_pooling2d"]
        assert (table["note"] == "").all()
        pool = layers.AveragePooling2D(4)
        expected = by_hand(lambda x, pool=pool: numpy(pool(x)), images)
        assert table.loc[names[1], "sensitivity"] == pytest.approx(expected, rel=1e-4)


@keras.saving.register_keras_serializable(package="test")
class Block(layers.Layer):
    """Holds layers with automatic names, which are new in every copy."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Conv2D(4, 3), layers.Conv2D(4, 3)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, None, None, 4))

    def call(self, images):
        return self.second(self.first(images))


def with_a_block():
    inputs = keras.Input((16, 16, 3))
    x = layers.MaxPooling2D(2, name="pool")(Block(name="block")(inputs))
    return keras.Model(inputs, layers.Flatten(name="flat")(x))


def test_after_a_swap_layers_have_the_names_they_had(images):
    model = with_a_block()
    swapped = ds.swap_downsampling(model, "average")
    assert list(measured(swapped, images).index) == list(measured(model, images).index)
    table = ds.compare_sensitivity({"old": model, "new": swapped}, images)
    assert (table["note"] == "").all()
    inside = table[table["layer"].str.startswith("block/")]
    assert len(inside) == 2
    np.testing.assert_allclose(inside["ratio"], 1, rtol=1e-5)


class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolutions = [layers.Conv2D(4, 3) for _ in range(3)]

    def call(self, images):
        for convolution in self.convolutions:
            images = convolution(images)
        return images


def test_two_models_of_one_class_are_compared_by_the_order_of_calls(images):
    """Names as conv2d_3 may stand for the first layer of one model and the third of the other."""
    first, second = Plain(), Plain()
    second.convolutions[0].name = "conv2d_77"
    for model in (first, second):
        model(images[:1])
    second.convolutions[1].name = first.convolutions[2].name
    for mine, theirs in zip(first.weights, second.weights):
        theirs.assign(numpy(mine.value))
    table = ds.compare_sensitivity({"first": first, "second": second}, images)
    assert (table["note"] == "").all()
    np.testing.assert_allclose(table["ratio"], 1, rtol=1e-5)


# ---- windows ----


class Windows(layers.Layer):
    """Cuts images into 8×8 windows, which it folds into the batch: by image, or by window."""

    def __init__(self, by_window=False, **kwargs):
        super().__init__(**kwargs)
        self.by_window = by_window

    def call(self, images):
        cut = ops.reshape(images, (-1, 2, 8, 2, 8, 3))
        order = (1, 3, 0, 2, 4, 5) if self.by_window else (0, 1, 3, 2, 4, 5)
        return ops.reshape(ops.transpose(cut, order), (-1, 8, 8, 3))


@pytest.mark.parametrize("by_window", [False, True])
def test_windows_are_folded_back_into_their_images(images, by_window):
    inputs = keras.Input((16, 16, 3))
    windows = layers.Dense(2, name="inner")(Windows(by_window, name="windows")(inputs))
    last = layers.Conv2D(2, 3, name="last")(inputs)
    model = keras.Model(inputs, [windows, last])
    randomize(model)
    table = measured(model, images, ["windows", "inner"])
    expected = by_hand(lambda x: x, images)  # the same pixels in another order
    assert table.loc["windows", "sensitivity"] == pytest.approx(expected, rel=1e-4)
    kernel, bias = (numpy(x.value) for x in model.get_layer("inner").weights)
    expected = by_hand(lambda x: x @ kernel + bias, images)
    assert table.loc["inner", "sensitivity"] == pytest.approx(expected, rel=1e-4)


def test_rows_that_are_mixed_get_a_note(images):
    class Mixed(layers.Layer):
        def call(self, images):
            rows = ops.reshape(images, (-1, 8, 16, 3))
            return ops.flip(rows, axis=0)  # the second image's rows come first

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, [Mixed(name="mixed")(inputs), layers.Flatten(name="flat")(inputs)])
    table = measured(model, images)
    assert np.isnan(table.loc["mixed", "sensitivity"])
    assert "in an order that could not be found" in table.loc["mixed", "note"]


@pytest.mark.parametrize("by_window", [False, True])
def test_images_that_are_all_the_same_do_not_tell_an_order(images, by_window):
    """ "By image" was taken, and kept for the images of later measurements."""
    inputs = keras.Input((16, 16, 3))
    windows = Windows(by_window, name="windows")(inputs)
    model = keras.Model(inputs, [windows, layers.Flatten(name="flat")(inputs)])
    same = np.repeat(images[:1], 4, axis=0)
    table = measured(model, same)
    assert "order does not show" in table.loc["windows", "note"]
    assert "constant" in table.loc["flat", "note"]
    (row,) = ds.measure_equivariance(model, same, DEFORMATION, "windows").note.unique()
    assert "order does not show" in row
    table = measured(model, images)
    expected = by_hand(lambda x: x, images)  # the same pixels in another order
    assert table.loc["windows", "sensitivity"] == pytest.approx(expected, rel=1e-4)
    # What images told once is known of those that tell nothing.
    assert "constant" in measured(model, same).loc["windows", "note"]


def test_weights_that_give_all_images_the_same_do_not_tell_an_order(images):
    inputs = keras.Input((16, 16, 3))
    tensor = layers.Dense(2, kernel_initializer="zeros", name="inner")(
        Windows(True, name="windows")(inputs)
    )
    model = keras.Model(inputs, [tensor, layers.Flatten(name="flat")(inputs)])
    note = measured(model, images)["note"]
    assert "order does not show" in note["inner"]
    assert note["windows"] == ""
    randomize(model)
    kernel, bias = (numpy(x.value) for x in model.get_layer("inner").weights)
    expected = by_hand(lambda x: x @ kernel + bias, images)
    assert measured(model, images).loc["inner", "sensitivity"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("count", [5, 7, 10])
def test_similarities_within_a_batch_have_no_rows_whatever_its_size(count):
    class Similarities(layers.Layer):
        def call(self, images):
            flat = ops.reshape(images, (-1, 768))
            return ops.matmul(flat, ops.transpose(flat))

    images = natural_images(count)
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, [Similarities(name="inner")(inputs), layers.Flatten()(inputs)])
    table = measured(model, images, batch_size=count)
    assert np.isnan(table.loc["inner", "sensitivity"])
    with pytest.raises(ValueError, match="does not depend on the other images of a batch"):
        ds.prediction_consistency(keras.Model(inputs, model.outputs[0]), images, batch_size=count)


# ---- dense answers ----


def segmenter(classes=3):
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, layers.Conv2D(classes, 1, name="classes")(x))
    randomize(model)
    return model


def test_dense_answers_by_plain_loops(images):
    model, draws = segmenter(), 2
    labels = np.random.default_rng(3).integers(0, 3, (COUNT, 16, 16))
    (row,) = ds.prediction_consistency(
        model, images, labels, DEFORMATION, deformations=draws, batch_size=4
    ).to_dict("records")
    moves = numpy(DEFORMATION.draw(COUNT * draws, seed=0)).reshape(COUNT, draws, -1, 2)
    top = lambda x: model.predict(x, verbose=0).argmax(axis=-1)
    own = top(images)
    agree, unmoved, pairs, right, correct = [], [], np.zeros((3, 3)), [], []
    for image in range(COUNT):
        for draw in range(draws):
            flow = numpy(DEFORMATION.flow(moves[image, draw][None], 16, 16))[0]
            found = top(numpy(DEFORMATION.deform(images[image][None], moves[image, draw][None])))[0]
            expected, truth = np.empty((16, 16), int), np.empty((16, 16), int)
            for y in range(16):
                for x in range(16):
                    at = np.clip((y, x) + flow[y, x].astype("float64"), 0, 15)
                    at = tuple(np.floor(at + 0.5).astype(int))
                    expected[y, x], truth[y, x] = own[image][at], labels[image][at]
            agree.append((found == expected).mean())
            unmoved.append((found == own[image]).mean())
            right.append((found == truth).mean())
            correct += list((found == expected)[expected == truth])
            for a, b in zip(found.ravel(), expected.ravel()):
                pairs[a, b] += 1
    assert row["consistency"] == pytest.approx(np.mean(agree), abs=1e-9)
    assert row["unmoved_consistency"] == pytest.approx(np.mean(unmoved), abs=1e-9)
    assert row["consistency"] > row["unmoved_consistency"] + 0.02  # a convolution moves along
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - np.diag(pairs)
    assert row["mean_iou"] == pytest.approx((np.diag(pairs) / union).mean(), abs=1e-9)
    assert row["accuracy"] == pytest.approx((own == labels).mean())
    assert row["deformed_accuracy"] == pytest.approx(np.mean(right))
    assert row["correct_consistency"] == pytest.approx(np.mean(correct))
    by_image = np.reshape(agree, (COUNT, draws)).mean(axis=1)
    interval = scipy.stats.t.interval(0.95, COUNT - 1, by_image.mean(), scipy.stats.sem(by_image))
    found = row["consistency_low"], row["consistency_high"]
    np.testing.assert_allclose(found, interval, rtol=1e-9)


class Repeated(ds.RandomDeformation):
    """The same draw of an image again and again: no more is known than from one."""

    copies = 1

    def draw(self, batch_size, seed=None):
        return np.repeat(numpy(super().draw(batch_size // self.copies, seed)), self.copies, axis=0)


@pytest.mark.parametrize("model", ["dense", "not dense"])
def test_draws_of_an_image_are_not_counted_as_images(images, model):
    model, deformation, found = (
        segmenter() if model == "dense" else classifier(),
        Repeated(3, 2.0),
        [],
    )
    for deformation.copies in (1, 16):
        table = ds.prediction_consistency(
            model, images, None, deformation, deformations=deformation.copies
        )
        found.append(table[["consistency", "consistency_low", "consistency_high"]].iloc[0].tolist())
    assert found[0][1] < found[0][0] < found[0][2]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


@pytest.mark.parametrize("padding", ["edge", "circular"])
def test_dense_answers_move_with_the_padding_of_the_deformation(images, padding):
    """A class of each pixel by itself moves exactly as the pixels do, by whole pixels."""
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Conv2D(3, 1)(inputs))
    randomize(model)
    labels = model.predict(images, verbose=0).argmax(axis=-1)
    deformation = ds.RandomTranslation(3.0, integer=True, padding=padding)
    row = ds.prediction_consistency(model, images, labels, deformation, deformations=2).iloc[0]
    assert len(np.unique(labels)) > 1
    for name in ("consistency", "mean_iou", "deformed_accuracy", "correct_consistency"):
        assert row[name] == 1, name
    assert row["unmoved_consistency"] < 0.9


def test_answers_and_labels_of_every_pixel_are_not_kept():
    """They were until the end, of every draw, beyond any memory_limit."""
    counts, draws, maps = dense_consistency._Counts(3, True), 64, (4, 32, 32)
    answers = np.zeros((draws, *maps), int)
    flows = [ops.zeros((*maps, 2))] * draws
    counts.add(answers[0], answers, answers[0], flows)
    kept = sum(np.asarray(each).nbytes for each in keras.tree.flatten(vars(counts)))
    assert kept < draws * np.prod(maps) / 2  # a byte for each would be one of three maps
    assert counts.row()["accuracy"] == counts.row()["correct_consistency"] == 1


def test_dense_answers_of_another_size_are_refused(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Conv2D(3, 3, strides=2)(inputs))
    with pytest.raises(ValueError, match=r"answers of 7×7 for images of 16×16 pixels: resize"):
        ds.prediction_consistency(model, images)


# ---- bad input ----


def classifier():
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "measure",
    [
        lambda m, x: ds.measure_sensitivity(m, x),
        lambda m, x: ds.prediction_consistency(m, x),
        lambda m, x: ds.compare_sensitivity({"a": m, "b": m}, x),
        lambda m, x: ds.sensitivity_by_strength(m, x, [1.0]),
        lambda m, x: ds.SensitivityCallback(x),
        lambda m, x: ds.reestimate_batch_normalization(m, x),
    ],
)
def test_images_that_are_not_finite_are_refused(images, measure, bad):
    images[4, 3, 2, 1] = bad
    with pytest.raises(ValueError, match=r"images must be finite: 1 of 10 hold.*image 4 the first"):
        measure(classifier(), images)


@pytest.mark.parametrize(
    "labels",
    [
        ["cat"] * COUNT,
        [-1] + [0] * (COUNT - 1),
        [100] + [0] * (COUNT - 1),
        [3] + [0] * (COUNT - 1),  # classes are 0, 1, 2
        [np.nan] + [0.0] * (COUNT - 1),
        [0.5] * COUNT,
        np.zeros((COUNT, 3)),
        np.full((COUNT, 3), np.nan),
        np.eye(4)[[0] * COUNT],
        [None] * COUNT,
    ],
    ids=str,
)
def test_what_are_no_labels_is_refused(images, labels):
    with pytest.raises(ValueError, match="labels must"):
        ds.prediction_consistency(classifier(), images, labels)


@pytest.mark.parametrize("model", [None, "model.keras", layers.Dense(2), 3])
@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: ds.measure_sensitivity(m, x),
        lambda m, x: ds.prediction_consistency(m, x),
        lambda m, x: ds.compare_sensitivity({"a": classifier(), "b": m}, x),
        lambda m, x: ds.filter_smoothness(m),
        lambda m, x: ds.reestimate_batch_normalization(m, x),
        lambda m, x: ds.paper_layers(m),
    ],
)
def test_what_is_no_model_is_refused(images, model, use):
    with pytest.raises(ValueError, match=r"model must be a keras\.Model, received"):
        use(model, images)


@pytest.mark.parametrize("name", ["deformations", "batch_size", "max_images", "memory_limit"])
def test_booleans_are_no_numbers(images, name):
    with pytest.raises(ValueError, match=rf"{name} must be .*True"):
        ds.measure_sensitivity(classifier(), images, **{name: True})


def test_a_memory_limit_that_would_take_for_ever_is_refused_at_once(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Conv2D(64, 3, name="conv")(inputs))
    asks = r"memory_limit=1 .*over 1000 passes.*give at least (\d+)"
    least = {}
    for measure in (ds.measure_sensitivity, ds.measure_equivariance):
        with pytest.raises(ValueError, match=asks) as error:
            measure(model, images, memory_limit=1)
        least[measure] = int(re.search(asks, str(error.value))[1])
        with pytest.raises(ValueError, match="over 1000 passes"):
            measure(model, images, memory_limit=0.9 * least[measure])
    table = ds.measure_sensitivity(model, images, memory_limit=50 * least[ds.measure_sensitivity])
    expected = ds.measure_sensitivity(model, images)
    np.testing.assert_allclose(table["sensitivity"], expected["sensitivity"], rtol=1e-5)


@pytest.mark.parametrize("seed", [None, True, 1.5, "a"])
@pytest.mark.parametrize(
    "use",
    [
        ds.measure_sensitivity,
        ds.measure_stability,
        ds.measure_equivariance,
        ds.prediction_consistency,
        lambda m, x, seed: ds.compare_sensitivity({"a": m, "b": m}, x, seed=seed),
        lambda m, x, seed: ds.worst_deformation(m, x, "prediction", seed=seed),
        lambda m, x, seed: ds.SensitivityCallback(x, measures=("stability",), seed=seed),
    ],
)
def test_what_is_no_seed_is_refused_at_once(images, seed, use):
    with pytest.raises(ValueError, match=r"seed must be an integer .*received"):
        use(classifier(), images, seed=seed)


def test_a_seed_of_numpy_is_an_integer(images):
    model, settings = classifier(), {"steps": 1, "starts": 2, "progress": False}
    found, _ = ds.worst_deformation(model, images, "prediction", seed=np.int64(3), **settings)
    same, _ = ds.worst_deformation(model, images, "prediction", seed=3, **settings)
    pd.testing.assert_frame_equal(found, same)


def test_a_distance_that_float32_cannot_resolve_is_not_called_zero(images):
    class Outlier(layers.Layer):
        """A representation of which one image's is longer than all others by far."""

        def call(self, images):
            flat = ops.reshape(images, (-1, 768))
            white = ops.cast(flat[:, :1] > 0.99, "float32")
            return flat * 20 + white * 1e9

    images = np.clip(images, -0.9, 0.9)
    images[2, :9, :9] = 1.0
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, [Outlier(name="outlier")(inputs), layers.Flatten()(inputs)])
    table = measured(model, images, ["outlier"], metric="euclidean")
    assert "below what float32 resolves" in table.loc["outlier", "note"]
    assert "zero" not in table.loc["outlier", "note"]
