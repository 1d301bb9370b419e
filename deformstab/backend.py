"""The one place that knows which backend Keras runs on: compiling, and arrays from variables."""

import functools

import keras
import numpy as np


def compiled(function, *signature, jit: bool = True, adjoint=None):
    """`function` compiled for the current backend.

    TensorFlow fuses a gather only under XLA (measured: 5–6× slower without), and an XLA function
    works inside other graphs and inside `tf.data` alike; so what is compiled here is as fast when
    called eagerly. PyTorch runs eagerly, as Keras does there.

    Inside a function that XLA compiles, `function` becomes part of it. As a function of its own it
    would hand its intermediate sizes to its gradient, for which XLA takes every input of it for a
    constant, and compiles anew for each batch of images. Without XLA it becomes part of any graph,
    so that a saved model holds its gradient.

    Args:
        function: of tensors only, by position; pure, except for Keras variables that it reads.
        *signature: (shape, dtype) of each tensor, `None` for an unknown size. TensorFlow traces
            once, for this signature.
        jit: whether TensorFlow should use XLA. Convolutions on a CPU are faster without.
        adjoint: (gradient, other tensors) → the gradient with respect to the first tensor, in which
            `function` is linear; on a CPU, TensorFlow takes it in place of what it would derive.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # A GPU scatters in parallel, and would wait for one image after the other.
        if adjoint is not None and not tf.config.list_physical_devices("GPU"):
            function, jit = _with_adjoint(function, adjoint, signature), False
        return _compiled_by_tensorflow(function, signature, jit, inlined=not jit)[0]
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def _compiled_by_tensorflow(function, signature, jit, inlined=False):
    """`function` compiled, and its trace. `inlined`: it becomes part of any graph, not of XLA's only."""
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
    traced = tf.function(function, specs, autograph=False, jit_compile=jit or None)
    with tf.init_scope():  # the trace belongs to no graph that happens to be under construction
        concrete = traced.get_concrete_function()

    def call(*tensors):
        in_xla = tf.__internal__.get_enclosing_xla_context() is not None
        part = in_xla or (inlined and not tf.executing_eagerly())
        return (function if part else concrete)(*tensors)

    return call, concrete


def _with_adjoint(function, adjoint, signature):
    """`function` under XLA with gradients of its own, each computed only where it is asked for.

    The adjoint gets its gradients in the same way: `function` is the adjoint of it.
    """
    import tensorflow as tf

    def by_others(gradient, first, *others):
        # Not a tape: the scope in which functions are traced stops them all. Partial derivatives:
        # inside a larger graph, `first` may have been computed of the others.
        stop = [first, *others]
        return tf.gradients(function(first, *others), others, gradient, stop_gradients=stop)

    forward, trace = _compiled_by_tensorflow(function, signature, jit=True)
    result = trace.output_shapes, trace.output_dtypes

    @functools.cache
    def backward_steps():
        key = result, *signature[1:]
        transposed = _with_adjoint(adjoint, function, key)
        return (
            _compiled_by_tensorflow(transposed, key, jit=False)[0],
            _compiled_by_tensorflow(by_others, (result, *signature), jit=True)[0],
        )

    @tf.custom_gradient
    def differentiable(first, *others):
        def backward(gradient):
            of_first, of_others = backward_steps()
            return of_first(gradient, *others), *of_others(gradient, first, *others)

        return forward(first, *others), backward

    return differentiable


def compiled_model_step(function, model, *signature):
    """`function`, which calls `model`, compiled; it sees later weights, and changes nothing.

    It runs in a `keras.StatelessScope`: what a layer assigns (a moving average, a seed) is there to
    be read inside the function, and forgotten at its end. A model compiled with `run_eagerly=True`
    is not traced: it may be one that cannot.

    Args:
        function: of tensors only, by position.
        model: the built Keras model whose variables it reads.
        *signature: as for `compiled`.
    """
    backend = keras.backend.backend()
    if backend == "jax" and not _runs_eagerly(model):
        import jax

        stateless, values = _stateless(function, model)
        stateless = jax.jit(stateless)
        return lambda *tensors: stateless(values(), *tensors)

    step = model_step(function, model)
    if backend == "torch" or _runs_eagerly(model):
        return step
    return compiled(step, *signature, jit=False)


def model_step(function, model):
    """`function`, which calls `model`, to be run as it is: it changes nothing.

    Args:
        function: of tensors only, by position.
        model: the built Keras model, or a layer of it, that it calls.
    """

    def scoped(*tensors):
        with keras.StatelessScope():
            return function(*tensors)

    if keras.backend.backend() != "torch":
        return scoped
    import torch

    def evaluating(*tensors):
        # Layers of Keras are told to infer; modules of PyTorch inside them may ask themselves.
        modules = {m for layer in model._flatten_layers() for m in layer.modules()}
        modes = {module: module.training for module in modules}
        for module in modules:
            module.training = False
        try:
            return scoped(*tensors)
        finally:
            for module, mode in modes.items():
                module.training = mode

    return torch.no_grad()(evaluating)


def with_gradient(function):
    """A function of the same tensors: what `function` gives, and the gradient of its sum.

    Args:
        function: of tensors only, by position; the gradient is with respect to the first one.

    Returns:
        (tensors) → (values, gradient in the shape of the first tensor). For `compiled_model_step`.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def taped(first, *others):
            if not tf.executing_eagerly():
                # Not a tape: the scope in which functions are traced stops them all.
                values = function(first, *others)
                (gradient,) = tf.gradients(values, first, unconnected_gradients="zero")
                return values, gradient
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(first)
                values = function(first, *others)
            gradient = tape.gradient(values, first, unconnected_gradients="zero")
            return values, gradient

        return taped
    if backend == "jax":
        import jax

        def summed(first, *others):
            values = function(first, *others)
            return values.sum(), values

        def differentiated(*tensors):
            (_, values), gradient = jax.value_and_grad(summed, has_aux=True)(*tensors)
            return values, gradient

        return differentiated
    import torch

    def recorded(first, *others):
        with torch.enable_grad():
            first = first.detach().requires_grad_()
            values = function(first, *others)
            if not values.requires_grad:
                return values, torch.zeros_like(first)
            (gradient,) = torch.autograd.grad(values.sum(), first)
        return values.detach(), gradient

    return recorded


def _stateless(function, model):
    """`function` with the values of the model's variables as its first argument; how to get them.

    Under JAX's transformations the values of Keras variables would become constants of the trace.
    """
    variables = model.variables

    def stateless(values, *tensors):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return function(*tensors)

    return stateless, lambda: [variable.value for variable in variables]


def trace_model(function, model, *arrays) -> None:
    """Runs `function`, which calls `model`, for what it notes down on the way; nothing is changed.

    TensorFlow and JAX only trace it; PyTorch computes, and so does a model that runs eagerly.

    Args:
        function: of tensors only, by position.
        model: the built Keras model whose variables it reads.
        *arrays: NumPy arrays in the shape of the tensors.
    """
    eagerly = _runs_eagerly(model) or keras.backend.backend() == "torch"
    if keras.backend.backend() == "jax" and not eagerly:
        import jax

        stateless, values = _stateless(function, model)
        jax.eval_shape(stateless, values(), *arrays)
        return
    # NumPy's strings have names of their own, such as <U5.
    dtypes = ["string" if x.dtype.kind in "OSU" else str(x.dtype) for x in arrays]
    step = compiled_model_step(function, model, *((x.shape, d) for x, d in zip(arrays, dtypes)))
    if eagerly:
        step(*(keras.ops.convert_to_tensor(x) for x in arrays))


def _runs_eagerly(model) -> bool:
    return bool(getattr(model, "run_eagerly", False))


def in_same_trace(output, root) -> bool:
    """Whether a layer's output belongs to the trace that the model's input belongs to.

    Inside a loop's body, TensorFlow has another graph and JAX another trace; what is computed there
    cannot be used outside. PyTorch traces nothing, but `vmap` wraps its tensors.
    """
    leaves = keras.tree.flatten(output)
    if keras.backend.backend() == "torch":
        import torch

        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return not any(isinstance(leaf, torch.Tensor) and wrapped(leaf) for leaf in leaves)
    return all(
        getattr(leaf, name, None) in (None, getattr(root, name, None))
        for leaf in leaves
        for name in ("graph", "_trace")
    )


def kept_with(model, key, make):
    """What `make()` gives, made once for a model, its layers and a key: compiled steps, mostly.

    It is kept in the model's `__dict__`: not as an attribute, which Keras would track and save, and
    not in a table of ours, which would keep the model alive. Layers and variables added or removed
    since (LoRA, quantization) make a new one; other attributes of layers that are changed later are
    not noticed.
    """
    layers = tuple(id(layer) for layer in model._flatten_layers())
    variables = tuple((id(variable), variable.dtype) for variable in model.variables)
    key = key, layers, variables, _runs_eagerly(model)
    store = vars(model).setdefault("_deformstab_kept", {})
    if key not in store:
        store[key] = make()
    return store[key]


def variable_to_numpy(variable) -> np.ndarray:
    """The value of a Keras variable (or tensor, or array) as a NumPy array.

    `keras.ops.convert_to_numpy` of a TensorFlow variable warns under NumPy 2.
    """
    if isinstance(variable, keras.Variable):
        return np.asarray(variable)
    return keras.ops.convert_to_numpy(variable)
