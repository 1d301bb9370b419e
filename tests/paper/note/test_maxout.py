"""Maxima over groups of filters: their layer, their training, and what a Gain is."""

import keras
import numpy as np
import pytest
from helpers import numpy
from keras import layers

import deformstab as ds
from deformstab.paper.note import gains, maxout

QUARTER = gains.deformations(12)["quarter turn"]
SMALL = {"rotation": ds.RandomRotation(0.8), "spline": ds.RandomDeformation(3, 1.0)}


@pytest.fixture
def small(monkeypatch):
    """Two deformations in place of five, one metric, four regroupings; ten digits of 12 pixels."""
    monkeypatch.setattr(gains, "deformations", lambda side: SMALL)
    monkeypatch.setattr(gains, "METRICS", ("cosine",))
    monkeypatch.setattr(gains, "REGROUPINGS", 4)
    gains._maxima.cache_clear()
    yield maxout.digits(12)[2][:10]
    gains._maxima.cache_clear()


def random_kernels(seed, filters=8, side=3):
    return np.random.default_rng(seed).normal(size=(side, side, 1, filters)).astype("float32")


@pytest.mark.parametrize("order", [None, [3, 0, 5, 1, 2, 4]])
def test_maxima_are_those_of_a_loop(order):
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype("float32")
    found = numpy(maxout.GroupMaximum(3, order)(maps))
    order = order or range(6)
    for group in range(2):
        members = [maps[..., order[3 * group + place]] for place in range(3)]
        np.testing.assert_array_equal(found[..., group], np.maximum.reduce(members))


def test_equal_filters_gain_nothing(small, monkeypatch):
    monkeypatch.setattr(gains, "METRICS", ("euclidean",))  # all maxima of maps are parallel
    one = random_kernels(0, filters=1)
    table = gains.gains(np.repeat(one, 8, axis=-1), 2, small, seed=0)
    np.testing.assert_allclose(table["gain"], 1, rtol=1e-5)
    np.testing.assert_allclose(table["gain_distance"], 1, rtol=1e-5)


def test_a_gain_is_the_ratio_of_sensitivities(small):
    kernels = random_kernels(1)
    table = gains.gains(kernels, 2, small, seed=3)
    rng = np.random.default_rng(0)
    orders = [None, *(rng.permutation(8) for _ in range(gains.REGROUPINGS))]
    images = keras.Input(small.shape[1:])
    layer = layers.Conv2D(8, 3, padding="same", use_bias=False)
    maps = layer(images)
    layer.set_weights([kernels])
    for name, deformation in SMALL.items():
        values = {"map": [], "maximum of the map": []}
        for order in orders[:: gains.REGROUPINGS]:  # its own groups, and the last
            model = keras.Model(images, maxout.GroupMaximum(2, order, name="m")(maps))
            found = ds.measure_sensitivity(
                model, small, deformation, ["m"], intervals=False, seed=3, progress=False
            )
            values["map"].append(found["sensitivity"].item())
        row = table[(table["deformation"] == name) & (table["output"] == "map")].iloc[0]
        assert row["sensitivity"] == pytest.approx(values["map"][0], rel=1e-4)
        assert row["gain"] == pytest.approx(row["gain_distance"] / row["gain_baseline"])
        assert 0 <= row["below"] <= gains.REGROUPINGS
        assert (values["map"][0] > values["map"][1]) <= (row["below"] >= 1)


def test_filters_that_are_drawn_alike_gain_nothing_on_average(small):
    logs = []
    for seed in range(24):
        table = gains.gains(random_kernels(seed), 2, small, seed=seed)
        logs.append(np.log(table["gain"]))
    logs = np.array(logs)
    assert (logs.std(axis=0) > 0.005).all()
    errors = logs.std(axis=0, ddof=1) / np.sqrt(len(logs))
    assert (np.abs(logs.mean(axis=0)) < 3.5 * errors).all()


def test_groups_made_of_turns_do_not_see_a_quarter_turn(small, monkeypatch):
    monkeypatch.setattr(gains, "deformations", lambda side: {"quarter turn": QUARTER})
    table = gains.gains(maxout.made_of_turns(0), maxout.MEMBERS, small, seed=0)
    gain = table.set_index("output")["gain"]
    assert gain["maximum of the map"] < 1e-6
    assert gain["map"] > 0.5
    assert (table["rms_displacement"] > 5).all()


def test_the_other_deformations_are_of_one_strength():
    found = gains.deformations(28)
    rms = {name: each.expected_rms(28, 28) for name, each in found.items()}
    quarter = rms.pop("quarter turn")
    assert list(rms) == ["rotation", "scaling", "translation", "spline"]
    np.testing.assert_allclose(list(rms.values()), rms["spline"])
    assert quarter > 10 * rms["spline"]


def test_entropy_is_that_of_a_loop():
    kernels, images = random_kernels(5, filters=6), maxout.digits(12)[2][:3]
    layer = layers.Conv2D(6, 3, padding="same", use_bias=False)
    layer.build(images.shape)
    layer.set_weights([kernels])
    maps, expected = numpy(layer(images)), []
    for group in range(2):
        wins = [0, 0, 0]
        for place in np.ndindex(maps.shape[:3]):
            values = list(maps[place][3 * group : 3 * group + 3])
            if max(values) > min(values):
                wins[values.index(max(values))] += 1
        shares = [win / sum(wins) for win in wins if win]
        expected.append(-sum(share * np.log2(share) for share in shares))
    assert gains.entropy(kernels, 3, images) == pytest.approx(np.mean(expected))


def test_a_filter_that_always_wins_has_no_entropy():
    kernels = np.zeros((3, 3, 1, 4), "float32")
    kernels[1, 1, 0] = [1, 0, -1, -2]  # digits are 0 or more
    assert gains.entropy(kernels, 4, maxout.digits(12)[2][:3]) == 0


def test_turned_digits_are_digits_that_were_turned():
    images = maxout.digits(16)[2][:6]
    first = maxout.turned(images, 1)
    np.testing.assert_array_equal(first, maxout.turned(images, 1))
    assert np.abs(first - maxout.turned(images, 2)).max() > 0.1
    assert np.abs(first - images).max(axis=(1, 2, 3)).min() > 0.01
    # About the centre: rings keep their sum, roughly.
    np.testing.assert_allclose(first.sum(axis=(1, 2, 3)), images.sum(axis=(1, 2, 3)), rtol=0.1)


@pytest.mark.parametrize("turns", [False, True])
def test_a_network_learns(turns):
    model, accuracies = maxout.trained(0, turns, epochs=6, side=12)
    assert set(accuracies) == {"accuracy_train", "accuracy_test", "accuracy_turned"}
    assert accuracies["accuracy_test"] > (0.3 if turns else 0.4)  # of ten classes
    before = maxout.network(0, 12).get_layer("filters").get_weights()[0]
    assert np.abs(model.get_layer("filters").get_weights()[0] - before).max() > 1e-3
    assert [weight.shape for weight in model.get_layer("filters").weights] == [(5, 5, 1, 32)]
