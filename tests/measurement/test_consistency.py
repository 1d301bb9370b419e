"""prediction_consistency against plain loops over model.predict, and what it refuses."""

import inspect

import keras
import numpy as np
import pytest
import scipy.stats
from helpers import natural_images, needs_tensorflow, numpy, randomize
from keras import layers

import deformstab as ds
from deformstab.measurement import consistency as consistency_module
from deformstab.tables import CONSISTENCY_COLUMNS

DEFORMATION = ds.RandomDeformation(3, 2.0)
COUNT = 14


class Broken(layers.Layer):
    """NaN for images whose mean is not above a threshold; a layer of its own, to be deformed by."""

    def __init__(self, threshold, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold

    def call(self, x):
        means = keras.ops.mean(x, axis=-1, keepdims=True)
        return keras.ops.where(means > self.threshold, x, float("nan"))


def classifier(classes=3, outputs=1, seed=0, size=16):
    """A small convolutional classifier, of several heads if need be."""
    inputs = keras.Input((size, size, 3))
    tensor = layers.Conv2D(4, 5, strides=2, activation="relu", name="conv")(inputs)
    tensor = layers.Flatten()(tensor)
    heads = [layers.Dense(classes, name=f"head{i}")(tensor) for i in range(outputs)]
    model = keras.Model(inputs, heads[0] if outputs == 1 else heads)
    randomize(model, seed)
    return model


@pytest.fixture
def images():
    return natural_images(COUNT)


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 3, COUNT)


def consistency(model, images, labels=None, deformation=DEFORMATION, **options):
    (row,) = ds.prediction_consistency(model, images, labels, deformation, **options).to_dict(
        "records"
    )
    return row


def expected(model, images, labels, draws=1, seed=0, head=None):
    """{column: value} by loops over images and draws."""

    def answers(batch):
        found = model.predict(batch, verbose=0)
        return np.argmax(found if head is None else found[head], axis=1)

    moves = numpy(DEFORMATION.draw(len(images) * draws, seed=seed))
    deformed = numpy(DEFORMATION.deform(np.repeat(images, draws, axis=0), moves))
    clean, moved = answers(images), answers(deformed)
    same, right, right_moved, of_right = [], [], [], []
    for i in range(len(images)):
        own = [moved[i * draws + draw] for draw in range(draws)]
        same += [each == clean[i] for each in own]
        if labels is not None:
            right.append(clean[i] == labels[i])
            right_moved += [each == labels[i] for each in own]
            if clean[i] == labels[i]:
                of_right += [each == clean[i] for each in own]
    found = {"consistency": np.mean(same)}
    if labels is not None:
        found |= {"accuracy": np.mean(right), "deformed_accuracy": np.mean(right_moved)}
        found["correct_consistency"] = np.mean(of_right)
    return found


@pytest.mark.parametrize(("draws", "batch_size", "seed"), [(1, 32, 0), (3, 5, 0), (7, 4, 9)])
def test_plain_loops_over_predictions(images, labels, draws, batch_size, seed):
    model = classifier()
    row = consistency(model, images, labels, deformations=draws, batch_size=batch_size, seed=seed)
    by_loop = expected(model, images, labels, draws, seed)
    assert 0 < by_loop["consistency"] < 1  # or the test would see little
    for name, value in by_loop.items():
        assert row[name] == pytest.approx(value, abs=1e-12), name
    assert row["note"] == ""


@pytest.mark.parametrize("draws", [1, 5])
def test_the_batch_size_does_not_matter(images, labels, draws):
    model = classifier()
    rows = [
        ds.prediction_consistency(
            model, images, labels, DEFORMATION, deformations=draws, batch_size=batch_size
        )
        for batch_size in (1, 3, 64)
    ]
    answers = ["consistency", "consistency_low", "consistency_high", "accuracy"]
    answers += ["deformed_accuracy", "correct_consistency"]
    for row in rows[1:]:
        assert row[answers].equals(rows[0][answers])
        np.testing.assert_allclose(row["sensitivity"], rows[0]["sensitivity"], rtol=1e-4)


@pytest.mark.parametrize("dense", [False, True])
def test_a_memory_limit_is_refused_before_the_model_answers(images, monkeypatch, dense):
    def answering(*arguments):
        raise AssertionError("the model answered")

    monkeypatch.setattr(consistency_module, "answers", answering)
    monkeypatch.setattr(consistency_module, "dense_shares", answering)
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(5, 1)])  # 1280 entries
    if not dense:
        model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(1200)])
    with pytest.raises(ValueError, match="over 1000 passes"):
        ds.prediction_consistency(model, images, memory_limit=2)


def test_wilsons_interval(images):
    row = consistency(classifier(), images)
    hits = round(COUNT * row["consistency"])
    interval = scipy.stats.binomtest(hits, COUNT).proportion_ci(method="wilson")
    found = row["consistency_low"], row["consistency_high"]
    np.testing.assert_allclose(found, interval, rtol=1e-12)


def test_nothing_moves(images, labels):
    row = consistency(classifier(), images, labels, ds.RandomDeformation(3, 0.0), deformations=2)
    assert row["consistency"] == row["consistency_high"] == row["correct_consistency"] == 1
    assert row["accuracy"] == row["deformed_accuracy"]
    z = scipy.stats.norm.ppf(0.975)
    assert row["consistency_low"] == pytest.approx(COUNT / (COUNT + z**2))
    assert row["rms_displacement"] == row["folded_fraction"] == 0


def test_a_model_of_one_answer_is_consistent_and_wrong(images):
    model = classifier()
    model.layers[-1].bias.assign([0, 100, 0])
    labels = np.array([0, 1] * (COUNT // 2))
    row = consistency(model, images, labels)
    assert (row["consistency"], row["accuracy"], row["deformed_accuracy"]) == (1, 0.5, 0.5)
    row = consistency(model, images, np.zeros(COUNT, int))
    assert (row["consistency"], row["accuracy"]) == (1, 0)
    assert np.isnan(row["correct_consistency"])  # of no image


def test_what_stands_beside_it(images):
    model = classifier()
    options = {"metric": "euclidean", "deformations": 2, "seed": 5, "batch_size": 6}
    row = consistency(model, images, **options)
    last = ds.measure_sensitivity(model, images, DEFORMATION, layers="head0", **options).iloc[0]
    for name in CONSISTENCY_COLUMNS:
        if name in last.index:
            np.testing.assert_equal(row[name], last[name], err_msg=name)
    assert row["layer"] == "head0"


def test_columns_types_and_documentation(images, labels):
    table = ds.prediction_consistency(classifier(), images, labels)
    assert list(table.columns) == list(CONSISTENCY_COLUMNS)
    assert len(table) == 1
    text = inspect.getdoc(ds.prediction_consistency)
    for name, dtype in CONSISTENCY_COLUMNS.items():
        assert dtype == "str" or table[name].dtype == dtype
        assert f"`{name}`" in text


# ---- labels ----


def test_labels_in_all_their_forms(images, labels):
    model = classifier()
    want = consistency(model, images, labels)
    one_hot = np.eye(3)[labels]
    forms = [labels.tolist(), labels[:, None], labels.astype("float32"), one_hot, one_hot > 0]
    forms += [keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(one_hot)]
    for form in forms:
        np.testing.assert_equal(consistency(model, images, form), want)


def test_no_labels(images, labels):
    row = consistency(classifier(), images)
    assert np.isnan([row["accuracy"], row["deformed_accuracy"], row["correct_consistency"]]).all()
    with_labels = consistency(classifier(), images, labels)
    assert row["consistency"] == with_labels["consistency"]


@pytest.mark.parametrize("count", [0, 1, COUNT - 1, COUNT + 1])
@pytest.mark.parametrize("kind", ["numbers", "one-hot"])
def test_labels_of_another_length(images, count, kind):
    labels = np.zeros((count, 3) if kind == "one-hot" else count, int)
    with pytest.raises(ValueError, match=rf"labels must be .* of 14 images, received.*{count}"):
        ds.prediction_consistency(classifier(), images, labels)


@pytest.mark.parametrize("labels", [3, np.zeros((COUNT, 2, 2)), {"a": np.zeros(COUNT)}])
def test_what_are_no_labels(images, labels):
    with pytest.raises(ValueError, match=r"labels must be"):
        ds.prediction_consistency(classifier(), images, labels)


def test_labels_are_checked_before_any_prediction(images, monkeypatch):
    monkeypatch.setattr(consistency_module, "answers", lambda *_: pytest.fail("predicts"))
    with pytest.raises(ValueError, match="labels must be"):
        ds.prediction_consistency(classifier(), images, [1, 2])


def test_the_first_images_have_the_first_labels(images, labels):
    model = classifier()
    want = consistency(model, images[:9], labels[:9])
    np.testing.assert_equal(consistency(model, images, labels, max_images=9), want)


def batches(images, labels, size=5):
    for start in range(0, len(images), size):
        yield images[start : start + size], labels[start : start + size]


def test_labels_of_a_generator(images, labels):
    model = classifier()
    want = consistency(model, images, labels)
    np.testing.assert_equal(consistency(model, batches(images, labels)), want)
    np.testing.assert_equal(consistency(model, batches(images, np.eye(3)[labels])), want)
    np.testing.assert_equal(consistency(model, batches(images, labels[:, None])), want)
    singles = zip(images, labels)
    np.testing.assert_equal(consistency(model, singles), want)
    first = consistency(model, batches(images, labels), max_images=7)
    np.testing.assert_equal(first, consistency(model, images[:7], labels[:7]))
    # Labels that are given are taken, whatever comes with the images.
    others = (labels + 1) % 3
    given = consistency(model, batches(images, labels), others)
    np.testing.assert_equal(given, consistency(model, images, others))


@needs_tensorflow
def test_labels_of_a_dataset(images, labels):
    import tensorflow as tf

    model = classifier()
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    np.testing.assert_equal(consistency(model, dataset), consistency(model, images, labels))
    only = tf.data.Dataset.from_tensor_slices(images).batch(4)
    np.testing.assert_equal(consistency(model, only), consistency(model, images))


# ---- outputs ----


@pytest.mark.parametrize("output", [0, 1])
def test_one_of_several_outputs_by_number(images, labels, output):
    model = classifier(outputs=2)
    row = consistency(model, images, labels, output=output, deformations=2)
    for name, value in expected(model, images, labels, draws=2, head=output).items():
        assert row[name] == pytest.approx(value, abs=1e-12), name


def test_one_of_several_outputs_by_key_with_its_labels(images, labels):
    model = classifier(outputs=2)
    keyed = keras.Model(model.inputs, dict(zip(["first", "second"], model.outputs)))
    want = consistency(model, images, labels, output=1)
    np.testing.assert_equal(consistency(keyed, images, labels, output="second"), want)
    both = {"first": np.zeros(COUNT, int), "second": labels}
    source = ((images[i : i + 7], {name: y[i : i + 7] for name, y in both.items()}) for i in (0, 7))
    np.testing.assert_equal(consistency(keyed, source, output="second"), want)
    source = ((images[i : i + 7], (labels[i : i + 7], labels[i : i + 7])) for i in (0, 7))
    np.testing.assert_equal(consistency(model, source, output=1), want)


@pytest.mark.parametrize("output", [None, 2, "head0", "nothing"])
def test_outputs_that_are_not_named_or_not_there(images, output):
    with pytest.raises(ValueError, match=r"needs an output \[images, classes\].*output="):
        ds.prediction_consistency(classifier(outputs=2), images, output=output)


def test_outputs_that_hold_no_classes(images):
    inputs = keras.Input((16, 16, 3))
    one = layers.Dense(1)(layers.Flatten()(inputs))
    for tensor in (one, layers.Reshape((16, 48))(inputs)):
        model = keras.Model(inputs, tensor)
        with pytest.raises(ValueError, match=r"needs an output \[images, classes\] with two"):
            ds.prediction_consistency(model, images)
        with pytest.raises(ValueError, match=r"needs an output \[images, classes\] with two"):
            ds.prediction_consistency(model, images, output=0)


def test_two_outputs_of_one_model_are_not_mixed_up(images, labels):
    """What is compiled for one output is not used for the other."""
    model = classifier(outputs=2)
    found = [consistency(model, images, labels, output=i)["accuracy"] for i in (0, 1, 0)]
    assert found[0] == found[2] != found[1]


def test_new_weights_give_new_answers(images, labels):
    model, other = classifier(), classifier(seed=5)
    before = consistency(model, images, labels)
    want = consistency(other, images, labels)
    for mine, theirs in zip(model.weights, other.weights):
        mine.assign(numpy(theirs.value))
    assert before["accuracy"] != want["accuracy"]
    np.testing.assert_equal(consistency(model, images, labels), want)


def test_answers_that_are_nan_are_no_answers(images, labels):
    """The largest of NaNs is the same one for all images: that is not consistent."""
    model = classifier()
    means = np.sort(model.predict(images, verbose=0).mean(axis=1))
    outputs = Broken((means[1] + means[2]) / 2)(model.output)
    row = consistency(keras.Model(model.input, outputs), images, labels)
    assert np.isnan([row["consistency"], row["consistency_low"], row["accuracy"]]).all()
    assert row["note"].startswith("the model answers with NaN for ")
    assert row["note"].endswith(" of 28 images, deformed or not")
    assert int(row["note"].split()[6]) >= 2
    row = consistency(keras.Model(model.input, Broken(1e9)(model.output)), images)
    assert row["note"] == "the model answers with NaN for 28 of 28 images, deformed or not"


def test_models_that_are_neither_built_nor_functional(images, labels):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Flatten(), layers.Dropout(0.9), layers.Dense(3)]

        def call(self, x, training=False):
            flatten, dropout, dense = self.parts
            return dense(dropout(flatten(x), training=training))

    model = Own()
    row = consistency(model, images, labels, deformations=2)
    for name, value in expected(model, images, labels, draws=2).items():
        assert row[name] == pytest.approx(value, abs=1e-12), name


def test_several_inputs(images, labels):
    """Only one of them is deformed; the other one comes with each image and draw."""
    one, other = (keras.Input((16, 16, 3), name=name) for name in ("one", "other"))
    joined = layers.Concatenate()([layers.Flatten()(one), layers.Flatten()(other)])
    model = keras.Model({"one": one, "other": other}, layers.Dense(3)(joined))
    inputs = {"one": images, "other": natural_images(COUNT, seed=8)}
    still = {"one": ds.RandomDeformation(3, 0.0), "other": DEFORMATION}
    for name, deformation in still.items():
        row = consistency(
            model, inputs, labels, deformation, deformed_input=name, deformations=2, batch_size=4
        )
        moves = numpy(deformation.draw(COUNT * 2, seed=0))
        twice = {key: np.repeat(value, 2, axis=0) for key, value in inputs.items()}
        twice[name] = numpy(deformation.deform(twice[name], moves))
        clean = model.predict(inputs, verbose=0).argmax(axis=1)
        moved = model.predict(twice, verbose=0).argmax(axis=1)
        assert row["consistency"] == pytest.approx((moved == np.repeat(clean, 2)).mean())
        assert row["deformed_accuracy"] == pytest.approx((moved == np.repeat(labels, 2)).mean())


def test_what_cannot_be_measured_with(images):
    for name, value in (("metric", "l2"), ("batch_size", 0), ("deformations", 0)):
        with pytest.raises(ValueError, match=name):
            ds.prediction_consistency(classifier(), images, **{name: value})
    with pytest.raises(ValueError, match="at least two"):
        ds.prediction_consistency(classifier(), images[:1])
