"""RandomDeformation: random smooth deformations of images, as a Keras layer."""

import math
from typing import Any, Literal

import keras

from deformstab.deformations.flow_layer import FlowLayer
from deformstab.deformations.flows import SplineField, UniformDisplacements
from deformstab.deformations.splines import (
    check_control_points,
    check_max_displacement,
    flow_statistics,
    mean_square_of_weights,
    warn_if_folding,
)


@keras.saving.register_keras_serializable(package="deformstab")
class RandomDeformation(FlowLayer):
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
        super().__init__(interpolation, seed, data_format, **kwargs)
        self.control_points = check_control_points(control_points)
        self.max_displacement = check_max_displacement(max_displacement)

    @property
    def field(self) -> SplineField:
        return SplineField(self.control_points)

    @property
    def draws(self) -> UniformDisplacements:
        return UniformDisplacements(self.control_points, self.max_displacement)

    @property
    def is_identity(self) -> bool:
        return not any(self.max_displacement)

    def warn_if_folding(self, height: int, width: int) -> None:
        warn_if_folding(self.control_points, self.max_displacement, height, width)

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
        return super().draw(batch_size, seed)

    def flow(self, displacements: Any, height: int, width: int) -> Any:
        """The thin plate spline through displacements of the control points, at every pixel.

        Args:
            displacements: [batch, rows · columns, 2], pixels, (y, x).
            height, width: of the images, in pixels.

        Returns:
            [batch, height, width, 2], pixels, (y, x): a backward map, out(p) = image(p + flow(p)).
        """
        return super().flow(displacements, height, width)

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
        return super().deform(images, displacements, interpolation)

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
        return super().move_points(points, displacements, height, width)

    def expected_rms(self, height: int, width: int) -> float:
        """The root mean square length of the flow, over draws and pixels, in closed form.

        √((max_y² + max_x²) · ‖M‖² / (3 · height · width)), M the matrix from displacements to the
        flow at every pixel.

        Args:
            height, width: of the images, in pixels.

        Returns:
            In pixels.
        """
        weights = mean_square_of_weights(self.control_points, int(height), int(width))
        return math.sqrt(sum(reach**2 for reach in self.max_displacement) / 3 * weights)

    def flow_statistics(self, displacements: Any, height: int, width: int) -> tuple:
        """How far deformations move pixels, and which of them fold the image.

        Args:
            displacements: [n, rows · columns, 2], pixels, (y, x).
            height, width: of the images, in pixels.

        Returns:
            (mean square length of the flow over pixels, px² [n]; whether it folds [n]).
        """
        return flow_statistics(displacements, self.control_points, height, width)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("control_points", "max_displacement")}
        return {**super().get_config(), **own}
