"""tensorflow-addons' `interpolate_spline`, `dense_image_warp` and `sparse_image_warp`, on Keras 3.

tensorflow-addons is no longer maintained and cannot be imported beside Keras 3. These take the
arguments of its version 0.23 and give its results, on every Keras backend, eagerly, compiled and,
on TensorFlow, inside `tf.data`: replace `tfa.image` by `deformstab.addons`. In a functional Keras
model, call them inside a layer.

Convention: points and flows are in pixels, (y, x), corner pixels at 0 and height - 1. The sign is
tensorflow-addons', the opposite of the rest of this package: out(p) = image(p - flow(p)); outside
the image, the nearest edge pixel.

Wider than tensorflow-addons: dtypes may differ, floats may have 16 bits, and integers count as
float32; geometry is computed in float32 or better. `name` is accepted, and names nothing.
"""

import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from deformstab.deformations.addons_checks import (
    check_control_points,
    check_flow,
    check_spline,
    require,
)
from deformstab.deformations.scattered_splines import spline_through
from deformstab.deformations.warp import warp


def interpolate_spline(
    train_points: Any,
    train_values: Any,
    query_points: Any,
    order: int,
    regularization_weight: float = 0.0,
    name: str | None = "interpolate_spline",
) -> Any:
    """The polyharmonic spline through values at scattered points, evaluated at other points.

    The spline of Duchon (1977): f(q) = Σ_j w_j φ(|q - c_j|) + v·q + b with Σ w_j = 0,
    Σ w_j c_j = 0 and f(c_j) + λ w_j = value_j; φ(r) is r^order if the order is odd, r^order log r
    if it is even. Differentiable in all but the order. A batch of one serves those of the others.

    Args:
        train_points: c, [batch, points, dimensions], in any unit: distinct, more than there are
            dimensions, and not all on one line (plane, …).
        train_values: [batch, points, values].
        query_points: q, [batch, queries, dimensions], in the unit of the points.
        order: 1, 2 (the thin plate spline), 3, …
        regularization_weight: λ ≥ 0, a number or a scalar tensor; 0 interpolates exactly.
        name: not used.

    Returns:
        [batch, queries, values], in the common float dtype of the three.

    Raises:
        ValueError: for arguments that define no spline; eagerly also for points that repeat (to a
            millionth of their extent) or lie on one line, which it names. In a graph, and in a
            function that JAX traces, the whole element of the batch is NaN then.

    Example:

    ```python
    values = ds.addons.interpolate_spline(points, values_there, queries, order=2)
    ```
    """
    arrays = (train_points, train_values, query_points)
    points, values, queries = (_of_rank(3, _floating(x)) for x in arrays)
    check_spline(points, values, queries)
    integer = isinstance(order, numbers.Integral)
    require(integer and order >= 1, "order must be an integer of at least 1", order=order)
    require(
        not isinstance(regularization_weight, numbers.Real) or regularization_weight >= 0,
        "regularization_weight must be at least 0, which interpolates exactly",
        regularization_weight=regularization_weight,
    )
    dtype = _common_dtype(points, values, queries)
    # The system is ill conditioned, and the sum over the points cancels.
    wide = _widest_float()
    points, values, queries = (ops.cast(x, wide) for x in (points, values, queries))
    points, values = _serve(points, values), _serve(values, points)
    weight = ops.convert_to_tensor(regularization_weight, dtype=wide)
    return ops.cast(spline_through(points, values, queries, order, weight), dtype)


def dense_image_warp(image: Any, flow: Any, name: str | None = None) -> Any:
    """Moves images along flows: out(p) = image(p - flow(p)), bilinear. Mind the minus sign.

    Args:
        image: [batch, height, width, channels], height and width at least 2.
        flow: [batch, height, width, 2], pixels, (y, x).
        name: not used.

    Returns:
        The warped images, of the shape and float dtype of `image`.

    Raises:
        ValueError: for shapes that do not fit.

    Example:

    ```python
    flow = np.full((1, 32, 32, 2), (3.0, 0.0), "float32")
    three_pixels_lower = ds.addons.dense_image_warp(images[:1], flow)
    ```
    """
    image, flow = (_of_rank(4, _floating(x)) for x in (image, flow))
    check_flow(image, flow)
    # Into the image's shape: sizes not known before must be equal as well.
    flow = ops.reshape(_at_least_float32(flow), (*ops.shape(image)[:3], 2))
    return ops.cast(warp(_at_least_float32(image), -flow), image.dtype)


def sparse_image_warp(
    image: Any,
    source_control_point_locations: Any,
    dest_control_point_locations: Any,
    interpolation_order: int = 2,
    regularization_weight: float = 0.0,
    num_boundary_points: int = 0,
    name: str | None = "sparse_image_warp",
) -> tuple[Any, Any]:
    """Warps images so that what is at the source points comes to lie at the destination points.

    The flow is the spline through destination - source at the destinations (`interpolate_spline`);
    the result is image(p - flow(p)) (`dense_image_warp`).

    Args:
        image: [batch, height, width, channels], [height, width, channels] or [height, width];
            height and width at least 2.
        source_control_point_locations: [batch, points, 2], pixels, (y, x); a batch of one, here and
            in the destinations, serves all images.
        dest_control_point_locations: [batch, points, 2], pixels, (y, x): with the boundary points
            at least 3, distinct, and not all on one line.
        interpolation_order: the order of the spline.
        regularization_weight: λ of the spline; above 0 the destinations are met only roughly.
        num_boundary_points: 0, or n to hold the border in place: the 4 corners and n - 1 points
            evenly along each edge get zero flow.
        name: not used.

    Returns:
        (warped_image, flow): of the shape and float dtype of `image`; and
        [batch, height, width, 2], pixels, (y, x), in the points' float dtype, float32 or better.

    Raises:
        ValueError: for shapes that do not fit, and whatever `interpolate_spline` refuses.

    Example:

    ```python
    warped, flow = ds.addons.sparse_image_warp(images, source, dest, num_boundary_points=1)
    ```
    """
    image = _floating(image)
    points = (source_control_point_locations, dest_control_point_locations)
    source, dest = (_of_rank(3, _at_least_float32(_floating(x)), last=2) for x in points)
    dtype = _common_dtype(source, dest)
    source, dest = ops.cast(source, dtype), ops.cast(dest, dtype)
    images, as_given = _as_batch(image)
    check_control_points(images, source, dest)
    require(
        isinstance(num_boundary_points, numbers.Integral) and num_boundary_points >= 0,
        "num_boundary_points must be an integer: 0 for none, 1 for the corners, …",
        num_boundary_points=num_boundary_points,
    )
    batch, height, width, _ = ops.shape(images)
    flow = dest - source
    if num_boundary_points:
        border = ops.convert_to_tensor(_unit_square_border(num_boundary_points))
        border = ops.cast(border, dtype) * ops.cast([height - 1, width - 1], dtype)
        border = ops.broadcast_to(border, (ops.shape(dest)[0], *border.shape))
        dest = ops.concatenate([dest, border], axis=1)
        flow = ops.pad(flow, ((0, 0), (0, border.shape[1]), (0, 0)))
    pixels = ops.meshgrid(ops.arange(height), ops.arange(width), indexing="ij")
    pixels = ops.cast(ops.reshape(ops.stack(pixels, axis=-1), (1, -1, 2)), dtype)
    flow = interpolate_spline(dest, flow, pixels, interpolation_order, regularization_weight)
    flow = ops.reshape(flow, (-1, height, width, 2))
    flow = ops.broadcast_to(flow, (batch, height, width, 2))
    return as_given(dense_image_warp(images, flow)), flow


def _of_rank(rank, x, last=None):
    """x itself; one of unknown rank, as `tf.data` may give it, with the rank it is taken to have."""
    if keras.backend.backend() != "tensorflow" or x.shape.rank is not None:
        return x
    import tensorflow as tf

    return tf.ensure_shape(x, [*[None] * (rank - 1), last])


def _as_batch(image):
    """[batch, height, width, channels] of an image of 2, 3, 4 or unknown rank, and the way back."""
    if keras.backend.backend() == "tensorflow" and image.shape.rank is None:
        import tensorflow as tf

        shape = tf.shape(image)
        before, after = (tf.cast(tf.rank(image) <= most, "int32") for most in (3, 2))
        sizes = [tf.ones([before], "int32"), shape, tf.ones([after], "int32")]
        sizes = tf.ensure_shape(tf.concat(sizes, axis=0), [4])
        return tf.reshape(image, sizes), lambda warped: tf.reshape(warped, shape)
    rank = len(image.shape)
    require(
        rank in (2, 3, 4),
        "expected image [batch, height, width, channels], [height, width, channels] or "
        "[height, width]",
        image=image.shape,
    )
    images = image if rank == 4 else image[None] if rank == 3 else image[None, ..., None]
    return images, lambda warped: ops.reshape(warped, ops.shape(image))


def _serve(x, other):
    """x, once for every element of the other's batch where it has a batch of one."""
    if x.shape[0] != 1:
        return x
    return ops.broadcast_to(x, (ops.shape(other)[0], *ops.shape(x)[1:]))


def _unit_square_border(per_edge):
    """The corners and per_edge - 1 points along each edge, [4 · per_edge, 2]."""
    ticks = np.linspace(0, 1, per_edge + 1)
    square = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    return square[np.isin(square, (0, 1)).any(axis=-1)]


def _dtype(x):
    return keras.backend.standardize_dtype(x.dtype)


def _widest_float():
    """float64, or float32 on JAX without x64, where asking for more would warn."""
    return _dtype(ops.convert_to_tensor(np.zeros((), "float64")))


def _common_dtype(*tensors):
    dtypes = [_dtype(x) for x in tensors]
    # Keras promotes float64 to float32 on every backend but TensorFlow.
    return "float64" if "float64" in dtypes else keras.backend.result_type(*dtypes)


def _floating(x):
    if isinstance(x, keras.KerasTensor):
        raise ValueError(
            f"received {x}, a symbolic tensor of a functional model: call ds.addons inside a layer, "
            "for example keras.layers.Lambda"
        )
    x = ops.convert_to_tensor(x)
    return x if keras.backend.is_float_dtype(_dtype(x)) else ops.cast(x, "float32")


def _at_least_float32(x):
    return x if _dtype(x) == "float64" else ops.cast(x, "float32")
