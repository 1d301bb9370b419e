"""What a unit of a known layer sees of the layer's input, along y and x: by arithmetic.

Convention: unit i of an axis is centred at input position `stride · i + offset`, in units (pixels)
of the layer's input, and sees `field` of them, centred there. The last position that a strided
"same" window leaves over lies behind, as in TensorFlow, on every backend of Keras.
"""

from typing import NamedTuple

from keras import layers

from deformstab.networks.downsampling import BlurPooling2D, MaxBlurPooling2D, Subsample2D
from deformstab.networks.strided import StridedConvolution2D, StridedConvolutionReLU2D


class Window(NamedTuple):
    """Of units along an axis: `field` is `None` where each sees the whole axis, faintly."""

    stride: float = 1.0
    offset: float = 0.0
    field: int | None = 1


SAME = Window()
EVERYWHERE = Window(field=None)  # its own position, and statistics over all of them

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    StridedConvolution2D,
    StridedConvolutionReLU2D,
)
_POOLING = (layers.MaxPooling2D, layers.AveragePooling2D)
_MERGES = (
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
)
_POINTWISE = (
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.BatchNormalization,
    layers.Normalization,
    layers.Rescaling,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
    *_MERGES,
)
# Functions of a tensor, entry by entry, and of several; by name, as Keras' own activations and
# operations of functional models have it. (A softmax over channels is told by its axis.)
_POINTWISE_FUNCTIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish"),
    *("mish", "tanh", "sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh"),
    *("softplus", "softsign", "exponential", "log_sigmoid"),
}
_POINTWISE_OPERATIONS = {
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Power"),
    *("Absolute", "Negative", "Square", "Sqrt", "Rsqrt", "Exp", "Log", "Clip", "Cast", "Tanh"),
    *("Relu", "Relu6", "Sigmoid", "Silu", "Gelu", "Elu", "Selu", "LeakyRelu", "HardSigmoid"),
    *("HardSilu", "Softplus", "Softsign"),
}


def windows_of(layer, size: tuple, axes: tuple) -> tuple[Window, Window] | None:
    """What a unit of a layer sees of each map that it is called with.

    Args:
        layer: a layer, or an operation of a functional model.
        size: (height, width) of the map.
        axes: of the map, batch included, which are y and x: (1, 2) or (2, 3).

    Returns:
        Of y and of x; `None` for a layer that is not known, or whose axes are others.
    """
    if type(layer).__module__.startswith("keras.") and not isinstance(layer, layers.Layer):
        return (SAME, SAME) if type(layer).__name__ in _POINTWISE_OPERATIONS else None
    if not _is_pointwise(getattr(layer, "activation", None), axes):
        return None
    if _is_one_of(layer, (*_POINTWISE, layers.Activation)):
        return SAME, SAME
    if _is_one_of(layer, (layers.Dense,)):
        return (SAME, SAME) if axes == (1, 2) else None
    if _is_one_of(layer, (layers.Concatenate,)):
        return None if layer.axis % 4 in axes else (SAME, SAME)
    if _is_one_of(layer, (layers.LayerNormalization, layers.UnitNormalization)):
        normalized = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        return (EVERYWHERE,) * 2 if {each % 4 for each in normalized} & {*axes} else (SAME, SAME)
    if _is_one_of(layer, (layers.GroupNormalization,)):
        return EVERYWHERE, EVERYWHERE
    known = _along_axes(layer)
    if known is None or axes != ((2, 3) if layer.data_format == "channels_first" else (1, 2)):
        return None
    return tuple(known(axis, size[axis]) for axis in (0, 1))


def _is_one_of(layer, classes) -> bool:
    """Whether it is one of these. Classes made of them may compute something else."""
    return type(layer) in classes


def _is_pointwise(activation, axes) -> bool:
    """Whether an activation mixes no positions: one that is not known may."""
    if activation is None:
        return True
    if isinstance(activation, layers.Layer):
        return _is_one_of(activation, _POINTWISE)
    name = getattr(activation, "__name__", "")
    ours = getattr(activation, "__module__", "").startswith("keras.")
    over_channels = name in ("softmax", "log_softmax") and axes == (1, 2)  # over the last axis
    return ours and (name in _POINTWISE_FUNCTIONS or over_channels)


def _along_axes(layer):
    """A function of (axis 0 or 1, its size) → `Window`, or `None`."""
    if _is_one_of(layer, _CONVOLUTIONS):
        kernel, strides, dilation = layer.kernel_size, layer.strides, layer.dilation_rate
        padding = layer.padding
        return lambda axis, n: window(n, kernel[axis], strides[axis], padding, dilation[axis])
    if _is_one_of(layer, _POOLING):
        return lambda axis, n: window(n, layer.pool_size[axis], layer.strides[axis], layer.padding)
    if _is_one_of(layer, (layers.ZeroPadding2D,)):
        return lambda axis, n: Window(offset=-float(layer.padding[axis][0]))
    if _is_one_of(layer, (layers.Cropping2D,)):
        return lambda axis, n: Window(offset=float(layer.cropping[axis][0]))
    if _is_one_of(layer, (Subsample2D,)):
        return lambda axis, n: _middle(n, layer.pool_size[axis], layer.strides[axis], layer.padding)
    if _is_one_of(layer, (MaxBlurPooling2D,)):
        return lambda axis, n: _max_blur(layer, axis, n)
    if _is_one_of(layer, (BlurPooling2D,)):
        return lambda axis, n: _blur(layer, axis, n, layer.pool_size[axis], layer.padding)
    return None


def window(n: int, size: int, stride: int, padding: str, dilation: int = 1) -> Window:
    """Of a convolution or pooling over n positions; `padding` is "valid" or "same".

    "same" pads (⌈n / stride⌉ - 1) · stride + field - n positions, half of them (rounded down) in
    front.
    """
    field = (size - 1) * dilation + 1
    before = 0
    if padding == "same":
        before = max((-(-n // stride) - 1) * stride + field - n, 0) // 2
    elif padding != "valid":
        raise ValueError(f"padding must be valid or same, received {padding!r}")
    return Window(float(stride), (field - 1) / 2 - before, field)


def _middle(n, size, stride, padding) -> Window:
    """The middle position of a window, the left one of two: what subsampling keeps."""
    before = (size - 1) / 2 - window(n, size, stride, padding).offset
    return Window(float(stride), float((size - 1) // 2 - before), 1)


def _blur(layer, axis, n, size, padding) -> Window:
    """The middle of a window, and the taps of the filter: of an even number the later middle."""
    if (layer.pool_size[axis], layer.strides[axis]) == (1, 1):
        return SAME
    taps = layer.blur_size
    middle = _middle(n, size, layer.strides[axis], padding)
    return Window(middle.stride, middle.offset + (taps - 1) / 2 - (taps - 1) // 2, taps)


def _max_blur(layer, axis, n) -> Window:
    """The maximum at stride one, then the blur: of "valid" maxima a window is one of them."""
    first = window(n, layer.pool_size[axis], 1, layer.padding)
    valid = layer.padding == "valid"
    left = n - layer.pool_size[axis] + 1 if valid else n
    blur = _blur(layer, axis, left, 1 if valid else layer.pool_size[axis], layer.padding)
    return composed(first, blur)


def composed(first: Window, then: Window) -> Window:
    """What a unit sees through two layers, one after the other."""
    fields = first.field, then.field
    field = None if None in fields else first.field + (then.field - 1) * first.stride
    return Window(
        first.stride * then.stride, first.offset + first.stride * then.offset, _whole(field)
    )


def _whole(field):
    """Fields over interpolated positions come in fractions: the pixels that they reach into."""
    return None if field is None else int(-(-field // 1))
