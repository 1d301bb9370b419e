"""sensitivity_by_part: how much of a layer's sensitivity is due to translation, affine part, rest."""

from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.deformations.parts import PARTS, FlowPart
from deformstab.measurement.distances import Metric
from deformstab.measurement.intervals import paired_ratio
from deformstab.measurement.layer_distances import MEMORY_LIMIT, measured_layers
from deformstab.measurement.perturbations import Deformation, Drawn, Given
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.sensitivity import check_options, layer_columns, sensitivity_columns
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import PART_COLUMNS, table


def sensitivity_by_part(
    model: keras.Model,
    images: Any,
    deformation: Deformation | None = None,
    layers: LayerSelection = None,
    metric: Metric = "cosine",
    deformations: int = 1,
    batch_size: int = 32,
    intervals: bool = True,
    seed: int = 0,
    *,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """Measures each layer's sensitivity to the parts of the same deformations.

    A smooth random flow also shifts, turns and scales the image as a whole. So each draw's flow is
    split by orthogonal projection over the pixels: its mean (translation), what is linear in the
    place (affine, with the translation), and what is beyond each. Each part then deforms the images
    by itself. Of a 3×3 spline at 32×32 pixels 31 % of the mean square is translation and 57 %
    affine.

    A share of the sensitivity is no share of variance: distances saturate, so shares of a part and
    of what is beyond it need not add up to 1 deep in a network.

    Args:
        model, images, layers, metric, deformations, batch_size, intervals, seed, deformed_input,
            max_images, memory_limit, progress: as for `ds.measure_sensitivity`.
        deformation: as there, but one whose flow is known: no function.

    Returns:
        The DataFrame of `ds.measure_sensitivity` for each `part` ("full", "translation", "affine",
        "beyond_translation", "beyond_affine"), one after the other, the part before its columns; and
        `share`, its sensitivity over that of the full deformation, with the 95 % interval
        `share_low`, `share_high`, paired by image.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; the deformation is a function.

    Example:

    ```python
    table = ds.sensitivity_by_part(model, images)
    table.pivot(index="layer_index", columns="part", values="share")
    ```
    """
    check_options(metric, batch_size, memory_limit)
    prepared = deformed_images(images, deformation, deformations, seed, deformed_input, max_images)
    (drawn,) = prepared.perturbations
    if isinstance(drawn, Given):
        raise ValueError(
            "the parts of a deformation are those of its flow, and a function has none that is "
            "known: pass a layer such as ds.RandomDeformation, or an object with draw, flow, deform"
        )
    prepared = prepared.with_perturbations(
        *(Drawn(FlowPart(drawn.deformation, part), drawn.parameters) for part in PARTS)
    )
    mean_square, folded = prepared.flow_statistics
    rows = []
    found = measured_layers(model, prepared, layers, metric, batch_size, memory_limit, progress)
    for place, layer in found:
        for number, part in enumerate(PARTS):
            own = slice(number * deformations, (number + 1) * deformations)
            row = {
                **layer_columns(place, layer, prepared, metric),
                "number": number,
                "part": part,
                "deformations": deformations,
                "rms_displacement": np.sqrt(mean_square[:, own].mean()),
                "folded_fraction": folded[:, own].mean(),
                **sensitivity_columns(layer, metric, intervals, own),
            }
            if not row["note"]:  # the median between images is the same, and cancels
                share = paired_ratio(layer.apart[:, own], layer.apart[:, :deformations], intervals)
                row |= dict(zip(("share", "share_low", "share_high"), share))
            rows.append(row)
    rows.sort(key=lambda row: (row["number"], row["layer_index"]))
    return table(rows, PART_COLUMNS)
