"""What a classifier answers for images and for their deformed selves, and what the labels say."""

import functools

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled_model_step, kept_with
from deformstab.measurement.forward import joined, most_at_once, parts
from deformstab.measurement.layer_distances import build
from deformstab.measurement.representations import representations
from deformstab.measurement.sources import to_numpy
from deformstab.measurement.watching import INPUT

NONE = -1  # of an answer with NaN: the largest of NaNs is the same one for every image


def classifier(model, images, labels, output, max_images, name: str):
    """What a model answers with, and the labels, all of it checked before any work.

    Args:
        model: any Keras model, built or not.
        images: `DeformedImages`.
        labels: those given, and those that came with the images, a pair; either may be `None`.
        output: as for `answering_output`.
        max_images: as for `classes_of`.
        name: of the function that asks.

    Returns:
        (all `Representation`s, that of the output with the answers, labels as `classes_of` gives).
    """
    build(model, images)
    found = representations(model, images)
    answering = answering_output(found, output, name)
    *size, classes = answering.shape
    given, own = labels
    given = one_of(own, output) if given is None else given
    return found, answering, classes_of(given, (len(images), *size), classes, max_images)


def answering_output(found, output, name: str):
    """The representation of the output that holds the answers.

    Args:
        found: all representations of the model.
        output: of several outputs the one that is meant, its key or number.
        name: of the function that asks.

    Raises:
        ValueError: none is meant, or it has neither a row of two or more classes for each image nor
            one for each pixel.
    """
    outputs = [each for each in found if each.layer is None and each.name != INPUT]
    chosen = outputs if output is None else [x for x in outputs if _is_named(x, output)]
    if len(chosen) != 1 or not _has_classes(chosen[0]):
        shapes = {each.name: each.shape or each.note for each in outputs}
        raise ValueError(
            f"{name} needs an output [images, classes] with two classes or more, or "
            "[images, height, width, classes], whose size does not depend on the other images of a "
            f"batch (of several outputs, name one with output=); this model gives {shapes}, the "
            "axis of images left out"
        )
    return chosen[0]


def _is_named(each, output) -> bool:
    return each.place in ((), (output,))


def _has_classes(each) -> bool:
    known = not each.note and each.shape is not None
    return known and len(each.shape) in (1, 3) and each.shape[-1] > 1


def answers(model, images, batch_size: int, output, answering, memory_limit: float):
    """The most probable class of each image and of its deformed selves.

    Args:
        model: any Keras model, built.
        images: `DeformedImages`.
        batch_size: images a forward pass.
        output: as for `answering_output`.
        answering: the `Representation` of it.
        memory_limit: bytes that a forward pass may take, by a rough estimate.

    Yields:
        int [b, 1 + draws, …], the image's own first; `NONE` where there is none.
    """
    collected = []
    most = min(2 * batch_size, most_at_once([answering], memory_limit))
    for part in parts(images, batch_size, most):
        sizes = tuple(
            (tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in part.inputs
        )
        step = kept_with(
            model,
            ("answers", images.place, str(images.structure), sizes, part.draws_at_once, output),
            functools.partial(_step, model, images.pack, images.place, part, output),
        )
        top = ops.convert_to_numpy(step(*part.inputs, *part.moved))
        count = len(part.inputs[0])
        clean, moved = top[:count, None], top[count:].reshape(count, -1, *top.shape[1:])
        if part.first:
            collected.append(clean[: len(part.images)])
        collected.append(moved[: len(part.images), : len(part.draws)])
        if part.last:
            yield np.concatenate(collected, axis=1)
            collected.clear()


def _step(model, pack, place, part, output):
    def top(*tensors):
        *inputs, moved = tensors
        chosen = one_of(model(pack(joined(inputs, moved, place)), training=False), output)
        broken = ops.any(ops.isnan(chosen), axis=-1)
        return ops.where(broken, NONE, ops.argmax(chosen, axis=-1))

    tensors = (*part.inputs, *part.moved)
    sizes = [(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in tensors]
    return compiled_model_step(top, model, *sizes)


def nan_note(answers, moved: str) -> str:
    """A note if there are answers that are none, or ""."""
    none = (answers == NONE).sum()
    of = f"{none} of {answers.size} images, {moved} or not"
    return f"the model answers with NaN for {of}" if none else ""


def one_of(several, output):
    """One of several outputs, or of the labels for them; `None` if it is not among them."""
    if output is None or not isinstance(several, (dict, list, tuple)):
        return several
    try:
        return several[output]
    except (KeyError, IndexError, TypeError):
        return None


def classes_of(labels, shape: tuple, classes: int, max_images) -> np.ndarray | None:
    """Labels in any form as class numbers.

    Args:
        labels: class numbers of a shape, with or without a last axis of one; or one-hot, [*shape,
            classes]; or `None`.
        shape: (images,), or (images, height, width) of dense answers.
        classes: how many the model tells apart.
        max_images: the first so many count.

    Returns:
        int64 of the shape.

    Raises:
        ValueError: they are of another shape, no whole numbers of classes that there are, or of one
            hot no class stands out.
    """
    if labels is None:
        return None
    labels = np.atleast_1d(to_numpy(labels))[:max_images]
    one_hot = labels.shape == (*shape, classes) and labels.dtype.kind in "biuf"
    if not one_hot and labels.shape == (*shape, 1):
        labels = labels[..., 0]
    if not one_hot and labels.shape != shape:
        named = "[images]" if len(shape) == 1 else "[images, height, width]"
        raise ValueError(
            f"labels must be {named} or one-hot {named[:-1]}, {classes}] of {shape[0]} images, "
            f"received shape {labels.shape}"
        )
    if one_hot:
        largest = labels.max(axis=-1, keepdims=True)
        if not ((labels == largest).sum(axis=-1) == 1).all():
            raise ValueError(
                "one-hot labels must have one largest entry in each row; received rows in which no "
                "class stands out (all zeros, or NaN)"
            )
        return labels.argmax(axis=-1)
    kind = labels.dtype.kind
    whole = kind in "iu" or (kind == "f" and (labels == labels.round()).all())
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be whole numbers of classes, 0 to {classes - 1}, received "
            f"{labels.dtype} such as {labels.ravel()[:3].tolist()}"
        )
    return labels.astype("int64")
