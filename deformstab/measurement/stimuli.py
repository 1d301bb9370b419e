"""Images, and the deformations that each of them undergoes: what a model is measured with."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from deformstab.checks import check_finite, check_whole
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.deformations.splines import flow_statistics
from deformstab.measurement.sources import first_images


@dataclass(frozen=True)
class DeformedImages:
    """Images, and the deformations that each of them undergoes.

    Attributes:
        inputs: the model's inputs, a list of arrays [images, …].
        structure: what the model takes, with a number in place of each array.
        place: which of the inputs is deformed.
        deformation: a `ds.RandomDeformation`.
        displacements: [images, draws, points, 2], pixels, (y, x).
    """

    inputs: list
    structure: object
    place: int
    deformation: RandomDeformation
    displacements: np.ndarray

    def __len__(self):
        return len(self.displacements)

    @property
    def draws(self) -> int:
        return self.displacements.shape[1]

    @functools.cached_property
    def flow_statistics(self) -> list:
        """(mean square length of the flow in square pixels, whether it folds): [images, draws]."""
        height, width = self.deformation.image_size(self.inputs[self.place].shape)
        moves = self.displacements.reshape(-1, *self.displacements.shape[2:])
        statistics = flow_statistics(moves, self.deformation.control_points, height, width)
        return [each.reshape(len(self), self.draws) for each in statistics]

    def flow(self, images, draw: int):
        """The flows of images at some indices under one of their draws: [b, height, width, 2]."""
        size = self.deformation.image_size(self.inputs[self.place].shape)
        return self.deformation.flow(self.displacements[images, draw], *size)

    @property
    def pack(self):
        """A function of a list of tensors: the inputs in the structure that the model takes.

        It does not hold the images, so what is compiled with it does not keep them alive.
        """
        return functools.partial(keras.tree.pack_sequence_as, self.structure)

    def tensors(self, images) -> list:
        """The inputs at some indices."""
        return [ops.convert_to_tensor(each[images]) for each in self.inputs]

    def deformed(self, part, images, draws):
        """`part`, the images at some indices, under some of their draws: [images · draws, …]."""
        moves = self.displacements[images][:, draws]
        # Eager copies of one each take as long as to deform them.
        copies = part if len(draws) == 1 else ops.repeat(part, len(draws), axis=0)
        deformed = self.deformation.deform(copies, moves.reshape(-1, *moves.shape[2:]))
        return ops.cast(deformed, "float32")


def deformed_images(
    images,
    deformation=None,
    deformations: int = 1,
    seed: int = 0,
    deformed_input=None,
    max_images: int | None = None,
    strengths=None,
) -> DeformedImages:
    """Images from any source and the draws of their deformations, checked.

    Args:
        images, deformation, deformations, seed, deformed_input, max_images: as for
            `ds.measure_sensitivity`.
        strengths: maximal displacements to be drawn in place of the deformation's own, each with
            the same seed: [images, strengths · deformations] draws in all.

    Returns:
        `DeformedImages`.
    """
    deformations = check_whole("deformations", deformations)
    if deformation is not None and not isinstance(deformation, RandomDeformation):
        raise ValueError(
            f"deformation must be a ds.RandomDeformation or None, received {deformation!r}"
        )
    arrays, _ = first_images(images, max_images)
    inputs = [_computable(each) for each in keras.tree.flatten(arrays)]
    structure = keras.tree.pack_sequence_as(arrays, range(len(inputs)))
    place = _deformed_place(structure, inputs, deformed_input)
    chosen = inputs[place]
    if chosen.ndim != 4:
        raise ValueError(
            "images must be a batch [images, height, width, channels] (by data_format), received "
            f"shape {chosen.shape}"
        )
    counts = sorted({len(each) if each.ndim else 0 for each in inputs})
    if len(counts) > 1:
        raise ValueError(f"the inputs must have as many rows each, received {counts}")
    if len(chosen) < 2:
        raise ValueError(
            "a sensitivity compares images with each other: pass at least two (the paper takes "
            f"128), received {len(chosen)}"
        )
    inputs[place] = chosen.astype("float32", copy=False)
    check_finite(inputs[place])
    if deformation is None:
        deformation = paper_deformation(chosen.shape)
    layers = [deformation] if strengths is None else [_of(deformation, s) for s in strengths]
    moves = [layer.draw(len(chosen) * deformations, seed=seed) for layer in layers]
    moves = [ops.convert_to_numpy(each).reshape(len(chosen), deformations, -1, 2) for each in moves]
    found = DeformedImages(inputs, structure, place, deformation, np.concatenate(moves, axis=1))
    _, folded = found.flow_statistics
    if folded.any():
        largest = deformation.max_displacement if strengths is None else max(strengths)
        warnings.warn(
            f"{folded.mean():.1%} of the deformations fold the image over itself "
            f"(max_displacement={largest}): use a smaller max_displacement",
            stacklevel=4,
        )
    return found


def paper_deformation(image_shape: Sequence[int | None]) -> RandomDeformation:
    """The paper's deformation for images of a shape.

    Up to 64 pixels a side 3×3 control points and 1/16 of the shorter side (2 px at 32 px, as on
    CIFAR-10); beyond, 5×5 control points and 10/224 of it (10 px at 224 px, as on ImageNet).

    Args:
        image_shape: [batch, height, width, channels], by Keras' data format.

    Returns:
        A `ds.RandomDeformation`, of float32 whatever the dtype policy.

    Example:

    ```python
    deformation = ds.paper_deformation(images.shape)
    deformed = deformation(images)
    ```
    """
    channels_first = keras.config.image_data_format() == "channels_first"
    size = image_shape[2:] if channels_first else image_shape[1:3]
    if max(size) <= 64:
        return RandomDeformation(3, min(size) / 16, seed=0, dtype="float32")
    return RandomDeformation(5, min(size) * 10 / 224, seed=0, dtype="float32")


def _of(deformation, max_displacement) -> RandomDeformation:
    """The same deformation of another strength."""
    config = {**deformation.get_config(), "max_displacement": max_displacement}
    return RandomDeformation.from_config(config)


def _computable(array) -> np.ndarray:
    """Integers and strings stay what they are; there is nothing to gain from float64."""
    return array.astype("float32") if array.dtype == "float64" else array


def _deformed_place(structure, inputs, wanted) -> int:
    """Which input is deformed: the one asked for by name or number, or the only one with images."""
    names = ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(structure)]
    if wanted is not None:
        if str(wanted) in names:
            return names.index(str(wanted))
        raise ValueError(f"unknown deformed_input {wanted!r}; the inputs are {', '.join(names)}")
    candidates = [place for place, each in enumerate(inputs) if each.ndim == 4]
    if len(inputs) == 1 or len(candidates) == 1:
        return candidates[0] if candidates else 0
    if not candidates:
        shapes = ", ".join(str(each.shape) for each in inputs[:5])
        raise ValueError(
            "images must be a batch [images, height, width, channels] (by data_format), or several "
            f"inputs of which one is, all images of one size; received shapes {shapes}"
        )
    raise ValueError(
        f"of these inputs {len(candidates)} hold images: say with deformed_input which is to be "
        f"deformed, one of {', '.join(names)}"
    )
