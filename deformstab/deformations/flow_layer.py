"""What every layer that deforms has in common: images, dicts of masks, draws, points, saving.

A family says what its parameters are, how they are drawn, and what flow they make (`Field`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from deformstab.backend_tensors import call_numpy, refuse_non_finite
from deformstab.deformations.flow_statistics import statistics_in_blocks
from deformstab.deformations.flows import Field, compiled_deform, compiled_random_deform
from deformstab.deformations.inputs import (
    as_parameters,
    as_points,
    as_tensor,
    check_batch_size,
    check_images,
    deformed_with_masks,
    is_scalar_integer,
    split,
)
from deformstab.deformations.landmarks import moved_points
from deformstab.deformations.seeds import DrawingSeeds, DrawnSeed, checked_seed
from deformstab.deformations.warp import INTERPOLATIONS, PADDINGS


class FlowLayer(keras.layers.Layer):
    """A Keras layer that deforms images by random flows.

    Attributes:
        interpolation: "bilinear" or "nearest".
        data_format: "channels_last" or "channels_first".
        seed: where the generator starts, or `None`.
        padding: what lies outside the image, "edge" or "circular".
        field: what flow parameters make, a `flows.Field`; hashable. The family says it, and:
        draws: (number of images, dtype, seed) → parameters; hashable.
        is_identity: whether the strength is zero.
    """

    field: Field
    draws: Callable
    is_identity: bool

    def __init__(
        self,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        seed: int | None = None,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        padding: Literal["edge", "circular"] = "edge",
        **kwargs: Any,
    ):
        # No autocast: it would round labels and float64 images before they are sampled.
        super().__init__(autocast=False, **kwargs)
        if not keras.backend.is_float_dtype(self.compute_dtype):
            raise ValueError(
                "dtype must be a float, in which deformed images are computed (labels keep their "
                f"own dtype under any), received {kwargs.get('dtype')!r}"
            )
        self.interpolation = checked_interpolation(interpolation)
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"data_format must be channels_last or channels_first, received {data_format!r}"
            )
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, received {padding!r}")
        self.padding = padding
        self.seed = None if seed is None else checked_seed(seed)
        self.generator = DrawingSeeds(self.seed)

    def warn_if_folding(self, height: int, width: int) -> None:
        """Refuses sizes that do not fit, and warns of a strength that folds images of this size."""
        self.field.check(height, width)

    @property
    def geometry_dtype(self) -> str:
        """The dtype of parameters and flows: float32, or float64 under a float64 policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def build(self, input_shape):
        shape = input_shape["images"] if isinstance(input_shape, Mapping) else input_shape
        self.warn_if_folding(*self.image_size(shape))

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
        if not training or self.is_identity:
            return ops.cast(images, self._output_dtype(images))
        if len(images.shape) == 3:
            return self.call(images[None], seed=seed)[0]
        if seed is not None:
            return self.deform(images, self.draw(ops.shape(images)[0], seed))
        # To draw in the compiled call saves an eager one a third of its time on small images.
        function = compiled_random_deform(self.draws, *self._deform_key(images))
        return function(images, self.generator.next())

    def draw(self, batch_size: Any, seed: Any = None) -> Any:
        """Draws the parameters of deformations.

        Args:
            batch_size: how many deformations, an integer of at least 0 (in a graph, a scalar tensor).
            seed: `None` draws from the layer's generator. An integer (or a scalar integer tensor,
                as inside `tf.data`) gives the same draws each time, and leaves the generator as it
                was.

        Returns:
            [batch_size, …], as `flow` and `deform` take them; what they are the class says.
        """
        check_batch_size(batch_size)
        if seed is None:
            seed = self.generator
        elif is_scalar_integer(seed) and not isinstance(seed, (np.integer, np.ndarray)):
            seed = ops.convert_to_tensor(seed)
            seed = DrawnSeed(ops.stack([seed, ops.zeros_like(seed)]))
        else:
            seed = checked_seed(seed)
        return self.draws(batch_size, self.geometry_dtype, seed)

    def flow(self, parameters: Any, height: int, width: int) -> Any:
        """The flows that parameters make, at every pixel.

        Args:
            parameters: [batch, …], as `draw` gives them.
            height, width: of the images, in pixels.

        Returns:
            [batch, height, width, 2], pixels, (y, x): a backward map, out(p) = image(p + flow(p)).
        """
        parameters = self._check_parameters(parameters)
        self.field.check(height, width)
        return self.field.flow(parameters, int(height), int(width))

    def deform(
        self,
        images: Any,
        parameters: Any,
        interpolation: Literal["bilinear", "nearest"] | None = None,
    ) -> Any:
        """Deforms a batch of images by given parameters.

        Args:
            images: [batch, height, width, channels] (by `data_format`).
            parameters: [batch, …], as `draw` gives them. Where one is not finite, the image becomes
                NaN; integer images, which have no NaN, are refused (in TensorFlow's graphs when they
                run; under XLA and JAX's `jit` they get pixels of their image).
            interpolation: by default the layer's; "nearest" for the masks of images.

        Returns:
            The deformed images, as the layer's output.
        """
        interpolation = checked_interpolation(interpolation or self.interpolation)
        images = self._check_images(images, interpolation)
        parameters = self._check_parameters(parameters)
        if len(images.shape) != 4:
            raise ValueError(
                "deform takes a batch of images [batch, height, width, channels] (by data_format), "
                f"received shape {tuple(images.shape)}"
            )
        batches = images.shape[0], parameters.shape[0]
        if None not in batches and batches[0] != batches[1]:
            raise ValueError(
                f"received {batches[0]} images and {batches[1]} deformations; draw as many "
                "deformations as there are images"
            )
        self.field.check(*self.image_size(images.shape))
        key = self._deform_key(images, interpolation)
        if not keras.backend.is_float_dtype(key[2]):
            message = f"{self.field.name} of integer images must be finite: no pixel is NaN"
            parameters = refuse_non_finite(parameters, message)
        return compiled_deform(*key)(images, parameters)

    def move_points(self, points: Any, parameters: Any, height: int, width: int) -> Any:
        """Where points of the original images lie in the deformed ones.

        A flow says where a pixel comes from. So a landmark moves to the p with p + flow(p) =
        landmark, which is solved for with the exact flow, to less than 0.001 px. In TensorFlow's
        graphs, `tf.data` among them, it is a call back to Python; XLA compiles none. It has no
        gradient.

        Args:
            points: [batch, n, 2], pixels, (y, x), numbers of any dtype; for boxes, their corners.
            parameters: [batch, …], as `deform` takes them.
            height, width: of the images, in pixels.

        Returns:
            [batch, n, 2], pixels, (y, x). NaN where the point left the image (no p in it, up to the
            centres of its outer pixels, comes from the point; on a torus as well), where the map
            folds (several do, or it is turned over), and where `points` or `parameters` are NaN.

        Example:

        ```python
        parameters = layer.draw(len(images))
        deformed = layer.deform(images, parameters)
        moved = layer.move_points(landmarks, parameters, *images.shape[1:3])
        ```
        """
        parameters = self._check_parameters(parameters)
        field = self.field
        field.check(height, width)
        points = as_points(points, parameters.shape[0], self.geometry_dtype)

        def solve(points, parameters):
            return moved_points(points, parameters, field, int(height), int(width))

        return call_numpy(solve, points.shape, self.geometry_dtype, points, parameters)

    def flow_statistics(self, parameters: Any, height: int, width: int) -> tuple:
        """How far deformations move pixels, and which of them fold the image.

        Args:
            parameters: [n, …], as `draw` gives them.
            height, width: of the images, in pixels.

        Returns:
            (mean square length of the flow over pixels, px² [n]; whether it folds [n]).
        """
        return statistics_in_blocks(self.flow, np.asarray(parameters), height, width)

    def image_size(self, shape):
        """(height, width) in a shape [batch, height, width, channels] or without batch."""
        if len(shape) not in (3, 4):
            raise ValueError(
                "expected images [batch, height, width, channels] or [height, width, channels] "
                f"(by data_format), received shape {tuple(shape)}"
            )
        return shape[-2:] if self.data_format == "channels_first" else shape[-3:-1]

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
        names = ("interpolation", "seed", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _output_dtype(self, images, interpolation=None) -> str:
        nearest = (interpolation or self.interpolation) == "nearest"
        return keras.backend.standardize_dtype(images.dtype if nearest else self.compute_dtype)

    def _deform_key(self, images, interpolation=None) -> tuple:
        """The arguments of `compiled_deform` for images."""
        return (
            tuple(images.shape[1:]),
            keras.backend.standardize_dtype(images.dtype),
            self._output_dtype(images, interpolation),
            self.geometry_dtype,
            self.field,
            interpolation or self.interpolation,
            self.data_format,
            self.padding,
        )

    def _check_images(self, images, interpolation=None):
        images = as_tensor("images", images)
        check_images(images, self.data_format, interpolation or self.interpolation)
        self.image_size(images.shape)
        return images

    def _check_parameters(self, parameters):
        return as_parameters(parameters, self.field, self.geometry_dtype)


def checked_interpolation(interpolation) -> str:
    """Refuses an interpolation that is not known."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, received {interpolation!r}"
        )
    return interpolation
