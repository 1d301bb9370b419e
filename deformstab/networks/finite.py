"""That a swap leaves a network whose outputs are numbers.

Some networks pad with minus infinity before a max pool: it never wins a maximum. A mean, a filter
or a convolution in the pool's place would be minus infinity, or NaN, along the border.
"""

import keras
import numpy as np
from keras import ops

_SIDE = 64  # pixels of a probe along an axis that the model leaves open
_HUGE = 1e4  # nothing that images or activations are padded with, but in place of minus infinity


def neutral_padding(model, pools) -> dict:
    """The padding operations before pools that are to pad with zero for another kind.

    Args:
        model: functional.
        pools: the layers that are exchanged.

    Returns:
        operation → a function of the arguments of its call that gives those with zero.
    """
    found = {}
    for pool in pools:
        for node in getattr(pool, "_inbound_nodes", ()):
            for tensor in node.input_tensors:
                before = tensor._keras_history.operation
                if type(before).__name__ == "Pad" and _pads_with_minus_infinity(before):
                    found[before] = _with_zero
    return found


def _pads_with_minus_infinity(operation) -> bool:
    for node in operation._inbound_nodes:
        values = [*node.arguments.args[1:], *node.arguments.kwargs.values()]
        numbers = [x for x in values if isinstance(x, (int, float, np.number))]
        if any(not np.isfinite(x) or abs(x) >= _HUGE for x in numbers):
            return True
    return False


def _with_zero(args, kwargs):
    def changed(value):
        number = isinstance(value, (int, float, np.number))
        return 0.0 if number and (not np.isfinite(value) or abs(value) >= _HUGE) else value

    return (args[0], *map(changed, args[1:])), {k: changed(v) for k, v in kwargs.items()}


def check_outputs(model, swapped, kind: str) -> None:
    """Refuses a swap after which outputs for a probe are no longer finite.

    Raises:
        ValueError: with the first layers that give NaN or infinity.
    """
    probe = _probe(model)
    try:
        told = probe is not None and _finite(model(probe, training=False))
    except Exception:  # one that takes no such noise, or that Keras runs in graphs only
        told = False
    if not told or _finite_or_not_here(swapped, probe):
        return
    raise ValueError(
        f"with {kind!r} in the place of its pooling, model {model.name!r} gives NaN or infinity for "
        "images for which it gave numbers. It may pad with minus infinity before a pool, in a layer "
        "whose code cannot be seen; pad with zeros there, or take 'max' or 'max_blur'"
    )


def _finite_or_not_here(model, probe) -> bool:
    """Whether outputs are finite, or cannot be computed on this machine.

    TensorFlow convolves channels_first on some processors only, and pools so on all. Such a network
    is for another machine, and nothing is wrong with it.
    """
    try:
        return _finite(model(probe, training=False))
    except Exception as error:
        if type(error).__name__ == "UnimplementedError":
            return True
        raise


def _probe(model):
    """One row for each input, noise in [0, 1]; `None` where it is not known what the model takes."""
    rng = np.random.default_rng(0)
    rows = []
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    for tensor in keras.tree.flatten(inputs):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        shape = [1 if tensor.shape[0] is None else tensor.shape[0]]
        shape += [_SIDE if size is None else size for size in tensor.shape[1:]]
        if not keras.backend.is_float_dtype(dtype):
            return None
        rows.append(ops.convert_to_tensor(rng.random(shape).astype("float32"), dtype))
    return keras.tree.pack_sequence_as(inputs, rows)


def _finite(outputs) -> bool:
    leaves = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in keras.tree.flatten(outputs))
    return all(np.isfinite(leaf).all() for leaf in leaves)
