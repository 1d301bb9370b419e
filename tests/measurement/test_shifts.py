"""shift_consistency against plain loops over offsets and pairs, exact cases, and what it refuses."""

import inspect
import itertools
import math

import keras
import numpy as np
import pytest
from helpers import natural_images, needs_tensorflow, numpy, randomize
from keras import layers

import deformstab as ds
from deformstab.measurement import shifts as shifts_module
from deformstab.measurement.intervals import proportion_interval
from deformstab.measurement.shifts import Shifts
from deformstab.tables import SHIFT_COLUMNS

COUNT, SIDE = 9, 24
PROTOCOLS = ("crop", "circular")
BLOCKS = ((1, 6), (1, 8))


class Hash(layers.Layer):
    """One of ten classes, by digits of a sum over the image that are as good as random."""

    def build(self, shape):
        weights = np.random.default_rng(0).uniform(1, 2, shape[1:])
        self.hidden = self.add_weight(shape=shape[1:], name="hidden", trainable=False)
        self.hidden.assign(weights)

    def call(self, images):
        total = keras.ops.sum(images * self.hidden, axis=(1, 2, 3))
        digits = 100 * keras.ops.abs(total)
        return keras.ops.one_hot(
            keras.ops.cast(10 * (digits - keras.ops.floor(digits)), "int32"), 10
        )


class Broken(layers.Layer):
    """NaN for images whose mean is not above a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def call(self, images):
        means = keras.ops.mean(images, axis=(1, 2, 3))[:, None]
        sums = keras.ops.mean(images, axis=(1, 2))
        return keras.ops.where(means > self.threshold, sums, float("nan"))


def classifier(size=(SIDE, SIDE), outputs=1, seed=1):
    inputs = keras.Input((*size, 3))
    tensor = layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    tensor = layers.Flatten()(layers.MaxPooling2D(3)(tensor))
    heads = [layers.Dense(4, name=f"head{i}")(tensor) for i in range(outputs)]
    model = keras.Model(inputs, heads[0] if outputs == 1 else heads)
    randomize(model, seed)
    return model


def of_one_layer(layer, size=SIDE):
    inputs = keras.Input((size, size, 3))
    return keras.Model(inputs, layer(inputs))


@pytest.fixture
def images():
    return natural_images(COUNT, SIDE, SIDE)


@pytest.fixture
def labels():
    return np.random.default_rng(3).integers(0, 4, COUNT)


def consistency(model, images, labels=None, protocol="crop", **options):
    (row,) = ds.shift_consistency(model, images, labels, protocol, **options).to_dict("records")
    return row


def enlarged(image, rows, columns):
    """Bilinear, pixels as squares whose middles are at ½, edge pixels beyond; a plain loop."""
    height, width, _ = image.shape
    found = np.empty((rows, columns, 3))
    for y, x in np.ndindex(rows, columns):
        down = min(max((y + 0.5) * height / rows - 0.5, 0), height - 1)
        along = min(max((x + 0.5) * width / columns - 0.5, 0), width - 1)
        top, left = min(int(down), height - 2), min(int(along), width - 2)
        value = 0.0
        for row, row_weight in ((top, 1 - (down - top)), (top + 1, down - top)):
            for column, weight in ((left, 1 - (along - left)), (left + 1, along - left)):
                value = value + row_weight * weight * image[row, column].astype("float64")
        found[y, x] = value
    return found


def shifted(image, protocol):
    """All shifts of one image: a list, that of offset 0 the first."""
    height, width, _ = image.shape
    if protocol == "circular":
        offsets = sorted(itertools.product(range(-3, 3), repeat=2), key=lambda each: each != (0, 0))
        return [np.roll(image, each, axis=(0, 1)) for each in offsets]
    larger = enlarged(image, height * 36 // 32, width * 36 // 32)
    starts = [(side // 8 - 3) // 2 for side in (height, width)]
    places = itertools.product(*(range(each, each + 4) for each in starts))
    return [larger[y : y + height, x : x + width] for y, x in places]


def expected(model, images, labels, protocol, head=None):
    """{column: value} by loops over images, offsets and pairs of offsets."""

    def answers(batch):
        found = model.predict(np.asarray(batch, "float32"), verbose=0)
        return list(np.argmax(found if head is None else found[head], axis=1))

    pairs, own, right, accuracies, every = [], [], [], [], []
    for image, label in zip(images, labels):
        found = answers(shifted(image, protocol))
        n = len(found)
        same = sum(found[i] == found[j] for i in range(n) for j in range(n) if i != j)
        pairs.append(same / (n * (n - 1)))
        own.append(sum(found[i] == found[j] for i in range(n) for j in range(n)) / n**2)
        right.append(found[0] == label)
        accuracies.append([each == label for each in found])
        every += found
    right, pairs = np.array(right), np.array(pairs)
    return {
        "consistency": pairs.mean(),
        "customary_consistency": np.mean(own),
        "accuracy": np.mean(accuracies),
        "unshifted_accuracy": np.mean(np.array(answers(images)) == labels),
        "worst_accuracy": np.mean(accuracies, axis=0).min(),
        "consistency_of_right": pairs[right].mean() if right.any() else np.nan,
        "consistency_of_wrong": pairs[~right].mean() if not right.all() else np.nan,
        "chance": sum((every.count(c) / len(every)) ** 2 for c in range(4)),
        "offsets": n,
        "images": len(images),
    }


# ---- against plain loops ----


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_loops_over_all_pairs_of_offsets(protocol, size):
    model = classifier(size)
    images = natural_images(COUNT, *size)
    # Labels that some images have: what is right must not be empty.
    labels = model.predict(images, verbose=0).argmax(axis=1)
    labels[::2] = (labels[::2] + 1) % 4
    row = consistency(model, images, labels, protocol)
    by_loop = expected(model, images, labels, protocol)
    assert 0.2 < by_loop["consistency"] < 0.98  # or the test would see little
    assert by_loop["worst_accuracy"] < by_loop["accuracy"]
    for name, value in by_loop.items():
        assert row[name] == pytest.approx(value, abs=1e-12), name
    assert (row["protocol"], row["note"]) == (protocol, "")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shifted_images_by_a_plain_loop(protocol, data_format):
    images = natural_images(2, 20, 33)
    shifts = Shifts.of(protocol, (20, 33), data_format)
    # 20 · 9 / 8 is 22.5, of which rounding up leaves room for four crops; 33 · 9 / 8 is 37.1.
    assert shifts.enlarged == ((23, 37) if protocol == "crop" else None)
    first = data_format == "channels_first"
    given = images.transpose(0, 3, 1, 2) if first else images
    chosen = np.array([0, 5, shifts.draws - 1])
    found = numpy(shifts.moved(keras.ops.convert_to_tensor(given), slice(0, 2), chosen))
    found = (found.transpose(0, 2, 3, 1) if first else found).reshape(2, 3, 20, 33, 3)
    for image, several in zip(images, found):
        for place, each in zip(chosen, several):
            if protocol == "circular":
                want = np.roll(image, (place // 6 - 3, place % 6 - 3), axis=(0, 1))
            else:
                y, x = place // 4, place % 4
                want = enlarged(image, 23, 37)[y : y + 20, x : x + 33]
            np.testing.assert_allclose(each, want, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "larger", "first"),
    [(20, 23, 0), (24, 27, 0), (32, 36, 0), (64, 72, 2), (224, 252, 12)],
)
def test_crops_are_those_in_the_middle(side, larger, first):
    shifts = Shifts.of("crop", (side, side), "channels_last")
    assert shifts.enlarged == (larger, larger)
    assert shifts.offsets == tuple(itertools.product(range(first, first + 4), repeat=2))
    left = larger - side - first - 3  # pixels beyond the last crop
    assert left - first in (0, 1)


def test_rolls_are_those_of_the_original():
    shifts = Shifts.of("circular", (32, 32), "channels_last")
    assert shifts.offsets == tuple(itertools.product((-3, -2, -1, 0, 1, 2), repeat=2))
    assert shifts.offsets[shifts.zero] == (0, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_neither_batch_size_nor_memory_matters(images, labels, protocol):
    model = classifier()
    want = consistency(model, images, labels, protocol)
    for options in ({"batch_size": 1}, {"batch_size": 5}, {"batch_size": 200}, {"memory_limit": 1}):
        np.testing.assert_equal(consistency(model, images, labels, protocol, **options), want)


# ---- exact cases ----


def untrained(kind, padding):
    """Weights that are the same on all backends, by which images get different answers."""
    model = ds.vgg((16, 16, 3), 10, BLOCKS, kind, padding=padding)
    randomize(model, seed=5)
    return model


@pytest.mark.parametrize("kind", ["aps", "max_aps"])
def test_adaptive_sampling_with_circular_padding_is_exactly_consistent(kind):
    images = natural_images(24, 16, 16)
    row = consistency(untrained(kind, "circular"), images, protocol="circular")
    assert row["consistency"] == row["consistency_high"] == row["customary_consistency"] == 1
    assert row["chance"] < 0.7  # or every network would be
    for other in (untrained(kind, "zeros"), untrained("subsample", "circular")):
        assert consistency(other, images, protocol="circular")["consistency"] < 0.7


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_of_one_answer_is_consistent(images, protocol):
    model = classifier()
    model.layers[-1].bias.assign([0, 1e3, 0, 0])
    row = consistency(model, images, np.arange(COUNT) % 3, protocol)
    assert row["consistency"] == row["customary_consistency"] == row["chance"] == 1
    assert row["accuracy"] == row["unshifted_accuracy"] == row["worst_accuracy"] == 1 / 3
    assert row["consistency_of_right"] == row["consistency_of_wrong"] == 1
    # Wilson's bound for COUNT hits of COUNT.
    assert row["consistency_low"] == pytest.approx(COUNT / (COUNT + 1.959964**2))
    never = consistency(model, images, np.zeros(COUNT, int), protocol)
    assert never["accuracy"] == 0
    assert np.isnan(never["consistency_of_right"])  # of no image


@pytest.mark.parametrize(("protocol", "n"), [("crop", 16), ("circular", 36)])
def test_answers_at_random(protocol, n):
    images = natural_images(60, SIDE, SIDE)
    row = consistency(of_one_layer(Hash()), images, protocol=protocol)
    # Of p² + … the pairs of an image are uncorrelated: variance 0.1 · 0.9 a pair.
    error = math.sqrt(0.09 / (60 * n * (n - 1) / 2))
    assert row["consistency"] == pytest.approx(0.1, abs=4 * error)
    assert row["customary_consistency"] == pytest.approx(0.1 + 0.9 / n, abs=4 * error)
    assert row["chance"] == pytest.approx(0.1, abs=0.005)
    assert row["consistency_low"] <= 0.1 + 4 * error
    assert row["consistency_high"] >= 0.1 - 4 * error


# ---- the interval ----


def simulated(images, steady, rng, n=16):
    """Answers of images of which a share never changes, the others more or less: [images, n]."""
    sure = np.where(rng.random(images) < steady, 1.0, rng.beta(4, 1, images))
    return np.where(rng.random((images, n)) < sure[:, None], 0, rng.integers(1, 4, (images, n)))


def interval_of(answers):
    row = shifts_module._shares(np.concatenate([answers[:, :1], answers], axis=1), None, 0)
    return row["consistency_low"], row["consistency_high"]


@pytest.mark.parametrize("images", [8, 30, 100])
@pytest.mark.parametrize("steady", [0.0, 0.9])
def test_coverage_by_simulation(steady, images):
    # Of an image of surety s two answers agree with probability s² + (1 - s)² / 3, and s is beta.
    first, second = 4 / 5, 4 / 5 * 5 / 6
    truth = steady + (1 - steady) * (second + (1 - 2 * first + second) / 3)
    rng = np.random.default_rng(images)
    draws = 400
    covered = 0
    for _ in range(draws):
        low, high = interval_of(simulated(images, steady, rng))
        covered += low <= truth <= high
    # 95 %, three standard errors of a simulation below; Student's t covers 47 % of the hardest case.
    assert covered / draws >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws)


def test_the_interval_is_that_of_the_pairs(images):
    row = consistency(classifier(), images)
    model = classifier()
    hits = []
    for image in images:
        found = model.predict(np.asarray(shifted(image, "crop"), "float32"), verbose=0).argmax(
            axis=1
        )
        hits.append([a == b for a, b in itertools.combinations(found, 2)])
    np.testing.assert_allclose(
        [row["consistency"], row["consistency_low"], row["consistency_high"]],
        proportion_interval(np.array(hits)),
    )


# ---- what it takes ----


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_channels_first(images, labels, protocol, monkeypatch):
    model = classifier()
    inputs = keras.Input((3, SIDE, SIDE))
    first = keras.Model(inputs, model(layers.Permute((2, 3, 1))(inputs)))
    want = consistency(model, images, labels, protocol)
    turned = images.transpose(0, 3, 1, 2)
    found = consistency(first, turned, labels, protocol, data_format="channels_first")
    np.testing.assert_equal(found, want)
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    np.testing.assert_equal(consistency(first, turned, labels, protocol), want)


def test_videos_are_shifted_frame_by_frame(images):
    inputs = keras.Input((2, SIDE, SIDE, 3))
    both = layers.TimeDistributed(classifier())(inputs)
    model = keras.Model(inputs, layers.Lambda(lambda x: x[:, 0] + x[:, 1], (4,))(both))
    clips = np.stack([images, images], axis=1)
    for protocol in PROTOCOLS:
        want = consistency(classifier(), images, protocol=protocol)
        np.testing.assert_equal(consistency(model, clips, protocol=protocol), want)


def test_several_inputs_of_which_one_is_shifted(images, labels):
    one, other = (keras.Input((SIDE, SIDE, 3), name=name) for name in ("one", "other"))
    inner = classifier()
    mixed = layers.Concatenate()([inner(one), layers.GlobalAveragePooling2D()(other)])
    model = keras.Model({"one": one, "other": other}, mixed)
    inputs = {"one": images, "other": natural_images(COUNT, SIDE, SIDE, seed=8) - 100}
    found = consistency(model, inputs, labels, deformed_input="one")
    np.testing.assert_equal(found, consistency(inner, images, labels))
    # The mean of the other one is far below: to shift it changes no answer.
    still = consistency(model, inputs, labels, deformed_input="other")
    assert still["consistency"] == 1
    assert still["accuracy"] == still["unshifted_accuracy"] == found["unshifted_accuracy"]


def test_inputs_given_otherwise_are_not_mixed_up(images):
    """What is compiled for a dict is not used for a list whose order is another one."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = classifier()

        def call(self, x):
            first, second = (x["b"], x["a"]) if isinstance(x, dict) else x
            return self.inner(first) + 0 * self.inner(second)

    model, blank = Own(), np.zeros_like(images)
    by_name = consistency(model, {"a": blank, "b": images}, deformed_input="a")
    assert by_name["consistency"] == 1  # the blank one is shifted
    by_place = consistency(model, [images, blank], deformed_input=0)
    np.testing.assert_equal(by_place, consistency(classifier(), images))


@pytest.mark.parametrize("output", [0, 1])
def test_one_of_several_outputs(images, labels, output):
    model = classifier(outputs=2)
    row = consistency(model, images, labels, output=output)
    for name, value in expected(model, images, labels, "crop", head=output).items():
        np.testing.assert_allclose(row[name], value, atol=1e-12, err_msg=name)


def test_labels_in_all_their_forms(images, labels):
    model = classifier()
    want = consistency(model, images, labels)
    for form in (labels.tolist(), labels[:, None], labels.astype("float32"), np.eye(4)[labels]):
        np.testing.assert_equal(consistency(model, images, form), want)
    without = consistency(model, images)
    for name in SHIFT_COLUMNS:
        about_labels = "accuracy" in name or name.startswith("consistency_of")
        np.testing.assert_equal(without[name], np.nan if about_labels else want[name], err_msg=name)


def test_images_and_labels_of_a_generator(images, labels):
    model = classifier()
    want = consistency(model, images, labels)
    batches = ((images[i : i + 4], labels[i : i + 4]) for i in range(0, COUNT, 4))
    np.testing.assert_equal(consistency(model, batches), want)
    batches = ((images[i : i + 4], labels[i : i + 4]) for i in range(0, COUNT, 4))
    first = consistency(model, batches, max_images=5)
    np.testing.assert_equal(first, consistency(model, images[:5], labels[:5]))
    np.testing.assert_equal(consistency(model, images, labels, max_images=5), first)


@needs_tensorflow
def test_images_and_labels_of_a_dataset(images, labels):
    import tensorflow as tf

    model = classifier()
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    np.testing.assert_equal(consistency(model, dataset), consistency(model, images, labels))


def test_one_image_is_enough(images):
    row = consistency(classifier(), images[:1])
    want = expected(classifier(), images[:1], [0], "crop")
    assert row["consistency"] == pytest.approx(want["consistency"], abs=1e-12)
    assert 0 <= row["consistency_low"] <= row["consistency"] <= row["consistency_high"] <= 1


def test_answers_that_are_nan_are_no_answers(images, labels):
    """The largest of NaNs is the same one for all shifts: that is not consistent."""
    means = np.sort(images.mean(axis=(1, 2, 3)))
    model = of_one_layer(Broken(float(means[1] + means[2]) / 2))
    row = consistency(model, images, labels % 3, "circular")
    empty = [row[name] for name, dtype in SHIFT_COLUMNS.items() if dtype == "float64"]
    assert np.isnan(empty).all()
    # Rolls keep the mean: two images, at 36 offsets and as they are.
    assert (
        row["note"] == f"the model answers with NaN for 74 of {37 * COUNT} images, shifted or not"
    )


def test_columns_types_and_documentation(images, labels):
    table = ds.shift_consistency(classifier(), images, labels)
    assert list(table.columns) == list(SHIFT_COLUMNS)
    assert table.columns[0] == "consistency"
    text = inspect.getdoc(ds.shift_consistency)
    for name, dtype in SHIFT_COLUMNS.items():
        assert dtype == "str" or table[name].dtype == dtype
        assert f"`{name}`" in text


# ---- what it refuses ----


@pytest.mark.parametrize("protocol", ["crops", "", None, 3])
def test_unknown_protocols(images, protocol):
    with pytest.raises(ValueError, match=r"unknown protocol .*known ones are crop, circular"):
        ds.shift_consistency(classifier(), images, protocol=protocol)


@pytest.mark.parametrize(("protocol", "least"), [("crop", 20), ("circular", 6)])
def test_images_that_are_too_small(protocol, least):
    model = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    with pytest.raises(ValueError, match=rf"{protocol}.* at least {least} .* 40×{least - 1}"):
        ds.shift_consistency(model, np.zeros((2, 40, least - 1, 3)), protocol=protocol)
    enough = natural_images(2, least, least)
    assert consistency(classless(least), enough, protocol=protocol)["images"] == 2


def classless(side):
    """A model of any size that is easily built."""
    return keras.Sequential([keras.Input((side, side, 3)), layers.Flatten(), layers.Dense(3)])


def test_answers_for_each_pixel_are_refused(images):
    model = of_one_layer(layers.Conv2D(4, 1))
    with pytest.raises(
        ValueError, match=r"one answer for an image; this one is \[images, 24, 24, 4\]"
    ):
        ds.shift_consistency(model, images)


def test_outputs_without_classes_are_refused(images):
    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=r"shift_consistency needs an output \[images, classes\]"):
        ds.shift_consistency(model, images)
    with pytest.raises(ValueError, match=r"shift_consistency needs .*output="):
        ds.shift_consistency(classifier(outputs=2), images)


def test_labels_and_images_that_do_not_fit(images, labels, monkeypatch):
    monkeypatch.setattr(shifts_module, "answers", lambda *_: pytest.fail("predicts"))
    model = classifier()
    for wrong in (labels[:-1], labels + 4, np.zeros((COUNT, 4))):
        with pytest.raises(ValueError, match="labels must"):
            ds.shift_consistency(model, images, wrong)
    with pytest.raises(ValueError, match="at least one"):
        ds.shift_consistency(model, images[:0])
    with pytest.raises(ValueError, match="images must be a batch"):
        ds.shift_consistency(model, images[0])
    with pytest.raises(ValueError, match="must be finite"):
        ds.shift_consistency(model, np.full_like(images, np.nan))
    with pytest.raises(ValueError, match="unknown deformed_input"):
        ds.shift_consistency(model, images, deformed_input="other")


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("memory_limit", 0), ("data_format", "channels")]
)
def test_options_that_are_none(images, name, value):
    with pytest.raises(ValueError, match=name):
        ds.shift_consistency(classifier(), images, **{name: value})
    with pytest.raises(ValueError, match=r"keras\.Model"):
        ds.shift_consistency(lambda x: x, images)
