"""Where a model downsamples, and what of it can be exchanged."""

import re

import keras
import numpy as np
from keras import layers

from deformstab.networks.downsampling import POOLING_LAYERS
from deformstab.networks.strided import StridedConvolution2D, StridedConvolutionReLU2D

SWAPPED_IN = {  # what each kind puts in the place of a pooling layer
    **POOLING_LAYERS,
    "strided": StridedConvolution2D,
    "strided_relu": StridedConvolutionReLU2D,
}


def is_graph(layer) -> bool:
    """Whether a layer is a model that computes what its graph or list of layers says."""
    known = isinstance(layer, keras.Model) and isinstance(layer, (keras.Sequential, keras.Function))
    return known and type(layer).call.__module__.startswith("keras.")


def _walk(model, path="", seen=None):
    """(path, operation, those beside it by name) of a model, also of nested ones, each once."""
    seen = set() if seen is None else seen
    operations = model.layers if isinstance(model, keras.Sequential) else model.operations
    beside = {operation.name: operation for operation in operations}
    for operation in operations:
        if operation not in seen:
            seen.add(operation)
            yield path + operation.name, operation, beside
            if is_graph(operation):
                yield from _walk(operation, f"{path}{operation.name}/", seen)


def find_downsampling(model) -> tuple[dict, dict]:
    """What is to be replaced; raises if that is nothing, or not all that downsamples.

    Returns:
        {layer: (its path, the layer that has its window)}, and {layer before it: layer}, for the
        layers that `ds.vgg` puts before a `…_downsample` and that are part of the downsampling.
    """
    if not isinstance(model, keras.Model) or not is_graph(model):
        raise ValueError(
            "swap_downsampling takes a functional or Sequential model: of a subclassed one it is "
            f"not known what its call computes; received {type(model).__name__} "
            f"{getattr(model, 'name', model)!r}"
        )
    if isinstance(model, keras.Sequential) and getattr(model, "inputs", None) is None:
        raise ValueError(
            f"Sequential model {model.name!r} has no layers with shapes yet: start it with "
            "keras.Input, or call it on images"
        )
    windows, before, hidden = {}, {}, []
    for path, operation, beside in _walk(model):
        window = _window(operation, beside)
        if window is not None:
            windows[operation] = path, window
            if window is not operation:
                before |= {beside[f"{operation.name}_{part}"]: operation for part in ("conv", "bn")}
        elif not isinstance(operation, layers.Layer):
            if _is_pooling_operation(operation):
                hidden.append(f"{path} (an operation: use the layer)")
        elif not is_graph(operation):
            inner = operation._flatten_layers(include_self=False)
            beside = {layer.name: layer for layer in inner}
            found = [layer.name for layer in inner if _window(layer, beside) is not None]
            hidden += [f"{name} inside {path} ({type(operation).__name__})" for name in found]
    if hidden:
        raise ValueError(
            f"model {model.name!r} has 2-D pooling that cannot be replaced: {', '.join(hidden)}"
        )
    if not windows:
        raise ValueError(f"model {model.name!r} has no 2-D pooling with a stride above one")
    return windows, before


def _window(operation, beside):
    """The layer with the window that an operation downsamples by: itself mostly; `None` if not."""
    if isinstance(operation, tuple(SWAPPED_IN.values())):
        return operation if max(operation.strides) > 1 else None
    if not re.fullmatch(r"block\d+_downsample", operation.name):
        return None
    convolution = operation
    if isinstance(operation, layers.ReLU):
        convolution = beside.get(f"{operation.name}_conv")
        if not isinstance(beside.get(f"{operation.name}_bn"), layers.BatchNormalization):
            return None
    vgg_has_it = (
        isinstance(convolution, layers.Conv2D)
        and convolution.kernel_size == convolution.strides == (2, 2)
        and convolution.padding == "valid"
        and not convolution.use_bias
    )
    return convolution if vgg_has_it else None


def _is_pooling_operation(operation) -> bool:
    """Whether it is a 2-D `keras.ops.max_pool` or `average_pool` with a stride above one."""
    if type(operation).__name__ not in ("MaxPool", "AveragePool"):
        return False
    strides = operation.pool_size if operation.strides is None else operation.strides
    return len(operation.output.shape) == 4 and np.max(strides) > 1
