"""How far deformations move each layer of a model, and how far apart its images are: exactly, in
bounded memory. Every number about representations is a summary of what this gives."""

import math
import warnings
from dataclasses import dataclass, field

import keras
import numpy as np

from deformstab.backend import kept_with
from deformstab.checks import check_model
from deformstab.measurement.forward import batches
from deformstab.measurement.pairs import pair_squares
from deformstab.measurement.passes import planned_passes
from deformstab.measurement.representations import NO_ROWS, Representation, representations, select

MEMORY_LIMIT = 2 * 2**30  # bytes
_PATIENCE = 3  # seconds until a progress bar appears
# Shares of the memory limit: a forward pass, counting pairs. Rows that wait for theirs have the rest.
_FORWARD, _PAIRS = 0.1, 0.05


@dataclass
class LayerDistances:
    """What was measured of one representation, by one metric.

    Attributes:
        representation: of which.
        metric: "cosine" or "euclidean".
        note: why there is nothing, or "".
        apart: [images, draws], distances of each image to its deformed selves.
        pairs: [images, images], distances between images; symmetric.
        length: of the longest representation.
        others: what else was reduced (`equivariance.Moving`): key → [images, draws].
    """

    representation: Representation
    metric: str
    note: str = ""
    apart: np.ndarray | None = None
    pairs: np.ndarray | None = None
    length: float = np.nan
    others: dict = field(default_factory=dict)


def measured_layers(model, images, layers, metric, batch_size, memory_limit, progress, moving=None):
    """Plans and measures the layers of a model with a progress bar.

    Args:
        model: any Keras model, built or not.
        images: `DeformedImages`.
        layers, batch_size, memory_limit, progress: as for `measure_sensitivity`.
        metric: "cosine" or "euclidean", or a tuple of both.
        moving: (`Representation`s) → (what to measure of them, what else to reduce).

    Returns:
        An iterator over (number of the row, `LayerDistances`), for each metric, in any order.
    """
    build(model, images)
    found = representations(model, images)
    chosen, more = select(found, layers), None
    if moving:
        chosen, more = moving(chosen)

    def measure():
        with progress_bar(progress) as bar:
            yield from layer_distances(
                model,
                images,
                chosen,
                (metric,) if isinstance(metric, str) else tuple(metric),
                batch_size,
                memory_limit,
                # Shares add up to one but for rounding, and tqdm warns of more.
                lambda share: bar.update(min(100 * share, bar.total - bar.n)),
                more,
            )

    return measure()


def build(model, images) -> None:
    """Builds a model that is not yet, by a call: not every model can be built from a shape.

    A built model may have layers that are not, and JAX cannot make their weights in a trace. If
    there are some after a call, the model does not use them.

    Raises:
        ValueError: as `check_takes`.
    """
    check_takes(model, images)
    if isinstance(model, keras.Sequential) and not model.built and len(images.inputs) == 1:
        model.build((None, *images.inputs[0].shape[1:]))  # a call would fix its batch size at 1
    inner = [each for each in model._flatten_layers(include_self=False) if not each.built]
    if not model.built or any(type(x).build is not keras.layers.Layer.build for x in inner):
        some = images.pack(images.tensors(slice(0, 1)))
        kept_with(model, "called", lambda: model(some, training=False) is not None)


def check_takes(model, images, whole: bool | None = None) -> None:
    """Refuses a model that does not take such images as they are.

    Args:
        model: a Keras model.
        images: `DeformedImages`.
        whole: whether all pixels stay integers where they are; by default what perturbations say.

    Raises:
        ValueError: it is no Keras model, takes images where videos come, or integers where pixels
            become fractions.
    """
    check_model(model)
    own = _input_of(model, images)
    shape = images.inputs[images.place].shape
    if own is not None and len(shape) == 5 and len(own.shape) == 4:  # videos have models
        raise ValueError(
            f"images must be a batch as the model takes it, {tuple(own.shape)}, received shape {shape}"
        )
    if whole is None:
        whole = all(getattr(each, "whole", False) for each in images.perturbations)
    if whole:
        return
    # Keras casts without a word: pixels would be cut, noise below zero wrap, gradients be zero.
    for each in [*([] if own is None else [own]), *_inner_inputs(model, shape)]:
        if not keras.backend.is_float_dtype(each.dtype):
            raise ValueError(
                f"the model takes images as {each.dtype} (its input {each.name!r}), which deformed "
                "pixels and noise, being fractions, would be cut to: make one of a float input, by "
                "keras.models.clone_model(model, input_tensors=keras.Input(…)) and set_weights"
            )


def _inner_inputs(model, shape) -> list:
    """Those of models within a model that take what has the shape of its images."""
    inner = [x for x in model._flatten_layers(include_self=False) if isinstance(x, keras.Model)]
    taken = [x for each in inner for x in keras.tree.flatten(getattr(each, "inputs", None) or [])]
    return [
        each
        for each in taken
        if len(each.shape) == len(shape)
        and all(x in (None, y) for x, y in zip(each.shape[1:], shape[1:]))
    ]


def _input_of(model, images):
    """The model's tensor that the images to be moved come in as; `None` if it has none yet."""
    taken = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if isinstance(images.structure, dict):  # which a model of a list takes, too, by names
        keys = [key for key, place in images.structure.items() if place == images.place]
        named = [each for each in taken if each.name in keys]
        if len(named) == 1:
            return named[0]
    return taken[images.place] if len(taken) == len(images.inputs) else None


def progress_bar(shown: bool, what: str = "sensitivity"):
    """A bar that appears when it takes long: in a notebook one of its widgets, if it has them."""
    with warnings.catch_warnings():
        # Without ipywidgets tqdm says so and draws a bar of text, which is what is wanted.
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm  # here: it looks for a notebook

    return tqdm(
        total=100,
        desc=what,
        unit="%",
        delay=_PATIENCE,
        disable=not shown,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        leave=False,
    )


def layer_distances(
    model, images, layers, metrics, batch_size, memory_limit, progress, moving=None
):
    """Measures representations of a model: all images, all draws, all pairs.

    Deformed representations are reduced to distances inside the compiled call. Pairs need the rows
    of all images at once. Most of the limit holds them, for as many layers as fit, from the last
    one backwards; the others get passes of their own over the undeformed images. Such a pass ends
    at the layer it is for, so it is short: large layers are the first ones. Squares of distances
    add up over entries, so that a layer that does not fit comes in parts.

    Args:
        model: any Keras model, built.
        images: `DeformedImages`.
        layers: `Representation`s, in the model's order.
        metrics: of "cosine" and "euclidean", a tuple.
        batch_size: images a forward pass, as many deformed ones beside them.
        memory_limit: bytes of activations.
        progress: called after each forward pass with the share of all work that it was.
        moving: as for `forward.batches`.

    Yields:
        (place in `layers`, `LayerDistances`), for each metric, in any order.
    """
    count, memory_limit = len(images), min(memory_limit, 1 << 60)  # infinity has no whole parts
    measurable = [each for each in layers if not each.note]
    copies = moving.copies if moving else 1
    passes = planned_passes(measurable, count, memory_limit, copies)
    memory_limit /= copies
    work = count * (len(passes) + 2 * images.draws)  # to deform costs about what a pass does

    def run(measured, spans, deform):
        limits = metrics, batch_size, _FORWARD * memory_limit, deform, moving
        for batch in batches(model, images, measured, spans, *limits):
            progress(len(batch.images) * (bool(batch.rows) + 2 * len(batch.draws)) / work)
            yield batch

    places = {each.name: place for place, each in enumerate(layers)}
    for each in layers:
        if each.note:
            yield from ((places[each.name], LayerDistances(each, m, each.note)) for m in metrics)
    keys = (*metrics, *(moving.keys(metrics) if moving else ()))
    empty = {"shape": (count, images.draws), "fill_value": np.nan}
    apart = {each.name: {key: np.full(**empty) for key in keys} for each in measurable}
    lengths = {each.name: np.full((count, 1 + images.draws), np.nan) for each in measurable}
    kept = {}
    for batch in run(measurable, passes[0] if passes else {}, deform=True):
        here = batch.images[:, None]
        for name, by_metric in batch.apart.items():
            for metric, distances in by_metric.items():
                apart[name][metric][here, batch.draws] = distances
            lengths[name][here, [0, *(1 + batch.draws)]] = batch.lengths[name]
        _collect(kept, batch)
    found = {}  # name → its `LayerDistances` whose pairs are not yet counted
    for each in measurable:
        missing = each.name in batch.missing
        for metric in metrics:
            note = NO_ROWS if missing else _what_is_broken(lengths[each.name], metric)
            layer = LayerDistances(each, metric, note, apart[each.name][metric])
            layer.others = {key: apart[each.name][key] for key in keys[len(metrics) :]}
            layer.length = lengths[each.name].max()
            if note:
                yield places[each.name], layer
            else:
                found.setdefault(each.name, []).append(layer)

    squares = {}
    for number, spans in enumerate(passes):
        spans = {name: span for name, span in spans.items() if name in found}
        if number and spans:
            some = [found[name][0].representation for name in spans]
            for batch in run(some, spans, deform=False):
                _collect(kept, batch)
        for name, (_, stop) in spans.items():
            rows, whole = kept.pop(name), stop == found[name][0].representation.features
            for layer in found[name]:
                scales = np.full(count, layer.length or 1.0)
                if layer.metric == "cosine":
                    scales = lengths[name][:, 0]
                more = pair_squares(rows, scales, _PAIRS * memory_limit)
                key = name, layer.metric
                squares[key] = squares.get(key, 0) + more
            del rows  # before anything else is computed
            for layer in found.pop(name) if whole else ():
                total = squares.pop((name, layer.metric))
                cosine, scale = layer.metric == "cosine", layer.length or 1.0
                layer.pairs = 0.5 * total if cosine else np.sqrt(total) * scale
                yield places[name], layer
        kept.clear()


def _collect(kept: dict, batch) -> None:
    for name, rows in batch.rows.items():
        kept.setdefault(name, []).append(rows)


def _what_is_broken(lengths, metric) -> str:
    """Of the lengths of representations [images, 1 + draws]: a note, or ""."""
    broken = f"representation for {{}} of {math.prod(lengths.shape)} images, deformed or not"
    if not np.isfinite(lengths).all():
        return "non-finite " + broken.format((~np.isfinite(lengths)).sum())
    if metric == "cosine" and (lengths == 0).any():
        return "zero " + broken.format((lengths == 0).sum()) + ": it has no direction"
    return ""
