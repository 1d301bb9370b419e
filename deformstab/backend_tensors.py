"""What backends do differently with single tensors: constants, loops over images, sums, their memory."""

import functools

import keras
import numpy as np


def kept_constants(arrays, *key) -> list:
    """`arrays(*key)` as tensors that graphs refer to, each an array or `None`.

    TensorFlow would write an array into each graph. They are the same tensors for the same key: a
    model is saved with what its gradients refer to only if its functions refer to that too.
    """
    if keras.backend.backend() == "tensorflow":
        return _tensors_outside_graphs(arrays, *key)
    return [each if each is None else keras.ops.convert_to_tensor(each) for each in arrays(*key)]


@functools.lru_cache(maxsize=64)  # as many as there are compiled functions that refer to them
def _tensors_outside_graphs(arrays, *key) -> list:
    import tensorflow as tf

    with tf.init_scope():
        return [each if each is None else tf.constant(each) for each in arrays(*key)]


def map_images(function, *tensors):
    """`function` of one image after the other: tensors without their batch → one of the first's shape.

    `keras.ops.map` asks TensorFlow for the first of none, and XLA compiles no loop over nothing: an
    empty batch gets an image that is thrown away.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.ops.map(lambda each: function(*each), tensors)
    import tensorflow as tf

    first = tensors[0]
    batch = tf.shape(first)[0]
    added = [0, 1 - tf.minimum(batch, 1)]
    padded = tuple(tf.pad(each, [added] + [[0, 0]] * (each.shape.rank - 1)) for each in tensors)
    spec = tf.TensorSpec(first.shape[1:], first.dtype)
    return tf.map_fn(lambda each: function(*each), padded, fn_output_signature=spec)[:batch]


def refuse_non_finite(tensor, message: str):
    """`tensor`; raises an error where it has values that are not finite.

    In a graph of TensorFlow the error comes when it runs, but under XLA and JAX's `jit` none does.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            return tf.debugging.check_numerics(tensor, message)
    if not _is_traced(tensor) and not np.isfinite(keras.ops.convert_to_numpy(tensor)).all():
        raise ValueError(message)
    return tensor


def call_numpy(function, shape, dtype: str, *tensors):
    """`function` of NumPy arrays on tensors, in graphs too: a call back to Python when they run.

    Args:
        function: (arrays) → one array.
        shape, dtype: of it, `None` for an unknown size.
        *tensors: what it is called with.
    """

    def cast(*arrays):
        return function(*map(np.asarray, arrays)).astype(dtype)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            result = tf.numpy_function(cast, tensors, dtype, stateful=False)
            return tf.ensure_shape(result, shape)
    if backend == "jax" and any(map(_is_traced, tensors)):
        import jax

        return jax.pure_callback(cast, jax.ShapeDtypeStruct(shape, dtype), *tensors)
    return keras.ops.convert_to_tensor(cast(*map(keras.ops.convert_to_numpy, tensors)))


def _is_traced(tensor) -> bool:
    """Whether a tensor is one of JAX's under `jit`, without values."""
    return keras.backend.backend() == "jax" and "Tracer" in type(tensor).__name__


def concrete(tensor) -> np.ndarray | None:
    """The values of a tensor where it has any: `None` in a graph, or in what JAX traces."""
    backend = keras.backend.backend()
    if isinstance(tensor, keras.KerasTensor):
        return None
    if backend == "tensorflow" and not hasattr(tensor, "numpy"):
        return None
    if _is_traced(tensor):
        return None
    return keras.ops.convert_to_numpy(tensor)


def row_products(*pairs) -> tuple:
    """Σ x·y over the last axis of each pair; axes before it are broadcast.

    TensorFlow on a processor writes a product of tensors to memory and reads it again; a product of
    matrices it adds up on the way (measured: 4 times as fast). An accelerator may round the entries of
    matrices, which would be a wrong number here.

    Returns:
        A tensor a pair: so many numbers, with axes of one behind them.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            each = {id(x): x for pair in pairs for x in pair}
            rows = {key: tf.expand_dims(x, -2) for key, x in each.items()}
            return tuple(
                tf.linalg.matmul(rows[id(x)], rows[id(y)], transpose_b=True) for x, y in pairs
            )
    return tuple(keras.ops.sum(x * y, axis=-1) for x, y in pairs)


def split_rows(x, count: int) -> tuple:
    """The first `count` rows of a tensor [rows, …], of a number that is known, and the rest.

    `keras.ops.split` computes sizes within TensorFlow's graph: a dozen operations, which a model of
    many layers traces for each of them.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tuple(tf.split(x, [count, x.shape[0] - count]))
    return x[:count], x[count:]


def copy_of_rows(x, count: int):
    """The first `count` rows of a tensor in memory of their own: a slice may keep all rows alive."""
    if keras.backend.backend() == "tensorflow":  # whose `keras.ops.take` looks for negative places
        import tensorflow as tf

        return tf.gather(x, np.arange(count))
    return keras.ops.take(x, np.arange(count), axis=0)


def memory_of(tensor) -> np.ndarray | None:
    """A tensor's own memory as an array, not copied and not to be changed; `None` on an accelerator."""
    if isinstance(tensor, np.ndarray):
        return tensor
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return np.asarray(tensor) if ":CPU:" in tensor.device else None
    if backend == "jax":
        here = all(device.platform == "cpu" for device in tensor.devices())
        return np.asarray(tensor) if here else None
    return tensor.detach().numpy() if tensor.device.type == "cpu" else None
