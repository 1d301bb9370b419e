"""Training one network: until it fits, from wherever it was stopped, the same way every time.

What a training does depends on the experiment and on the position in it (epochs and steps done), on
nothing else: the order of the images is a function of (seed, epoch), and a checkpoint holds every
variable of model and optimizer. So one that is resumed goes through the very numbers of one that was
never stopped. (Keras' BackupAndRestore does not give that: weights differ after resuming.)
"""

import functools
import io
import json
import math
import pathlib
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from keras import ops

from deformstab.networks.normalization import reestimate_batch_normalization
from deformstab.networks.vgg import vgg
from deformstab.provenance import computes_on_gpu
from deformstab.tables import write_bytes

# An epoch whose own accuracy (batch statistics, weights still moving) is further below the target
# than this is not worth the two passes over all images that tell the real one.
CHECK_MARGIN = 0.1
TRACKED_IMAGES = 512  # training images that give statistics and accuracy while training is tracked
_EVALUATION_BATCH = 250
_MOST_BYTES = 2 << 30  # of images that are evaluated, or stay on the device


class Training:
    """A network and how far its training has got.

    Attributes:
        model: that is trained.
        measured: the same network in float32, to measure; `model` itself unless the experiment
            trains in another precision. Current after `evaluate`.
        epoch, step: finished so far.
        history: a dict an epoch: `epoch`, `step`, `loss_in_fit`, `accuracy_in_fit` (while it
            trained); `accuracy_batch_statistics`, `accuracy_train` where they were looked at, else
            NaN.
        as_stepped: the weights of `model` as the steps of the last epoch left them, the moving
            averages of batch normalization not yet re-estimated; `None` before the first one.
    """

    def __init__(self, experiment, data):
        self.experiment, self.data = experiment, data
        shape = (data.image_shape, data.classes, experiment.blocks, experiment.downsampling)
        recipe = (experiment.optimizer, experiment.weight_decay)
        self.model = compiled_model(*shape, *recipe, experiment.precision, experiment.padding)
        self.measured = self.model
        if experiment.precision != "float32":
            self.measured = compiled_model(*shape, *recipe, "float32", experiment.padding)
        keras.utils.set_random_seed(experiment.seed)
        fresh = vgg(*shape, experiment.kernel_initializer(), experiment.seed, experiment.padding)
        for model in {id(each): each for each in (self.model, self.measured)}.values():
            model.set_weights(fresh.get_weights())
        for variable in self.model.optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        self.epoch = self.step = 0
        self.history = []
        self.as_stepped = None

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or the network fits its training images."""
        return self.epoch == self.experiment.epochs or self.fits

    @property
    def fits(self) -> bool:
        """Whether training accuracy in inference mode has reached the experiment's target."""
        target = self.experiment.stop_accuracy
        return bool(target and self.history and self.history[-1]["accuracy_train"] >= target)

    def run_epoch(self, at_step=lambda: None) -> None:
        """One epoch, and a look at whether the network fits.

        Args:
            at_step: called after every step of the optimizer, `step` counted.
        """
        experiment, (images, labels) = self.experiment, self._on_device
        self.model.optimizer.learning_rate = learning_rate(experiment, self.epoch)
        order = epoch_order(len(images), experiment.seed, self.epoch)
        totals = np.zeros(3)
        for batch, targets in _batches(images, labels, order, experiment.batch_size):
            loss, accuracy = self.model.train_on_batch(batch, targets)
            self.step += 1
            totals += len(batch) * np.array([1, loss, accuracy], "float64")
            at_step()
        self.as_stepped = self.model.get_weights()
        self.epoch += 1
        row = {"epoch": self.epoch, "step": self.step}
        row["loss_in_fit"], row["accuracy_in_fit"] = (float(x) for x in totals[1:] / totals[0])
        target = experiment.stop_accuracy
        near = bool(target) and row["accuracy_in_fit"] >= target - CHECK_MARGIN
        accuracies = [math.nan, math.nan]
        if near or self.epoch == experiment.epochs:
            accuracies = self.evaluate()
        row["accuracy_batch_statistics"], row["accuracy_train"] = accuracies
        self.history.append(row)

    def evaluate(self, images: int | None = None) -> list[float]:
        """Re-estimates batch normalization over the first training images, by default over all.

        All of those that fit into 2 GiB: images that stay files may be more.

        Returns:
            The accuracies on them, with batch statistics and in inference mode.
        """
        x, y = self.data.x_train, self.data.y_train
        images = min(images or len(x), max(1, _MOST_BYTES // (4 * math.prod(x.shape[1:]))))
        x, y = np.asarray(x[:images]), y[:images]
        if self.measured is not self.model:
            self.measured.set_weights(self.model.get_weights())
        outputs = reestimate_batch_normalization(self.measured, x, self.experiment.batch_size)
        return [accuracy(outputs, y[: len(outputs)]), accuracy(predict(self.measured, x), y)]

    def save(self, path, kept: dict) -> None:
        """Writes all that resuming needs, and what is to be kept beside it, atomically."""
        position = {"epoch": self.epoch, "step": self.step, "history": self.history}
        position["experiment"] = self.experiment.identity()
        arrays = {f"variable{n}": ops.convert_to_numpy(v) for n, v in enumerate(self._variables)}
        content = io.BytesIO()
        np.savez(content, state=json.dumps({**position, "kept": kept}), **arrays)
        write_bytes(content.getvalue(), path)

    def resume(self, path) -> dict | None:
        """Takes up what `save` wrote; what was kept beside it, `None` if there is nothing.

        A file that cannot be read costs the training so far, and no more: there is a warning.
        """
        path = pathlib.Path(path)
        if not path.exists():
            return None
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                state = json.loads(str(file["state"]))
                arrays = [file[f"variable{n}"] for n in range(len(self._variables))]
            if any(a.shape != tuple(v.shape) for a, v in zip(arrays, self._variables)):
                raise ValueError("variables of another network")
            # Checkpoints of before there was this have no such entry.
            if state.get("experiment", self.experiment.identity()) != self.experiment.identity():
                raise ValueError("another run's")
            position = int(state["epoch"]), int(state["step"]), state["history"], state["kept"]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path} is damaged ({error!r}): the run starts again", stacklevel=2)
            return None
        self.epoch, self.step, self.history, kept = position
        for variable, array in zip(self._variables, arrays):
            variable.assign(array)
        return kept

    @functools.cached_property
    def _on_device(self) -> tuple:
        """Training images and labels: on a GPU, once for all steps, if there is one.

        Files stay files, and what is large stays in memory; where processors compute, NumPy's
        indexing takes less of their time (a step 4 % less).
        """
        images, labels = self.data.x_train, self.data.y_train
        small = isinstance(images, np.ndarray) and images.nbytes <= _MOST_BYTES
        if small and computes_on_gpu():
            images, labels = ops.convert_to_tensor(images), ops.convert_to_tensor(labels)
        return images, labels

    @property
    def _variables(self) -> list:
        """Weights, statistics, states of seed generators; moments and steps of the optimizer."""
        return [*self.model.variables, *self.model.optimizer.variables]


@functools.lru_cache(maxsize=12)
def compiled_model(
    image_shape,
    classes,
    blocks,
    downsampling,
    optimizer="adam",
    weight_decay=0.0,
    precision="float32",
    padding="zeros",
) -> keras.Model:
    """The network all runs of one architecture share: tracing it takes longer than an epoch."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = vgg(image_shape, classes, blocks, downsampling, padding=padding)
    finally:
        keras.config.set_dtype_policy(policy)
    decay = {"weight_decay": weight_decay or None}  # decoupled (Loshchilov and Hutter 2019)
    if optimizer == "adam":
        chosen = keras.optimizers.Adam(**decay)
    else:
        chosen = keras.optimizers.SGD(momentum=0.9, nesterov=True, **decay)
    if weight_decay:
        chosen.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(
        chosen,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    # Metrics make their variables at their first batch, and TensorFlow traces a step that makes some
    # twice.
    model.compute_metrics(None, ops.zeros(1, "int32"), ops.zeros((1, classes)))
    model.reset_metrics()
    return model


def learning_rate(experiment, epoch: int) -> float:
    """Of an epoch, counted from 0: constant, or along half a cosine down to zero."""
    if experiment.schedule == "constant":
        return experiment.learning_rate
    return experiment.learning_rate * (1 + math.cos(math.pi * epoch / experiment.epochs)) / 2


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the training images in an epoch."""
    return np.random.default_rng([seed, 1, epoch]).permutation(images)


def _batches(images, labels, order, size):
    """(images, labels) of each step; the next ones are read, from files maybe, meanwhile."""

    def read(start):
        batch = order[start : start + size]
        if ops.is_tensor(images):
            return ops.take(images, batch, axis=0), ops.take(labels, batch, axis=0)
        return images[batch], labels[batch]

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for start in range(size, len(order) + size, size):
            batch = coming.result()
            if start < len(order):
                coming = reader.submit(read, start)
            yield batch


def is_tracked(step: int) -> bool:
    """Whether a step is one of 1, 2, 3, 4, 6, 8, 11, 16, 23, …: powers of √2, rounded."""
    power = round(2 * math.log2(step)) if step > 0 else -1
    return power >= 0 and step == round(2 ** (power / 2))


def predict(model, images) -> np.ndarray:
    """What `model.predict` gives, without its pipeline, which takes longer than small batches."""
    starts = range(0, len(images), _EVALUATION_BATCH)
    return np.concatenate(
        [model.predict_on_batch(images[start : start + _EVALUATION_BATCH]) for start in starts]
    )


def accuracy(logits, labels) -> float:
    return float((logits.argmax(axis=-1) == labels).mean())
