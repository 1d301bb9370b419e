"""Convolutions that stand in for pooling layers: same window, same strides, same channels."""

import keras
import numpy as np
from keras import layers, ops

from deformstab.networks.window_layers import pooled_shape


@keras.saving.register_keras_serializable(package="deformstab")
class StridedConvolution2D(layers.Conv2D):
    """A convolution with a pooling layer's window, stride and padding; it keeps the channels.

    Without bias, as in `ds.vgg`.

    Input: [batch, height, width, channels] (by `data_format`).
    Output: [batch, rows, columns, channels], as pooling gives.

    Args:
        pool_size: the window, int or (height, width).
        strides: int or (height, width); by default the window's size.
        padding: "valid" or "same" (zeros outside the image).
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        **kwargs: of `keras.layers.Conv2D`, as `kernel_initializer`.
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", data_format=None, **kwargs):
        strides = pool_size if strides is None else strides
        kwargs = {**kwargs, "use_bias": False}
        super().__init__(None, pool_size, strides, padding, data_format, **kwargs)
        self.pool_size = self.kernel_size

    def build(self, input_shape):
        channels = input_shape[1 if self.data_format == "channels_first" else -1]
        if channels is None:
            raise ValueError(
                f"layer {self.name!r} is to learn a convolution and must know its number of "
                f"channels, received the shape {tuple(input_shape)}"
            )
        self.filters = channels
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        return pooled_shape(self, input_shape)

    def get_config(self):
        config = super().get_config()
        for name in ("filters", "kernel_size", "use_bias"):
            del config[name]
        return {**config, "pool_size": self.pool_size}


@keras.saving.register_keras_serializable(package="deformstab")
class StridedConvolutionReLU2D(StridedConvolution2D):
    """`StridedConvolution2D`, then batch normalization and ReLU.

    Input, output and arguments are those of `StridedConvolution2D`.
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", data_format=None, **kwargs):
        super().__init__(pool_size, strides, padding, data_format, **kwargs)
        axis = 1 if self.data_format == "channels_first" else -1
        self.normalization = layers.BatchNormalization(
            axis=axis, dtype=self.dtype_policy, name="normalization"
        )

    def build(self, input_shape):
        super().build(input_shape)
        self.normalization.build(self.compute_output_shape(input_shape))

    def call(self, images, training=None):
        return ops.relu(self.normalization(super().call(images), training=training))


@keras.saving.register_keras_serializable(package="deformstab")
class AverageKernel(keras.initializers.Initializer):
    """A kernel [height, width, in, out] that averages each channel over the window."""

    def __call__(self, shape, dtype=None):
        height, width, channels, filters = shape
        kernel = np.broadcast_to(np.eye(channels, filters) / (height * width), shape)
        return ops.convert_to_tensor(np.ascontiguousarray(kernel), dtype or keras.config.floatx())
