"""RandomDeformation: random smooth deformations of images, as a Keras layer."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from deformstab.deformations.flows import compiled_random_deform, uniform_displacements
from deformstab.deformations.grid_deformation import GridDeformation, checked_interpolation
from deformstab.deformations.inputs import (
    check_batch_size,
    check_images,
    deformed_with_masks,
    is_scalar_integer,
    split,
)
from deformstab.deformations.seeds import DrawingSeeds, DrawnSeed, checked_seed
from deformstab.deformations.splines import (
    check_control_points,
    check_max_displacement,
    warn_if_folding,
)


@keras.saving.register_keras_serializable(package="deformstab")
class RandomDeformation(GridDeformation):
    """Deforms each image randomly and smoothly (Ruderman et al. 2018).

    Every point of an evenly spaced control grid over the output image gets a source uniformly
    within `max_displacement` pixels, in y and in x independently; a thin plate spline (Duchon 1977)
    through these displacements is the flow; the deformed image at p is the original at p + flow(p),
    interpolated. Each image gets a draw of its own.

    Works in a model, in `model.fit`, compiled, eagerly and, on the TensorFlow backend, inside
    `tf.data` before and after `.batch()`.

    **Draws.** Each call draws anew. Layers of one seed give the same sequence of draws, bit for bit
    (under `jit_compile=True` TensorFlow has another generator: its draws repeat as well, but are
    others). Two calls never get the same draw, whatever the threads, and whatever the parallel calls
    of a `tf.data` map; but which of them gets which is then left to chance. That is not promised of
    a function that XLA compiles and several threads call. Processes each have a copy of the
    generator: give their calls seeds. In `tf.data` there are two wishes:

    ```python
    # New deformations in each epoch, others in each training:
    augmented = dataset.map(layer, num_parallel_calls=2)
    # New ones in each epoch, the same in each training. The data set has no end: pass
    # steps_per_epoch to fit. Without repeat() before enumerate(), every epoch would be the same.
    numbered = dataset.repeat().enumerate()
    repeatable = numbered.map(lambda i, image: layer(image, seed=i), num_parallel_calls=2)
    ```

    **Masks and points.** A dict as Keras' own layers take it has its masks moved with its images,
    by nearest, so also in `keras.layers.Pipeline`; `move_points` moves landmarks. The dict's other
    entries pass unchanged, except for what has a place in the image: bounding boxes and points are
    refused, and what has the images' height and width.

    **Serving.** A model that holds the layer deforms wherever `training` is not said, and so does
    what `model.export` writes. One line leaves it out:

    ```python
    serving = keras.Model(model.input, model(model.input, training=False))  # serving.export(…)
    ```

    Args:
        control_points: points per side of the control grid, an int or (rows, columns), at least 2,
            at most one a pixel.
        max_displacement: in pixels, a number or (y, x), at least 0. Zero is the identity, bit for
            bit. So large that deformations fold the image, it warns and says how many do.
        interpolation: "bilinear", or "nearest" for label masks.
        seed: an integer or `None`, as in Keras' own random layers: the generator starts there.
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        **kwargs: `name`, `dtype`, … of `keras.layers.Layer`. Displacements, flows and sample
            positions are float32 under every dtype policy (float64 under float64).

    Input:
        [batch, height, width, channels] or [height, width, channels] (by `data_format`), height and
        width known and at least 2; the batch may be unknown. Nearest: any float, integer or boolean
        dtype. Bilinear: floats, and integers of 8 or 16 bits; wider ones and booleans are taken for
        labels, and refused. So is [batch, height, width], which would be one image.
        Or a dict {"images": …, "segmentation_masks": …, "labels": …}; masks [batch, height, width]
        or with channels (without batch, as the images) of any dtype.

    Output:
        The shape of the input. Bilinear: in the layer's compute dtype, whatever comes in. Nearest,
        and masks: in their own dtype (labels above 256 would not survive bfloat16).

    Raises:
        ValueError: an argument or input is none of these.

    Example:

    ```python
    layer = ds.RandomDeformation(control_points=3, max_displacement=2.0, seed=0)
    deformed = layer(images)  # deforms by default, as Keras' random layers do
    same = layer(images, training=False)  # the identity

    displacements = layer.draw(len(images), seed=1)  # [batch, 9, 2], pixels, (y, x)
    flow = layer.flow(displacements, height=32, width=32)  # [batch, 32, 32, 2]
    deformed = layer.deform(images, displacements)
    ```
    """

    def __init__(
        self,
        control_points: int | tuple[int, int] = 3,
        max_displacement: float | tuple[float, float] = 2.0,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        seed: int | None = None,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        **kwargs: Any,
    ):
        # No autocast: it would round labels and float64 images before they are sampled.
        super().__init__(autocast=False, **kwargs)
        if not keras.backend.is_float_dtype(self.compute_dtype):
            raise ValueError(
                "dtype must be a float, in which deformed images are computed (labels keep their "
                f"own dtype under any), received {kwargs.get('dtype')!r}"
            )
        self.control_points = check_control_points(control_points)
        self.max_displacement = check_max_displacement(max_displacement)
        self.interpolation = checked_interpolation(interpolation)
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"data_format must be channels_last or channels_first, received {data_format!r}"
            )
        self.seed = None if seed is None else checked_seed(seed)
        self.generator = DrawingSeeds(self.seed)

    def build(self, input_shape):
        shape = input_shape["images"] if isinstance(input_shape, Mapping) else input_shape
        warn_if_folding(self.control_points, self.max_displacement, *self.image_size(shape))

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(images, Mapping):
            # What does not move is not Keras' to convert: text and dtypes stay as they are.
            moved = split(images, self.data_format)
            return {**images, **super().__call__(moved, *args, **kwargs)}
        # Before anything is built for them; what has no dtype Keras turns down.
        if hasattr(images, "dtype"):
            check_images(images, self.data_format, self.interpolation)
        return super().__call__(images, *args, **kwargs)

    def call(self, images: Any, training: bool | None = True, seed: Any = None) -> Any:
        if isinstance(images, Mapping):
            return deformed_with_masks(self, images, training, seed)
        images = self._check_images(images)
        if not training or not any(self.max_displacement):
            return ops.cast(images, self._output_dtype(images))
        if len(images.shape) == 3:
            return self.call(images[None], seed=seed)[0]
        if seed is not None:
            return self.deform(images, self.draw(ops.shape(images)[0], seed))
        # To draw in the compiled call saves an eager one a third of its time on small images.
        function = compiled_random_deform(self.max_displacement, *self._deform_key(images))
        return function(images, self.generator.next())

    def draw(self, batch_size: Any, seed: Any = None) -> Any:
        """Draws the displacements of the control points.

        Args:
            batch_size: how many deformations, an integer of at least 0 (in a graph, a scalar tensor).
            seed: `None` draws from the layer's generator. An integer (or a scalar integer tensor,
                as inside `tf.data`) gives the same draws each time, and leaves the generator as it
                was.

        Returns:
            [batch_size, rows · columns, 2], pixels, (y, x): uniform in [-max, max), independent.
        """
        check_batch_size(batch_size)
        if seed is None:
            seed = self.generator
        elif is_scalar_integer(seed) and not isinstance(seed, (np.integer, np.ndarray)):
            seed = ops.convert_to_tensor(seed)
            seed = DrawnSeed(ops.stack([seed, ops.zeros_like(seed)]))
        else:
            seed = checked_seed(seed)
        return uniform_displacements(
            batch_size, self.control_points, self.max_displacement, self.geometry_dtype, seed
        )

    def compute_output_spec(self, images, training=True, seed=None):
        if isinstance(images, Mapping):
            specs = {key: keras.KerasTensor(each.shape, each.dtype) for key, each in images.items()}
            return {**specs, "images": self.compute_output_spec(images["images"])}
        check_images(images, self.data_format, self.interpolation)
        self.image_size(images.shape)
        return keras.KerasTensor(images.shape, dtype=self._output_dtype(images))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "control_points": self.control_points,
            "max_displacement": self.max_displacement,
            "interpolation": self.interpolation,
            "seed": self.seed,
            "data_format": self.data_format,
        }
