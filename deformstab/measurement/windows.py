"""Layers whose first axis is images × windows: which of its rows belong to which image.

Attention in windows, and other layers that fold parts of an image into the batch, give several rows
for each image. How they lie is the model's own reshape, and no shape tells. So it is tried: where
the second image of two is exchanged, the rows of the first one stay as they are.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled_model_step, kept_with
from deformstab.measurement.watching import watch

MIXED = "several rows for each image, in an order that could not be found"
UNTOLD = (
    "several rows for each image, whose order does not show: they are alike for all images tried"
)
_TOLERANCE = 1e-4  # of the largest entry: another image beside it may change how sums are rounded


def with_orders(model, images, found: list, key: tuple) -> list:
    """Representations with the order of their rows, or the note that it could not be found.

    Args:
        model: the model that they are of.
        images: `DeformedImages`, of which the first and another one are tried.
        found: `Representation`s.
        key: by which they are kept with the model.
    """
    several = {each.name for each in found if each.rows > 1 and not each.note}
    if not several:
        return found
    # What these images do not tell is not kept: others may, and so may other weights.
    known = kept_with(model, ("orders", *key), dict)
    missing, untold = several - known.keys(), {}
    if missing:
        same, other = (
            _outputs(model, images, pair, missing) for pair in ([0, 0], [0, _another(images)])
        )
        for each in found:
            if each.name in missing:
                told = _ordered(each, same[each.name], other[each.name])
                (untold if told.note == UNTOLD else known)[each.name] = told
    return [{**known, **untold}.get(each.name, each) for each in found]


def _another(images) -> int:
    """The image that differs most from the first one."""
    pixels = images.inputs[images.place]
    apart = [np.abs(each.astype("float64") - pixels[0]).mean() for each in pixels[:64]]
    return int(np.argmax(apart))


def _outputs(model, images, pair, names) -> dict:
    """What layers give for two images: name → [rows of both, entries]."""
    inputs = [each[pair] for each in images.inputs]

    def collect(*tensors):
        tensors, kept = list(tensors), {}

        def visit(call):
            if call.name in names and call.output is not None:
                leaves = keras.tree.flatten(call.output)
                rows = [ops.reshape(ops.cast(x, "float32"), (x.shape[0], -1)) for x in leaves]
                kept[call.name] = ops.concatenate(rows, axis=1)
            return len(kept) == len(names)

        watch(model, images.pack(tensors), tensors[images.place], visit)
        return kept

    sizes = ((x.shape, keras.backend.standardize_dtype(x.dtype)) for x in inputs)
    step = compiled_model_step(collect, model, *sizes)
    found = step(*(ops.convert_to_tensor(x) for x in inputs))
    return {name: ops.convert_to_numpy(x) for name, x in found.items()}


def _ordered(each, same, other):
    scale = np.abs(same).max()

    def stays(rows):
        return np.abs(same[rows] - other[rows]).max() <= _TOLERANCE * scale

    orders = {"image": slice(None, each.rows), "row": slice(0, None, 2)}
    possible = [order for order, rows in orders.items() if stays(rows)]
    if len(possible) == 1:
        return dataclasses.replace(each, order=possible[0])
    return dataclasses.replace(each, note=UNTOLD if possible else MIXED, features=0)
