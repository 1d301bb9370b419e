"""The kinds of downsampling, by name; layers that subsample or blur as pooling layers do."""

import math
from typing import Literal

import keras
from keras import layers, ops

from deformstab.networks.adaptive import AdaptivePolyphase2D, MaxAdaptivePolyphase2D
from deformstab.networks.window_layers import (
    Bordered2D,
    Window2D,
    along,
    dense_maxima,
    first_centre,
    pooled_size,
    reflected,
    windows_of,
    wrapped,
)

DownsamplingKind = Literal[
    "subsample",
    "max",
    "average",
    "strided",
    "strided_relu",
    "blur",
    "max_blur",
    "aps",
    "max_aps",
]
PAPER_KINDS = ("subsample", "max", "average", "strided", "strided_relu")


@keras.saving.register_keras_serializable(package="deformstab")
class Subsample2D(Window2D):
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
        for axis, *window in windows_of(self):
            count = pooled_size(shape[axis], *window, self.padding)
            first = first_centre(shape[axis], *window, self.padding)
            images = along(images, axis, first, count, window[1])
        return images


@keras.saving.register_keras_serializable(package="deformstab")
class BlurPooling2D(Bordered2D):
    """Blurs with a binomial filter, then keeps the middle pixel of each window.

    The filter is the outer product of two rows of Pascal's triangle, of sum one; outside the image
    is its reflection, or of a circular one its other side (Zhang 2019, "Making Convolutional
    Networks Shift-Invariant Again", arXiv 1904.11486; for 2×2 windows on even sizes exactly
    `BlurPool` of antialiased-cnns). An axis that the window leaves as it is (size and stride 1) is
    not blurred.

    Input: [batch, height, width, channels] (by `data_format`).
    Output: [batch, rows, columns, channels], as pooling gives.

    Args:
        pool_size: the window, int or (height, width).
        strides: int or (height, width); by default the window's size.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        blur_size: of the filter, 3 to 7: [1, 2, 1], [1, 3, 3, 1], …, [1, 6, 15, 20, 15, 6, 1].
        circular: whether the image goes on at its other side; else outside is its reflection.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        pool_size=2,
        strides=None,
        padding="valid",
        data_format=None,
        blur_size=3,
        circular=False,
        **kwargs,
    ):
        super().__init__(pool_size, strides, padding, data_format, circular, **kwargs)
        self.blur_size = check_blur_size(blur_size)

    def call(self, images):
        return self._blur(ops.cast(images, self.compute_dtype), windows_of(self))

    def _blur(self, images, windows):
        n = self.blur_size - 1
        weights = [math.comb(n, k) / 2**n for k in range(n + 1)]
        shape = ops.shape(images)
        for (axis, *window), *touched in zip(windows, self.pool_size, self.strides):
            if touched == [1, 1]:
                continue
            count = pooled_size(shape[axis], *window, self.padding)
            first = first_centre(shape[axis], *window, self.padding)
            outside = wrapped if self.circular else reflected
            padded = outside(images, axis, n // 2, n - n // 2)
            images = sum(
                weight * along(padded, axis, first + k, count, window[1])
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
        if self.circular:
            return self._blur(dense_maxima(self, images), windows_of(self))
        images = ops.max_pool(images, self.pool_size, 1, self.padding, self.data_format)
        windows = windows_of(self)
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
    "aps": AdaptivePolyphase2D,
    "max_aps": MaxAdaptivePolyphase2D,
}
DOWNSAMPLING_KINDS = tuple(dict.fromkeys([*PAPER_KINDS, *POOLING_LAYERS]))


def check_downsampling(kind, known=DOWNSAMPLING_KINDS) -> DownsamplingKind:
    """The kind itself; an unknown one is refused with the list of known ones."""
    if kind not in known:
        raise ValueError(f"unknown downsampling {kind!r}; the known kinds are {', '.join(known)}")
    return kind


def border_options(kind: str, circular: bool) -> dict:
    """What a kind's layer is to be told of a circular image: nothing, if it never looks outside."""
    return {"circular": True} if circular and issubclass(POOLING_LAYERS[kind], Bordered2D) else {}


def downsample(tensor, kind: str, name: str, convolution, normalization, circular=False):
    """Applies one kind of downsampling to a symbolic tensor.

    Args:
        tensor: a Keras tensor [batch, height, width, channels] (by Keras' data format).
        kind: one of `DOWNSAMPLING_KINDS`.
        name: of the layer whose output is the result; what stands before it is `name_conv` and
            `name_bn`.
        convolution: makes a convolution from (filters, kernel_size, strides=…, name=…).
        normalization: makes a batch normalization from (name=…).
        circular: whether images go on at their other side.
    """
    check_downsampling(kind)
    if kind in POOLING_LAYERS:
        options = border_options(kind, circular)
        return POOLING_LAYERS[kind](2, name=name, **options)(tensor)
    channels_first = keras.config.image_data_format() == "channels_first"
    channels = tensor.shape[1 if channels_first else -1]
    if kind == "strided":
        return convolution(channels, 2, strides=2, padding="valid", name=name)(tensor)
    tensor = convolution(channels, 2, strides=2, padding="valid", name=f"{name}_conv")(tensor)
    tensor = normalization(name=f"{name}_bn")(tensor)
    return layers.ReLU(name=name)(tensor)
