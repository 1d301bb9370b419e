"""Networks whose first layer takes the maximum over groups of filters (Goodfellow et al. 2013)."""

import keras
import numpy as np
from keras import layers, ops

from deformstab.networks.initializers import paper_initializer, seeded
from deformstab.networks.vgg import layer_seed
from deformstab.paper.data import bundled

GROUPS, MEMBERS, FILTER_SIDE = 8, 4, 5
FILTERS = GROUPS * MEMBERS
SIDE = 28  # of digits, as of MNIST's
TURN = 45  # degrees, to either side
_BATCH = 64


class GroupMaximum(layers.Layer):
    """The maximum over groups of channels that follow each other, or stand where `order` says.

    Args:
        members: of a group.
        order: which channels in turn make up the groups; by default as they come.

    Input: [batch, height, width, groups · members]. Output: [batch, height, width, groups].
    """

    def __init__(self, members: int = MEMBERS, order=None, **kwargs):
        super().__init__(**kwargs)
        self.members = members
        self.order = None if order is None else [int(place) for place in order]

    def call(self, maps):
        if self.order is not None:
            maps = ops.take(maps, self.order, axis=-1)
        return ops.max(ops.reshape(maps, (*ops.shape(maps)[:-1], -1, self.members)), axis=-1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] // self.members)


def network(seed: int, side: int = SIDE) -> keras.Model:
    """A classifier of digits: "filters" → "maxima" over groups of them → two more convolutions.

    No ReLU follows the maxima, which would hide where they are negative; the filters have no bias,
    so that on an empty background all are equal, 0.

    Args:
        seed: of the weights.
        side: of the images, pixels.

    Returns:
        A functional model from [batch, side, side, 1] to ten logits.
    """

    def initial(name):
        return seeded(paper_initializer(), layer_seed(seed, name))

    def convolution(filters, side, name, **options):
        options |= {"padding": "same", "kernel_initializer": initial(name), "name": name}
        return layers.Conv2D(filters, side, **options)

    images = keras.Input((side, side, 1), name="input")
    tensor = convolution(FILTERS, FILTER_SIDE, "filters", use_bias=False)(images)
    tensor = GroupMaximum(name="maxima")(tensor)
    for number, filters in enumerate((16, 32), start=1):
        tensor = layers.MaxPooling2D(name=f"pool{number}")(tensor)
        tensor = convolution(filters, 3, f"conv{number}", activation="relu")(tensor)
    tensor = layers.GlobalAveragePooling2D(name="average")(tensor)
    logits = layers.Dense(10, kernel_initializer=initial("logits"), name="logits")(tensor)
    return keras.Model(images, logits, name="maxout")


def digits(side: int = SIDE) -> tuple[np.ndarray, ...]:
    """scikit-learn's 8×8 digits at a size, 0 (background) to 1: x, y to train on, x, y to test on."""
    x_train, y_train, x_test, y_test = bundled.digits(side)
    return x_train[..., None], y_train, x_test[..., None], y_test


def turned(images: np.ndarray, seed: int) -> np.ndarray:
    """Each image turned about its centre by a random angle of up to `TURN` degrees, either way."""
    turn = layers.RandomRotation(
        TURN / 360, "constant", seed=seed, data_format="channels_last", fill_value=0.0
    )
    return ops.convert_to_numpy(turn(images, training=True))


def trained(seed: int, turns: bool, epochs: int, side: int = SIDE) -> tuple[keras.Model, dict]:
    """Trains a network on digits.

    Args:
        seed: of the weights, the order of images and their angles.
        turns: whether images are turned, anew in each epoch.
        epochs: passes over them.
        side: of the images.

    Returns:
        (model, accuracies): on the images it learned from (upright ones), on test images as they
        are, and on these turned: `accuracy_train`, `accuracy_test`, `accuracy_turned`.
    """
    x_train, y_train, x_test, y_test = digits(side)
    model = network(seed, side)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(x_train))
        angles = int(rng.integers(2**31))
        x = turned(x_train, angles)[order] if turns else x_train[order]
        model.fit(x, y_train[order], _BATCH, epochs=1, shuffle=False, verbose=0)
    seen = {
        "train": (x_train, y_train),
        "test": (x_test, y_test),
        "turned": (turned(x_test, seed), y_test),
    }
    return model, {f"accuracy_{name}": _accuracy(model, *pair) for name, pair in seen.items()}


def _accuracy(model, images, labels) -> float:
    return float((model.predict(images, 256, verbose=0).argmax(axis=-1) == labels).mean())


def made_of_turns(seed: int) -> np.ndarray:
    """Groups that are invariant to quarter turns by hand: the four of one random filter.

    Returns:
        [5, 5, 1, filters], of a group one after the other.
    """
    one = np.random.default_rng(seed).normal(size=(FILTER_SIDE, FILTER_SIDE, 1, GROUPS))
    kernels = np.stack([np.rot90(one, turns) for turns in range(MEMBERS)], axis=-1)
    return kernels.reshape(FILTER_SIDE, FILTER_SIDE, 1, FILTERS).astype("float32")
