"""Draws that never come twice: from threads, from parallel maps; and the recipes for tf.data."""

import concurrent.futures

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_tensorflow, numpy

import deformstab as ds

COUNT = 1500


def distinct(draws):
    return len(np.unique(np.asarray(draws).reshape(len(draws), -1), axis=0))


def test_threads_never_get_the_same_draw():
    layer = ds.RandomDeformation(seed=0)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        draws = list(pool.map(lambda _: numpy(layer.draw(1)), range(COUNT)))
    assert distinct(draws) == COUNT
    # They are those of one thread, in some order: none is left out either.
    alone = ds.RandomDeformation(seed=0)
    expected = [numpy(alone.draw(1)) for _ in range(COUNT)]
    assert distinct(draws + expected) == COUNT


def test_calls_from_threads_never_get_the_same_draw():
    layer = ds.RandomDeformation(seed=0)
    image = natural_images(1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: numpy(layer(image)), range(300)))
    assert distinct(found) == 300


@needs_tensorflow
@pytest.mark.parametrize("deterministic", [True, False])
def test_parallel_maps_never_get_the_same_draw(deterministic):
    import tensorflow as tf

    layer = ds.RandomDeformation(seed=0)
    dataset = tf.data.Dataset.range(COUNT).map(
        lambda i: layer.draw(1), num_parallel_calls=16, deterministic=deterministic
    )
    draws = list(dataset.as_numpy_iterator())
    assert distinct(draws) == COUNT
    alone = ds.RandomDeformation(seed=0)
    assert distinct(draws + [numpy(alone.draw(1)) for _ in range(COUNT)]) == COUNT


@needs_tensorflow
def test_maps_and_threads_together_never_get_the_same_draw():
    import tensorflow as tf

    layer = ds.RandomDeformation(seed=0)
    dataset = tf.data.Dataset.range(500).map(lambda i: layer.draw(1), num_parallel_calls=8)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        eager = pool.map(lambda _: numpy(layer.draw(1)), range(500))
        draws = [*dataset.as_numpy_iterator(), *eager]
    assert distinct(draws) == 1000


@needs_tensorflow
@pytest.mark.parametrize("jit", [False, True])
def test_seeds_are_those_of_keras(jit):
    """[seed, 0], [seed, 1], …: what every earlier version drew, eagerly and compiled."""
    import tensorflow as tf

    own = ds.RandomDeformation(seed=-5).generator
    keras_own = keras.random.SeedGenerator(-5)
    compiled = tf.function(own.next, jit_compile=jit or None)
    for number in range(4):
        expected = numpy(keras_own.next())
        assert expected.tolist() == [-5, number]
        np.testing.assert_array_equal(numpy(compiled() if number % 2 else own.next()), expected)


def test_a_stateless_scope_leaves_the_generator_where_it_was():
    layer, undisturbed = (ds.RandomDeformation(seed=2) for _ in range(2))
    with keras.StatelessScope():
        inside = [numpy(layer.draw(1)) for _ in range(2)]
    after = [numpy(layer.draw(1)) for _ in range(2)]
    np.testing.assert_array_equal(inside, after)
    np.testing.assert_array_equal(after, [numpy(undisturbed.draw(1)) for _ in range(2)])


# ---- the two wishes ----


def epochs(dataset, count):
    """The batches of so many passes over a data set without shuffling."""
    return [np.stack(list(dataset.as_numpy_iterator())) for _ in range(count)]


@needs_tensorflow
def test_a_map_without_seeds_deforms_anew_in_each_epoch(images):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(images)
    first, second = epochs(dataset.map(ds.RandomDeformation(seed=1), num_parallel_calls=4), 2)
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 0.01).all()
    assert distinct([*first, *second]) == 2 * len(images)


@needs_tensorflow
def test_numbers_that_go_on_make_new_epochs_that_a_second_training_repeats(images):
    import tensorflow as tf

    def training():
        layer = ds.RandomDeformation(seed=1)
        numbered = tf.data.Dataset.from_tensor_slices(images).repeat().enumerate()
        repeatable = numbered.map(lambda i, image: layer(image, seed=i), num_parallel_calls=4)
        found = np.stack(list(repeatable.take(2 * len(images)).as_numpy_iterator()))
        return found[: len(images)], found[len(images) :]

    (first, second), again = training(), training()
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 0.01).all()
    np.testing.assert_array_equal([first, second], again)


@needs_tensorflow
def test_numbers_that_begin_again_freeze_the_deformations(images):
    """What the docstring warns of."""
    import tensorflow as tf

    layer = ds.RandomDeformation(seed=1)
    numbered = tf.data.Dataset.from_tensor_slices(images).enumerate()
    frozen = numbered.map(lambda i, image: layer(image, seed=i)).repeat()
    found = np.stack(list(frozen.take(2 * len(images)).as_numpy_iterator()))
    np.testing.assert_array_equal(found[: len(images)], found[len(images) :])


# ---- seeds ----


@pytest.mark.parametrize("seed", [7, np.int64(7), np.uint8(7), np.array(7)])
def test_seeds_are_integers_of_any_kind(seed):
    layer = ds.RandomDeformation(seed=seed)
    assert type(layer.get_config()["seed"]) is int
    expected = ds.RandomDeformation(seed=7)
    np.testing.assert_array_equal(numpy(layer.draw(2)), numpy(expected.draw(2)))
    np.testing.assert_array_equal(numpy(layer.draw(2, seed=seed)), numpy(expected.draw(2, seed=7)))


@pytest.mark.parametrize("seed", [True, np.bool_(True), 1.0, "a", [1], np.array([1, 2]), 2**70])
def test_what_is_no_seed(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer .* also None.* received"):
        ds.RandomDeformation(seed=seed)
    with pytest.raises(ValueError, match=r"seed must be an integer .* also None.* received"):
        ds.RandomDeformation().draw(1, seed=seed)


@pytest.mark.skipif(BACKEND != "jax", reason="its seeds are uint32")
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_jax_has_not(seed):
    with pytest.raises(ValueError, match="from 0 to 4294967295"):
        ds.RandomDeformation(seed=seed)


@pytest.mark.parametrize("batch_size", ["a", -1, True, None, 2.0, np.float32(2), [2], (2,)])
def test_what_is_no_number_of_draws(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 0, received"):
        ds.RandomDeformation().draw(batch_size)


def test_no_draws():
    assert tuple(ds.RandomDeformation().draw(0).shape) == (0, 9, 2)
    assert tuple(ds.RandomDeformation().draw(np.int64(2)).shape) == (2, 9, 2)
