"""shift_consistency: whether a classifier answers alike wherever a picture lies on the pixel grid."""

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np
import pandas as pd
from keras import ops

from deformstab.measurement.answers import answers, classifier, nan_note
from deformstab.measurement.intervals import proportion_interval
from deformstab.measurement.layer_distances import MEMORY_LIMIT, progress_bar
from deformstab.measurement.sensitivity import check_options
from deformstab.measurement.sources import first_images
from deformstab.measurement.stimuli import DeformedImages, checked_inputs
from deformstab.tables import SHIFT_COLUMNS, table

Protocol = Literal["crop", "circular"]
PROTOCOLS = get_args(Protocol)
_CROPS, _ENLARGED = 4, 1 / 8  # crops along an axis, of an image so much larger
_ROLLS = range(-3, 3)  # pixels, as in the code of Chaman and Dokmanić


@dataclass(frozen=True)
class Shifts:
    """A perturbation of each image by the same offsets: its "draws" are all that there are.

    Attributes:
        offsets: (y, x) in pixels: where crops begin, or how far the image is rolled.
        enlarged: (height, width) of the image that crops are taken of; `None` to roll.
        data_format: "channels_last" or "channels_first".
    """

    offsets: tuple
    enlarged: tuple[int, int] | None
    data_format: str

    @classmethod
    def of(cls, protocol: str, size: tuple[int, int], data_format: str) -> "Shifts":
        """All offsets of a protocol for images of (height, width).

        Raises:
            ValueError: the images are too small for the protocol.
        """
        if protocol == "circular":
            _check_size(protocol, size, len(_ROLLS))
            return cls(tuple(itertools.product(_ROLLS, _ROLLS)), None, data_format)
        # The least side of which all crops lie on the enlarged image.
        _check_size(protocol, size, math.ceil((_CROPS - 1.5) / _ENLARGED))
        more = [math.floor(side * _ENLARGED + 0.5) for side in size]
        first = [(each + 1 - _CROPS) // 2 for each in more]  # crops in the middle
        ranges = [range(each, each + _CROPS) for each in first]
        enlarged = tuple(side + each for side, each in zip(size, more))
        return cls(tuple(itertools.product(*ranges)), enlarged, data_format)

    @property
    def draws(self) -> int:
        return len(self.offsets)

    @property
    def whole(self) -> bool:
        """Whether pixels only change places, so that integers stay integers."""
        return self.enlarged is None

    @property
    def zero(self) -> int:
        """Which offset is that of the image where it lies, or the first crop."""
        return self.offsets.index((0, 0)) if self.enlarged is None else 0

    def moved(self, part, images, draws):
        """`part` at some of the offsets: [images · draws, …]."""
        axes = (-2, -1) if self.data_format == "channels_first" else (-3, -2)
        size = [part.shape[axis] for axis in axes]
        whole = part if self.enlarged is None else self._enlarge(part)

        def at(offset):
            if self.enlarged is None:
                return ops.roll(whole, offset, axis=axes)
            places = (slice(start, start + side) for start, side in zip(offset, size))
            return whole[(..., *places) if axes[1] == -1 else (..., *places, slice(None))]

        several = ops.stack([at(self.offsets[draw]) for draw in draws], axis=1)
        return ops.reshape(several, (-1, *part.shape[1:]))

    def _enlarge(self, part):
        frames = ops.reshape(part, (-1, *part.shape[-3:]))  # of videos each frame
        larger = ops.image.resize(
            frames, self.enlarged, interpolation="bilinear", data_format=self.data_format
        )
        return ops.reshape(larger, (*part.shape[:-3], *larger.shape[1:]))


def _check_size(protocol, size, least):
    if min(size) < least:
        raise ValueError(
            f"protocol {protocol!r} needs images of at least {least} pixels a side, received "
            f"{size[0]}×{size[1]}"
        )


def shift_consistency(
    model: keras.Model,
    images: Any,
    labels: Any = None,
    protocol: Protocol = "crop",
    batch_size: int = 32,
    *,
    output: int | str | None = None,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """Measures how often a classifier answers alike for two shifts of one image.

    All offsets of the protocol are taken, so nothing is drawn:

    - "crop" (Zhang 2019, arXiv 1904.11486, for CIFAR-10): each side is enlarged by 1/8, bilinearly
      (32 pixels to 36), and crops of the image's own size are taken, which begin at four pixels in
      a row of each axis: n = 16 offsets, {0, …, 3}² for 32 pixels. Of larger images it is the four
      in the middle, still one pixel apart. Enlarging blurs a little.
    - "circular" (Chaman and Dokmanić 2021, arXiv 2011.14214): the image is rolled by {-3, …, 2}²
      pixels, n = 36. What leaves it on one side comes back on the other, so a network with zeros
      beside the image sees new edges; one of `ds.vgg(padding="circular")` does not.

    Consistency is the share of pairs of *different* offsets with the same top-1 class. The customary
    number pairs an offset with itself as well: it is 1/n + (1 - 1/n) times that, never below 1/n.
    A network that is more often right is more often consistent: compare at equal accuracy, or the
    consistencies of what is classified rightly. A model that always gives one answer is consistent,
    too (`chance`).

    Args:
        model: a Keras model whose output is [images, classes], classes at least two.
        images: [images, height, width, channels] (by `data_format`), or any other source, as for
            `ds.measure_sensitivity`; of at least 20 pixels a side for "crop", 6 for "circular".
        labels: [images] or [images, 1] class numbers from 0, or [images, classes] one-hot; by
            default those that come with a dataset (for this `output`), if any.
        protocol: "crop" or "circular".
        batch_size: shifted images a forward pass, about.
        output: of several outputs the one that holds the classes, its key or number.
        deformed_input: of several inputs the one that is shifted, as for `ds.measure_sensitivity`.
        max_images, memory_limit, progress: as for `ds.measure_sensitivity`.
        data_format: of the images, "channels_last" or "channels_first"; by default Keras'.

    Returns:
        A DataFrame of one row: `consistency` over pairs of different offsets with its 95 % interval
        over images `consistency_low`, `consistency_high` (Wilson's, pairs of one image not counted
        as independent); `customary_consistency`; `accuracy` (mean over offsets),
        `unshifted_accuracy` (of the images as they are), `worst_accuracy` (at the offset where it
        is least), `consistency_of_right` and `consistency_of_wrong` (of images that are classified
        rightly or wrongly at offset 0, which is the first crop), all NaN without labels or such
        images; `chance` (Σ p_c² over the shares p_c of answers: the consistency of answers at
        random), `offsets` (n), `images`, `protocol`, `note`. A model that answers with NaN has no
        most probable class: NaN, and a note.

    Raises:
        ValueError: an unknown protocol; images too small for it, or none; the output holds no
            classes, or a class for each pixel; labels do not fit; else as
            `ds.measure_sensitivity`.

    Example:

    ```python
    row = ds.shift_consistency(model, images, protocol="circular")
    ```
    """
    check_options("cosine", batch_size, memory_limit)
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"unknown protocol {protocol!r}; the known ones are {', '.join(PROTOCOLS)}"
        )
    data_format = keras.config.image_data_format() if data_format is None else data_format
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            "data_format must be 'channels_last', 'channels_first' or None, received "
            f"{data_format!r}"
        )
    inputs, own_labels = first_images(images, max_images)
    shifted = _shifted(inputs, protocol, deformed_input, data_format)
    _, answering, labels = classifier(
        model, shifted, (labels, own_labels), output, max_images, "shift_consistency"
    )
    if len(answering.shape) > 1:
        shape = ", ".join(map(str, answering.shape))
        raise ValueError(
            "shift_consistency needs an output [images, classes], one answer for an image; this one "
            f"is [images, {shape}], and its answers should move with the image: "
            "ds.prediction_consistency with ds.RandomTranslation(integer=True) compares them so"
        )
    found, count = [], len(shifted)
    with progress_bar(progress, "shift consistency") as bar:
        for batch in answers(model, shifted, batch_size, output, answering, memory_limit):
            found.append(batch)
            bar.update(min(100 * len(batch) / count, bar.total - bar.n))
    (shifts,) = shifted.perturbations
    row = {"offsets": shifts.draws, "images": count, "protocol": protocol, "note": ""}
    return table([row | _shares(np.concatenate(found), labels, shifts.zero)], SHIFT_COLUMNS)


def _shifted(inputs, protocol, deformed_input, data_format) -> DeformedImages:
    """Images with all their shifts, checked."""
    inputs, structure, place = checked_inputs(inputs, deformed_input, None)
    if not len(inputs[place]):
        raise ValueError("images has no images: pass at least one")
    axes = slice(-2, None) if data_format == "channels_first" else slice(-3, -1)
    shifts = Shifts.of(protocol, inputs[place].shape[axes], data_format)
    return DeformedImages(inputs, structure, place, shifts, (shifts,))


def _shares(answers, labels, zero: int) -> dict:
    """The columns about answers [images, 1 + offsets], those of the unshifted images first."""
    note = nan_note(answers, "shifted")
    if note:
        return {"note": note}
    unshifted, shifted = answers[:, 0], answers[:, 1:]
    n = shifted.shape[1]
    pairs = itertools.combinations(range(n), 2)
    alike = np.stack([shifted[:, i] == shifted[:, j] for i, j in pairs], axis=1)
    share, low, high = proportion_interval(alike)
    row = {"consistency": share, "consistency_low": low, "consistency_high": high}
    row["customary_consistency"] = 1 / n + (1 - 1 / n) * share
    _, counts = np.unique(shifted, return_counts=True)
    row["chance"] = np.square(counts / shifted.size).sum()
    if labels is None:
        return row
    right = shifted == labels[:, None]
    row["accuracy"] = right.mean()
    row["unshifted_accuracy"] = (unshifted == labels).mean()
    row["worst_accuracy"] = right.mean(axis=0).min()
    row["consistency_of_right"] = proportion_interval(alike[right[:, zero]])[0]
    row["consistency_of_wrong"] = proportion_interval(alike[~right[:, zero]])[0]
    return row
