"""Where a model downsamples, and what of it can be exchanged."""

import re

import keras
import numpy as np
from keras import layers

from deformstab.networks.circular import CircularConv2D
from deformstab.networks.downsampling import POOLING_LAYERS
from deformstab.networks.strided import StridedConvolution2D, StridedConvolutionReLU2D

SWAPPED_IN = {  # what each kind puts in the place of a pooling layer
    **POOLING_LAYERS,
    "strided": StridedConvolution2D,
    "strided_relu": StridedConvolutionReLU2D,
}
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
# Of these it is known what they compute with another stride.
_KNOWN_CONVOLUTIONS = (
    *_CONVOLUTIONS,
    *(CircularConv2D, StridedConvolution2D, StridedConvolutionReLU2D),
)


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


def find_downsampling(model, strided_convolutions: bool = False) -> tuple[dict, dict, dict]:
    """What is to be replaced; raises if that is nothing, or not all that downsamples.

    Args:
        model: functional or Sequential.
        strided_convolutions: whether these are to be replaced as well.

    Returns:
        {layer: (its path, the layer that has its window)}; {layer before it: layer}, for the layers
        that `ds.vgg` puts before a `…_downsample` and that are part of the downsampling; and the
        strided convolutions, {layer: its path}, which then count as nothing else.
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
    windows, before, convolutions, hidden = {}, {}, {}, []
    for path, operation, beside in _walk(model):
        window = _window(operation, beside)
        if strided_convolutions and _is_strided(operation):
            convolutions[operation] = path
            if type(operation) not in _KNOWN_CONVOLUTIONS:
                hidden.append(f"{path} (a {type(operation).__name__}, whose code is its own)")
        elif strided_convolutions and _is_strided(window):
            continue  # a ReLU, which stays where it is behind its convolution
        elif window is not None:
            windows[operation] = path, window
            if window is not operation:
                before |= {beside[f"{operation.name}_{part}"]: operation for part in ("conv", "bn")}
        elif not isinstance(operation, layers.Layer):
            if _is_pooling_operation(operation, strided_convolutions):
                hidden.append(f"{path} (an operation: use the layer)")
        elif not is_graph(operation):
            inner = operation._flatten_layers(include_self=False)
            beside = {layer.name: layer for layer in inner}
            found = [
                name
                for name, layer in beside.items()
                if _window(layer, beside) is not None
                or (strided_convolutions and _is_strided(layer))
            ]
            hidden += [f"{name} inside {path} ({type(operation).__name__})" for name in found]
    if hidden:
        what = "2-D pooling or strided convolutions" if strided_convolutions else "2-D pooling"
        raise ValueError(
            f"model {model.name!r} has {what} that cannot be replaced: {', '.join(hidden)}"
        )
    if not windows and not convolutions:
        raise ValueError(f"model {model.name!r} {_why_nothing(model, strided_convolutions)}")
    return windows, before, convolutions


def _why_nothing(model, strided_convolutions) -> str:
    if strided_convolutions:
        return "has neither 2-D pooling nor a 2-D convolution with a stride above one"
    count = sum(_is_strided(operation) for _, operation, _ in _walk(model))
    advice = f", but {count} strided convolutions: pass strided_convolutions=True" if count else ""
    return f"has no 2-D pooling with a stride above one{advice}"


def _is_strided(operation) -> bool:
    return isinstance(operation, _CONVOLUTIONS) and max(operation.strides) > 1


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


def _is_pooling_operation(operation, convolutions: bool) -> bool:
    """Whether it is a 2-D `keras.ops.max_pool`, `average_pool` or, if these count, convolution with
    a stride above one."""
    pooling = type(operation).__name__ in ("MaxPool", "AveragePool")
    convolving = type(operation).__name__ in ("Conv", "DepthwiseConv", "SeparableConv")
    if not pooling and not (convolutions and convolving):
        return False
    strides = operation.pool_size if operation.strides is None else operation.strides
    return len(operation.output.shape) == 4 and np.max(strides) > 1
