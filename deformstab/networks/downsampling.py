"""The kinds of downsampling, by name; layers that subsample or blur as pooling layers do."""

import math
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

DownsamplingKind = Literal[
    "subsample", "max", "average", "strided", "strided_relu", "blur", "max_blur"
]
PAPER_KINDS = ("subsample", "max", "average", "strided", "strided_relu")


def pooled_size(size, window: int, stride: int, padding: str):
    """Windows along an axis of `size` pixels (an int, a scalar tensor or `None`), as pooling has."""
    if size is None:
        return None
    return -(-size // stride) if padding == "same" else (size - window) // stride + 1


def _first_centre(size, window: int, stride: int, padding: str):
    """The middle pixel of the first window (the left one of two), which is always in the image."""
    if padding == "valid":
        return (window - 1) // 2
    missing = (pooled_size(size, window, stride, padding) - 1) * stride + window - size
    outside = (missing + abs(missing)) // 2  # max(missing, 0), also where it is a tensor
    return (window - 1) // 2 - outside // 2


class _Window2D(layers.Layer):
    """A layer with the window of a pooling layer, and its shapes."""

    def __init__(self, pool_size=2, strides=None, padding="valid", data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = _pair(pool_size)
        self.strides = self.pool_size if strides is None else _pair(strides)
        self.padding = padding.lower()
        self.data_format = data_format or keras.config.image_data_format()
        self.input_spec = layers.InputSpec(ndim=4)

    def compute_output_shape(self, input_shape):
        return pooled_shape(self, input_shape)

    def get_config(self):
        names = ("pool_size", "strides", "padding", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _pair(value) -> tuple:
    return (value, value) if isinstance(value, int) else tuple(value)


def pooled_shape(layer, input_shape) -> tuple:
    """The output's shape of a layer that has the window of a pooling layer and keeps channels."""
    shape = list(input_shape)
    for axis, window, stride in _windows(layer):
        shape[axis] = pooled_size(shape[axis], window, stride, layer.padding)
    return tuple(shape)


def _windows(layer) -> list:
    """(axis, window, stride) of height and width."""
    axes = (2, 3) if layer.data_format == "channels_first" else (1, 2)
    return list(zip(axes, layer.pool_size, layer.strides))


def _along(images, axis, start, count, stride):
    """`count` pixels of an axis: start, start + stride, …"""
    kept = [slice(None)] * 4
    kept[axis] = slice(start, start + (count - 1) * stride + 1, stride)
    return images[tuple(kept)]


def _reflected(images, axis, before, after):
    """The images with their reflection beside them, the edge pixel itself not repeated."""
    size = images.shape[axis]
    if size is not None and size <= after:  # smaller than the filter: back and forth, as NumPy pads
        places = np.pad(np.arange(size), (before, after), mode="reflect")
        return ops.take(images, places, axis=axis)
    # Not ops.pad: PyTorch reflects no single axis.
    last = ops.shape(images)[axis] - 1
    left, right = _along(images, axis, 1, before, 1), _along(images, axis, last - after, after, 1)
    return ops.concatenate([ops.flip(left, axis), images, ops.flip(right, axis)], axis)


@keras.saving.register_keras_serializable(package="deformstab")
class Subsample2D(_Window2D):
    """Keeps one pixel of each window: the middle one, of 2×2 windows the top left.

    Of two middle rows or columns the first is kept. With padding "same" the middle is that of the
    window as it lies on the image, border included; it never falls outside.

    Input: [batch, height, width, channels] (by `data_format`), any dtype.
    Output: [batch, rows, columns, channels], as pooling gives: by default height // 2, width // 2.

    Args:
        pool_size: the window, int or (height, width).
        strides: int or (height, width); by default the window's size.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        **kwargs: of `keras.layers.Layer`.
    """

    def call(self, images):
        shape = ops.shape(images)
        for axis, *window in _windows(self):
            count = pooled_size(shape[axis], *window, self.padding)
            first = _first_centre(shape[axis], *window, self.padding)
            images = _along(images, axis, first, count, window[1])
        return images


@keras.saving.register_keras_serializable(package="deformstab")
class BlurPooling2D(_Window2D):
    """Blurs with a binomial filter, then keeps the middle pixel of each window.

    The filter is the outer product of two rows of Pascal's triangle, of sum one; outside the image
    is its reflection (Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", arXiv
    1904.11486; for 2×2 windows on even sizes exactly `BlurPool` of antialiased-cnns). An axis that
    the window leaves as it is (size and stride 1) is not blurred.

    Input: [batch, height, width, channels] (by `data_format`).
    Output: [batch, rows, columns, channels], as pooling gives.

    Args:
        pool_size: the window, int or (height, width).
        strides: int or (height, width); by default the window's size.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        blur_size: of the filter, 3 to 7: [1, 2, 1], [1, 3, 3, 1], …, [1, 6, 15, 20, 15, 6, 1].
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        pool_size=2,
        strides=None,
        padding="valid",
        data_format=None,
        blur_size=3,
        **kwargs,
    ):
        super().__init__(pool_size, strides, padding, data_format, **kwargs)
        self.blur_size = check_blur_size(blur_size)

    def call(self, images):
        return self._blur(ops.cast(images, self.compute_dtype), _windows(self))

    def _blur(self, images, windows):
        n = self.blur_size - 1
        weights = [math.comb(n, k) / 2**n for k in range(n + 1)]
        shape = ops.shape(images)
        for (axis, *window), *touched in zip(windows, self.pool_size, self.strides):
            if touched == [1, 1]:
                continue
            count = pooled_size(shape[axis], *window, self.padding)
            first = _first_centre(shape[axis], *window, self.padding)
            padded = _reflected(images, axis, n // 2, n - n // 2)
            images = sum(
                weight * _along(padded, axis, first + k, count, window[1])
                for k, weight in enumerate(weights)
            )
        return images

    def get_config(self):
        return {**super().get_config(), "blur_size": self.blur_size}


@keras.saving.register_keras_serializable(package="deformstab")
class MaxBlurPooling2D(BlurPooling2D):
    """The maximum over each window at stride one, then `BlurPooling2D` (Zhang 2019: MaxBlurPool).

    Input, output and arguments are those of `BlurPooling2D`.
    """

    def call(self, images):
        images = ops.cast(images, self.compute_dtype)
        images = ops.max_pool(images, self.pool_size, 1, self.padding, self.data_format)
        windows = _windows(self)
        if self.padding == "valid":  # a pixel of the maxima is a window already
            windows = [(axis, 1, stride) for axis, _, stride in windows]
        return self._blur(images, windows)


def check_blur_size(blur_size) -> int:
    """The size itself; one that no binomial filter of 3 to 7 pixels has is refused."""
    if blur_size not in range(3, 8):
        raise ValueError(f"blur_size must be an int from 3 to 7, received {blur_size!r}")
    return int(blur_size)


# Kinds that learn nothing, each a layer with the window of a pooling layer: a new one enters here.
POOLING_LAYERS = {
    "subsample": Subsample2D,
    "max": layers.MaxPooling2D,
    "average": layers.AveragePooling2D,
    "blur": BlurPooling2D,
    "max_blur": MaxBlurPooling2D,
}
DOWNSAMPLING_KINDS = tuple(dict.fromkeys([*PAPER_KINDS, *POOLING_LAYERS]))


def check_downsampling(kind, known=DOWNSAMPLING_KINDS) -> DownsamplingKind:
    """The kind itself; an unknown one is refused with the list of known ones."""
    if kind not in known:
        raise ValueError(f"unknown downsampling {kind!r}; the known kinds are {', '.join(known)}")
    return kind


def downsample(tensor, kind: str, name: str, convolution, normalization):
    """Applies one kind of downsampling to a symbolic tensor.

    Args:
        tensor: a Keras tensor [batch, height, width, channels] (by Keras' data format).
        kind: one of `DOWNSAMPLING_KINDS`.
        name: of the layer whose output is the result; what stands before it is `name_conv` and
            `name_bn`.
        convolution: makes a convolution from (filters, kernel_size, strides=…, name=…).
        normalization: makes a batch normalization from (name=…).
    """
    check_downsampling(kind)
    if kind in POOLING_LAYERS:
        return POOLING_LAYERS[kind](2, name=name)(tensor)
    channels_first = keras.config.image_data_format() == "channels_first"
    channels = tensor.shape[1 if channels_first else -1]
    if kind == "strided":
        return convolution(channels, 2, strides=2, padding="valid", name=name)(tensor)
    tensor = convolution(channels, 2, strides=2, padding="valid", name=f"{name}_conv")(tensor)
    tensor = normalization(name=f"{name}_bn")(tensor)
    return layers.ReLU(name=name)(tensor)
