"""The same numbers whatever memory and batches they are computed in; and the memory kept to."""

import functools
import gc
import inspect
import math
import types
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
import tqdm.auto
from helpers import BACKEND, natural_images, needs_double, numpy, randomize
from keras import layers, ops

import deformstab as ds
from deformstab.measurement import forward, layer_distances, pairs, sensitivity
from deformstab.measurement.distances import METRICS
from deformstab.measurement.pairs import pair_squares
from deformstab.measurement.passes import planned_passes
from deformstab.measurement.stimuli import deformed_images

NUMBERS = ["distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high"]
HUGE = float("inf")


def tables_agree(first, second, rtol=1e-5):
    assert first["layer"].tolist() == second["layer"].tolist()
    assert first["note"].tolist() == second["note"].tolist()
    np.testing.assert_allclose(first[NUMBERS], second[NUMBERS], rtol=rtol, atol=1e-14)


def by_definition(clean, deformed, draws, metric):
    """(mean distance, median over pairs) of [n, …] and [n · draws, …], in float64."""
    x, y = (each.reshape(len(each), -1).astype("float64") for each in (clean, deformed))
    if metric == "cosine":
        x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))
    apart = np.linalg.norm(np.repeat(x, draws, axis=0) - y, axis=1)
    pairs = np.array([np.linalg.norm(x[i] - x[j]) for i in range(len(x)) for j in range(i)])
    if metric == "cosine":  # of unit vectors
        apart, pairs = apart**2 / 2, pairs**2 / 2
    return apart.mean(), np.median(pairs)


@pytest.fixture(scope="module")
def images():
    """Nine images of four pixels a side; one is there three times, another is all but the same."""
    images = natural_images(9, 4, 4, 1, seed=2)
    images[4] = images[7] = images[1]
    images[5] = images[2] * (1 + 2e-3 * natural_images(1, 4, 4, 1, seed=3)[0])
    return images


@pytest.fixture(scope="module")
def model():
    """A small network with layers beside it that cannot be measured."""
    inputs = keras.Input((4, 4, 1))
    tensor = layers.Conv2D(2, 3, padding="same", activation="tanh", name="conv")(inputs)
    flat = layers.Flatten(name="flat")(tensor)
    outputs = [
        layers.Dense(3, name="end")(flat),
        layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones", name="same")(flat),
        layers.Dense(2, kernel_initializer="zeros", name="zero")(flat),
        layers.Lambda(lambda x: x[:, :3] / (x[:, :3] * 0), name="broken", output_shape=(3,))(flat),
        layers.Lambda(ops.sum, name="sum", output_shape=())(flat),
    ]
    model = keras.Model(inputs, outputs)
    for name, seed in (("conv", 1), ("end", 2)):
        randomize(model.get_layer(name), seed)
    return model


DEFORMATION = dict(control_points=2, max_displacement=0.7)


def measure(model, images, **options):
    options = {"deformation": ds.RandomDeformation(**DEFORMATION), "progress": False, **options}
    return ds.measure_sensitivity(model, images, **options)


@pytest.fixture(scope="module")
def expected(model, images):
    """{metric: {name: (distance, baseline)}} for three draws an image, by definition."""
    deformation = ds.RandomDeformation(**DEFORMATION)
    copies = np.repeat(images, 3, axis=0)
    deformed = numpy(deformation.deform(copies, deformation.draw(27, seed=0)))
    names = ["input_layer", "conv", "flat", "end"]
    extractor = keras.Model(
        model.input, [model.layers[0].output, *(model.get_layer(n).output for n in names[1:])]
    )
    clean, moved = (extractor.predict(x, verbose=0) for x in (images, deformed))
    return {
        metric: {
            name: by_definition(a, b, 3, metric)
            for name, a, b in zip(["input", *names[1:]], clean, moved)
        }
        for metric in METRICS
    }


# ---- the same numbers ----


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("memory_limit", "batch_size"),
    [(1, 32), (1000, 32), (5000, 7), (HUGE, 1), (2**31, 2), (30_000, 1000)],
)
def test_neither_memory_nor_batches_matter(
    model, images, expected, metric, memory_limit, batch_size
):
    """Three draws an image, so that 1 and 2 images a batch are fewer than its deformed selves."""
    few = ["input", "end", "zero", "broken"] if memory_limit == 1 else None  # a pass an entry
    table = measure(
        model,
        images,
        metric=metric,
        layers=few,
        deformations=3,
        memory_limit=memory_limit,
        batch_size=batch_size,
    ).set_index("layer")
    assert few or set(table.index) == {
        *expected[metric],
        *("same", "zero", "broken", "sum", "output/sum"),
    }
    for name, values in expected[metric].items():
        if few and name not in few:
            continue
        found = table.loc[name, ["distance", "baseline"]].tolist()
        assert found == pytest.approx(values, rel=1e-5), name
        assert table.loc[name, "note"] == ""
    notes = {
        "same": "constant",
        "zero": "zero representation for 36 of 36" if metric == "cosine" else "constant",
        "broken": "non-finite representation for 36 of 36",
        "sum": "no row for each image",
    }
    for name, note in notes.items():
        if few and name not in few:
            continue
        assert table.loc[name, NUMBERS].isna().all(), name
        assert note in table.loc[name, "note"], name


@pytest.mark.parametrize("metric", METRICS)
def test_distances_of_each_image_and_draw(model, images, metric):
    """Memory decides which image and draw is computed when, not where its distance is put."""
    long = [
        measure(
            model,
            images,
            metric=metric,
            deformations=5,
            return_distances=True,
            layers=["conv", "end"],
            **options,
        )[1]
        for options in ({}, {"batch_size": 2}, {"memory_limit": 6000}, {"batch_size": 1})
    ]
    deformation = ds.RandomDeformation(**DEFORMATION)
    draws = numpy(deformation.draw(45, seed=0))
    deformed = numpy(deformation.deform(np.repeat(images, 5, axis=0), draws))
    conv = model.get_layer("conv")
    x, y = (numpy(conv(a)).reshape(len(a), -1).astype("float64") for a in (images, deformed))
    x = np.repeat(x, 5, axis=0)
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    cosine = 1 - (x * y).sum(axis=1) / (norms[0] * norms[1])
    by_hand = cosine if metric == "cosine" else np.linalg.norm(x - y, axis=1)
    for table in long:
        part = table[table["layer"] == "conv"]
        assert part["image"].tolist() == np.repeat(np.arange(9), 5).tolist()
        assert part["deformation"].tolist() == np.tile(np.arange(5), 9).tolist()
        np.testing.assert_allclose(part["distance"], by_hand, rtol=1e-5, atol=1e-12)
        assert len(table) == 90


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("memory_limit", [300, HUGE])
def test_equal_images_are_at_distance_zero(images, metric, memory_limit):
    """However they fall into batches and parts; all others are apart."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Rescaling(3.0, offset=1.0, name="scaled")(inputs))
    prepared = deformed_images(images, ds.RandomDeformation(2, 0.0), deformations=2)
    options = None, metric, 2, memory_limit, False
    for _, layer in sensitivity.measured_layers(model, prepared, *options):
        same = np.zeros((9, 9), bool)
        same[np.ix_([1, 4, 7], [1, 4, 7])] = True
        assert (layer.pairs[same | np.eye(9, dtype=bool)] == 0).all()
        assert (layer.pairs[~(same | np.eye(9, dtype=bool))] > 0).all()
        np.testing.assert_array_equal(layer.pairs, layer.pairs.T)
        # Nothing is moved. (JAX may compute the two unit vectors by different code.)
        assert layer.apart.max() <= (1e-13 if BACKEND == "jax" else 0)
        x = images.reshape(9, -1).astype("float64") * (
            1 if layer.representation.layer is None else 3
        )
        x = x + (0 if layer.representation.layer is None else 1)
        close = np.linalg.norm(x[2] - x[5])
        if metric == "cosine":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            close = np.linalg.norm(x[2] - x[5]) ** 2 / 2
        assert layer.pairs[2, 5] == pytest.approx(close, rel=1e-3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [1e-20, 1e-10, 1e10, 1e20])
def test_tiny_and_huge_activations(images, metric, factor):
    """Whose squares float32 does not hold."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Rescaling(factor, name="scaled")(inputs))
    for memory_limit in (400, HUGE):
        table = measure(model, images, metric=metric, memory_limit=memory_limit)
        assert (table["note"] == "").all()
        np.testing.assert_allclose(table["sensitivity"][1], table["sensitivity"][0], rtol=1e-5)
        scale = factor if metric == "euclidean" else 1
        np.testing.assert_allclose(table["baseline"][1], scale * table["baseline"][0], rtol=1e-5)
        assert table["baseline"][0] > 0.1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("memory_limit", [400, HUGE])
def test_activations_whose_length_no_float32_says(images, metric, memory_limit):
    """Though it says their entries, and distances to deformed images."""
    images = images / np.abs(images).max()
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Rescaling(3e38, name="scaled")(inputs))
    assert np.linalg.norm(3e38 * images.astype("float64"), axis=(1, 2)).max() > 3.5e38
    table = measure(model, images, metric=metric, memory_limit=memory_limit)
    assert (table["note"] == "").all()
    np.testing.assert_allclose(table["sensitivity"][1], table["sensitivity"][0], rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_one_batch_with_a_huge_image(images, metric):
    """Rows are scaled one by one where one of them needs it."""
    images = images.copy()
    images[3] *= 1e18
    images[5] *= 1e-18
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Activation("linear", name="same")(inputs))
    whole = measure(model, images, metric=metric, batch_size=32)
    alone = measure(model, images, metric=metric, batch_size=1)
    pd.testing.assert_frame_equal(whole, alone, rtol=1e-6)
    if metric == "cosine":
        images[3] *= 1e-18
        images[5] *= 1e18
        plain = measure(model, images)
        np.testing.assert_allclose(whole["sensitivity"], plain["sensitivity"], rtol=1e-5)


@needs_double
@pytest.mark.parametrize("metric", METRICS)
def test_networks_of_float64(images, metric):
    keras.config.set_dtype_policy("float64")
    inputs = keras.Input((4, 4, 1))
    tensor = layers.Dense(3, activation="tanh", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="second")(layers.Flatten()(tensor)))
    deformation = ds.RandomDeformation(**DEFORMATION, dtype="float32")
    deformed = numpy(deformation.deform(images, deformation.draw(9, seed=0)))
    extractor = keras.Model(inputs, [model.get_layer(name).output for name in ("first", "second")])
    clean, moved = (
        [numpy(each) for each in extractor(ops.convert_to_tensor(x))] for x in (images, deformed)
    )
    assert clean[0].dtype == "float64"
    for memory_limit in (1000, HUGE):
        table = measure(
            model,
            images,
            deformation=deformation,
            metric=metric,
            layers=["first", "second"],
            memory_limit=memory_limit,
        )
        for number in range(2):
            values = by_definition(clean[number], moved[number], 1, metric)
            found = table.loc[number, ["distance", "baseline"]].tolist()
            # In float32, 1e-7. (Keras multiplies matrices of float64 in float32 on PyTorch.)
            assert found == pytest.approx(values, rel=1e-8 if BACKEND == "torch" else 1e-10)


@pytest.fixture(params=["here", "on a device"])
def place(request, monkeypatch):
    """Where rows are multiplied: BLAS on their memory, or Keras as where that is not at hand."""
    if request.param == "on a device":
        monkeypatch.setattr(pairs, "memory_of", lambda _: None)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("apart", [5, 10, 30, 100])
@pytest.mark.parametrize("entries", [1000, 20_000])
def test_two_groups_of_images_far_from_each_other(metric, apart, entries, place):
    """Pairs within a group are close beside all others, and the median is one of them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, entries)) + 1
    rows[:17] += apart * rng.normal(size=entries)
    rows = rows.astype("float32")
    x = rows.astype("float64")
    scale = np.abs(x).max() if metric == "euclidean" else np.linalg.norm(x, axis=1, keepdims=True)
    given = (x / scale).astype("float32")
    exact = given.astype("float64")
    exact = ((exact[:, None] - exact) ** 2).sum(axis=-1) ** 0.5
    found = np.sqrt(pair_squares([ops.convert_to_tensor(given)]))
    upper = np.triu_indices(24, 1)
    np.testing.assert_allclose(found[upper], exact[upper], rtol=1e-5)


@pytest.mark.parametrize("memory", [1, 3000, 1e9])
def test_close_pairs_in_little_memory(memory, place):
    """Each pair and entry on its own, or all at once; equal rows are at zero."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(3, 40)), 5, axis=0) + 1e-3 * rng.normal(size=(15, 40))
    rows[4] = rows[9] = rows[0]
    rows = rows.astype("float32")
    parts = [ops.convert_to_tensor(part) for part in (rows[:7], rows[7:])]
    # Scales that are no powers of two round rows that are 1e-3 apart: 6e-8 / 1e-3 of them.
    scales = np.linspace(0.5, 2, 15) if memory == 3000 else np.full(15, 2.0)
    scales[[4, 9]] = scales[0]
    found = pair_squares(parts, scales, memory)
    assert found[0, 4] == found[4, 9] == 0
    exact = rows.astype("float64") / scales[:, None]
    exact = ((exact[:, None] - exact) ** 2).sum(axis=-1)
    np.testing.assert_allclose(found, exact, rtol=3e-4 if memory == 3000 else 1e-5, atol=0)
    assert (found == found.T).all()


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e20, 1e35])
def test_scales_that_are_no_float32(scale, place):
    """What they divide is of their size, as lengths of rows are."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 30)).astype("float32")
    given = np.clip(scale, 1e-35, 1e36)  # smaller ones are 0 to TensorFlow
    found = pair_squares([ops.convert_to_tensor(rows * np.float32(given))], np.full(6, scale))
    exact = (rows * np.float32(given)).astype("float64") / scale
    exact = ((exact[:, None] - exact) ** 2).sum(axis=-1)
    np.testing.assert_allclose(found, exact, rtol=1e-5)


# ---- the memory kept to ----


def wide_network():
    inputs = keras.Input((8, 8, 2))
    tensor = inputs
    for number, channels in enumerate((16, 8), 1):
        tensor = layers.Conv2D(channels, 3, padding="same", name=f"conv{number}")(tensor)
        tensor = layers.MaxPooling2D(2, name=f"pool{number}")(tensor)
    end = layers.Flatten(name="end")(tensor)
    broken = layers.Lambda(lambda x: x / (x * 0), name="broken", output_shape=(32,))(end)
    return keras.Model(inputs, [end, broken])


@pytest.fixture
def kept(monkeypatch):
    """What is in memory: bytes of rows alive at a time, and of what pairs are computed of."""
    alive = []
    largest = {"rows": 0, "pairs": 0, "passes": 0, "alive": alive}

    def watched(*args, **kwargs):
        largest["passes"] += 1
        longest = 0
        for batch in forward.batches(*args, **kwargs):
            for rows in batch.rows.values():
                size = 4 * math.prod(rows.shape)
                longest = max(longest, len(rows))
                if BACKEND == "torch":  # a view keeps all of what it is of: here what fills it up
                    assert rows.untyped_storage().nbytes() <= size / len(rows) * longest
                alive.append((weakref.ref(rows), size))
            del rows
            alive[:] = [(ref, size) for ref, size in alive if ref() is not None]
            largest["rows"] = max(largest["rows"], sum(size for _, size in alive))
            yield batch

    def counted(rows, chunks):
        for chunk in chunks(rows):
            largest["pairs"] = max(largest["pairs"], 4 * math.prod(chunk.shape))
            yield chunk

    monkeypatch.setattr(layer_distances, "batches", watched)
    for where in (pairs._RowsHere, pairs._RowsOnDevice):
        monkeypatch.setattr(where, "_chunks", functools.partialmethod(counted, where._chunks))
    return largest


@pytest.mark.parametrize("memory_limit", [20_000, 60_000, 200_000, 10_000_000])
def test_rows_stay_below_the_limit(kept, memory_limit):
    images = natural_images(20, 8, 8, 2)
    model = wide_network()
    measure(model, images, memory_limit=memory_limit, batch_size=8)
    whole = 20 * 4 * sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    assert 0 < kept["rows"] <= min(0.85 * memory_limit, whole)
    assert 0 < kept["pairs"] <= 0.05 * memory_limit / 4
    # No more passes than it takes, and each almost full.
    assert math.ceil(whole / (0.85 * memory_limit)) <= kept["passes"]
    assert kept["passes"] <= 1.1 * whole / (0.85 * memory_limit) + 1


@pytest.mark.parametrize("chosen", [None, "end"])
def test_a_forward_pass_stays_below_the_limit(monkeypatch, chosen):
    """Also where what is large on the way is not asked for."""
    sizes = []

    def watched(*args):
        for part in forward_parts(*args):
            sizes.append(len(part.inputs[0]) * (1 + part.draws_at_once))
            yield part

    forward_parts = forward.parts
    monkeypatch.setattr(forward, "parts", watched)
    images, model = natural_images(20, 8, 8, 2), wide_network()
    largest = 8 * 8 * 16 * 4  # of the first convolution
    for fit, draws in ((2, 1), (6, 5), (40, 1)):
        sizes.clear()
        limit = fit * 3 * largest / 0.1 + 1000
        options = {"layers": chosen, "memory_limit": limit, "deformations": draws}
        table = measure(model, images, batch_size=32, **options)
        assert table.set_index("layer").loc["end", "sensitivity"] > 0
        assert max(sizes) <= fit
        assert max(sizes) > fit / 2


def test_rows_are_let_go(kept, model, images):
    """Also those of layers that turned out to be broken."""
    table = measure(model, images, memory_limit=3000)
    assert table["note"].str.contains("non-finite").any()
    gc.collect()
    assert len(kept["alive"]) > 0
    assert all(rows() is None for rows, _ in kept["alive"])


def test_images_are_let_go(model):
    images = natural_images(6, 4, 4, 1)
    watched = weakref.ref(images)
    table = measure(model, images, deformations=2, return_distances=True)
    measure(model, images, memory_limit=800)
    del images
    gc.collect()
    assert watched() is None
    assert len(table) == 2


# ---- nothing is traced twice ----


class Counting(layers.Layer):
    calls = 0

    def call(self, x):
        self.calls += 1
        return x


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch traces nothing")
def test_a_second_measurement_traces_nothing(images):
    counting = Counting(name="counting")
    model = keras.Sequential([keras.Input((4, 4, 1)), counting, layers.Flatten()])
    ways = (
        {"memory_limit": 500},
        {"deformations": 5, "batch_size": 2},
        {"metric": "euclidean"},
        {"layers": "counting"},
    )
    first = [measure(model, images, **options) for options in ways]
    calls = counting.calls
    assert calls > 4
    for options, table in zip(ways, first):
        assert measure(model, images.copy(), **options).equals(table)
        measure(model, images + 1, seed=3, intervals=False, **options)
    assert counting.calls == calls


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch traces nothing")
def test_parts_of_a_layer_share_what_is_traced(images):
    """A layer of 16 entries, of which no pass has room for more than one or two."""
    counting = Counting(name="counting")
    model = keras.Sequential([keras.Input((4, 4, 1)), counting, layers.Flatten()])
    expected = measure(model, images, layers="counting")
    layer = types.SimpleNamespace(name="counting", features=16, itemsize=4)
    for memory_limit, passes in ((1, 16), (9 * 4 / 0.85 * 2.5, 8)):
        assert len(planned_passes([layer], len(images), memory_limit)) == passes
        before = counting.calls
        tables_agree(measure(model, images, layers="counting", memory_limit=memory_limit), expected)
        # Deformed images with the first part, and parts of one width.
        assert counting.calls - before == 2


# ---- a bar ----


def test_a_bar_appears_when_it_takes_long(model, images, capsys, monkeypatch):
    monkeypatch.setattr(layer_distances, "_PATIENCE", 1000)
    measure(model, images, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(layer_distances, "_PATIENCE", 0)
    measure(model, images, progress=False)
    assert capsys.readouterr() == ("", "")
    measure(model, images, progress=True)
    out, shown = capsys.readouterr()
    assert out == ""
    assert "sensitivity:   0%" in shown
    default = inspect.signature(ds.measure_sensitivity).parameters["progress"].default
    assert default is True


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("memory_limit", [3000, 20_000, HUGE])
def test_the_bar_ends_at_its_end(images, draws, memory_limit):
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Conv2D(3, 2, name="conv")(inputs))
    prepared = deformed_images(images, ds.RandomDeformation(**DEFORMATION), draws)
    chosen = layer_distances.representations(model, prepared)
    shares = []
    options = ("cosine",), 2, memory_limit, shares.append
    for _ in layer_distances.layer_distances(model, prepared, chosen, *options):
        assert sum(shares) <= 1 + 1e-9
    assert min(shares) > 0
    assert len(shares) >= 5
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("count", [12, 33, 35, 49])
def test_the_bar_is_never_more_than_full(monkeypatch, count):
    """tqdm warns of that when it draws it, by a rounding error already."""
    places = []

    class Bar(tqdm.auto.tqdm):
        def update(self, n=1):
            super().update(n)
            places.append(self.n / self.total)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.setattr(layer_distances, "_PATIENCE", 0)
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Conv2D(3, 2, name="conv")(inputs))
    measure(model, natural_images(count, 4, 4, 1), batch_size=1, progress=True)
    assert max(places) <= 1
    assert places[-1] == pytest.approx(1)
