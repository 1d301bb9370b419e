"""Convolutions on images that go on at their other side."""

import keras
from keras import layers

from deformstab.networks.window_layers import wrapped


@keras.saving.register_keras_serializable(package="deformstab")
class CircularConv2D(layers.Conv2D):
    """A convolution whose image is a circle in both directions: it commutes with rolls.

    Without a stride the output has the size of the input, as with padding "same"; windows have
    their (left) middle pixel at the output's place.

    Input, output and arguments are those of `keras.layers.Conv2D`, which has no `padding` here.
    """

    def __init__(self, filters, kernel_size, strides=1, data_format=None, **kwargs):
        super().__init__(filters, kernel_size, strides, "valid", data_format, **kwargs)

    def call(self, images):
        return super().call(self._around(images))

    def _around(self, images):
        for axis, outside in self._outside():
            images = wrapped(images, axis, outside // 2, outside - outside // 2)
        return images

    def _outside(self) -> list:
        """(axis, pixels beyond the image) of height and width."""
        axes = (2, 3) if self.data_format == "channels_first" else (1, 2)
        reach = [(k - 1) * d for k, d in zip(self.kernel_size, self.dilation_rate)]
        return list(zip(axes, reach))

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        for axis, outside in self._outside():
            shape[axis] = None if shape[axis] is None else shape[axis] + outside
        return super().compute_output_shape(tuple(shape))

    def get_config(self):
        config = super().get_config()
        del config["padding"]
        return config
