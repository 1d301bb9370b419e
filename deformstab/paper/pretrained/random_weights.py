"""The same architecture with random weights, and which of its representations are looked at."""

import keras
import numpy as np
from keras import layers

from deformstab.networks.initializers import paper_initializer
from deformstab.networks.vgg import layer_seed

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_NONLINEARITIES = (layers.ReLU, layers.Activation, layers.LeakyReLU, layers.PReLU, layers.ELU)
_POOLING = (layers.MaxPooling2D, layers.AveragePooling2D)


def with_random_weights(model: keras.Model, seed: int) -> keras.Model:
    """A copy of a model as it was before training: kernels drawn as the paper draws them.

    Kernels of convolutions and linear layers are truncated normal with standard deviation 1/√n_in,
    where n_in counts what an output sees: of a depthwise convolution height · width. All other
    weights are what their layers begin with: biases 0, batch normalization with moving averages of
    0 and 1.

    Args:
        model: functional or Sequential; it stays as it is.
        seed: of the weights.

    Raises:
        ValueError: Keras cannot copy the model: a subclassed one.
    """
    keras.utils.set_random_seed(seed)  # of what layers draw that are none of those
    try:
        fresh = keras.models.clone_model(model)
    except Exception as error:  # Keras' own, or of a layer's code
        raise ValueError(f"{model.name} cannot be copied with random weights: {error}") from error
    for place, layer in enumerate(fresh._flatten_layers(include_self=False)):
        for name in _KERNELS:
            kernel = getattr(layer, name, None)
            if isinstance(layer, (*_CONVOLUTIONS, layers.Dense)) and kernel is not None:
                depthwise = name == "depthwise_kernel" or isinstance(layer, layers.DepthwiseConv2D)
                kernel.assign(_drawn(tuple(kernel.shape), depthwise, seed, f"{place}/{name}"))
    return fresh


def has_normalization(model: keras.Model) -> bool:
    """Whether a model has batch normalization, whose averages random weights do not fit."""
    found = model._flatten_layers(include_self=False)
    return any(isinstance(layer, layers.BatchNormalization) for layer in found)


def is_shown(layer) -> bool:
    """Whether a layer's output is one of those looked at: after a nonlinearity, a pooling, a sum.

    As in the paper: a convolution counts after its normalization and its nonlinearity. Vectors, of
    layers behind a global pooling, are left out.
    """
    if len(_shape(layer)) != 4:
        return False
    if isinstance(layer, _CONVOLUTIONS):
        return layer.activation is not keras.activations.linear
    return isinstance(layer, (*_NONLINEARITIES, *_POOLING, layers.Add))


def side(layer) -> float:
    """The height of a layer's output in pixels; NaN where it is not one, or not known."""
    shape = _shape(layer)
    return float(shape[1]) if len(shape) == 4 and shape[1] is not None else np.nan


def _shape(layer) -> tuple:
    """Of the output [batch, height, width, channels]; of a layer that is called twice the first's."""
    try:
        output = layer.output
    except AttributeError:  # never called, as the layers of a subclassed model
        return ()
    return () if isinstance(output, (list, tuple, dict)) else tuple(output.shape)


def _drawn(shape, depthwise, seed, name):
    """A kernel; as a matrix it tells the initializer what an output sees."""
    fan_in = int(np.prod(shape[:2] if depthwise else shape[:-1]))
    matrix = paper_initializer(layer_seed(seed, name))((fan_in, int(np.prod(shape)) // fan_in))
    return keras.ops.reshape(matrix, shape)
