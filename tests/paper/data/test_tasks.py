"""Tasks: what is exchanged is as random as it should be, and everything else stays."""

import dataclasses

import numpy as np
import pytest
from helpers import loop_warp, scipy_flow
from scipy import stats

import deformstab as ds
from deformstab.paper.data import tasks
from deformstab.paper.data.datasets import Dataset
from deformstab.paper.data.image_files import ImageFiles


def dataset(train=60, test=40, size=16, channels=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    mean, deviation = np.array([-0.3, 0.2, 0.5])[:channels], np.array([0.1, 0.2, 0.05])[:channels]
    parts = []
    for count in (train, test):
        x = mean + deviation * rng.normal(size=(count, size, size, channels))
        parts += [x.astype("float32"), rng.permutation(count) % classes]
    return Dataset("made", *parts, classes=classes)


# ---- scaled inputs ----


def test_inputs_are_scaled_as_they_say():
    data = dataset()
    assert tasks.scaled(data, "symmetric") is data
    unit = tasks.scaled(data, "unit")
    np.testing.assert_allclose(unit.x_train, (data.x_train + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(unit.x_test, (data.x_test + 1) / 2, atol=1e-6)
    standard = tasks.scaled(data, "standardized")
    np.testing.assert_allclose(standard.x_train.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(standard.x_train.std(axis=(0, 1, 2)), 1, atol=1e-4)
    # Test images by what the training images say.
    mean, deviation = data.x_train.mean(axis=(0, 1, 2)), data.x_train.std(axis=(0, 1, 2))
    np.testing.assert_allclose(standard.x_test, (data.x_test - mean) / deviation, atol=1e-3)
    for task in (unit, standard):
        assert task.x_train.dtype == task.x_test.dtype == "float32"
        np.testing.assert_array_equal(task.y_train, data.y_train)
        np.testing.assert_array_equal(task.y_test, data.y_test)


def test_a_channel_without_contrast_is_standardized_to_numbers():
    data = dataset()
    data.x_train[..., 1] = data.x_test[..., 1] = -1
    standard = tasks.scaled(data, "standardized")
    assert np.isfinite(standard.x_train).all()
    assert np.isfinite(standard.x_test).all()


# ---- random labels ----


def test_random_labels_are_uniform_and_know_nothing_of_the_true_ones():
    data = dataset(20_000, 10_000, size=1, classes=7)
    task = tasks.random_labels(data, seed=3)
    for before, after in ((data.y_train, task.y_train), (data.y_test, task.y_test)):
        assert after.shape == before.shape
        assert set(after) == set(range(7))
        assert stats.chisquare(np.bincount(after)).pvalue > 1e-3
        table = np.histogram2d(before, after, bins=7)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3
        # Drawn independently, not dealt out: counts of 7 classes that are all equal are no draw.
        assert np.ptp(np.bincount(after)) > 1
    together = np.histogram2d(task.y_train[:10_000], task.y_test, bins=7)[0]
    assert stats.chi2_contingency(together).pvalue > 1e-3


def test_random_labels_are_fixed_by_the_seed_and_leave_the_images():
    data = dataset(classes=5)
    first = tasks.random_labels(data, seed=1)
    np.random.seed(5)  # noqa: NPY002
    again, other = tasks.random_labels(data, seed=1), tasks.random_labels(data, seed=2)
    np.testing.assert_array_equal(first.y_train, again.y_train)
    np.testing.assert_array_equal(first.y_test, again.y_test)
    assert (first.y_train != other.y_train).any()
    for task in (first, other):
        np.testing.assert_array_equal(task.x_train, data.x_train)
        np.testing.assert_array_equal(task.x_test, data.x_test)
        assert (task.classes, task.name) == (5, "made")
    assert first.y_train.dtype == data.y_train.dtype


# ---- random images ----


def test_random_images_have_the_moments_of_each_channel_and_nothing_else():
    data = dataset(200, 100)
    # Structure that must be lost: a bright half, a dark image.
    data.x_train[:, :8] += 0.5
    data.x_train[::2] -= 0.7
    task = tasks.random_images(data, seed=0)
    mean, deviation = data.x_train.mean(axis=(0, 1, 2)), data.x_train.std(axis=(0, 1, 2))
    for x in (task.x_train, task.x_test):
        pixels = x.shape[0] * 16 * 16
        np.testing.assert_allclose(
            x.mean(axis=(0, 1, 2)), mean, atol=5 * deviation.max() / pixels**0.5
        )
        np.testing.assert_allclose(x.std(axis=(0, 1, 2)), deviation, rtol=5 / (2 * pixels) ** 0.5)
        normal = (x - mean) / deviation
        assert stats.kstest(normal.ravel()[::7], "norm").pvalue > 1e-3
        # Independent over pixels, channels and images.
        bound = 5 / pixels**0.5
        for one, other in (
            (normal[:, 1:], normal[:, :-1]),
            (normal[:, :, 1:], normal[:, :, :-1]),
            (normal[..., 1], normal[..., 0]),
            (normal[1:], normal[:-1]),
        ):
            assert abs((one * other).mean()) < bound
    assert task.x_train.dtype == "float32"
    np.testing.assert_array_equal(task.y_train, data.y_train)
    np.testing.assert_array_equal(task.y_test, data.y_test)
    assert (task.x_train[:100] != task.x_test).any(axis=(1, 2, 3)).all()


def test_random_images_in_place_of_files_are_refused():
    data = dataclasses.replace(dataset(), x_train=ImageFiles(("a.png",), 16))
    with pytest.raises(ValueError, match=r"random_images.*made.*into memory.*--main_tasks"):
        tasks.random_images(data, seed=0)


def test_random_images_are_fixed_by_the_seed():
    data = dataset()
    first, again = (tasks.random_images(data, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.x_train, again.x_train)
    np.testing.assert_array_equal(first.x_test, again.x_test)
    assert (first.x_train != tasks.random_images(data, seed=2).x_train).all()


# ---- deformed classes ----


@pytest.fixture
def draws(monkeypatch):
    """What the task draws, in order: [(RandomDeformation, displacements)]."""
    recorded = []

    class Recorded(ds.RandomDeformation):
        def draw(self, *args, **kwargs):
            drawn = super().draw(*args, **kwargs)
            recorded.append((self, np.asarray(drawn)))
            return drawn

    monkeypatch.setattr(tasks, "RandomDeformation", Recorded)
    return recorded


def test_every_example_is_the_image_of_its_class_deformed_by_its_own_draw(draws):
    data = dataset()
    task = tasks.deformed_classes(data, (3, 4), 1.5, seed=2)
    assert task.classes == 4
    prototypes = [data.x_train[data.y_train == label][0] for label in range(4)]
    deformation = ds.RandomDeformation((3, 4), 1.5)
    parts = ((task.x_train, task.y_train, 60), (task.x_test, task.y_test, 40))
    assert len(draws) == 2
    for (layer, drawn), (x, y, count) in zip(draws, parts):
        assert x.shape == (count, 16, 16, 3)
        assert np.ptp(np.bincount(y)) <= 1
        assert drawn.shape == (count, 12, 2)
        assert layer.max_displacement == (1.5, 1.5)
        assert 1.3 < np.abs(drawn).max() <= 1.5
        for index in range(count):
            alone = deformation.deform(prototypes[y[index]][None], drawn[index][None])
            np.testing.assert_allclose(x[index], np.asarray(alone)[0], atol=1e-6)
    for number in (0, 7):  # and by scipy's spline and a plain loop
        flow = scipy_flow(draws[1][1][number], 3, 4, 16, 16)
        expected = loop_warp(prototypes[task.y_test[number]][None], flow[None])[0]
        np.testing.assert_allclose(task.x_test[number], expected, atol=1e-4)


def test_no_two_examples_are_equal_in_train_test_or_another_seed(draws):
    data = dataset(40, 40)
    for seed in range(3):
        tasks.deformed_classes(data, 3, 1.0, seed)
    everything = np.concatenate([drawn for _, drawn in draws])
    assert len(everything) == 240
    assert len(np.unique(everything[:, 0, 0])) == 240


def test_deformed_classes_are_fixed_by_the_seed():
    data = dataset()
    first, again, other = (tasks.deformed_classes(data, 3, 1.0, seed) for seed in (1, 1, 2))
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.x_train != other.x_train).any()


def test_without_displacement_every_example_is_the_image_itself():
    data = dataset()
    task = tasks.deformed_classes(data, 3, 0.0, seed=0)
    prototypes = np.stack([data.x_train[data.y_train == label][0] for label in range(4)])
    np.testing.assert_array_equal(task.x_train, prototypes[task.y_train])
    np.testing.assert_array_equal(task.x_test, prototypes[task.y_test])


def test_classes_are_numbered_in_the_order_of_their_labels():
    data = dataset(classes=3)
    sparse = np.array([2, 5, 9])  # labels need not be 0, 1, 2, …
    data = Dataset("made", data.x_train, sparse[data.y_train], data.x_test, data.y_test, 10)
    task = tasks.deformed_classes(data, 3, 0.0, seed=0)
    assert task.classes == 3
    for number, label in enumerate(sparse):
        first = data.x_train[data.y_train == label][0]
        assert (task.x_train[task.y_train == number] == first).all()
