"""RandomDeformation: random smooth deformations of images, as a Keras layer."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from deformstab.deformations.flows import (
    DrawnSeed,
    compiled_deform,
    compiled_random_deform,
    flow_of,
    uniform_displacements,
)
from deformstab.deformations.splines import (
    check_control_points,
    check_max_displacement,
    control_grid,
    warn_if_folding,
)
from deformstab.deformations.warp import INTERPOLATIONS


@keras.saving.register_keras_serializable(package="deformstab")
class RandomDeformation(keras.layers.Layer):
    """Deforms each image randomly and smoothly (Ruderman et al. 2018).

    Every point of an evenly spaced control grid over the output image gets a source uniformly
    within `max_displacement` pixels, in y and in x independently; a thin plate spline (Duchon 1977)
    through these displacements is the flow; the deformed image at p is the original at p + flow(p),
    interpolated. Each image gets a draw of its own.

    Works in a model, in `model.fit`, compiled, eagerly and, on the TensorFlow backend, inside
    `tf.data` before and after `.batch()`. A `tf.data` map with parallel calls draws from the
    generator in no fixed order; pass a `seed` of each element's own for draws that repeat:

    ```python
    dataset.enumerate().map(lambda i, image: layer(image, seed=i), num_parallel_calls=2)
    ```

    The same seed gives the same draws, bit for bit; under `jit_compile=True` TensorFlow has another
    generator, whose draws repeat as well but are not those of an eager call.

    Args:
        control_points: points per side of the control grid, an int or (rows, columns), at least 2.
        max_displacement: in pixels, a number or (y, x), at least 0. Zero is the identity, bit for
            bit. So large that deformations fold the image, it warns and says how many do.
        interpolation: "bilinear", or "nearest" for label masks.
        seed: int or `None`, as in Keras' own random layers: the generator starts there.
        data_format: "channels_last" or "channels_first"; by default as Keras is configured.
        **kwargs: `name`, `dtype`, … of `keras.layers.Layer`. Displacements, flows and sample
            positions are float32 under every dtype policy (float64 under float64).

    Input:
        [batch, height, width, channels] or [height, width, channels] (by `data_format`), any float,
        integer or boolean dtype, height and width known and at least 2; the batch may be unknown.

    Output:
        The shape of the input. Bilinear: in the layer's compute dtype, whatever comes in. Nearest:
        in the input's own dtype (labels above 256 would not survive bfloat16).

    Example:

    ```python
    layer = ds.RandomDeformation(control_points=3, max_displacement=2.0, seed=0)
    deformed = layer(images)  # deforms by default, as Keras' random layers do
    same = layer(images, training=False)  # the identity

    displacements = layer.draw(len(images), seed=1)  # [batch, 9, 2], pixels, (y, x)
    flow = layer.flow(displacements, height=32, width=32)  # [batch, 32, 32, 2]
    deformed = layer.deform(images, displacements)  # for images and masks alike
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
        self.control_points = check_control_points(control_points)
        self.max_displacement = check_max_displacement(max_displacement)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"received {interpolation!r}"
            )
        self.interpolation = interpolation
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"data_format must be channels_last or channels_first, received {data_format!r}"
            )
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    @property
    def geometry_dtype(self) -> str:
        """The dtype of displacements and flows: float32, or float64 under a float64 policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def build(self, input_shape):
        height, width = self.image_size(input_shape)
        control_grid(self.control_points, height, width)  # refuses unknown and too small sizes
        warn_if_folding(self.control_points, self.max_displacement, height, width)

    def call(self, images: Any, training: bool | None = True, seed: Any = None) -> Any:
        images = ops.convert_to_tensor(images)
        if not training or not any(self.max_displacement):
            return ops.cast(images, self._output_dtype(images))
        self.image_size(images.shape)  # a rank that is no image is refused before anything is drawn
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
            batch_size: how many deformations.
            seed: `None` draws from the layer's generator. An integer (a Python int, or a scalar
                integer tensor, as inside `tf.data`) gives the same draws each time, and leaves the
                generator as it was.

        Returns:
            [batch_size, rows · columns, 2], pixels, (y, x): uniform in [-max, max), independent.
        """
        if seed is None:
            seed = self.generator
        elif isinstance(seed, (int, np.integer)):
            seed = int(seed)
        elif _is_scalar_integer(seed):
            seed = ops.convert_to_tensor(seed)
            seed = DrawnSeed(ops.stack([seed, ops.zeros_like(seed)]))
        else:
            raise ValueError(
                f"seed must be None, an int or a scalar integer tensor, received {seed!r}"
            )
        return uniform_displacements(
            batch_size, self.control_points, self.max_displacement, self.geometry_dtype, seed
        )

    def flow(self, displacements: Any, height: int, width: int) -> Any:
        """The thin plate spline through displacements of the control points, at every pixel.

        Args:
            displacements: [batch, rows · columns, 2], pixels, (y, x).
            height, width: of the images, in pixels.

        Returns:
            [batch, height, width, 2], pixels, (y, x): a backward map, out(p) = image(p + flow(p)).
        """
        displacements = self._check_displacements(displacements)
        control_grid(self.control_points, height, width)
        return flow_of(displacements, self.control_points, int(height), int(width))

    def deform(self, images: Any, displacements: Any) -> Any:
        """Deforms a batch of images by given displacements of the control points.

        Args:
            images: [batch, height, width, channels] (by `data_format`).
            displacements: [batch, rows · columns, 2], pixels, (y, x).

        Returns:
            The deformed images, as the layer's output.
        """
        images = ops.convert_to_tensor(images)
        displacements = self._check_displacements(displacements)
        if len(images.shape) != 4:
            raise ValueError(
                "deform takes a batch of images [batch, height, width, channels] (by data_format), "
                f"received shape {tuple(images.shape)}"
            )
        batches = images.shape[0], displacements.shape[0]
        if None not in batches and batches[0] != batches[1]:
            raise ValueError(
                f"received {batches[0]} images and {batches[1]} deformations; draw as many "
                "deformations as there are images"
            )
        height, width = self.image_size(images.shape)
        control_grid(self.control_points, height, width)
        return compiled_deform(*self._deform_key(images))(images, displacements)

    def compute_output_spec(self, images, training=True, seed=None):
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

    def image_size(self, shape):
        """(height, width) in a shape [batch, height, width, channels] or without batch."""
        if len(shape) not in (3, 4):
            raise ValueError(
                "expected images [batch, height, width, channels] or [height, width, channels] "
                f"(by data_format), received shape {tuple(shape)}"
            )
        return shape[-2:] if self.data_format == "channels_first" else shape[-3:-1]

    def _output_dtype(self, images) -> str:
        dtype = images.dtype if self.interpolation == "nearest" else self.compute_dtype
        return keras.backend.standardize_dtype(dtype)

    def _deform_key(self, images) -> tuple:
        """The arguments of `compiled_deform` for images."""
        return (
            tuple(images.shape[1:]),
            keras.backend.standardize_dtype(images.dtype),
            self._output_dtype(images),
            self.geometry_dtype,
            self.control_points,
            self.interpolation,
            self.data_format,
        )

    def _check_displacements(self, displacements):
        displacements = ops.cast(ops.convert_to_tensor(displacements), self.geometry_dtype)
        rows, columns = self.control_points
        if len(displacements.shape) != 3 or tuple(displacements.shape[1:]) != (rows * columns, 2):
            raise ValueError(
                f"displacements must be [batch, {rows * columns}, 2] for {rows}×{columns} control "
                f"points, received shape {tuple(displacements.shape)}"
            )
        return displacements


def _is_scalar_integer(seed) -> bool:
    scalar = len(getattr(seed, "shape", (None,))) == 0
    return scalar and "int" in keras.backend.standardize_dtype(seed.dtype)
