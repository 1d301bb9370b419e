"""Images, and the deformations that each of them undergoes: what a model is measured with."""

import dataclasses
import functools
import itertools
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from deformstab.checks import check_finite, check_whole
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.deformations.seeds import checked_seed
from deformstab.measurement.perturbations import Drawn, Given, HasFlows, checked_deformation
from deformstab.measurement.sources import first_images

_IMAGE_AXES = 4, 5  # images, videos


@dataclass(frozen=True)
class DeformedImages:
    """Images, and the deformations that each of them undergoes.

    Attributes:
        inputs: the model's inputs, a list of arrays [images, …].
        structure: what the model takes, with a number in place of each array.
        place: which of the inputs is deformed.
        deformation: the first one's object or function.
        perturbations: what is done to each image (`perturbations`), one after the other.
    """

    inputs: list
    structure: object
    place: int
    deformation: Any
    perturbations: tuple

    def __len__(self):
        return len(self.inputs[self.place])

    @functools.cached_property
    def draws(self) -> int:
        """Of all perturbations together."""
        return sum(each.draws for each in self.perturbations)

    @property
    def data_format(self) -> str:
        return _data_format(self.deformation)

    @property
    def padding(self) -> str:
        """What lies outside an image and, of a deformed map, outside the map: as for `warp`."""
        return getattr(self.deformation, "padding", "edge")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return _size(self.inputs[self.place].shape, self.data_format)

    @functools.cached_property
    def flow_statistics(self) -> list:
        """(mean square length of the flow in square pixels, whether it folds): [images, draws]."""
        found = [each.statistics(len(self), self.size) for each in self.perturbations]
        return [np.concatenate(several, axis=1) for several in zip(*found)]

    @property
    def rms_displacement(self) -> float:
        """Over images and draws, in pixels; NaN if it is not known of all of them."""
        return np.sqrt(self.flow_statistics[0].mean())

    @property
    def folded_fraction(self) -> float:
        """The share of draws that fold the image; NaN if the flow of one is not known."""
        mean_square, folded = self.flow_statistics
        return np.nan if np.isnan(mean_square).any() else folded.mean()

    def flow(self, images, draw: int):
        """The flows of images at some indices under one of their draws: [b, height, width, 2]."""
        which, number = self._owners[draw]
        return self.perturbations[which].flow(images, number, self.size)

    @functools.cached_property
    def _owners(self) -> list:
        """Of each draw: (which perturbation, its own number there)."""
        counts = enumerate(each.draws for each in self.perturbations)
        return [(which, number) for which, count in counts for number in range(count)]

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
        owners = [self._owners[draw] for draw in draws]
        pieces = [
            self.perturbations[which].moved(part, images, np.array([number for _, number in some]))
            for which, some in itertools.groupby(owners, operator.itemgetter(0))
        ]
        if len(pieces) == 1:
            return pieces[0]
        apart = [ops.reshape(each, (part.shape[0], -1, *part.shape[1:])) for each in pieces]
        return ops.reshape(ops.concatenate(apart, axis=1), (-1, *part.shape[1:]))

    def with_perturbations(self, *perturbations) -> "DeformedImages":
        """The same images under others."""
        return dataclasses.replace(self, perturbations=perturbations)


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
    deformations, seed = check_whole("deformations", deformations), checked_seed(seed)
    if deformation is not None:
        deformation = checked_deformation(deformation)
    if strengths is not None and not isinstance(deformation, RandomDeformation | None):
        raise ValueError(
            "max_displacements are strengths of a ds.RandomDeformation; of another deformation "
            f"measure each strength by itself, received {deformation!r}"
        )
    inputs, structure, place = checked_inputs(images, deformed_input, max_images)
    chosen = inputs[place]
    if len(chosen) < 2:
        raise ValueError(
            "a sensitivity compares images with each other: pass at least two (the paper takes "
            f"128), received {len(chosen)}"
        )
    if deformation is None:
        deformation = paper_deformation(chosen.shape)
    layers = [deformation] if strengths is None else [_of(deformation, s) for s in strengths]
    found = DeformedImages(
        inputs,
        structure,
        place,
        deformation,
        tuple(_drawn(layer, inputs[place], deformations, seed) for layer in layers),
    )
    _, folded = found.flow_statistics
    if folded.any():
        strongest = getattr(deformation, "max_displacement", None)
        largest = strongest if strengths is None else max(strengths)
        named = f" (max_displacement={largest})" if largest is not None else f" ({deformation!r})"
        warnings.warn(
            f"{folded.mean():.1%} of the deformations fold the image over itself{named}: use a "
            "smaller one",
            stacklevel=4,
        )
    return found


def checked_inputs(images, deformed_input, max_images) -> tuple[list, object, int]:
    """What a model takes, checked, with the images that are to be moved as float32.

    Args:
        images, deformed_input, max_images: as for `ds.measure_sensitivity`.

    Returns:
        `inputs`, `structure` and `place` of `DeformedImages`.
    """
    arrays, _ = first_images(images, max_images)
    inputs = [_computable(each) for each in keras.tree.flatten(arrays)]
    structure = keras.tree.pack_sequence_as(arrays, range(len(inputs)))
    place = _deformed_place(structure, inputs, deformed_input)
    chosen = inputs[place]
    if chosen.ndim not in _IMAGE_AXES:
        raise ValueError(
            "images must be a batch [images, height, width, channels] or of videos [clips, frames, "
            f"height, width, channels] (by data_format), received shape {chosen.shape}"
        )
    counts = sorted({len(each) if each.ndim else 0 for each in inputs})
    if len(counts) > 1:
        raise ValueError(f"the inputs must have as many rows each, received {counts}")
    inputs[place] = chosen.astype("float32", copy=False)
    check_finite(inputs[place])
    return inputs, structure, place


def refuse_videos(images: DeformedImages, name: str) -> None:
    """Refuses clips where a function needs the place of each unit on one image."""
    shape = images.inputs[images.place].shape
    if len(shape) == 5:
        raise ValueError(
            f"{name} takes images [images, height, width, channels] (by data_format), and no videos; "
            f"received shape {shape}: measure frames, clips.reshape(-1, *clips.shape[2:]), with the "
            "model of a frame"
        )


def _drawn(deformation, images, deformations, seed):
    if not isinstance(deformation, HasFlows):
        return Given.of(deformation, images, deformations, seed)
    return Drawn.of(deformation, len(images), deformations, seed)


def _data_format(deformation) -> str:
    return getattr(deformation, "data_format", None) or keras.config.image_data_format()


def _size(shape, data_format) -> tuple[int, int]:
    """(height, width) in the shape of images or videos."""
    return tuple(shape[-2:] if data_format == "channels_first" else shape[-3:-1])


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
    size = _size(image_shape, keras.config.image_data_format())
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
    # Images before videos: of both it is likelier that the others are features of them.
    for axes in _IMAGE_AXES:
        candidates = [place for place, each in enumerate(inputs) if each.ndim == axes]
        if candidates:
            break
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
