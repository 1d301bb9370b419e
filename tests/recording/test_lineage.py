"""Which training a model belongs to: by its weights, its counts and its layers."""

import keras
import numpy as np
import pytest
from helpers import randomize, small_network
from keras import layers

from deformstab.backend import variable_to_numpy
from deformstab.recording.fingerprints import Weights, architecture_of, related, weights_of
from deformstab.recording.lineage import Begin, Lineage, Point, step_of

RNG = np.random.default_rng(0)
OURS, THEIRS = (RNG.normal(size=(3, 500)).astype("float32") for _ in range(2))


def lineage(finished=False, by_batches=False, architecture="A"):
    """3 steps an epoch; after two epochs a new optimizer."""
    points = [
        *(Point(0, 0, 0, "w0"), Point(0, 2, 2, "w2"), Point(1, 3, 3, "w3"), Point(2, 6, 6, "w6")),
        *(Point(2, 6, 0, "w6"), Point(2, 8, 2, "w8"), Point(3, 9, 3, "w9")),
    ]
    if by_batches:
        points = [point._replace(iterations=0) for point in points]
    return Lineage(architecture, points, [tuple(OURS)] * 2, by_batches, finished)


def begin(epoch, iterations, weights, sample=OURS, same=(False, False), architecture="A"):
    return Begin(epoch, iterations, architecture, Weights(weights, tuple(sample)), *same, 10, 3)


SAME_MODEL, SAME_OPTIMIZER = (True, False), (True, True)


@pytest.mark.parametrize(
    ("given", "step"),
    [
        # The weights of the last point, whatever the counts.
        (begin(3, 3, "w9"), 9),
        (begin(0, 0, "w9"), 9),
        (begin(3, 0, "w9", same=SAME_MODEL), 9),
        (begin(3, 5, "w9", same=SAME_OPTIMIZER), 11),  # nothing was learnt in two steps
        # Earlier weights with the count or the epoch of their time: set back.
        (begin(1, 3, "w3"), 3),
        (begin(0, 3, "w3"), 3),
        (begin(1, 0, "w3"), 3),
        (begin(2, 6, "w6"), 6),
        (begin(2, 0, "w6"), 6),
        (begin(0, 0, "w0"), 0),
        # Earlier weights alone: best ones, restored.
        (begin(3, 7, "w3"), 10),
        (begin(0, 0, "w3"), 10),
        # Weights of no point, of the same objects: the count, or what had been reached.
        (begin(3, 4, "w", same=SAME_OPTIMIZER), 10),
        (begin(2, 1, "w", same=SAME_OPTIMIZER), 7),
        (begin(3, 4, "w", THEIRS, same=SAME_OPTIMIZER), 10),
        (begin(0, 0, "w", same=SAME_MODEL), 10),
        (begin(0, 0, "w", same=SAME_OPTIMIZER), 10),
        (begin(0, 0, "w", THEIRS, same=SAME_MODEL), None),
        (begin(0, 0, "w", THEIRS, same=SAME_OPTIMIZER), None),
        # Of another process: the count, if the model may be the same.
        (begin(4, 6, "w"), 12),
        (begin(2, 1, "w"), 7),
        (begin(4, 6, "w", THEIRS), None),
        (begin(4, 6, "w", architecture="B"), None),
        (begin(0, 0, "w"), None),
        # A new optimizer and an epoch: where it began, or will have.
        (begin(2, 0, "w"), 6),
        (begin(3, 0, "w"), 9),
        (begin(4, 0, "w"), 12),
        (begin(4, 0, "w")._replace(steps_per_epoch=None), None),
    ],
)
def test_the_step_that_a_training_is_at(given, step):
    assert step_of(given, lineage()) == step


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (begin(3, 0, "w9"), 9),
        (begin(1, 0, "w3"), 3),
        (begin(1, None, "w3"), 3),
        (begin(3, 0, "w3"), 10),
        (begin(0, 0, "w0"), 0),
        (begin(2, 0, "w"), 6),
        (begin(4, None, "w"), 12),
        (begin(0, 0, "w"), None),
        (begin(0, 0, "w", same=SAME_OPTIMIZER), 10),
    ],
)
def test_the_step_where_batches_are_counted(given, step):
    assert step_of(given, lineage(by_batches=True)) == step


def test_after_its_end_a_training_only_goes_on():
    assert step_of(begin(4, 0, "w"), lineage(finished=True)) == 10
    assert step_of(begin(2, 0, "w"), lineage(finished=True)) == 10


def test_records_come_back_as_they_were():
    for by_batches in (None, True, False):
        given = lineage(finished=True, by_batches=by_batches)
        given.note(Point(4, 12, None, "w12"), Weights("w12", tuple(THEIRS)))
        found = Lineage.from_json(given.to_json())
        assert found.points == given.points
        for a, b in zip(found.samples, given.samples, strict=True):
            np.testing.assert_array_equal(a, b)
        assert (found.architecture, found.finished) == ("A", True)
        assert found.by_batches is by_batches


def test_noting_down():
    """A measurement is noted in place of one of the same time; other weights of it beside that."""
    found = Lineage("A", [], [])
    for time in [(0, 0), (1, 3), (2, 6), (2, 6), (1, 6), (2, 4)]:
        found.note(Point(*time, time[1], "w"), Weights("w", ()), measured=True)
    assert [point[:2] for point in found.points] == [(0, 0), (1, 3), (2, 4)]
    for weights, iterations in [("best", 4), ("best", 4), ("best", 0), ("w", 4)]:
        found.note(Point(2, 4, iterations, weights), Weights(weights, ()))
    assert [(p.iterations, p.weights) for p in found.points[2:]] == [
        *((4, "w"), (4, "best"), (0, "best"), (4, "w"))
    ]
    found.note(Point(2, 4, 9, "new"), Weights("new", ()), measured=True)
    assert [point.weights for point in found.points] == ["w", "w", "new"]


@pytest.mark.parametrize("damage", ["points", "samples", "finished", "about", "architecture"])
def test_damaged_records_are_none(damage):
    text = lineage().to_json().replace(damage, "other", 1)
    with pytest.raises((ValueError, KeyError)):
        Lineage.from_json(text)
    text = lineage().to_json().replace("[0, 2, 2,", '[0, "2", 2,')
    with pytest.raises(ValueError, match="no record"):
        Lineage.from_json(text)
    text = lineage().to_json().replace("[0, 2, 2,", "[0, 20, 2,")
    with pytest.raises(ValueError, match="damaged"):
        Lineage.from_json(text)


# ---- fingerprints ----


def test_weights_are_known_by_every_bit():
    model = small_network()
    first = weights_of(model)
    assert weights_of(small_network()).digest == first.digest
    for variable in model.weights:
        value = variable_to_numpy(variable)
        changed = value.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        variable.assign(changed)
        assert weights_of(model).digest != first.digest, variable.path
        variable.assign(value)
    assert weights_of(model).digest == first.digest
    assert sum(map(len, first.sample)) <= 2100


def network(filters=4, pool="max", name=None, policy=None):
    pools = {"max": layers.MaxPooling2D, "average": layers.AveragePooling2D}
    inputs = keras.Input((16, 16, 3))
    tensor = layers.Conv2D(filters, 3, dtype=policy)(inputs)
    tensor = pools[pool](2, name="pool")(tensor)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(tensor)), name=name)


def test_architectures():
    expected = architecture_of(network())
    assert architecture_of(network(name="other")) == expected
    frozen = network()
    frozen.trainable = False
    frozen.compile("adam", "mse", metrics=["mae"])
    assert architecture_of(frozen) == expected
    for other in (network(5), network(pool="average"), network(policy="bfloat16")):
        assert architecture_of(other) != expected


@pytest.mark.parametrize(("size", "far"), [(50, 0.3), (2000, 2.0)])
def test_weights_that_were_moved_are_related_and_others_are_not(size, far):
    rng = np.random.default_rng(1)
    bias = np.ones(size)
    for _ in range(300):
        start, moves, other = rng.normal(size=(3, size)) + 0.2
        frozen = rng.normal(size=size)
        assert related((frozen, start), (frozen, start + far * moves))
        assert not related((frozen, bias, start), (frozen, 2 * bias, other))
    assert not related((start,), (start[:-1],))
    assert not related((start,), (start, start))
    assert related((frozen, bias), (frozen, bias))  # nothing tells them apart
    assert related((np.full(size, np.nan),), (start,))


def test_a_trained_network_is_related_to_itself_and_not_to_another():
    def trained(seed):
        model = small_network()
        randomize(model, seed)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        rng = np.random.default_rng(seed)
        before = weights_of(model)
        x, y = rng.normal(size=(64, 16, 16, 3)), rng.normal(size=(64, 5))
        model.fit(x, y, batch_size=8, epochs=3, verbose=0)
        return before, weights_of(model)

    (first, last), (_, other) = trained(1), trained(2)
    assert first.digest != last.digest
    assert related(first.sample, last.sample)
    assert not related(last.sample, other.sample)
