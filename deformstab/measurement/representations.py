"""What any Keras model computes at each layer, in the order in which it computes it."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from deformstab.backend import kept_with, trace_model
from deformstab.measurement.watching import INPUT, OUTPUT, first_axes, flat_rows, is_ranked, watch
from deformstab.measurement.windows import with_orders

# What selects layers: names and patterns, layers, their classes, functions of a layer; a list of these.
LayerSelector = str | keras.layers.Layer | type | Callable[[Any], bool]
LayerSelection = LayerSelector | Sequence[LayerSelector] | None
# Of the trace that lists the layers; and, where an axis has the batch's size by chance or because it
# is the batch, of a second one: what has rows of one length in both has them in every batch.
_BATCHES = 5, 7

NO_ROWS = "the output has no row for each image"
TRACED = (
    "called inside traced control flow (a while loop, a scan, the steps of an RNN, a function "
    "compiled by itself), whose inner values cannot be read"
)


@dataclass(frozen=True)
class Representation:
    """The output of one call of one layer, as a trace of the model found it.

    Attributes:
        name, key, automatic: of the call, as `watching.Call` has them.
        layer: the layer or operation, `None` for the model's input and output.
        features: entries of a row, an image's flattened output; `None` if no trace can tell.
        itemsize: bytes of one.
        peak_bytes: an image's largest representation up to here.
        note: why it cannot be measured, or "".
        rows: how many of the output's rows belong to one image; more than one for windows.
        order: how they lie, as for `watching.flat_rows`.
        repeats: whether it is the model's output and some layer's as well: measured if asked for.
        shape: of a row, where the output is one tensor.
        place: of the model's output, where it stands among several: its key or number.
    """

    name: str
    layer: object
    features: int | None = 0
    itemsize: int = 4
    peak_bytes: int = 0
    note: str = ""
    key: str = ""
    automatic: bool = False
    rows: int = 1
    order: str = "image"
    repeats: bool = False
    shape: tuple | None = None
    place: tuple = ()

    @property
    def layer_type(self) -> str:
        if self.layer is not None:
            return type(self.layer).__name__
        return "InputLayer" if self.name == INPUT else "Output"

    def flat_rows(self, output, batch: int):
        """An output of this layer as [batch, features]; `None` if it is not as the trace found it."""
        return flat_rows(output, batch, self.features, self.rows, self.order)


def representations(model, images) -> list[Representation]:
    """All representations of a model for inputs of some shapes: what `measure_sensitivity` plans by.

    Args:
        model: any Keras model, built.
        images: `DeformedImages`; their number does not matter.
    """

    def trace():
        found, may_depend = _traced(model, images, _BATCHES[0])
        if may_depend:
            second, _ = _traced(model, images, _BATCHES[1])
            if len(found) == len(second):
                found = [
                    a if a.note or _alike(a, b) else dataclasses.replace(a, note=NO_ROWS)
                    for a, b in zip(found, second)
                ]
        return found

    shapes = ((x.shape[1:], str(x.dtype)) for x in images.inputs)
    key = ("representations", images.place, str(images.structure), *shapes)
    return with_orders(model, images, kept_with(model, key, trace), key)


def _alike(first, second) -> bool:
    """Whether a representation has as many entries in batches of two sizes."""
    return not second.note and (first.features, first.rows) == (second.features, second.rows)


def _traced(model, images, batch: int) -> tuple[list[Representation], bool]:
    """The representations as a batch of some size shows them; whether one may depend on the size."""
    found, pack, place = [], images.pack, images.place
    may_depend = False

    def list_layers(*tensors):
        nonlocal may_depend
        found.clear()
        peak = 0

        def visit(call):
            nonlocal peak, may_depend
            named = {"name": call.name, "key": call.key, "automatic": call.automatic}
            named["layer"] = call.layer
            if call.output is None:
                found.append(Representation(**named, note=TRACED))
                return
            windows = _windows(call.output, batch)
            may_depend = may_depend or windows > 1 or _has_another_axis(call.output, batch)
            rows = flat_rows(call.output, batch, rows=windows)
            features = 0 if rows is None else rows.shape[1]
            if features == 0:
                found.append(Representation(**named, note=NO_ROWS))
                return
            itemsize = 8 if keras.backend.standardize_dtype(rows.dtype) == "float64" else 4
            peak = max(peak, (features or 0) * itemsize)
            sizes = {"features": features, "itemsize": itemsize, "peak_bytes": peak}
            if hasattr(call.output, "shape"):
                sizes["shape"] = tuple(call.output.shape[1:])
            found.append(
                Representation(
                    **named, **sizes, rows=windows, repeats=call.repeats, place=call.place
                )
            )

        watch(model, pack(list(tensors)), tensors[place], visit)
        return tensors[place]

    some = [index % len(images) for index in range(batch)]
    try:
        trace_model(list_layers, model, *(each[some] for each in images.inputs))
    except Exception as error:
        sizes = {x.shape[0] for x in getattr(model, "inputs", None) or []} - {None}
        if not sizes:
            raise
        raise ValueError(
            f"the model was built for batches of {sizes.pop()} (by batch_shape) and failed "
            f"with one of {batch}; a measurement takes batches of several sizes: {error}"
        ) from error
    return list(found), may_depend


def _has_another_axis(output, batch: int) -> bool:
    """Whether any axis but the first one is as long as the batch."""
    ranks = ((leaf, len(leaf.shape)) for leaf in keras.tree.flatten(output) if is_ranked(leaf))
    return any(batch in (leaf.shape[axis] for axis in range(1, rank)) for leaf, rank in ranks)


def _windows(output, batch: int) -> int:
    """How many rows an image has, where all tensors have one and the same multiple of the batch."""
    (size, *others) = first_axes(output) or {None}
    if others or size is None or size % batch:
        return 1
    return max(1, size // batch)


def read_once(layers):
    """What selects layers, for use again and again: several as a list, for a generator has an end."""
    several = isinstance(layers, Iterable) and not isinstance(layers, (str, bytes))
    return list(layers) if several else layers


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
        return [each for each in found if not each.repeats]
    layers = read_once(layers)
    selectors = layers if isinstance(layers, list) else [layers]
    names = [each.name for each in found if not each.repeats]
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


def matching(found: list[Representation], selectors: list) -> list:
    """Those of several selectors that match a representation."""
    return [each for each in selectors if any(_matches(one, each) for one in found)]


def _some(names) -> str:
    """Names in a row, of many the first and the last."""
    if len(names) > 40:
        names = [*names[:15], f"… {len(names) - 30} more …", *names[-15:]]
    return ", ".join(names)


def _matches(each: Representation, selector) -> bool:
    if each.repeats and not (isinstance(selector, str) and selector.startswith(OUTPUT)):
        return False  # only where the output is named: "*" means each representation once
    if isinstance(selector, str):
        return each.name == selector or fnmatch.fnmatchcase(each.name, selector)
    if isinstance(selector, keras.layers.Layer):
        return each.layer is selector
    if isinstance(selector, type):
        named = each.name == INPUT and selector is keras.layers.InputLayer
        return named or isinstance(each.layer, selector)
    if not callable(selector):
        raise ValueError(
            "layers takes names, patterns, layers, layer classes or a function of a layer, received "
            f"{selector!r}"
        )
    return isinstance(each.layer, keras.layers.Layer) and bool(selector(each.layer))
