"""Layers with the window of a pooling layer: their shapes, and what stands for pixels outside."""

import keras
import numpy as np
from keras import layers, ops


def pooled_size(size, window: int, stride: int, padding: str):
    """Windows along an axis of `size` pixels (an int, a scalar tensor or `None`), as pooling has."""
    if size is None:
        return None
    return -(-size // stride) if padding == "same" else (size - window) // stride + 1


def first_centre(size, window: int, stride: int, padding: str):
    """The middle pixel of the first window (the left one of two), which is always in the image."""
    if padding == "valid":
        return (window - 1) // 2
    missing = (pooled_size(size, window, stride, padding) - 1) * stride + window - size
    outside = (missing + abs(missing)) // 2  # max(missing, 0), also where it is a tensor
    return (window - 1) // 2 - outside // 2


class Window2D(layers.Layer):
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
    for axis, window, stride in windows_of(layer):
        shape[axis] = pooled_size(shape[axis], window, stride, layer.padding)
    return tuple(shape)


def windows_of(layer) -> list:
    """(axis, window, stride) of height and width."""
    axes = (2, 3) if layer.data_format == "channels_first" else (1, 2)
    return list(zip(axes, layer.pool_size, layer.strides))


def along(images, axis, start, count, stride):
    """`count` pixels of an axis: start, start + stride, …"""
    kept = [slice(None)] * 4
    kept[axis] = slice(start, start + (count - 1) * stride + 1, stride)
    return images[tuple(kept)]


def reflected(images, axis, before, after):
    """The images with their reflection beside them, the edge pixel itself not repeated."""
    size = images.shape[axis]
    if size is not None and size <= after:  # smaller than the filter: back and forth, as NumPy pads
        places = np.pad(np.arange(size), (before, after), mode="reflect")
        return ops.take(images, places, axis=axis)
    # Not ops.pad: PyTorch reflects no single axis.
    last = ops.shape(images)[axis] - 1
    left, right = along(images, axis, 1, before, 1), along(images, axis, last - after, after, 1)
    return ops.concatenate([ops.flip(left, axis), images, ops.flip(right, axis)], axis)


def wrapped(images, axis, before, after):
    """The images between parts of their copies, as if the axis were a circle."""
    size = images.shape[axis]
    if size is not None and size < max(before, after):  # smaller than what is to be added
        return ops.take(images, np.arange(-before, size + after) % size, axis=axis)
    size = ops.shape(images)[axis]
    parts = [images]
    if before:
        parts.insert(0, along(images, axis, size - before, before, 1))
    if after:
        parts.append(along(images, axis, 0, after, 1))
    return ops.concatenate(parts, axis) if len(parts) > 1 else images


def repeated(images, axis, after):
    """The images with their last pixels repeated behind them."""
    last = along(images, axis, ops.shape(images)[axis] - 1, 1, 1)
    return ops.concatenate([images, *[last] * after], axis)


class Bordered2D(Window2D):
    """A `Window2D` that looks beyond the image, which may be a circle in both directions."""

    def __init__(
        self,
        pool_size=2,
        strides=None,
        padding="valid",
        data_format=None,
        circular=False,
        **kwargs,
    ):
        super().__init__(pool_size, strides, padding, data_format, **kwargs)
        self.circular = bool(circular)

    def get_config(self):
        return {**super().get_config(), "circular": self.circular}


def dense_maxima(layer, images):
    """The maximum over a `Bordered2D`'s window around every pixel, of the size of the images."""
    if not layer.circular:
        return ops.max_pool(images, layer.pool_size, 1, "same", layer.data_format)
    for axis, window, _ in windows_of(layer):
        images = wrapped(images, axis, (window - 1) // 2, window // 2)
    return ops.max_pool(images, layer.pool_size, 1, "valid", layer.data_format)
