"""A forward pass of any Keras model, watched: each call of a layer, in the order in which it ends."""

import contextlib
import re
import threading
import weakref
from dataclasses import dataclass

import keras
from keras import ops

from deformstab.backend import in_same_trace

INPUT = "input"  # the name of the first representation, the deformed input itself
OUTPUT = "output"  # that of the model's own output; of several, "output/NAME"
_WATCHING = threading.RLock()  # one thread at a time exchanges __call__


@dataclass(frozen=True)
class Call:
    """A call of a layer that has ended, or what stands for the model's input or output.

    Attributes:
        name: the path of layers that leads to it, "/" between them; a later call of the same layer
            has "#2", "#3", … at its end. A layer that is made within a call has a new automatic
            name each time: it is called by its class.
        key: the same with every automatic name as that of the class, "#2", … counting these: equal
            in two models that one piece of code made.
        automatic: whether there is an automatic name in it.
        layer: the layer, or the operation of a functional model; `None` for input and output.
        output: what it gave; `None` for calls inside traced control flow.
        repeats: of the model's output, whether it is what some layer gave last.
        place: of the model's output, where it stands among several: its key or number.
        arguments: (positional, by name), what the layer was called with.
    """

    name: str
    key: str
    automatic: bool
    layer: object
    output: object
    repeats: bool = False
    place: tuple = ()
    arguments: tuple = ((), {})


@dataclass(frozen=True)
class Instead:
    """What `visit` may return of a call of a layer: an output that takes the place of its own."""

    output: object


def flat_rows(output, batch: int, features: int | None = None, rows: int = 1, order: str = "image"):
    """A layer's output flattened to [batch, features], float32 (float64 if it is); or `None`.

    Args:
        output: a tensor or a structure of them, as the layer returned it.
        batch: the static size of the model's batch axis. An output whose first axis is not of that
            size has no row an image: `None`.
        features: how many entries a row has in batches of other sizes, if that is known. A row of
            another length depends on the batch (similarities within it): `None`.
        rows: of the output's first axis that belong to one image, as windows of attention do.
        order: whether an image's rows are beside each other ("image"), or the first ones of all
            images, then the second ones ("row").
    """
    if rows > 1:
        output = keras.tree.map_structure(lambda x: _folded(x, batch, rows, order), output)
    leaves = [leaf for leaf in keras.tree.flatten(output) if hasattr(leaf, "shape")]
    leaves = [part for leaf in leaves for part in _real_parts(leaf)]
    dtypes = {keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves}
    if not leaves or "string" in dtypes or any(_first_axis(leaf) != batch for leaf in leaves):
        return None
    dtype = "float64" if dtypes == {"float64"} else "float32"
    flat = [ops.cast(ops.reshape(leaf, (batch, -1)), dtype) for leaf in leaves]
    found = flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)
    return found if features in (None, found.shape[1]) else None


def is_ranked(leaf) -> bool:
    """Whether it is a tensor of which a trace can tell the number of axes."""
    try:
        return len(leaf.shape) >= 0
    except (AttributeError, ValueError, TypeError):
        return False


def first_axes(output) -> set:
    """The sizes of the first axes of an output's tensors, `None` for one that has none."""
    leaves = [leaf for leaf in keras.tree.flatten(output) if hasattr(leaf, "shape")]
    return {_first_axis(leaf) for leaf in leaves}


def _folded(x, batch, rows, order):
    """A tensor [batch · rows, …] as [batch, rows, …]; any other as it is."""
    if not hasattr(x, "shape") or _first_axis(x) != batch * rows:
        return x
    if order == "image":
        return ops.reshape(x, (batch, rows, *x.shape[1:]))
    return ops.swapaxes(ops.reshape(x, (rows, batch, *x.shape[1:])), 0, 1)


def _first_axis(leaf) -> int | None:
    """The size of a tensor's first axis; `None` if it has none or no trace can tell."""
    try:
        return leaf.shape[0]
    except (IndexError, ValueError):  # a scalar; TensorFlow's shape of unknown rank
        return None


def _real_parts(leaf) -> list:
    """The tensor, or the two parts of a complex one: a cast would drop the imaginary part."""
    if "complex" in keras.backend.standardize_dtype(leaf.dtype):
        return [ops.real(leaf), ops.imag(leaf)]
    return [leaf]


class _Enough(BaseException):
    """Ends a forward pass early. Not an `Exception`: Keras and users' layers catch those."""


def watch(model, inputs, root, visit) -> None:
    """Calls `model` in inference mode and shows each layer's output to `visit`.

    Keras gives symbolic outputs of functional models only; what every layer has in common is that
    it is called. So `Layer.__call__` is watched, in this thread, while the model runs, and that of
    the operations that a functional model has between its layers.

    Args:
        model: any Keras model.
        inputs: what it takes.
        root: the tensor of `inputs` that is deformed; the first one shown, as "input".
        visit: called with a `Call`, in the order in which the calls end, and with output `None`
            (once a layer) for calls inside traced control flow; at the end with the model's
            outputs. The pass ends, with what comes after not computed, when it returns `True`, and
            goes on with another output of the layer when it returns that as `Instead`.
    """
    watcher = _Watcher(model, root, visit)
    with watcher.watching(), contextlib.suppress(_Enough):
        watcher.show(INPUT, INPUT, False, None, root)
        watcher.show_outputs(model(inputs, training=False))


class _Watcher:
    def __init__(self, model, root, visit):
        self.model, self.root, self.visit = model, root, visit
        self.thread = threading.get_ident()
        self.path, self.names, self.keys, self.looped = [], {}, {}, set()
        # Layers that the model knows keep their names; one that is made within a call does not.
        self.known = {id(layer) for layer in model._flatten_layers()}
        self.steps = {}  # id of a functional model → ids of its operations
        self.seen = {}  # id → a reference to what a layer gave

    def show(self, name, key, automatic, layer, output, **more):
        names = _numbered(name, self.names), _numbered(key, self.keys), automatic
        call = Call(*names, layer, output, **more)
        if layer is None or isinstance(layer, keras.layers.Layer):
            for leaf in keras.tree.flatten(output):
                self.seen[id(leaf)] = _reference(leaf)
        answer = self.visit(call)
        if isinstance(answer, Instead):
            return answer.output
        if answer:
            raise _Enough
        return output

    def show_outputs(self, outputs):
        names = getattr(self.model, "output_names", None) or []
        for place, leaf in keras.tree.flatten_with_path(outputs):
            path = place
            if len(place) == 1 and isinstance(place[0], int) and place[0] < len(names):
                path = (names[place[0]],)
            name = "/".join([OUTPUT, *map(str, path)])
            repeats = self.seen.get(id(leaf), lambda: None)() is leaf
            self.show(name, name, False, None, leaf, repeats=repeats, place=tuple(place))

    def called(self, layer, original, args, kwargs):
        if layer is self.model or threading.get_ident() != self.thread:
            return original(layer, *args, **kwargs)
        self.path.append(layer)
        try:
            output = original(layer, *args, **kwargs)
            name = "/".join(map(self._name, self.path))
            key = "/".join(map(_key, self.path))
            automatic = any(map(_is_automatic, self.path))
        finally:
            self.path.pop()
        # An RNN calls its cell before the loop as well, to learn its shapes; PyTorch loops in Python.
        inside = any(isinstance(each, keras.layers.RNN) for each in self.path)
        if not inside and in_same_trace(output, self.root):
            output = self.show(name, key, automatic, layer, output, arguments=(args, kwargs))
        elif name not in self.looped:
            self.looped.add(name)
            self.show(name, key, automatic, layer, None)
        return output

    def _name(self, layer):
        if id(layer) in self.known or not isinstance(layer, keras.layers.Layer):
            return layer.name
        return _key(layer)

    def _is_step(self, operation) -> bool:
        """Whether it is a step of a functional model's own, not of the code of a layer."""
        parent = self.path[-1] if self.path else self.model
        if not isinstance(parent, keras.Function):
            return False
        if id(parent) not in self.steps:
            self.steps[id(parent)] = {id(each) for each in parent.operations}
        return id(operation) in self.steps[id(parent)]

    @contextlib.contextmanager
    def watching(self):
        def layer_called(layer, *args, **kwargs):
            return self.called(layer, call_layer, args, kwargs)

        def operation_called(operation, *args, **kwargs):
            if isinstance(operation, keras.layers.Layer) or not self._is_step(operation):
                return call_operation(operation, *args, **kwargs)
            return self.called(operation, call_operation, args, kwargs)

        with _WATCHING:  # before them, or what another thread has put there would be put back
            call_layer, call_operation = keras.layers.Layer.__call__, keras.Operation.__call__
            keras.layers.Layer.__call__ = layer_called
            keras.Operation.__call__ = operation_called
            try:
                yield
            finally:
                keras.layers.Layer.__call__ = call_layer
                keras.Operation.__call__ = call_operation


def _is_automatic(layer) -> bool:
    """Whether a layer's name is the one that Keras makes of its class and a counter."""
    return re.fullmatch(rf"{_of_class(layer)}(_\d+)?", layer.name) is not None


def _key(layer) -> str:
    return _of_class(layer) if _is_automatic(layer) else layer.name


def _of_class(layer) -> str:
    """The class' name as Keras writes it in automatic names."""
    name = re.sub(r"\W+", "", type(layer).__name__)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _numbered(name: str, taken: dict) -> str:
    """The name, or with "#2", … what tells it from those before. Plainly: AutoGraph rewrites it where
    a user's `tf.function` calls a layer."""
    count = taken.get(name, 0) + 1
    numbered = name if count == 1 else f"{name}#{count}"
    while numbered in taken and count > 1:  # a layer may have such a name of its own
        count += 1
        numbered = f"{name}#{count}"
    taken[name] = count
    taken.setdefault(numbered, 1)
    return numbered


def _reference(leaf):
    try:
        return weakref.ref(leaf)
    except TypeError:
        return lambda: leaf
