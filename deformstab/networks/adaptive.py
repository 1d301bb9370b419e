"""Adaptive polyphase sampling: of the grids that a stride can keep, the one of the largest norm."""

import itertools

import keras
from keras import ops

from deformstab.networks.window_layers import (
    Bordered2D,
    along,
    dense_maxima,
    first_centre,
    pooled_shape,
    pooled_size,
    repeated,
    windows_of,
    wrapped,
)


@keras.saving.register_keras_serializable(package="deformstab")
class AdaptivePolyphase2D(Bordered2D):
    """Keeps, image by image, the polyphase component of the largest l2 norm over all channels.

    A stride of s × s can begin at any of s² pixels. `Subsample2D` always begins at the first, and
    an image moved by one pixel then gives other pixels. Here the norm decides, which does not
    depend on where the image lies: on a circular map whose size is a multiple of the stride, the
    output for a rolled map is the rolled output (Chaman and Dokmanić 2021, "Truly
    Shift-Invariant Convolutional Neural Networks", arXiv 2011.14214).

    Norms are computed in float32 or better. Of equal ones the first counts: the component that
    `Subsample2D` keeps, then those that begin further right, then further down. Gradients flow to
    the pixels that are kept, and none to the choice. A component with NaN is chosen, so that NaN
    does not vanish.

    Component (i, j) is that of `Subsample2D` moved by i rows and j columns. With 2×2 windows and on
    even sizes these are the four of the paper. Where the last pixel of one lies beyond the map
    (strides larger than windows, or padding "same"), it is the map's last pixel, or of a circular
    map its first one.

    Input: [batch, height, width, channels] (by `data_format`); beside it, if another layer's norms
        are to decide, the `choice` [batch] of a `PolyphaseChoice2D`.
    Output: [batch, rows, columns, channels], as pooling gives: by default height // 2, width // 2.

    Args:
        pool_size: the window, int or (height, width).
        strides: int or (height, width); by default the window's size.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        circular: whether the map goes on at its other side.
        **kwargs: of `keras.layers.Layer`.
    """

    def call(self, images, choice=None):
        components = self._components(ops.cast(images, self.compute_dtype))
        if choice is None:
            choice = _largest(components)
        choice = ops.reshape(choice, (-1, 1, 1, 1))
        kept = components[0]
        for number, component in enumerate(components[1:], start=1):
            kept = ops.where(choice == number, component, kept)
        return kept

    def compute_output_shape(self, images_shape, choice_shape=None):
        return pooled_shape(self, images_shape)

    def _components(self, images) -> list:
        """Each [batch, rows, columns, channels], rows slowest."""
        shape, starts = ops.shape(images), []
        for axis, window, stride in windows_of(self):
            size = shape[axis]
            first = first_centre(size, window, stride, self.padding)
            count = pooled_size(size, window, stride, self.padding)
            beyond = first + (count - 1) * stride + stride - size
            if not isinstance(beyond, int):  # of a size that is not known yet: enough for all
                beyond = stride - 1
            if stride > 1 and beyond > 0:
                if self.circular:
                    images = wrapped(images, axis, 0, beyond)
                else:
                    images = repeated(images, axis, beyond)
            starts.append([(axis, first + k, count, stride) for k in range(stride)])
        return [along(along(images, *row), *column) for row, column in itertools.product(*starts)]


@keras.saving.register_keras_serializable(package="deformstab")
class MaxAdaptivePolyphase2D(AdaptivePolyphase2D):
    """The maximum over the window at every pixel, then `AdaptivePolyphase2D`.

    Its first component is max pooling. Windows end where the map ends, unless it is circular.
    Input, output and arguments are those of `AdaptivePolyphase2D`.
    """

    def _components(self, images):
        return super()._components(dense_maxima(self, images))


@keras.saving.register_keras_serializable(package="deformstab")
class PolyphaseChoice2D(AdaptivePolyphase2D):
    """The component that an `AdaptivePolyphase2D` would keep, for branches that must agree on it.

    Where two branches of a network downsample and are added later, both must keep the same pixels.

    Input: [batch, height, width, channels] (by `data_format`).
    Output: int32 [batch].

    Args:
        maxima: whether the maximum over the window comes first, as in `MaxAdaptivePolyphase2D`.
        **kwargs: of `AdaptivePolyphase2D`.
    """

    def __init__(
        self,
        pool_size=2,
        strides=None,
        padding="valid",
        data_format=None,
        circular=False,
        maxima=False,
        **kwargs,
    ):
        super().__init__(pool_size, strides, padding, data_format, circular, **kwargs)
        self.maxima = bool(maxima)

    def call(self, images):
        images = ops.cast(images, self.compute_dtype)
        images = dense_maxima(self, images) if self.maxima else images
        return _largest(self._components(images))

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape[:1], "int32")

    def compute_output_shape(self, images_shape):
        return tuple(images_shape[:1])

    def get_config(self):
        return {**super().get_config(), "maxima": self.maxima}


def _largest(components):
    """The number of the component of the largest norm: int32 [batch]."""
    squares = ops.stack([_sum_of_squares(component) for component in components], axis=1)
    squares = ops.where(ops.isnan(squares), float("inf"), squares)
    return ops.cast(ops.argmax(squares, axis=1), "int32")


def _sum_of_squares(component):
    dtype = keras.backend.standardize_dtype(component.dtype)
    wide = component if dtype == "float64" else ops.cast(component, "float32")
    return ops.sum(ops.square(wide), axis=(1, 2, 3))
