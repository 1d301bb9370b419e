"""The one place that knows which backend Keras runs on: compiling, and arrays from variables."""

import keras
import numpy as np


def compiled(function, *signature, jit: bool = True):
    """`function` compiled for the current backend.

    TensorFlow fuses a gather only under XLA (measured: 5–6× slower without), and an XLA function
    works inside other graphs and inside `tf.data` alike; so what is compiled here is as fast when
    called eagerly. PyTorch runs eagerly, as Keras does there.

    Args:
        function: of tensors only, by position; pure, except for Keras variables that it reads.
        *signature: (shape, dtype) of each tensor, `None` for an unknown size. TensorFlow traces
            once, for this signature.
        jit: whether TensorFlow should use XLA. Convolutions on a CPU are faster without.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
        traced = tf.function(function, specs, autograph=False, jit_compile=jit or None)
        with tf.init_scope():  # the trace belongs to no graph that happens to be under construction
            return traced.get_concrete_function()
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def compiled_model_step(function, model, *signature):
    """`function`, which calls `model`, compiled; it sees later weights, and changes nothing.

    It runs in a `keras.StatelessScope`: what a layer assigns (a moving average, a seed) is there to
    be read inside the function, and forgotten at its end.

    Args:
        function: of tensors only, by position.
        model: the built Keras model whose variables it reads.
        *signature: as for `compiled`.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        variables = model.variables

        @jax.jit
        def stateless(values, *tensors):
            # Under jit the values of Keras variables would become constants of the trace.
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return function(*tensors)

        return lambda *tensors: stateless([variable.value for variable in variables], *tensors)

    def scoped(*tensors):
        with keras.StatelessScope():
            return function(*tensors)

    if backend == "torch":
        import torch

        return torch.no_grad()(scoped)
    return compiled(scoped, *signature, jit=False)


def kept_with(model, key, make):
    """What `make()` gives, made once for a model, its layers and a key: compiled steps, mostly.

    It is kept in the model's `__dict__`: not as an attribute, which Keras would track and save, and
    not in a table of ours, which would keep the model alive. Layers added or removed since make a
    new one; other attributes of layers that are changed later are not noticed.
    """
    layers = tuple(id(layer) for layer in model._flatten_layers())
    store = vars(model).setdefault("_deformstab_kept", {})
    if (key, layers) not in store:
        store[key, layers] = make()
    return store[key, layers]


def variable_to_numpy(variable) -> np.ndarray:
    """The value of a Keras variable (or tensor, or array) as a NumPy array.

    `keras.ops.convert_to_numpy` of a TensorFlow variable warns under NumPy 2.
    """
    if isinstance(variable, keras.Variable):
        return np.asarray(variable)
    return keras.ops.convert_to_numpy(variable)
