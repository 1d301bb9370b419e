"""Deforming by given displacements of a control grid: what `RandomDeformation` does with its draws."""

from typing import Any, Literal

import keras

from deformstab.backend_tensors import call_numpy, refuse_non_finite
from deformstab.deformations.flows import compiled_deform, flow_of
from deformstab.deformations.inputs import as_displacements, as_points, as_tensor, check_images
from deformstab.deformations.landmarks import moved_points
from deformstab.deformations.splines import check_fit
from deformstab.deformations.warp import INTERPOLATIONS


class GridDeformation(keras.layers.Layer):
    """A layer with a control grid: flows, deformed images and moved points.

    Attributes:
        control_points: (rows, columns).
        interpolation: "bilinear" or "nearest".
        data_format: "channels_last" or "channels_first".
    """

    control_points: tuple[int, int]
    interpolation: str
    data_format: str

    @property
    def geometry_dtype(self) -> str:
        """The dtype of displacements and flows: float32, or float64 under a float64 policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def flow(self, displacements: Any, height: int, width: int) -> Any:
        """The thin plate spline through displacements of the control points, at every pixel.

        Args:
            displacements: [batch, rows · columns, 2], pixels, (y, x).
            height, width: of the images, in pixels.

        Returns:
            [batch, height, width, 2], pixels, (y, x): a backward map, out(p) = image(p + flow(p)).
        """
        displacements = self._check_displacements(displacements)
        check_fit(self.control_points, height, width)
        return flow_of(displacements, self.control_points, int(height), int(width))

    def deform(
        self,
        images: Any,
        displacements: Any,
        interpolation: Literal["bilinear", "nearest"] | None = None,
    ) -> Any:
        """Deforms a batch of images by given displacements of the control points.

        Args:
            images: [batch, height, width, channels] (by `data_format`).
            displacements: [batch, rows · columns, 2], pixels, (y, x). Where one is not finite, the
                image becomes NaN; integer images, which have no NaN, are refused (in TensorFlow's
                graphs when they run; under XLA and JAX's `jit` they get pixels of their image).
            interpolation: by default the layer's; "nearest" for the masks of images.

        Returns:
            The deformed images, as the layer's output.
        """
        interpolation = checked_interpolation(interpolation or self.interpolation)
        images = self._check_images(images, interpolation)
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
        check_fit(self.control_points, *self.image_size(images.shape))
        key = self._deform_key(images, interpolation)
        if not keras.backend.is_float_dtype(key[2]):
            displacements = refuse_non_finite(
                displacements, "displacements of integer images must be finite: no pixel is NaN"
            )
        return compiled_deform(*key)(images, displacements)

    def move_points(self, points: Any, displacements: Any, height: int, width: int) -> Any:
        """Where points of the original images lie in the deformed ones.

        A flow says where a pixel comes from. So a landmark moves to the p with p + flow(p) =
        landmark, which is solved for with the exact spline, to less than 0.001 px. In TensorFlow's
        graphs, `tf.data` among them, it is a call back to Python; XLA compiles none. It has no
        gradient.

        Args:
            points: [batch, n, 2], pixels, (y, x), numbers of any dtype; for boxes, their corners.
            displacements: [batch, rows · columns, 2], pixels, (y, x), as `deform` takes them.
            height, width: of the images, in pixels.

        Returns:
            [batch, n, 2], pixels, (y, x). NaN where the point left the image (no p in it, up to the
            centres of its outer pixels, comes from the point), where the map folds (several do, or
            it is turned over there), and where `points` or the image's `displacements` are NaN.

        Example:

        ```python
        displacements = layer.draw(len(images))
        deformed = layer.deform(images, displacements)
        moved = layer.move_points(landmarks, displacements, *images.shape[1:3])
        ```
        """
        displacements = self._check_displacements(displacements)
        check_fit(self.control_points, height, width)
        points = as_points(points, displacements.shape[0], self.geometry_dtype)
        grid = self.control_points, int(height), int(width)

        def solve(points, displacements):
            return moved_points(points, displacements, *grid)

        return call_numpy(solve, points.shape, self.geometry_dtype, points, displacements)

    def image_size(self, shape):
        """(height, width) in a shape [batch, height, width, channels] or without batch."""
        if len(shape) not in (3, 4):
            raise ValueError(
                "expected images [batch, height, width, channels] or [height, width, channels] "
                f"(by data_format), received shape {tuple(shape)}"
            )
        return shape[-2:] if self.data_format == "channels_first" else shape[-3:-1]

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
            self.control_points,
            interpolation or self.interpolation,
            self.data_format,
        )

    def _check_images(self, images, interpolation=None):
        images = as_tensor("images", images)
        check_images(images, self.data_format, interpolation or self.interpolation)
        self.image_size(images.shape)
        return images

    def _check_displacements(self, displacements):
        return as_displacements(displacements, self.control_points, self.geometry_dtype)


def checked_interpolation(interpolation) -> str:
    """Refuses an interpolation that is not known."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, received {interpolation!r}"
        )
    return interpolation
