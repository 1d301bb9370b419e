"""What any Keras model computes at each layer, in the order in which it computes it."""

import contextlib
import threading
from dataclasses import dataclass

import keras
from keras import ops

INPUT = "input"  # the name of the first representation, the images themselves
_WATCHING = threading.RLock()  # one thread at a time exchanges Layer.__call__


@dataclass(frozen=True)
class Representation:
    """The output of one call of one layer.

    Attributes:
        name: the path of layers that leads to it, "/" between them; a later call of the same layer
            has "#2", "#3", … at its end.
        layer_type: the layer's class name.
        output: its tensors, as the layer returned them.
    """

    name: str
    layer_type: str
    output: object

    def rows(self, batch):
        """The output flattened to [batch, features], float32 (float64 if it is); or `None`.

        Args:
            batch: the static size of the model's batch axis. An output whose first axis is not of
                that size has no row an image: `None`.
        """
        leaves = [leaf for leaf in keras.tree.flatten(self.output) if hasattr(leaf, "shape")]
        if not leaves or any(len(leaf.shape) == 0 or leaf.shape[0] != batch for leaf in leaves):
            return None
        dtype = "float64" if _all_float64(leaves) else "float32"
        flat = [ops.cast(ops.reshape(leaf, (ops.shape(leaf)[0], -1)), dtype) for leaf in leaves]
        return flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)


def _all_float64(leaves) -> bool:
    return all(keras.backend.standardize_dtype(leaf.dtype) == "float64" for leaf in leaves)


@contextlib.contextmanager
def recorded_calls(model):
    """Records every layer call inside a call of `model`, nested and subclassed models included.

    Keras gives symbolic outputs of functional models only; what every layer has in common is that
    it is called. So `Layer.__call__` is watched, in this thread, while the context lasts.

    Yields:
        A list that fills with `Representation`s, in the order in which the calls end.
    """
    thread = threading.get_ident()
    representations, path, counts = [], [], {INPUT: 1}

    def call(layer, *args, **kwargs):
        if layer is model or threading.get_ident() != thread:
            return original(layer, *args, **kwargs)
        path.append(layer.name)
        try:
            output = original(layer, *args, **kwargs)
            name = "/".join(path)
        finally:
            path.pop()
        counts[name] = count = counts.get(name, 0) + 1
        name = name if count == 1 else f"{name}#{count}"
        representations.append(Representation(name, type(layer).__name__, output))
        return output

    with _WATCHING:
        original = keras.layers.Layer.__call__
        keras.layers.Layer.__call__ = call
        try:
            yield representations
        finally:
            keras.layers.Layer.__call__ = original


def representations(model, images) -> list[Representation]:
    """The input and every layer's output for a batch of images, in inference mode.

    Args:
        model: any Keras model that takes one tensor of images.
        images: [batch, …], what the model takes.
    """
    with recorded_calls(model) as calls:
        model(images, training=False)
    return [Representation(INPUT, "InputLayer", images), *calls]


def select(names: list[str], layers) -> list[int]:
    """The indices of the layers asked for, in the model's order.

    Args:
        names: all there are.
        layers: `None` for all, or some names; one that comes twice counts once.

    Raises:
        ValueError: a name is unknown, or there is none.
    """
    if layers is None:
        return list(range(len(names)))
    layers = [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in layers if name not in names]
    if unknown or not layers:
        raise ValueError(
            f"unknown layers {unknown}; this model has {', '.join(names)}"
            if unknown
            else "layers is empty; pass None for all layers, or some of " + ", ".join(names)
        )
    return sorted({names.index(name) for name in layers})
