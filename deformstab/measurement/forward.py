"""Forward passes over images and their deformed selves, reduced to distances on the way."""

import functools
import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled_model_step, kept_with
from deformstab.backend_tensors import copy_of_rows, split_rows
from deformstab.measurement.distances import careful_distances, quick_distances, three_sums
from deformstab.measurement.passes import widths_of
from deformstab.measurement.watching import watch

_WORKSPACE = 3  # tensors of the largest layer's size that a forward pass has in memory at once


@dataclass(frozen=True)
class Batch:
    """What a forward pass gives.

    Attributes:
        images: [b], indices.
        draws: [d], indices; none if nothing was deformed.
        apart: name → metric → [b, d], distances of an image to its deformed selves.
        lengths: name → float64 [b, 1 + d], of the representations, the image's own first; NaN if an
            entry is not finite.
        rows: name → [b, entries], of the images.
        missing: names of what has no row for each image after all.
    """

    images: np.ndarray
    draws: np.ndarray
    apart: dict
    lengths: dict
    rows: dict
    missing: set


def batches(model, images, layers, spans, metrics, batch_size, memory, deform, moving=None):
    """Runs a model over images, and over their deformed selves beside them.

    Args:
        model: any Keras model, built.
        images: `DeformedImages`.
        layers: the `Representation`s to measure.
        spans: name → (start, stop), which entries of which representations to give as rows.
        metrics: of "cosine" and "euclidean", a tuple.
        batch_size: images a forward pass, as many deformed ones beside them.
        memory: bytes that a pass may take, by a rough estimate.
        deform: whether to deform images; without, the pass is for rows only, and ends with them.
        moving: what else to reduce of layers whose units lie on a map of the image
            (`equivariance.Moving`); its keys stand beside the metrics in `Batch.apart`.

    Yields:
        `Batch`es. All draws of an image come with it, in one batch or several.
    """
    most = most_at_once(layers, memory)
    names = tuple(each.name for each in layers) if deform else ()
    found = {each.name: each for each in layers}
    careful = frozenset()
    for part in parts(images, batch_size, most, deform):
        keep, starts = widths_of(spans if part.first else {}, found)
        flows = moving.flows(images, *part.where) if moving and deform else []
        given = *part.inputs, *part.moved, *flows
        given += (ops.convert_to_tensor(starts, "int32"),) if starts else ()
        while True:
            options = names, keep, metrics, careful, moving, flows
            step = _step(model, images, part.inputs, part.draws_at_once, found, *options)
            sums, distances, rows = step(*given)
            apart, lengths, far = _distances(sums, distances, metrics)
            if not far:
                break
            careful |= far  # for the parts to come as well
        yield Batch(
            part.images,
            part.draws,
            {
                name: {metric: part.cut(x) for metric, x in by_metric.items()}
                for name, by_metric in apart.items()
            },
            {name: _length(*(part.cut(x, 1) for x in of)) for name, of in lengths.items()},
            {name: part.head(x) for name, x in rows.items()},
            {name for name in names if name not in apart},
        )


def _distances(sums, careful, metrics) -> tuple[dict, dict, set]:
    """What a pass gives of each layer, from what the compiled step gave.

    Args:
        sums: name → what is compared ("", or of `moving`) → sums of `three_sums`.
        careful: name → the same → what `careful_distances` gave.
        metrics: which.

    Returns:
        Distances: name → metric, or what is compared with the metric → [images, draws]; lengths; names
        of layers of which the sums do not tell distances.
    """
    apart, lengths, far = {}, {}, set()
    for name, compared in (sums | careful).items():
        apart[name] = {}
        for what, found in compared.items():
            if name in careful:
                distances, squares = found
            else:
                distances, squares, ordinary = quick_distances(found, metrics)
                far |= set() if ordinary else {name}
            keys = [f"{what}/{metric}" if what else metric for metric in metrics]
            apart[name] |= dict(zip(keys, distances))
            if not what:
                lengths[name] = squares
    return apart, lengths, far


def _length(squares, scales=1.0):
    """Which may not be a float32."""
    return scales * np.sqrt(squares, dtype=float)


def most_at_once(layers, memory) -> int:
    """Images of both sorts in a pass that takes so many bytes, by a rough estimate.

    Args:
        layers: the `Representation`s up to which the model is computed.
        memory: bytes.
    """
    largest = max([each.peak_bytes for each in layers], default=0)
    return max(1, int(min(memory, 1 << 60) / (_WORKSPACE * largest + 1)))


@dataclass(frozen=True)
class Part:
    """Images and some of their deformed selves, of the same sizes in every part.

    Attributes:
        images: [b], the indices that count; further rows fill it up.
        draws: [d], the same for draws.
        draws_at_once: with those that fill it up.
        inputs: the model's inputs, tensors [b or more, …].
        moved: [] or one tensor [b · d or more, …], deformed images.
        where: (indices of images, of draws) of all of them, those that fill it up included.
        first, last: whether these images come for the first time, for the last.
    """

    images: np.ndarray
    draws: np.ndarray
    draws_at_once: int
    inputs: list
    moved: list
    where: tuple
    first: bool
    last: bool

    def head(self, x):
        """What counts of a result for each image, the tensor itself if that is all."""
        return x if len(self.images) == x.shape[0] else x[: len(self.images)]

    def cut(self, x, before: int = 0) -> np.ndarray:
        """What counts of a result for each image and draw, as [images, before + draws]."""
        x = ops.convert_to_numpy(x).reshape(len(self.inputs[0]), -1)
        return x[: len(self.images), : before + len(self.draws)]


def parts(images, batch_size: int, most: int, deform: bool = True):
    """Cuts images and draws into equal parts.

    Sizes are static in a compiled step; what is missing in the last part is filled up with images
    and draws that were there before.

    Args:
        images: `DeformedImages`.
        batch_size: images a part, as many deformed ones beside them.
        most: images of both sorts at most.
        deform: whether to deform.

    Yields:
        `Part`s. All draws of an image come with it, in one part or several.
    """
    draws = images.draws if deform else 0
    slices = math.ceil(draws / max(1, min(draws, batch_size, most - 1))) if deform else 1
    at_once = math.ceil(draws / slices)
    count = (
        min(batch_size // at_once, most // (1 + at_once)) if deform else min(most, 2 * batch_size)
    )
    count = min(max(1, count), len(images))
    count = math.ceil(len(images) / math.ceil(len(images) / count))
    for start in range(0, len(images), count):
        now = np.arange(start, start + count)
        inputs = images.tensors(now % len(images))
        for number in range(slices):
            few = np.arange(number * at_once, (number + 1) * at_once)
            moved, where = [], ()
            if deform:
                where = now % len(images), few % draws
                moved = [images.deformed(inputs[images.place], *where)]
            counted = now[now < len(images)], few[few < draws]
            turn = number == 0, number == slices - 1
            yield Part(*counted, at_once, inputs, moved, where, *turn)


def joined(inputs, moved, place) -> list:
    """Inputs of one forward pass for images and deformed images both: the same kernels for them."""
    draws = moved.shape[0] // inputs[0].shape[0]
    return [
        ops.concatenate([x, moved if number == place else ops.repeat(x, draws, axis=0)])
        for number, x in enumerate(inputs)
    ]


def _step(model, images, inputs, draws, found, names, widths, metrics, careful, moving, flows):
    """The compiled step for these sizes, kept with the model."""
    sizes = tuple((tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in inputs)
    wanted = tuple(
        (each.name, each.features, each.rows, each.order)
        for each in map(found.get, dict.fromkeys([*names, *dict(widths)]))
    )
    key = (
        "forward",
        images.place,
        str(images.structure),
        sizes,
        draws,
        names,
        widths,
        careful and metrics,  # three sums are the same for all
        careful,
        wanted,
        moving and moving.key,
    )

    def make():
        what = draws, {name: found[name] for name, *_ in wanted}, set(names), dict(widths)
        what = *what, metrics, careful, moving
        step = functools.partial(_reduced, model, images.pack, images.place, *what)
        batch, *image = sizes[images.place][0]
        moved = [((batch * draws, *image), "float32")] if draws else []
        moved += [(tuple(each.shape), "float32") for each in flows]
        parts_kept = sum(width is not None for _, width in widths)
        moved += [((parts_kept, 2), "int32")] if parts_kept else []
        return compiled_model_step(step, model, *sizes, *moved)

    return kept_with(model, key, make)


def _reduced(model, pack, place, draws, found, names, widths, metrics, careful, moving, *tensors):
    """One forward pass: (sums, careful distances, rows), of each name."""
    in_part = [name for name, width in widths.items() if width is not None]
    if in_part:
        *tensors, starts = tensors
    last = len(tensors) - (len(moving.grids) if moving and draws else 0)
    flows, tensors = tensors[last:], tensors[:last]
    inputs = list(tensors)
    count = inputs[0].shape[0]
    if draws:
        *inputs, moved = tensors
        inputs = joined(inputs, moved, place)
    batch = count * (1 + draws)
    sums, distances, kept = {}, {}, {}
    wanted = set(found)

    def compare(name, what, x, y):
        if name in careful:
            distances.setdefault(name, {})[what] = careful_distances(x, y, metrics)
        else:
            sums.setdefault(name, {})[what] = three_sums(x, y)

    def reduce(call):
        name = call.name
        if name in wanted:
            wanted.discard(name)
            rows = found[name].flat_rows(call.output, batch)
            if rows is not None:
                if name in names:
                    compare(name, "", *_images_and_moved(rows, count, draws))
                    if moving and name in moving.places:
                        moved = moving.compared(name, call.output, count, flows)
                        for what, both in moved.items():
                            compare(name, what, *both)
                if name in widths:
                    if name in in_part:
                        rows = ops.slice(rows, starts[in_part.index(name)], (count, widths[name]))
                    kept[name] = copy_of_rows(rows, count)
        return not wanted

    watch(model, pack(inputs), inputs[place], reduce)
    return sums, distances, kept


def _images_and_moved(rows, count, draws):
    """Rows of a pass as [images, 1, …] and [images, draws, …]."""
    clean, moved = split_rows(rows, count)
    return ops.expand_dims(clean, 1), ops.reshape(moved, (count, draws, *rows.shape[1:]))
