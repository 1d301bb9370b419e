"""Images from whatever holds them give the table of the same images as an array; and no more of
them is read than is wanted."""

import itertools

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_tensorflow, numpy
from keras import layers, ops

import deformstab as ds
from deformstab.measurement.sources import first_images

needs_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own loaders")
IMAGES = natural_images(10, 6, 6)
LABELS = np.arange(10) * 3


@pytest.fixture(scope="module")
def measure():
    """The table of any source: of the images, and of a layer that mixes all pixels."""
    keras.utils.set_random_seed(0)
    dense = layers.Dense(4, name="dense")
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), dense])

    def measure(images, **options):
        return ds.measure_sensitivity(model, images, layers=["input", "dense"], **options)

    return measure


def batches(size, *arrays):
    for start in range(0, len(arrays[0]), size):
        parts = tuple(each[start : start + size] for each in arrays)
        yield parts if len(parts) > 1 else parts[0]


class Numbered(keras.utils.PyDataset):
    """Three images a batch with their labels; the list of the batches that were asked for."""

    def __init__(self, length=4, what=lambda x, y: (x, y), **kwargs):
        super().__init__(**kwargs)
        self.length, self.what, self.asked = length, what, []

    @property
    def num_batches(self):
        if self.length == "not said":
            raise NotImplementedError
        return self.length

    def __getitem__(self, number):
        self.asked.append(number)
        some = np.arange(3 * number, 3 * number + 3) % 10
        if number == 3 and self.length == 4:
            some = some[:1]
        return self.what(IMAGES[some], LABELS[some])


class Sized(Numbered):
    num_batches = keras.utils.PyDataset.num_batches

    def __len__(self):
        return 4


SOURCES = {
    "float64": lambda: IMAGES.astype("float64"),
    "a list of images": lambda: list(IMAGES),
    "a tuple of images": lambda: tuple(IMAGES),
    "a list of lists": lambda: IMAGES.tolist(),
    "a tensor": lambda: ops.convert_to_tensor(IMAGES),
    "a list of tensors": lambda: [ops.convert_to_tensor(image) for image in IMAGES],
    "a variable": lambda: keras.Variable(IMAGES),
    "not contiguous": lambda: np.asfortranarray(IMAGES),
    "batches": lambda: batches(4, IMAGES),
    "batches of one": lambda: batches(1, IMAGES),
    "one batch": lambda: batches(99, IMAGES),
    "a list iterator": lambda: iter([IMAGES[:3], IMAGES[3:]]),
    "batches with labels": lambda: batches(4, IMAGES, LABELS),
    "batches with labels and weights": lambda: batches(4, IMAGES, LABELS, LABELS),
    "batches in tuples of one": lambda: ((x,) for x in batches(4, IMAGES)),
    "batches in lists with labels": lambda: (list(pair) for pair in batches(4, IMAGES, LABELS)),
    "images": lambda: iter(IMAGES),
    "images with labels": lambda: zip(IMAGES, LABELS.tolist()),
    "batches of tensors": lambda: (ops.convert_to_tensor(x) for x in batches(4, IMAGES)),
    "a dataset of Keras": Numbered,
    "one of Keras with a length": Sized,
    "one of Keras with workers": lambda: Numbered(workers=2),
    "one of Keras without labels": lambda: Numbered(what=lambda x, y: x),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_table_as_of_the_array(measure, source):
    expected = measure(IMAGES)
    assert measure(SOURCES[source]()).equals(expected)
    assert expected["images"].tolist() == [10, 10]


@pytest.mark.parametrize("source", SOURCES)
def test_the_first_so_many(measure, source):
    expected = measure(IMAGES[:5])
    assert measure(SOURCES[source](), max_images=5).equals(expected)
    assert expected["images"].tolist() == [5, 5]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16"])
def test_whole_numbers_and_half_precision(measure, dtype):
    levels = np.round(20 * IMAGES + 100)
    expected = measure(levels.astype("float32"))
    assert measure(levels.astype(dtype)).equals(expected)
    assert measure(ops.convert_to_tensor(levels.astype(dtype))).equals(expected)
    assert measure(batches(4, levels.astype(dtype))).equals(expected)


def test_what_is_measured_is_left_as_it_was(measure):
    images = IMAGES.copy()
    images.setflags(write=False)
    measure(images)
    np.testing.assert_array_equal(images, IMAGES)


def test_a_generator_gives_no_more_than_is_needed(measure):
    given = []

    def endless():
        for number in itertools.count():
            given.append(number)
            yield IMAGES[number % 10 : number % 10 + 1]

    source = endless()
    assert measure(source, max_images=7).equals(measure(IMAGES[:7]))
    assert given == list(range(7))
    # What comes next is still to come: here another four, from the eighth image on.
    inputs, labels = first_images(source, 4)
    np.testing.assert_array_equal(inputs, IMAGES[[7, 8, 9, 0]])
    assert labels is None
    assert len(given) == 11


def test_128_of_what_may_have_no_end(measure):
    given = []

    def endless():
        while True:
            given.append(50)
            yield np.tile(IMAGES, (5, 1, 1, 1))

    table = measure(endless())
    assert table["images"].tolist() == [128, 128]
    assert len(given) == 3
    assert table.equals(measure(np.tile(IMAGES, (13, 1, 1, 1))[:128]))
    assert measure(np.tile(IMAGES, (14, 1, 1, 1)))["images"].tolist() == [140, 140]


@pytest.mark.parametrize("length", [None, "not said"])
def test_a_dataset_of_keras_without_end(measure, length):
    dataset = Numbered(length)
    assert measure(dataset, max_images=7).equals(measure(IMAGES[:7]))
    assert dataset.asked == [0, 1, 2]


def test_fewer_than_so_many(measure):
    expected = measure(IMAGES)
    for source in (IMAGES, list(IMAGES), batches(4, IMAGES), Numbered()):
        assert measure(source, max_images=11).equals(expected)
    assert measure(batches(4, IMAGES), max_images=np.int64(10)).equals(expected)


@needs_tensorflow
@pytest.mark.parametrize("form", ["images", "batches", "labels", "unbatched labels", "weights"])
def test_datasets_of_tensorflow(measure, form):
    import tensorflow as tf

    arrays = {"labels": 2, "unbatched labels": 2, "weights": 3}.get(form, 1)
    parts = (IMAGES, LABELS, LABELS)[:arrays]
    dataset = tf.data.Dataset.from_tensor_slices(parts if arrays > 1 else IMAGES)
    if "images" not in form and "unbatched" not in form:
        dataset = dataset.batch(4)
    assert measure(dataset).equals(measure(IMAGES))
    assert measure(dataset.repeat(), max_images=9).equals(measure(IMAGES[:9]))
    assert measure(dataset.repeat())["images"].tolist() == [128, 128]
    for inputs, labels in (first_images(dataset), first_images(dataset.prefetch(2), 10)):
        np.testing.assert_array_equal(inputs, IMAGES)
        assert (labels is None) == (arrays == 1)
        assert labels is None or labels.tolist() == LABELS.tolist()


@needs_torch
def test_loaders_of_pytorch(measure):
    import torch

    images, labels = torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    for dataset in (
        torch.utils.data.TensorDataset(images, labels),
        torch.utils.data.TensorDataset(images.clone().requires_grad_(), labels),
    ):
        loader = torch.utils.data.DataLoader(dataset, batch_size=4)
        assert measure(loader).equals(measure(IMAGES))
        assert measure(loader, max_images=5).equals(measure(IMAGES[:5]))
        assert first_images(loader)[1].tolist() == LABELS.tolist()
        assert measure(dataset).equals(measure(IMAGES))  # image by image
    alone = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=3)
    assert measure(alone).equals(measure(IMAGES))
    assert measure(images.requires_grad_()).equals(measure(IMAGES))
    half = images.detach().bfloat16()
    assert measure(half).equals(measure(half.float()))


# ---- labels ----


@pytest.mark.parametrize("source", [name for name in SOURCES if "with labels" in name])
def test_labels_come_along(source):
    inputs, labels = first_images(SOURCES[source](), 7)
    np.testing.assert_array_equal(inputs, IMAGES[:7])
    assert labels.tolist() == LABELS[:7].tolist()


def test_arrays_have_no_labels():
    for source in (IMAGES, list(IMAGES), batches(4, IMAGES), {"image": IMAGES}):
        assert first_images(source)[1] is None


# ---- several inputs ----

VECTORS = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")


@pytest.fixture(scope="module")
def measure_both():
    keras.utils.set_random_seed(0)
    image, vector = keras.Input((6, 6, 3), name="photo"), keras.Input((4,), name="details")
    both = layers.Concatenate(name="both")([layers.Flatten()(image), vector])
    model = keras.Model({"photo": image, "details": vector}, layers.Dense(3, name="dense")(both))
    return lambda images, **options: ds.measure_sensitivity(
        model, images, layers=["input", "both", "dense"], **options
    )


def dicts(size=None):
    numbers = range(10) if size is None else (slice(i, i + size) for i in range(0, 10, size))
    return ({"photo": IMAGES[i], "details": VECTORS[i]} for i in numbers)


def test_dicts_of_inputs(measure_both):
    expected = measure_both({"photo": IMAGES, "details": VECTORS})
    assert expected["sensitivity"].nunique() == 3
    tensors = {"photo": ops.convert_to_tensor(IMAGES), "details": VECTORS.astype("float64")}
    for same in (tensors, dicts(4), dicts(), ((x, LABELS[:4]) for x in dicts(4))):
        assert measure_both(same).equals(expected)
    first = measure_both({"photo": IMAGES[:5], "details": VECTORS[:5]})
    for same in (tensors, dicts(4), dicts()):
        assert measure_both(same, max_images=5).equals(first)


@needs_tensorflow
def test_dicts_in_datasets_of_tensorflow(measure_both):
    import tensorflow as tf

    both = {"photo": IMAGES, "details": VECTORS}
    dataset = tf.data.Dataset.from_tensor_slices((both, {"class": LABELS}))
    for same in (dataset, dataset.batch(4)):
        assert measure_both(same).equals(measure_both(both))
        inputs, labels = first_images(same, 3)
        assert labels["class"].tolist() == LABELS[:3].tolist()
        np.testing.assert_array_equal(inputs["details"], VECTORS[:3])


def test_lists_and_tuples_of_inputs():
    image, vector = keras.Input((6, 6, 3)), keras.Input((4,))
    both = layers.Concatenate(name="both")([layers.Flatten()(image), vector])
    model = keras.Model([image, vector], both)
    expected = ds.measure_sensitivity(model, [IMAGES, VECTORS], layers="both")
    batch = (((x, v), y) for x, v, y in batches(4, IMAGES, VECTORS, LABELS))
    for same in ([IMAGES, VECTORS], (IMAGES, VECTORS), batch):
        assert ds.measure_sensitivity(model, same, layers="both").equals(expected)
    inputs, labels = first_images(((x, v), y) for x, v, y in batches(4, IMAGES, VECTORS, LABELS))
    np.testing.assert_array_equal(inputs[1], VECTORS)
    assert labels.tolist() == LABELS.tolist()


# ---- refusals ----


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", True])
def test_impossible_numbers(measure, value):
    with pytest.raises(ValueError, match="max_images must be an int of at least 1 or None, rec"):
        measure(IMAGES, max_images=value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "images must be an array, .*received NoneType"),
        (3, "images must be an array, .*received int"),
        ("images/cat.png", "images must be an array, .*received str"),
        ([], "images has no images"),
        ({}, "images has no images"),
        (iter([]), "images has no images"),
        (iter([1, 2]), r"images must come as images or batches of them, received \(\)"),
        (iter([IMAGES[0, 0]]), r"images or batches of them, received \(6, 3\)"),
        (np.float32(3), r"images must be a batch .*received shape \(\)"),
        (IMAGES[0], r"images must be a batch .*received shape \(6, 6, 3\)"),
        ([IMAGES[0], IMAGES[1, :4]], r"all images of one size; .*\(6, 6, 3\), \(4, 6, 3\)"),
        (VECTORS, r"images must be a batch .*received shape \(10, 4\)"),
        ([VECTORS, VECTORS], r"several inputs of which one is.*\(10, 4\), \(10, 4\)"),
        (iter([IMAGES[:1]]), "at least two .*received 1"),
        ([IMAGES, VECTORS[:5]], r"as many rows each, received \[5, 10\]"),
        ([IMAGES, 3], r"as many rows each, received \[0, 10\]"),
        ([IMAGES, IMAGES], r"2 hold images: say with deformed_input .*one of 0, 1"),
        ({"a": IMAGES, "b": IMAGES}, "2 hold images: say with deformed_input .*one of a, b"),
    ],
)
def test_what_holds_no_images(measure, source, message):
    with pytest.raises(ValueError, match=message):
        measure(source)


def test_unknown_inputs(measure):
    for wanted in ("photo", 2, "A"):
        with pytest.raises(ValueError, match=f"unknown deformed_input {wanted!r}; .* are a, b"):
            measure({"a": IMAGES, "b": VECTORS}, deformed_input=wanted)
    with pytest.raises(ValueError, match=r"images must be a batch .*received shape \(10, 4\)"):
        measure({"a": IMAGES, "b": VECTORS}, deformed_input="b")


def test_errors_of_the_source_come_through(measure):
    def broken():
        yield IMAGES[:4]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        measure(broken())
    assert measure(broken(), max_images=4).equals(measure(IMAGES[:4]))


def test_the_oracle_reads_the_same_images(measure):
    """All of the above compares tables: this one is right."""
    deformation = ds.paper_deformation(IMAGES.shape)
    deformed = numpy(deformation.deform(IMAGES, deformation.draw(10, seed=0)))
    x, y = (a.reshape(10, -1).astype("float64") for a in (IMAGES, deformed))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    pairs = [1 - x[i] @ x[j] for i in range(10) for j in range(i)]
    value = np.mean(1 - (x * y).sum(axis=1)) / np.median(pairs)
    assert measure(iter(IMAGES))["sensitivity"][0] == pytest.approx(value, rel=1e-5)
