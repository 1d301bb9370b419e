"""Comparisons of other measures: against the measure of each model, and plain loops."""

import numpy as np
import pytest
import scipy.stats
from helpers import natural_images
from keras import layers
from test_comparisons import DEFORMATION, INTERVALS, by_layer, chain, network

import deformstab as ds
from deformstab.measurement import summaries


@pytest.fixture(scope="module")
def two():
    return {"one": network(seed=1), "two": network(seed=2)}


def whole_and_without_each(values):
    """The mean of [images], and of all but each."""
    return values.mean(), np.array([np.delete(values, i).mean() for i in range(len(values))])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("measure", ["stability", "equivariance"])
def test_other_measures_are_those_of_each_model(two, measure, metric):
    images, options = natural_images(8), {"deformations": 2, "seed": 4}
    table = ds.compare_sensitivity(
        two, images, DEFORMATION, metric=metric, measure=measure, **options
    )
    column = {"stability": "relative_stability", "equivariance": "ratio"}[measure]
    value = {"stability": "relative_stability", "equivariance": "moving_ratio"}[measure]
    function = {"stability": ds.measure_stability, "equivariance": ds.measure_equivariance}[measure]
    own = {
        name: by_layer(function(model, images, DEFORMATION, **options), metric=metric)
        for name, model in two.items()
    }
    table = table.set_index("layer")
    assert list(table.index) == list(own["one"].index)
    assert {value, f"reference_{value}"} < {*table.columns}
    assert not {"sensitivity", "reference_sensitivity"} & {*table.columns}
    np.testing.assert_allclose(table[value], own["two"][column], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        table[f"reference_{value}"], own["one"][column], rtol=1e-5, atol=1e-7
    )
    measured = table[table["note"] == ""].drop(index="input")
    assert len(measured) >= 3
    ratios = (own["two"][column] / own["one"][column])[measured.index]
    np.testing.assert_allclose(measured["ratio"], ratios, rtol=1e-5)
    assert (measured["ratio_low"] < measured["ratio"]).all()
    assert (measured["ratio"] < measured["ratio_high"]).all()


def test_intervals_of_a_ratio_by_a_plain_loop(two, monkeypatch):
    images, seen = natural_images(8), {}
    original = summaries.leave_one_out_ratio

    def record(top, bottom):
        seen[len(seen)] = np.mean(top, axis=1), np.mean(bottom, axis=1)
        return original(top, bottom)

    monkeypatch.setattr(summaries, "leave_one_out_ratio", record)
    row = ds.compare_sensitivity(
        two, images, DEFORMATION, "pool", measure="stability", deformations=2
    ).iloc[0]
    logs, values = [], []
    for top, bottom in seen.values():
        (top, tops), (bottom, bottoms) = map(whole_and_without_each, (top, bottom))
        values.append(np.log(top / bottom))
        logs.append(np.log(tops / bottoms))
    change = logs[1] - logs[0]
    error = np.sqrt(7 / 8 * np.sum((change - change.mean()) ** 2))
    half = scipy.stats.t.ppf(0.975, 7) * error
    expected = np.exp(values[1] - values[0] + np.array([0, -half, half]))
    np.testing.assert_allclose(row[["ratio", "ratio_low", "ratio_high"]].astype(float), expected)


def test_smoothness_is_compared_without_intervals(two):
    table = ds.compare_sensitivity(two, natural_images(4), DEFORMATION, measure="smoothness")
    own = [ds.filter_smoothness(model)["smoothness"] for model in two.values()]
    assert list(table["layer"]) == ["conv1", "conv2"]
    np.testing.assert_array_equal(table["layer_index"], [0, 1])
    np.testing.assert_allclose(table["reference_smoothness"], own[0])
    np.testing.assert_allclose(table["smoothness"], own[1])
    np.testing.assert_allclose(table["difference"], own[1] - own[0])
    np.testing.assert_allclose(table["ratio"], own[1] / own[0])
    assert table[INTERVALS].isna().all(axis=None)


@pytest.mark.parametrize("by", ["layer", "depth"])
def test_kernels_of_different_sizes_are_not_compared(by):
    wide = layers.Conv2D(4, 5, padding="same", name="conv1")
    models = {"one": network(depth=1), "two": chain(wide, layers.MaxPooling2D(name="pool"))}
    table = ds.compare_sensitivity(
        models, natural_images(4), DEFORMATION, measure="smoothness", by=by
    )
    assert table["note"].str.contains("different sizes").all()
    assert table[["difference", "ratio"]].isna().all(axis=None)


def test_by_depth_takes_any_measure(two):
    models = {**two, "deeper": network(seed=3, depth=3)}
    images = natural_images(6)
    for measure, value in (("stability", "relative_stability"), ("smoothness", "smoothness")):
        table = ds.compare_sensitivity(models, images, DEFORMATION, by="depth", measure=measure)
        assert np.isfinite(table[value]).all(), measure
        ends = table[table["model"] == "deeper"].iloc[[0, -1]]
        assert list(ends["depth"]) == [0, 1]


def test_layers_without_a_map_keep_their_rows():
    flat = layers.Flatten(name="flat")
    models = {"one": chain(2.0, flat), "two": chain(3.0, layers.Flatten(name="flat"))}
    table = ds.compare_sensitivity(models, natural_images(4), DEFORMATION, measure="equivariance")
    row = by_layer(table).loc["flat"]
    assert np.isnan(row["moving_ratio"])
    assert row["note"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "rank"}, "known ones are sensitivity, smoothness, stability, equivariance"),
        ({"measure": "stability", "noise": "pink"}, "unknown noise 'pink'"),
        (
            {"measure": "equivariance", "deformation": lambda images, seed: images},
            "whether a map moves depends on the image's flow",
        ),
    ],
)
def test_unknown_measures(two, options, message):
    with pytest.raises(ValueError, match=message):
        ds.compare_sensitivity(two, natural_images(4), **options)


def test_smoothness_needs_convolutions():
    models = {"one": chain(2.0), "two": chain(3.0)}
    with pytest.raises(ValueError, match="no 2-D convolution"):
        ds.compare_sensitivity(models, natural_images(4), measure="smoothness")
