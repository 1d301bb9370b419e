"""Several strengths, several models: against measure_sensitivity, and plain loops in float64."""

import inspect
import re

import keras
import numpy as np
import pytest
import scipy.stats
from helpers import BACKEND, natural_images, needs_tensorflow, numpy, randomize
from keras import layers

import deformstab as ds
from deformstab.measurement import comparisons, layer_distances
from deformstab.measurement.summaries import Summary
from deformstab.tables import COMPARISON_COLUMNS, SENSITIVITY_COLUMNS, STRENGTH_COLUMNS

DEFORMATION = ds.RandomDeformation(3, 1.0)
INTERVALS = [f"{what}_{side}" for what in ("difference", "ratio") for side in ("low", "high")]


def chain(*parts, shape=(16, 16, 3)):
    """A functional model of layers one after the other, or of numbers: `Rescaling` by them."""
    tensor = inputs = keras.Input(shape)
    for number, part in enumerate(parts):
        if not isinstance(part, layers.Layer):
            part = layers.Rescaling(part, name=f"layer{number + 1}")
        tensor = part(tensor)
    return keras.Model(inputs, tensor)


def network(seed=0, depth=2):
    """Convolutions and a pool; names are the same for every seed."""
    keras.utils.set_random_seed(seed)  # initializers take their seeds when they are made
    parts = [layers.Conv2D(4, 3, activation="relu", name=f"conv{i + 1}") for i in range(depth)]
    return chain(*parts, layers.MaxPooling2D(name="pool"))


@pytest.fixture
def two():
    return {"one": network(seed=1), "two": network(seed=2)}


def by_layer(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return table.set_index("layer")


def moved(images, draws=1, deformation=DEFORMATION, seed=0):
    """[draws, images, …]; image i has the draws i · draws, … of one sequence."""
    moves = numpy(deformation.draw(len(images) * draws, seed=seed))
    return [numpy(deformation.deform(images, moves[i::draws])) for i in range(draws)]


def distances(model, images, metric="cosine", draws=1):
    """{layer: (distances [images], pairs [images, images])} by plain loops."""

    def activations(batch):
        outputs = keras.Model(model.input, [layer.output for layer in model.layers])(batch)
        rows = [numpy(x).reshape(len(batch), -1).astype("float64") for x in outputs]
        return dict(zip(["input", *(layer.name for layer in model.layers[1:])], rows))

    def distance(a, b):
        if metric == "euclidean":
            return np.sqrt(np.sum((a - b) ** 2))
        return 1 - np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))

    clean, deformed = activations(images), [activations(each) for each in moved(images, draws)]
    found = {}
    for name, rows in clean.items():
        apart = [
            np.mean([distance(row, each[name][i]) for each in deformed])
            for i, row in enumerate(rows)
        ]
        found[name] = np.array(apart), np.array([[distance(a, b) for b in rows] for a in rows])
    return found


def sensitivity(apart, pairs):
    return apart.mean() / np.median(pairs[np.triu_indices(len(pairs), 1)])


def without(i, apart, pairs):
    return np.delete(apart, i), np.delete(np.delete(pairs, i, axis=0), i, axis=1)


def jackknife(statistic, count):
    """(value, low, high); `statistic(None)` of all images, `statistic(i)` without one."""
    values = np.array([statistic(i) for i in range(count)])
    error = np.sqrt((count - 1) / count * np.sum((values - values.mean()) ** 2))
    half = scipy.stats.t(count - 1).ppf(0.975) * error
    return statistic(None), statistic(None) - half, statistic(None) + half


def paired(reference, other):
    """Columns of one row from the distances of two layers, the same images left out of both."""

    def both(i):
        parts = [each if i is None else without(i, *each) for each in (reference, other)]
        return [sensitivity(*each) for each in parts]

    count = len(reference[0])
    difference = jackknife(lambda i: both(i)[1] - both(i)[0], count)
    ratio = np.exp(jackknife(lambda i: np.log(both(i)[1] / both(i)[0]), count))
    names = ("difference", *INTERVALS[:2], "ratio", *INTERVALS[2:])
    return dict(zip(names, [*difference, *ratio]))


# ---- two models ----


@pytest.mark.parametrize(("metric", "draws"), [("cosine", 1), ("euclidean", 3)])
def test_paired_intervals_by_leaving_images_out(images, two, metric, draws):
    table = ds.compare_sensitivity(
        two, images, DEFORMATION, metric=metric, deformations=draws, batch_size=5
    )
    assert table["layer"].tolist() == ["input", "conv1", "conv2", "pool"]
    found = {name: distances(model, images, metric, draws) for name, model in two.items()}
    for row in table[1:].to_dict("records"):
        expected = paired(found["one"][row["layer"]], found["two"][row["layer"]])
        for name, value in expected.items():
            scale = {"rtol": 1e-4, "atol": 1e-4 * row["reference_sensitivity"]}
            np.testing.assert_allclose(row[name], value, err_msg=name, **scale)
        assert row["metric"] == metric
        assert (row["images"], row["deformations"]) == (12, draws)


def test_values_are_those_of_measure_sensitivity(images, two):
    options = {"deformation": DEFORMATION, "layers": "conv*", "deformations": 2, "seed": 3}
    table = ds.compare_sensitivity(two, images, **options)
    one, other = (ds.measure_sensitivity(model, images, **options) for model in two.values())
    assert table["layer"].tolist() == one["layer"].tolist()
    assert table["layer_index"].tolist() == one["layer_index"].tolist()
    assert table["depth"].tolist() == [0, 1]
    np.testing.assert_allclose(table["reference_sensitivity"], one["sensitivity"], rtol=1e-12)
    np.testing.assert_allclose(table["sensitivity"], other["sensitivity"], rtol=1e-12)
    expected = other["sensitivity"] - one["sensitivity"]
    np.testing.assert_allclose(table["difference"], expected, rtol=1e-10)
    expected = other["sensitivity"] / one["sensitivity"]
    np.testing.assert_allclose(table["ratio"], expected, rtol=1e-12)
    assert (table["note"] == "").all()
    assert (table["ratio_low"] < table["ratio"]).all()
    assert (table["difference"] < table["difference_high"]).all()


@pytest.mark.parametrize("by", ["layer", "depth"])
def test_a_model_and_itself(images, two, by):
    table = ds.compare_sensitivity({"a": two["one"], "b": two["one"]}, images, by=by)
    for what, value in (("difference", 0), ("ratio", 1)):
        assert (table[[what, f"{what}_low", f"{what}_high"]] == value).all(axis=None)


def test_columns_types_and_order_of_three_models(images, two):
    models = {"second": two["two"], "first": two["one"], "deep": network(seed=3, depth=3)}
    table = ds.compare_sensitivity(models, images)
    assert list(table.columns) == list(COMPARISON_COLUMNS)
    for name, dtype in COMPARISON_COLUMNS.items():
        assert dtype == "str" or table[name].dtype == dtype
    assert table.index.tolist() == list(range(8))
    assert table["model"].tolist() == ["first"] * 4 + ["deep"] * 4
    assert (table["reference"] == "second").all()
    assert table["layer"].tolist() == ["input", "conv1", "conv2", "pool"] * 2
    np.testing.assert_allclose(table["depth"], [0, 1 / 3, 2 / 3, 1] * 2, rtol=1e-15)
    alone = ds.compare_sensitivity({"second": two["two"], "deep": models["deep"]}, images)
    assert table[4:].reset_index(drop=True).equals(alone)


def test_every_column_is_documented():
    for function, columns in (
        (ds.compare_sensitivity, COMPARISON_COLUMNS),
        (ds.sensitivity_by_strength, STRENGTH_COLUMNS),
    ):
        text = inspect.getdoc(function)
        for name in columns:
            assert f"`{name.removesuffix('_low').removesuffix('_high')}`" in text, name


def test_layers_that_only_one_model_has(images, two):
    models = {"deep": network(seed=3, depth=3), "one": two["one"]}
    table = by_layer(ds.compare_sensitivity(models, images))
    assert table.index.tolist() == ["input", "conv1", "conv2", "conv3", "pool"]
    row = table.loc["conv3"]
    assert row["note"] == "no layer of this name in one"
    assert row["reference_sensitivity"] > 0
    assert np.isnan(row[["sensitivity", "difference", "ratio", *INTERVALS]].to_list()).all()
    assert table["note"].drop("conv3").eq("").all()
    assert table.drop("conv3")[INTERVALS].notna().all(axis=None)


@pytest.mark.parametrize("which", [None, "layer*"])
def test_no_layers_in_common(images, which):
    models = {"a": chain(2.0, 3.0), "b": chain(layers.Flatten(name="layer9"))}
    with pytest.raises(ValueError, match=r"'b' and 'a' have no layer name in common.*depth"):
        ds.compare_sensitivity(models, images, layers=which)


def test_the_input_alone_is_compared_when_asked_for(images):
    models = {"a": chain(2.0), "b": chain(layers.Flatten())}
    table = ds.compare_sensitivity(models, images, layers=["input"])
    assert table["layer"].tolist() == ["input"]
    assert table[["difference", "ratio"]].to_numpy().tolist() == [[0, 1]]


BROKEN = {0.0: "zero representation", np.nan: "non-finite representation"}


@pytest.mark.parametrize("by", ["layer", "depth"])
@pytest.mark.parametrize("factor", [0.0, np.nan, "constant"])
def test_layers_that_cannot_be_measured(images, factor, by):
    note = BROKEN.get(factor, "constant up to a factor")
    broken = layers.Rescaling(0.0, 1.0) if factor == "constant" else layers.Rescaling(factor)
    broken.name = "layer1"
    models = {"sound": chain(2.0), "broken": chain(broken), "sound too": chain(3.0)}
    table = by_layer(ds.compare_sensitivity(models, images, by=by), model="broken")
    if by == "layer":
        row = table.loc["layer1"]
        assert row["note"].startswith(note)
        assert row["reference_sensitivity"] > 0
        assert np.isnan(row[["sensitivity", "difference", "ratio", *INTERVALS]].to_list()).all()
    else:  # the nearest layer that has a sensitivity is the input
        assert table.loc["layer1", "ratio"] == pytest.approx(1, rel=1e-5)
    models = {"broken": models["broken"], "sound": models["sound"], "again": models["broken"]}
    table = ds.compare_sensitivity(models, images, by=by)
    for model in ("sound", "again"):
        row = by_layer(table, model=model).loc["layer1"]
        assert row["note"].startswith(note)
        assert np.isnan([row["reference_sensitivity"], row["difference"], row["ratio"]]).all()
        assert np.isnan(row[INTERVALS].to_list()).all()
        if model == "sound":
            assert row["sensitivity"] > 0
        assert by_layer(table, model=model).loc["input", "note"] == ""


def side_network(deformed):
    """A layer "side" that sees the deformed input, or another one that is not."""
    inputs = {name: keras.Input((8, 8, 3), name=name) for name in ("image", "other")}
    side = layers.Rescaling(2.0, name="side")(inputs["image" if deformed else "other"])
    return keras.Model(inputs, [side, layers.Rescaling(3.0, name="end")(inputs["image"])])


@pytest.mark.skipif(
    BACKEND == "jax", reason="the same image twice in a batch is not quite the same"
)
@pytest.mark.parametrize("by", ["layer", "depth"])
def test_a_layer_that_no_deformation_moves(by):
    images = {"image": natural_images(6, 8, 8), "other": natural_images(6, 8, 8, seed=1)}
    models = {"still": side_network(False), "moved": side_network(True)}
    models["still too"] = side_network(False)
    options = {"deformed_input": "image", "by": by}
    table = by_layer(ds.compare_sensitivity(models, images, **options), model="moved")
    row = table.loc["side"]
    assert row["reference_sensitivity"] == 0
    assert row["difference"] == row["sensitivity"] > 0
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert np.isinf(row["ratio"])
    assert np.isnan(row[INTERVALS[2:]].to_list()).all()
    # Its neighbours are not drawn into it.
    assert table.loc[["input", "end"], "ratio"].tolist() == pytest.approx([1, 1], rel=1e-5)
    row = by_layer(ds.compare_sensitivity(models, images, **options), model="still too").loc["side"]
    assert (row[["sensitivity", "difference", *INTERVALS[:2]]] == 0).all()
    assert np.isnan(row[["ratio", *INTERVALS[2:]]].to_list()).all()
    models = {"moved": models["moved"], "still": models["still"]}
    row = by_layer(ds.compare_sensitivity(models, images, **options)).loc["side"]
    assert (row["sensitivity"], row["ratio"]) == (0, 0)
    assert row["difference"] == -row["reference_sensitivity"] < 0


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_images(two, count):
    table = ds.compare_sensitivity(two, natural_images(count), layers="conv1")
    assert np.isfinite(table[["difference", "ratio"]]).all(axis=None)
    assert np.isfinite(table[INTERVALS]).all(axis=None) == (count == 4)


def test_images_most_of_which_are_the_same():
    """Without one of the others, the median distance is zero, and no sensitivity is left."""
    images = natural_images(7, 8, 8)
    images[1:5] = images[0]
    models = {"a": chain(2.0, shape=(8, 8, 3)), "b": chain(3.0, shape=(8, 8, 3))}
    table = ds.compare_sensitivity(models, images)
    np.testing.assert_allclose(table["ratio"], 1, rtol=1e-5)
    assert table[INTERVALS].isna().all(axis=None)


def test_pairing_narrows():
    """Two networks of nearly the same weights, of images that are not alike."""
    images = natural_images(32)
    near = network(seed=1)
    for variable in near.weights:
        noise = np.random.default_rng(0).normal(size=variable.shape)
        variable.assign(numpy(variable.value) + 0.01 * noise)
    table = ds.compare_sensitivity({"a": network(seed=1), "b": near}, images)[1:]
    apart = ds.measure_sensitivity(near, images)[1:]
    paired = np.log(table["ratio_high"] / table["ratio_low"])
    one = np.log(apart["sensitivity_high"] / apart["sensitivity_low"])
    assert (paired < 0.3 * one).all()


# ---- by depth ----


def test_depth_against_plain_interpolation(images):
    models = {"long": network(seed=1, depth=4), "short": network(seed=2, depth=1)}
    for reference, other in (("long", "short"), ("short", "long")):
        pair = {name: models[name] for name in (reference, other)}
        table = ds.compare_sensitivity(pair, images, DEFORMATION, by="depth")
        mine, there = (list(distances(each, images).values()) for each in pair.values())
        assert len(table) == len(mine)
        depths = [i / (len(mine) - 1) for i in range(len(mine))]
        np.testing.assert_allclose(table["depth"], depths, rtol=1e-15)

        def at_depth(t, i, there=there):
            logs = [
                np.log(sensitivity(*(each if i is None else without(i, *each)))) for each in there
            ]
            return np.interp(t, np.linspace(0, 1, len(there)), logs)

        for row, here, t in zip(table.to_dict("records"), mine, depths):

            def own(i, here=here):
                return np.log(sensitivity(*(here if i is None else without(i, *here))))

            ratio = np.exp(jackknife(lambda i, t=t, own=own: at_depth(t, i) - own(i), 12))
            difference = jackknife(
                lambda i, t=t, own=own: np.exp(at_depth(t, i)) - np.exp(own(i)), 12
            )
            found = [row[name] for name in ("ratio", "ratio_low", "ratio_high")]
            np.testing.assert_allclose(found, ratio, rtol=2e-4)
            found = [row[name] for name in ("difference", "difference_low", "difference_high")]
            np.testing.assert_allclose(found, difference, atol=2e-4 * row["sensitivity"])
            assert row["sensitivity"] == pytest.approx(np.exp(at_depth(t, None)), rel=1e-4)
            assert row["reference_sensitivity"] == pytest.approx(np.exp(own(None)), rel=1e-4)


def summaries(*logs):
    """Layers as `compare_sensitivity` keeps them; NaN cannot be measured."""
    return [
        Summary(i, f"l{i}", "why" if np.isnan(log) else "", log, np.full(4, log))
        for i, log in enumerate(logs)
    ]


@pytest.mark.parametrize("count", range(2, 40))
def test_layers_at_the_same_depth_are_met_exactly(count):
    """Without a share of the next ones, also where these are infinite."""
    logs = np.where(np.arange(count) % 2, -np.inf, np.arange(count))
    rows = comparisons._compared(
        summaries(*logs), summaries(*logs), "depth", ("b", "a"), "sensitivity"
    )
    assert [row["sensitivity"] for row in rows] == np.exp(logs).tolist()
    more = np.repeat(logs, 3)[:-2]  # three times as deep: each of the first again
    rows = comparisons._compared(
        summaries(*logs), summaries(*more), "depth", ("b", "a"), "sensitivity"
    )
    assert [row["sensitivity"] for row in rows] == np.exp(logs).tolist()


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([1, np.nan, 3, 6, 7], [1, 2, 3, 6, 7]),
        ([np.nan, np.nan, 3, 6, np.nan], [3, 3, 3, 6, 6]),
        ([np.nan, np.nan, 3, np.nan, np.nan], [3] * 5),
        ([2.0], [2.0] * 5),
        ([0, 2], [0, 0.5, 1, 1.5, 2]),
        ([-np.inf, 2], [-np.inf, -np.inf, -np.inf, -np.inf, 2]),
    ],
)
def test_depths_between_and_beside_what_is_measured(logs, expected):
    rows = comparisons._compared(
        summaries(*range(5)), summaries(*logs), "depth", ("b", "a"), "sensitivity"
    )
    np.testing.assert_allclose([row["sensitivity"] for row in rows], np.exp(expected), rtol=1e-12)
    assert [row["note"] for row in rows] == [""] * 5


def test_depth_of_a_model_of_which_nothing_can_be_measured():
    nothing = summaries(np.nan, np.nan)
    rows = comparisons._compared(summaries(*range(3)), nothing, "depth", ("b", "a"), "sensitivity")
    assert [row["note"] for row in rows] == ["why"] * 3
    assert np.isnan([row["sensitivity"] for row in rows]).all()


def test_depth_of_one_layer(images, two):
    table = ds.compare_sensitivity(two, images, layers="conv1", by="depth")
    assert table["depth"].tolist() == [0]
    expected = ds.compare_sensitivity(two, images, layers="conv1")
    assert table.equals(expected)


# ---- what comes in ----


@needs_tensorflow
def test_images_of_a_dataset(images, two):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(12))).batch(5)
    expected = ds.compare_sensitivity(two, images[:9], layers="conv*")
    found = ds.compare_sensitivity(two, dataset, layers="conv*", max_images=9)
    assert found.equals(expected)


def test_generators_are_read_once(images, two):
    expected = ds.compare_sensitivity(two, images[:10], layers=["conv1", "pool"])
    batches = (images[start : start + 5] for start in (0, 5, 10))
    names = (name for name in ("conv1", "pool"))
    found = ds.compare_sensitivity(two, batches, layers=names, max_images=10)
    assert found.equals(expected)


@pytest.mark.parametrize(
    "which", ["conv1", layers.Conv2D, lambda layer: layer.name == "conv1", {"conv1"}]
)
def test_layers_are_selected_as_elsewhere(images, two, which):
    expected = ds.measure_sensitivity(two["one"], images, layers=which)["layer"].tolist()
    found = ds.compare_sensitivity(two, images, layers=which)["layer"].tolist()
    assert found == expected


def test_what_is_no_comparison(images, two, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("work was done before the input was checked")

    monkeypatch.setattr(ds.RandomDeformation, "draw", refuse)
    for models in ({}, {"one": two["one"]}, list(two.values()), two["one"]):
        with pytest.raises(ValueError, match="models must be a dict of at least two"):
            ds.compare_sensitivity(models, images)
    for by in ("name", None):
        with pytest.raises(ValueError, match=r'by must be "layer" or "depth", received'):
            ds.compare_sensitivity(two, images, by=by)
    with pytest.raises(ValueError, match="unknown metric"):
        ds.compare_sensitivity(two, images, metric="l2")
    with pytest.raises(ValueError, match="batch_size must be"):
        ds.compare_sensitivity(two, images, batch_size=0)
    with pytest.raises(ValueError, match="unknown metric"):
        ds.sensitivity_by_strength(two["one"], images, [1], metric="l2")


@pytest.fixture
def unmeasured(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was measured before all were checked")

    monkeypatch.setattr(comparisons, "layer_summaries", refuse)


@pytest.mark.parametrize("by", ["layer", "depth"])
def test_unknown_layers_are_refused_before_any_model_is_measured(images, two, unmeasured, by):
    models = {**two, "deep": network(depth=3)}
    for which in (["conv1", "conv3"], ["conv1", "nothing"], "conv3", []):  # not of the reference
        with pytest.raises(
            ValueError, match=r"unknown layers \['(conv3|nothing)'\]|layers is empty"
        ):
            ds.compare_sensitivity(models, images, layers=which, by=by)


def test_models_without_a_common_layer_are_refused_before_any_is_measured(images, two, unmeasured):
    models = {"deep": network(depth=3), **two}
    with pytest.raises(ValueError, match=r"'one' and 'deep' have no layer name in common"):
        ds.compare_sensitivity(models, images, layers=["conv3"])
    with pytest.raises(ValueError, match=r"'one' has none of the layers \['conv3'\] of 'deep'"):
        ds.compare_sensitivity(models, images, layers=["conv3"], by="depth")
    with pytest.raises(ValueError, match=r"'b' and 'a' have no layer name in common"):
        ds.compare_sensitivity({"a": chain(2.0), "b": chain(layers.Flatten())}, images)


@pytest.mark.parametrize("measure", ["sensitivity", "smoothness"])
def test_a_named_layer_that_another_model_lacks_keeps_its_row(images, two, measure):
    models, options = {"deep": network(seed=3, depth=3), **two}, {"measure": measure}
    table = ds.compare_sensitivity(models, images, layers=["conv1", "conv3"], **options)
    assert table["layer"].tolist() == ["conv1", "conv3"] * 2
    assert table["note"].tolist() == ["", "no layer of this name in one"] + [
        *("", "no layer of this name in two")
    ]
    whole = ds.compare_sensitivity(models, images, **options)
    numbers = [measure, f"reference_{measure}", "difference", "ratio"]
    expected = whole[whole["layer"].isin(["conv1", "conv3"])]
    np.testing.assert_allclose(table[numbers], expected[numbers], rtol=1e-5)


def test_a_named_layer_that_another_model_lacks_has_its_depth(images, two):
    models = {"deep": network(seed=3, depth=3), **two}
    table = ds.compare_sensitivity(models, images, layers=["conv1", "conv3"], by="depth")
    only = ds.measure_sensitivity(two["one"], images, layers="conv1")["sensitivity"][0]
    assert table["layer"].tolist() == ["conv1", "conv3"] * 2
    np.testing.assert_allclose(table["sensitivity"][:2], [only, only], rtol=1e-5)


def test_layers_of_automatic_names_are_met_by_the_order_of_calls(images):
    models = {name: chain(layers.Conv2D(2, 3), layers.Conv2D(3, 3)) for name in ("a", "b")}
    for seed, model in enumerate(models.values()):
        randomize(model, seed)
    second, other = (model.layers[2].name for model in models.values())
    assert second != other
    row = ds.compare_sensitivity(models, images, layers=["input", second]).iloc[1]
    expected = ds.measure_sensitivity(models["b"], images, layers=other)["sensitivity"][0]
    assert (row["layer"], row["note"]) == (second, "")
    assert row["sensitivity"] == pytest.approx(expected, rel=1e-5)


# ---- strengths ----


def measured(model, images, strength, **options):
    deformation = ds.RandomDeformation(3, strength)
    return ds.measure_sensitivity(model, images, deformation, **options)


def assert_same(found, expected):
    words = found.columns[found.dtypes.map(str).isin(["str", "object"])]
    assert found[words].equals(expected[words])
    numbers = found.columns.difference(words)
    # On JAX a convolution depends a little on what else is in the batch.
    rtol = 1e-3 if BACKEND == "jax" else 1e-5
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(
    ("strengths", "options"),
    [
        ([1, 0.25, 0], {}),
        (np.array([0.5, 1.0]), {"deformations": 3, "metric": "euclidean", "batch_size": 4}),
        ([(0.5, 1), 1, (0, 0.75)], {"layers": "conv*", "seed": 4}),
        ((s for s in (1, 0.5)), {"intervals": False, "batch_size": 1, "deformations": 2}),
    ],
)
def test_each_strength_is_a_measurement(images, two, strengths, options):
    strengths = strengths if isinstance(strengths, (list, np.ndarray)) else list(strengths)
    found = ds.sensitivity_by_strength(two["one"], images, (s for s in strengths), **options)
    count = len(found) // len(strengths)
    assert found.index.tolist() == list(range(count * len(strengths)))
    for number, strength in enumerate(strengths):
        rows = found[number * count : (number + 1) * count].reset_index(drop=True)
        assert (rows["max_displacement"] == np.max(strength)).all()
        expected = measured(two["one"], images, strength, **options)
        assert_same(rows.drop(columns="max_displacement"), expected)


def test_columns_types_and_order_of_strengths(images, two):
    table = ds.sensitivity_by_strength(two["one"], images, [1, 0.5], layers="conv*")
    columns = {**STRENGTH_COLUMNS, **SENSITIVITY_COLUMNS}
    assert list(table.columns) == list(columns)
    for name, dtype in columns.items():
        assert dtype == "str" or table[name].dtype == dtype
    assert table["max_displacement"].tolist() == [1, 1, 0.5, 0.5]
    assert table["layer"].tolist() == ["conv1", "conv2"] * 2
    assert table["layer_index"].tolist() == [0, 1] * 2


def test_the_deformation_gives_all_but_the_strength(images, two):
    deformation = ds.RandomDeformation((2, 4), 7.0, "nearest", seed=1)
    found = ds.sensitivity_by_strength(two["one"], images, [0.5], deformation)
    same = ds.RandomDeformation((2, 4), 0.5, "nearest")
    expected = ds.measure_sensitivity(two["one"], images, same)
    assert_same(found.drop(columns="max_displacement"), expected)
    assert deformation.max_displacement == (7, 7)


def test_one_strength_need_not_be_a_list(images, two):
    for one in (0.5, np.float64(0.5), np.array(0.5)):
        table = ds.sensitivity_by_strength(two["one"], images, one, layers="conv1")
        assert table["max_displacement"].tolist() == [0.5]
    table = ds.sensitivity_by_strength(two["one"], images, 1, layers="conv1")
    assert table["max_displacement"].tolist() == [1]


@pytest.mark.parametrize(
    ("strengths", "words"),
    [
        ([], "max_displacements is empty"),
        (np.empty((0, 2)), "max_displacements is empty"),
        ([1, -1], "received -1"),
        ([np.nan], "received nan"),
        ([None], "received None"),
        (None, "received None"),
        ([(1, 2, 3)], r"received \(1, 2, 3\)"),
        (["1"], "received '1'"),
    ],
)
def test_what_is_no_strength(images, two, strengths, words):
    with pytest.raises(ValueError, match=words):
        ds.sensitivity_by_strength(two["one"], images, strengths)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PyTorch's
@pytest.mark.parametrize(
    ("strengths", "largest"),
    [
        ([0.5, 9.0], "9.0"),
        ([(9.0, 8.0), 0.5], "(9.0, 8.0)"),
        (np.array([[9, 1], [0.5, 1]]), "(9.0, 1.0)"),
    ],
)
def test_folding_is_warned_of_and_told_by_strength(images, two, strengths, largest):
    words = rf"deformations fold the image.*\(max_displacement={re.escape(largest)}\)"
    with pytest.warns(UserWarning, match=words):
        table = ds.sensitivity_by_strength(two["one"], images, strengths, layers="conv1")
    folded = dict(zip(table["max_displacement"], table["folded_fraction"]))
    assert folded.pop(9.0) > 0
    assert set(folded.values()) == {0}


def test_pairs_and_undeformed_images_are_computed_once(images, two, monkeypatch):
    counts = {"pairs": 0, "rows": 0, "moved": 0}
    squares, batches = layer_distances.pair_squares, layer_distances.batches

    def counting_squares(*args):
        counts["pairs"] += 1
        return squares(*args)

    def counting_batches(*args, **kwargs):
        for batch in batches(*args, **kwargs):
            counts["rows"] += len(batch.images)
            counts["moved"] += len(batch.images) * len(batch.draws)
            yield batch

    monkeypatch.setattr(layer_distances, "pair_squares", counting_squares)
    monkeypatch.setattr(layer_distances, "batches", counting_batches)
    ds.sensitivity_by_strength(two["one"], images, [0.25, 0.5, 1], deformations=2)
    assert counts == {"pairs": 4, "rows": 12, "moved": 12 * 3 * 2}


def test_strengths_of_a_generator(images, two):
    expected = ds.sensitivity_by_strength(two["one"], images[:8], [1, 0.5], layers="pool")
    source = ((images[i : i + 4], np.arange(4)) for i in (0, 4, 8))
    found = ds.sensitivity_by_strength(two["one"], source, [1, 0.5], layers="pool", max_images=8)
    assert found.equals(expected)


def test_a_layer_that_cannot_be_measured_keeps_a_row_for_each_strength(images):
    table = ds.sensitivity_by_strength(chain(0.0, 2.0), images, [1, 0.5])
    broken = by_layer(table).loc["layer1"]
    assert broken["max_displacement"].tolist() == [1, 0.5]
    assert broken["sensitivity"].isna().all()
    assert broken["note"].str.startswith("zero representation").all()
    assert by_layer(table).loc["input", "sensitivity"].notna().all()
