"""Shuffled filters: what a shuffle keeps, what it takes, and that nothing else changes."""

import numpy as np
import pytest
from helpers import natural_images, needs_tensorflow
from scipy import stats

import deformstab as ds
from deformstab.paper.questions import shuffles

pytestmark = needs_tensorflow  # the reproduction's
BLOCKS = ((1, 6), (1, 8))
DEFORMATION = ds.RandomDeformation(3, 1.0, seed=0)


def kernel_of(seed=0, shape=(3, 3, 5, 7)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_channels_shuffled_are_the_same_filters_of_each_output_in_another_order():
    kernel = kernel_of()
    found = shuffles.shuffled_channels(kernel, np.random.default_rng(1))
    orders = []
    for output in range(7):
        before = [kernel[:, :, channel, output] for channel in range(5)]
        after = [found[:, :, channel, output] for channel in range(5)]
        order = [next(i for i in range(5) if (before[i] == each).all()) for each in after]
        assert sorted(order) == list(range(5))
        orders.append(tuple(order))
    assert len(set(orders)) > 3  # each output has an order of its own
    before, after = (ds.normalized_total_variation(each) for each in (kernel, found))
    assert after == pytest.approx(before, rel=1e-12)


def test_taps_shuffled_are_the_same_weights_of_each_pair_of_channels():
    kernel = kernel_of()
    found = shuffles.shuffled_taps(kernel, np.random.default_rng(1))
    orders = set()
    for channel in range(5):
        for output in range(7):
            before, after = kernel[:, :, channel, output], found[:, :, channel, output]
            assert sorted(before.ravel()) == sorted(after.ravel())
            orders.add(tuple(np.argsort(np.argsort(before.ravel())[np.argsort(after.ravel())])))
    assert len(orders) > 30
    assert np.abs(found).sum() == pytest.approx(np.abs(kernel).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("shuffled", "shape"),
    [(shuffles.shuffled_channels, (1, 1, 4, 2000)), (shuffles.shuffled_taps, (2, 2, 1, 2000))],
)
def test_every_place_is_as_likely(shuffled, shape):
    kernel = np.broadcast_to(np.arange(4.0).reshape(-1, 1), (4, 2000)).reshape(shape)
    found = shuffled(kernel, np.random.default_rng(0)).reshape(4, 2000)
    for place in range(4):
        counts = np.bincount(found[place].astype(int), minlength=4)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_taps_of_a_smooth_filter_lose_their_smoothness_and_channels_keep_it():
    smooth = np.array(ds.SmoothedInitializer(1.0, seed=0)((3, 3, 16, 16)))
    rng = np.random.default_rng(0)
    before = ds.normalized_total_variation(smooth)
    assert ds.normalized_total_variation(shuffles.shuffled_taps(smooth, rng)) > 1.3 * before
    channels = shuffles.shuffled_channels(smooth, rng)
    assert ds.normalized_total_variation(channels) == pytest.approx(before, rel=1e-6)


@pytest.fixture(scope="module")
def images():
    return natural_images(48, 16, 16)


def network(seed=0):
    return ds.vgg((16, 16, 3), 4, BLOCKS, "subsample", seed=seed)


def by_shuffle(model, images, permutations=1, seed=0):
    options = images[:32], images[32:], DEFORMATION, permutations, seed, 16
    return shuffles.by_shuffle(model, *options)


def test_each_row_is_one_layer_shuffled_in_a_whole_network(images):
    """By hand: the whole network, one kernel exchanged, statistics of all layers re-estimated."""
    model = network()
    weights = model.get_weights()
    table = by_shuffle(model, images)
    assert all((one == other).all() for one, other in zip(weights, model.get_weights()))
    assert list(zip(table["layer"], table["shuffle"])) == [
        *(("block1_conv1", "channels"), ("block1_conv1", "taps")),
        *(("block2_conv1", "channels"), ("block2_conv1", "taps")),
    ]

    def sensitivity(name):
        ds.reestimate_batch_normalization(model, images[:32], 16)
        found = ds.measure_sensitivity(model, images[32:], DEFORMATION, [f"{name}_relu"])
        return found["sensitivity"].item()

    for row in table.itertuples():
        model.set_weights(weights)
        kernel = model.get_layer(row.layer).get_weights()[0]
        intact = sensitivity(row.layer)
        number = ["channels", "taps"].index(row.shuffle)
        rng = np.random.default_rng([0, row.layer_index, number, row.permutation])
        order = rng.random(kernel.shape[2:] if number == 0 else (9, *kernel.shape[2:]))
        order = order.argsort(axis=0)
        changed = kernel.copy()
        for channel in range(kernel.shape[2]):
            for output in range(kernel.shape[3]):
                if number == 0:
                    changed[..., channel, output] = kernel[..., order[channel, output], output]
                else:
                    taps = kernel[..., channel, output].ravel()[order[:, channel, output]]
                    changed[..., channel, output] = taps.reshape(3, 3)
        model.get_layer(row.layer).kernel.assign(changed)
        expected = sensitivity(row.layer)
        np.testing.assert_allclose([row.intact, row.sensitivity], [intact, expected], rtol=1e-5)
        assert row.ratio == row.sensitivity / row.intact
        assert row.smoothness_before == ds.normalized_total_variation(kernel)
        assert row.smoothness == ds.normalized_total_variation(changed)
        assert row.note == ""


def test_the_order_that_there_was_changes_nothing_at_all(images, monkeypatch):
    for name in ("shuffled_channels", "shuffled_taps"):
        monkeypatch.setattr(shuffles, name, lambda kernel, rng: kernel)
    table = by_shuffle(network(), images)
    assert (table["ratio"] == 1).all()
    assert (table["smoothness"] == table["smoothness_before"]).all()


def test_at_initialization_neither_shuffle_changes_sensitivity_on_average(images):
    """Weights are independent and alike: shuffled, they are as likely as they were."""
    logs = {"channels": [], "taps": []}
    for seed in range(5):
        table = by_shuffle(network(seed), images, permutations=3, seed=seed)
        for name, rows in table.groupby("shuffle"):
            logs[name].append(np.log(rows["ratio"]).mean())
    for values in logs.values():
        assert stats.ttest_1samp(values, 0).pvalue > 0.01
        assert stats.sem(values) < 0.05  # and it would be seen
