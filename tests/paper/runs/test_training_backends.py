"""A run of the reproduction trains, stops and goes on, on every backend."""

import numpy as np
import pytest
from helpers import needs_tensorflow
from keras import ops

from deformstab.paper.data.datasets import Dataset
from deformstab.paper.runs import training
from deformstab.paper.runs.experiments import Experiment
from deformstab.paper.runs.training import Training


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, optimizer):
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, (24, 8, 8, 3)).astype("float32"), np.arange(24) % 3
    data = Dataset("made", images, labels, images[:6], labels[:6], 3)
    choices = {"blocks": ((1, 4), (1, 4)), "epochs": 2, "batch_size": 8, "optimizer": optimizer}
    this = Experiment("main", "made", "max", 0, image_size=8, weight_decay=0.01, **choices)
    whole = Training(this, data)
    start = [weight.copy() for weight in whole.model.get_weights()]
    whole.run_epoch()
    whole.save(tmp_path / "one.npz", {})
    whole.run_epoch()
    expected = [weight.copy() for weight in whole.model.get_weights()]
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(start, expected))

    again = Training(this, data)  # all trainings of one architecture share a network
    for first, second in zip(start, again.model.get_weights()):
        np.testing.assert_array_equal(first, second)
    assert again.resume(tmp_path / "one.npz") == {}
    again.run_epoch()
    for first, second in zip(expected, again.model.get_weights()):
        np.testing.assert_allclose(second, first, rtol=1e-6, atol=1e-7)
    assert [row["step"] for row in again.history] == [3, 6]


class Files:
    """Images that are read when they are asked for, like those of ImageNet."""

    def __init__(self, images):
        self._images, self.shape = images, images.shape

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return self._images[index]


@needs_tensorflow
def test_the_step_is_traced_once_for_batches_of_one_size(monkeypatch):
    """A step that makes variables, as metrics do at their first batch, is traced twice."""
    choices = {"weight_decay": 1e-4, "precision": "float32"}
    model = training.compiled_model.__wrapped__((8, 8, 3), 4, ((1, 4),), "max", **choices)
    traces, step = [], model.train_step

    def counting(data):
        traces.append(data)
        return step(data)

    monkeypatch.setattr(model, "train_step", counting)
    for _ in range(3):
        model.train_on_batch(np.ones((5, 8, 8, 3), "float32"), np.zeros(5, "int64"))
    assert len(traces) == 1


def test_images_that_stay_on_the_device_train_as_those_that_are_read_batch_by_batch(monkeypatch):
    monkeypatch.setattr(training, "computes_on_gpu", lambda: True)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, (22, 8, 8, 3)).astype("float32"), np.arange(22) % 3
    choices = {"blocks": ((1, 4), (1, 4)), "epochs": 2, "batch_size": 8, "image_size": 8}
    weights, before = [], images.copy()
    for given in (images, Files(images)):
        data = Dataset("made", given, labels, images[:6], labels[:6], 3)
        trained = Training(Experiment("main", "made", "max", 0, **choices), data)
        trained.run_epoch()
        assert ops.is_tensor(trained._on_device[0]) == (given is images)
        weights.append([weight.copy() for weight in trained.model.get_weights()])
        assert trained.step == 3  # the last of six images
        np.testing.assert_array_equal(images, before)
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)
