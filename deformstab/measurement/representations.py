"""What any Keras model computes at each layer, in the order in which it computes it."""

import contextlib
import difflib
import fnmatch
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from deformstab.backend import in_same_trace, kept_with, trace_model

# What selects layers: names and patterns, layers, their classes, functions of a layer; a list of these.
LayerSelector = str | keras.layers.Layer | type | Callable[[Any], bool]
LayerSelection = LayerSelector | Sequence[LayerSelector] | None
INPUT = "input"  # the name of the first representation, the deformed input itself
_BATCH = 5  # of the trace that lists the layers; a rare size for an axis that is no batch
_WATCHING = threading.RLock()  # one thread at a time exchanges Layer.__call__

NO_ROWS = "the output has no row for each image"
TRACED = (
    "called inside traced control flow (a while loop, a scan, the steps of an RNN, a function "
    "compiled by itself), whose inner values cannot be read"
)


@dataclass(frozen=True)
class Representation:
    """The output of one call of one layer, as a trace of the model found it.

    Attributes:
        name: the path of layers that leads to it, "/" between them; a later call of the same layer
            has "#2", "#3", … at its end.
        layer: the layer, `None` for the input.
        features: entries of a row, an image's flattened output; `None` if no trace can tell.
        itemsize: bytes of one.
        peak_bytes: an image's largest representation up to here.
        note: why it cannot be measured, or "".
    """

    name: str
    layer: object
    features: int | None = 0
    itemsize: int = 4
    peak_bytes: int = 0
    note: str = ""

    @property
    def layer_type(self) -> str:
        return "InputLayer" if self.layer is None else type(self.layer).__name__


def flat_rows(output, batch: int):
    """A layer's output flattened to [batch, features], float32 (float64 if it is); or `None`.

    Args:
        output: a tensor or a structure of them, as the layer returned it.
        batch: the static size of the model's batch axis. An output whose first axis is not of that
            size has no row an image: `None`.
    """
    leaves = [leaf for leaf in keras.tree.flatten(output) if hasattr(leaf, "shape")]
    leaves = [part for leaf in leaves for part in _real_parts(leaf)]
    dtypes = {keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves}
    if not leaves or "string" in dtypes or any(_first_axis(leaf) != batch for leaf in leaves):
        return None
    dtype = "float64" if dtypes == {"float64"} else "float32"
    flat = [ops.cast(ops.reshape(leaf, (batch, -1)), dtype) for leaf in leaves]
    return flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)


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
    it is called. So `Layer.__call__` is watched, in this thread, while the model runs.

    Args:
        model: any Keras model.
        inputs: what it takes.
        root: the tensor of `inputs` that is deformed; the first one shown, as "input".
        visit: called with (name, layer, output), in the order in which the calls end, and with
            output `None` (once a layer) for calls inside traced control flow. The pass ends, with
            what comes after not computed, when it returns `True`.
    """
    with _watched(model, root, visit), contextlib.suppress(_Enough):
        if visit(INPUT, None, root):
            raise _Enough
        model(inputs, training=False)


@contextlib.contextmanager
def _watched(model, root, visit):
    thread = threading.get_ident()
    path, taken, looped = [], {INPUT}, set()

    def unused(name):  # plainly: AutoGraph rewrites it where a user's `tf.function` calls a layer
        count, numbered = 1, name
        while numbered in taken:
            count += 1
            numbered = f"{name}#{count}"
        taken.add(numbered)
        return numbered

    def call(layer, *args, **kwargs):
        if layer is model or threading.get_ident() != thread:
            return original(layer, *args, **kwargs)
        path.append(layer)
        try:
            output = original(layer, *args, **kwargs)
            name = "/".join(each.name for each in path)
        finally:
            path.pop()
        # An RNN calls its cell before the loop as well, to learn its shapes; PyTorch loops in Python.
        inside = any(isinstance(each, keras.layers.RNN) for each in path)
        if inside or not in_same_trace(output, root):
            if name not in looped:
                looped.add(name)
                visit(unused(name), layer, None)
        elif visit(unused(name), layer, output):
            raise _Enough
        return output

    with _WATCHING:
        original = keras.layers.Layer.__call__
        keras.layers.Layer.__call__ = call
        try:
            yield
        finally:
            keras.layers.Layer.__call__ = original


def representations(model, images) -> list[Representation]:
    """All representations of a model for inputs of some shapes: what `measure_sensitivity` plans by.

    Args:
        model: any Keras model, built.
        images: `DeformedImages`; their number does not matter.
    """
    found, pack, place = [], images.pack, images.place

    def list_layers(*tensors):
        found.clear()
        peak = 0

        def visit(name, layer, output):
            nonlocal peak
            if output is None:
                found.append(Representation(name, layer, note=TRACED))
                return
            rows = flat_rows(output, _BATCH)
            features = 0 if rows is None else rows.shape[1]
            if features == 0:
                found.append(Representation(name, layer, note=NO_ROWS))
                return
            itemsize = 8 if keras.backend.standardize_dtype(rows.dtype) == "float64" else 4
            peak = max(peak, (features or 0) * itemsize)
            found.append(Representation(name, layer, features, itemsize, peak))

        watch(model, pack(list(tensors)), tensors[place], visit)
        return tensors[place]

    def trace():
        some = [index % len(images) for index in range(_BATCH)]
        try:
            trace_model(list_layers, model, *(each[some] for each in images.inputs))
        except Exception as error:
            sizes = {x.shape[0] for x in getattr(model, "inputs", None) or []} - {None}
            if not sizes:
                raise
            raise ValueError(
                f"the model was built for batches of {sizes.pop()} (by batch_shape) and failed "
                f"with one of {_BATCH}; a measurement takes batches of several sizes: {error}"
            ) from error
        return list(found)

    shapes = ((x.shape[1:], str(x.dtype)) for x in images.inputs)
    key = ("representations", place, str(images.structure), *shapes)
    return kept_with(model, key, trace)


def select(found: list[Representation], layers) -> list[Representation]:
    """The representations asked for, in the model's order.

    Args:
        found: all there are.
        layers: `None` for all; or a name, a pattern (`"block*_conv?"`; `*` matches "/" as well), a
            layer, a layer class, a function of a layer that returns whether to take it; or several
            of these.

    Raises:
        ValueError: one of them matches nothing, or there is none.
    """
    if layers is None:
        return found
    several = isinstance(layers, Iterable) and not isinstance(layers, (str, bytes))
    selectors = list(layers) if several else [layers]
    names = [each.name for each in found]
    if not selectors:
        raise ValueError(f"layers is empty; pass None for all layers, or some of {_some(names)}")
    chosen, unknown = set(), []
    for selector in selectors:
        matches = [place for place, each in enumerate(found) if _matches(each, selector)]
        chosen.update(matches)
        if not matches:
            unknown.append(getattr(selector, "__name__", getattr(selector, "name", selector)))
    if unknown:
        near = [name for each in unknown for name in difflib.get_close_matches(str(each), names)]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"unknown layers {unknown}; this model has {_some(names)}{hint}")
    return [found[place] for place in sorted(chosen)]


def _some(names) -> str:
    """Names in a row, of many the first and the last."""
    if len(names) > 40:
        names = [*names[:15], f"… {len(names) - 30} more …", *names[-15:]]
    return ", ".join(names)


def _matches(each: Representation, selector) -> bool:
    if isinstance(selector, str):
        return each.name == selector or fnmatch.fnmatchcase(each.name, selector)
    if isinstance(selector, keras.layers.Layer):
        return each.layer is selector
    if isinstance(selector, type):
        named = each.layer is None and selector is keras.layers.InputLayer
        return named or isinstance(each.layer, selector)
    if not callable(selector):
        raise ValueError(
            "layers takes names, patterns, layers, layer classes or a function of a layer, received "
            f"{selector!r}"
        )
    return each.layer is not None and bool(selector(each.layer))
