"""sensitivity_by_strength: how a layer's sensitivity grows with the deformation."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.deformations.splines import check_max_displacement
from deformstab.measurement.distances import Metric
from deformstab.measurement.layer_distances import MEMORY_LIMIT, measured_layers
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.sensitivity import check_options, layer_columns, sensitivity_columns
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import SENSITIVITY_COLUMNS, STRENGTH_COLUMNS, table


def sensitivity_by_strength(
    model: keras.Model,
    images: Any,
    max_displacements: Sequence[float | tuple[float, float]],
    deformation: RandomDeformation | None = None,
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
    """Measures each layer's sensitivity to deformations of several strengths.

    Each row is what `ds.measure_sensitivity` gives for that strength, from the same seed: the same
    deformations, scaled. Distances between images do not depend on the strength, and are computed
    once.

    Args:
        model, images: as for `ds.measure_sensitivity`.
        max_displacements: the strengths, in pixels, each a number or (y, x).
        deformation: of the control points and interpolation; its own strength does not matter.
        layers, metric, deformations, batch_size, intervals, seed, deformed_input, max_images,
            memory_limit, progress: as for `ds.measure_sensitivity`.

    Returns:
        The DataFrame of `ds.measure_sensitivity`, with `max_displacement` before its columns (of a
        pair the larger one): all layers of the first strength, then those of the next.
        `ds.plot_sensitivity` draws it.

    Raises:
        ValueError: as `ds.measure_sensitivity` does, and without strengths.

    Example:

    ```python
    table = ds.sensitivity_by_strength(model, images, [0.5, 1, 2])
    figure = ds.plot_sensitivity(table)
    ```
    """
    check_options(metric, batch_size, memory_limit)
    given = max_displacements if np.iterable(max_displacements) else [max_displacements]
    strengths = [check_max_displacement(each) for each in given]
    if not strengths:
        raise ValueError("max_displacements is empty: pass some strengths in pixels")
    if all(y == x for y, x in strengths):
        strengths = [y for y, _ in strengths]
    prepared = deformed_images(
        images, deformation, deformations, seed, deformed_input, max_images, strengths
    )
    mean_square, folded = prepared.flow_statistics
    rows = []
    found = measured_layers(model, prepared, layers, metric, batch_size, memory_limit, progress)
    for place, layer in found:
        for number, strength in enumerate(strengths):
            own = slice(number * deformations, (number + 1) * deformations)
            rows.append(
                {
                    **layer_columns(place, layer, prepared, metric),
                    "number": number,
                    "max_displacement": np.max(strength),
                    "deformations": deformations,
                    "rms_displacement": np.sqrt(mean_square[:, own].mean()),
                    "folded_fraction": folded[:, own].mean(),
                    **sensitivity_columns(layer, metric, intervals, own),
                }
            )
    rows.sort(key=lambda row: (row["number"], row["layer_index"]))
    return table(rows, {**STRENGTH_COLUMNS, **SENSITIVITY_COLUMNS})
