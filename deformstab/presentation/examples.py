"""Which images a layer is most and least sensitive to, and what the deformation did to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.checks import check_whole
from deformstab.measurement.distances import Metric
from deformstab.measurement.layer_distances import MEMORY_LIMIT
from deformstab.measurement.perturbations import Deformation
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.sensitivity import check_options, sensitivity_table
from deformstab.measurement.stimuli import DeformedImages, deformed_images, refuse_videos


@dataclass(frozen=True)
class Example:
    """An image beside its deformed self.

    Attributes:
        image, draw: their numbers; the draw is -1 where it was sought and not drawn.
        distance: of the layer's representations of the two.
        sensitivity: the distance over the layer's median distance between images.
        original, deformed: [height, width, 3] in [0, 1].
        flow: [height, width, 2], pixels, (y, x); `None` where it is not known.
        rms_displacement: root mean square length of the flow, pixels.
    """

    image: int
    draw: int
    distance: float
    sensitivity: float
    original: np.ndarray = field(repr=False)
    deformed: np.ndarray = field(repr=False)
    flow: np.ndarray | None = field(repr=False)
    rms_displacement: float = np.nan


@dataclass(frozen=True)
class MeasuredExamples:
    """Images, their deformations, and what these do to some layers.

    Attributes:
        images: `DeformedImages`.
        table: of `ds.measure_sensitivity`.
        distances: its long table.
        value_range: (black, white) of the images, or a function that undoes how they were prepared.
    """

    images: DeformedImages
    table: pd.DataFrame
    distances: pd.DataFrame
    value_range: tuple[float, float] | Callable[[np.ndarray], np.ndarray]

    def chosen(self, layer: str, count: int, least: bool = False) -> list[Example]:
        """The images that a layer is most (or least) sensitive to, each under one of its draws."""
        rows = self.distances[self.distances["layer"] == layer]
        rows = rows[rows["distance"].notna()]
        # A stable sort: of equal distances the first image counts.
        rows = rows.sort_values("distance", ascending=least, kind="stable")
        rows = rows.drop_duplicates("image").head(count)
        return [self.example(row) for row in rows.itertuples()]

    def example(self, row) -> Example:
        """What a row of the long table is about."""
        image, draw = np.array([row.image]), row.deformation
        array = self.images.inputs[self.images.place]
        deformed = self.images.deformed(keras.ops.convert_to_tensor(array[image]), image, [draw])
        flow = None
        if np.isfinite(row.rms_displacement):
            flow = keras.ops.convert_to_numpy(self.images.flow(image, draw))[0]
        return Example(
            image=int(row.image),
            draw=int(draw),
            distance=float(row.distance),
            sensitivity=float(row.distance / row.baseline),
            original=self.pixels(array[image[0]]),
            deformed=self.pixels(keras.ops.convert_to_numpy(deformed)[0]),
            flow=flow,
            rms_displacement=float(row.rms_displacement),
        )

    def pixels(self, image) -> np.ndarray:
        """An image as a screen shows it: [height, width, 3] in [0, 1]."""
        if self.images.data_format == "channels_first":
            image = np.moveaxis(image, 0, -1)
        if image.shape[-1] not in (3, 4):  # more or fewer than a screen has: their mean
            image = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
        if callable(self.value_range):
            return np.clip(self.value_range(image), 0, 1)
        low, high = self.value_range
        return np.clip((image[..., :3].astype("float64") - low) / (high - low), 0, 1)


def measured_examples(
    model: keras.Model,
    images: Any,
    layers: LayerSelection,
    deformation: Deformation | None = None,
    metric: Metric = "cosine",
    deformations: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    *,
    value_range: Sequence[float] | Callable[[np.ndarray], np.ndarray] | None = None,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> MeasuredExamples:
    """Measures the distances of every image and draw, and keeps what made them.

    Args:
        value_range: what black and white are in the images; by default the first of (0, 1), (-1, 1)
            and (0, 255) that holds all of them, else their smallest and largest value. Or a
            function of an image [height, width, channels] that gives it back in 0…1.
        Others as for `ds.measure_sensitivity`.
    """
    check_options(metric, batch_size, memory_limit)
    prepared = deformed_images(images, deformation, deformations, seed, deformed_input, max_images)
    refuse_videos(prepared, "showing images")
    value_range = _checked_range(value_range, prepared.inputs[prepared.place])
    options = metric, batch_size, False, memory_limit, True, progress
    table, distances = sensitivity_table(model, prepared, layers, *options)
    return MeasuredExamples(prepared, table, distances, value_range)


def one_layer(examples: MeasuredExamples, layer) -> str:
    """The name of the only layer that was measured.

    Raises:
        ValueError: there are several, or it could not be measured.
    """
    table = examples.table
    if len(table) != 1:
        raise ValueError(
            f"layer must be a single layer, received {layer!r}, which are {len(table)}: the images it "
            "is most sensitive to are other ones for each"
        )
    if table["note"][0]:
        raise ValueError(f"layer {table['layer'][0]!r} has no distances: {table['note'][0]}")
    return table["layer"][0]


def check_count(count) -> int:
    return check_whole("count", count)


def _checked_range(value_range, images):
    if callable(value_range):
        return value_range
    if value_range is not None:
        try:
            low, high = (float(bound) for bound in value_range)
        except (TypeError, ValueError):
            low = high = np.nan
        if not low < high or not np.isfinite([low, high]).all():
            raise ValueError(
                "value_range must be two numbers, what black and white are in the images, the first "
                f"below the second, or a function that undoes it; received {value_range!r}"
            )
        return low, high
    low, high = float(images.min()), float(images.max())
    # A tolerance: resized images may leave their range by rounding.
    for known in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        slack = 1e-3 * (known[1] - known[0])
        if known[0] - slack <= low and high <= known[1] + slack:
            return known
    return low, high if high > low else low + 1
