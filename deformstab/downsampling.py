"""The five kinds of downsampling, by name: each halves height and width."""

import keras
from keras import layers, ops

DOWNSAMPLING_KINDS = ("subsample", "max", "average", "strided", "strided_relu")


@keras.saving.register_keras_serializable(package="deformstab")
class Subsample2D(layers.Layer):
    """Keeps the top left pixel of each 2×2 block; an odd last row or column is left out.

    Input: [batch, height, width, channels] (by `data_format`), any dtype.
    Output: [batch, height // 2, width // 2, channels], as 2×2 pooling gives.

    Args:
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.data_format = data_format or keras.config.image_data_format()

    def call(self, images):
        rows, columns = (2, 3) if self.data_format == "channels_first" else (1, 2)
        height, width = ops.shape(images)[rows], ops.shape(images)[columns]
        kept = [slice(None)] * 4
        kept[rows], kept[columns] = slice(0, height // 2 * 2, 2), slice(0, width // 2 * 2, 2)
        return images[tuple(kept)]

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        for axis in (2, 3) if self.data_format == "channels_first" else (1, 2):
            shape[axis] = None if shape[axis] is None else shape[axis] // 2
        return tuple(shape)

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format}


def check_downsampling(kind) -> str:
    """The kind itself; an unknown one is refused with the list of known ones."""
    if kind not in DOWNSAMPLING_KINDS:
        raise ValueError(
            f"unknown downsampling {kind!r}; the known kinds are {', '.join(DOWNSAMPLING_KINDS)}"
        )
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
    if kind == "subsample":
        return Subsample2D(name=name)(tensor)
    if kind == "max":
        return layers.MaxPooling2D(2, name=name)(tensor)
    if kind == "average":
        return layers.AveragePooling2D(2, name=name)(tensor)
    channels_first = keras.config.image_data_format() == "channels_first"
    channels = tensor.shape[1 if channels_first else -1]
    if kind == "strided":
        return convolution(channels, 2, strides=2, padding="valid", name=name)(tensor)
    tensor = convolution(channels, 2, strides=2, padding="valid", name=f"{name}_conv")(tensor)
    tensor = normalization(name=f"{name}_bn")(tensor)
    return layers.ReLU(name=name)(tensor)
