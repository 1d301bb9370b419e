"""measure_stability: sensitivity to deformations beside sensitivity to noise of the same length."""

from typing import Any

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.distances import METRICS
from deformstab.measurement.intervals import paired_ratio
from deformstab.measurement.layer_distances import MEMORY_LIMIT, measured_layers
from deformstab.measurement.perturbations import NOISE_KINDS, Deformation, Noise, NoiseKind
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.sensitivity import check_options, layer_columns, sensitivity_columns
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import STABILITY_COLUMNS, table

UNMOVED = "neither deformations nor noise move it: there is no ratio"


def measure_stability(
    model: keras.Model,
    images: Any,
    deformation: Deformation | None = None,
    layers: LayerSelection = None,
    noise: NoiseKind = "gaussian",
    deformations: int = 4,
    batch_size: int = 32,
    intervals: bool = True,
    seed: int = 0,
    *,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """Measures each layer's stability to deformations relative to noise of the same size.

    A layer that smooths everything is insensitive to deformations as well. So each deformed image
    τx has a noisy companion x + η, with ‖η‖ = ‖τx - x‖ image by image, and the relative stability
    (Petrini et al. 2021) of a representation r is

        R = mean ‖r(τx) - r(x)‖² / mean ‖r(x + η) - r(x)‖²

    Below 1 the layer is more stable to deformations than their size explains; above 1 less so. At
    the input R = 1 by construction. The "cosine" rows take cosine distances in place of squared
    Euclidean ones; there the input's R need not be 1. The two can disagree in direction.

    Args:
        model, images, deformation, layers, deformations, batch_size, intervals, deformed_input,
            max_images, memory_limit, progress: as for `ds.measure_sensitivity`.
        noise: "gaussian", independent for each pixel and channel; "grey", the same in all channels;
            "spectrum", τx - x itself with random phases: its spectrum and the covariance of its
            channels, but not its shapes. R against "spectrum" near 1 means that low frequency is all
            there is to it. Noisy images are not clipped to the range of the images.
        seed: of the draws, as for `ds.measure_sensitivity`, and of the noise, one for each draw.

    Returns:
        A DataFrame, for each metric a row a layer: `layer`, `layer_index`, `layer_type`, `metric`,
        `sensitivity` and `noise_sensitivity`, the mean distance over the median between images, as
        `ds.measure_sensitivity` has it, of cosine distances and of *squared* Euclidean ones;
        `relative_stability` R with its 95 % interval `relative_stability_low`,
        `relative_stability_high` (delete-one jackknife of log R over images, paired);
        `relative_stability_median`, medians over images and draws in place of means; `noise`,
        `images`, `deformations`, `rms_displacement`, `folded_fraction`, `note`. A layer that
        cannot be measured keeps its row, with NaN and a note; so does one that neither moves.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; unknown noise.

    Example:

    ```python
    table = ds.measure_stability(model, images, noise="spectrum")
    table.query("metric == 'euclidean'").plot(x="layer", y="relative_stability")
    ```
    """
    check_options("cosine", batch_size, memory_limit)
    check_noise(noise)
    prepared = deformed_images(images, deformation, deformations, seed, deformed_input, max_images)
    options = batch_size, intervals, memory_limit, progress
    return stability_table(model, prepared, layers, noise, seed, *options)


def check_noise(noise) -> None:
    """Refuses noise that is not known."""
    if noise not in NOISE_KINDS:
        raise ValueError(f"unknown noise {noise!r}; the known ones are {', '.join(NOISE_KINDS)}")


def stability_table(
    model,
    images,
    layers=None,
    noise: NoiseKind = "gaussian",
    seed: int = 0,
    batch_size: int = 32,
    intervals: bool = True,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> pd.DataFrame:
    """`measure_stability` with `DeformedImages`, whose deformations are drawn already."""
    both = with_noise(images, noise, seed)
    common = {
        "noise": noise,
        "deformations": images.draws,
        "rms_displacement": images.rms_displacement,
        "folded_fraction": images.folded_fraction,
    }
    rows = []
    for place, layer in measured_layers(
        model, both, layers, METRICS, batch_size, memory_limit, progress
    ):
        rows.append(
            {
                **layer_columns(place, layer, both, layer.metric),
                **common,
                **_columns(layer, intervals),
            }
        )
    rows.sort(key=lambda row: (METRICS.index(row["metric"]), row["layer_index"]))
    return table(rows, STABILITY_COLUMNS)


def with_noise(images, noise: NoiseKind, seed: int):
    """`DeformedImages` of which each draw has a noisy companion of the same length behind it."""
    (source,) = images.perturbations
    axes = images.inputs[images.place].ndim
    channels = axes - 3 if images.data_format == "channels_first" else axes - 1
    return images.with_perturbations(source, Noise(source, noise, int(seed), channels))


def by_deformation_and_noise(layer):
    """Distances (squares of Euclidean ones) to deformed and to noisy images: [images, draws] each.

    Args:
        layer: `LayerDistances` of images `with_noise`.
    """
    power = 2 if layer.metric == "euclidean" else 1
    return np.split(layer.apart.astype("float64") ** power, 2, axis=1)


def _columns(layer, intervals) -> dict:
    """The numbers of one layer by one metric, or the note that says why there are none."""
    note = sensitivity_columns(layer, layer.metric, intervals=False).get("note", "")
    if note:
        return {"note": note}
    by_deformation, by_noise = by_deformation_and_noise(layer)
    power = 2 if layer.metric == "euclidean" else 1
    baseline = np.median(layer.pairs[np.triu_indices(len(layer.pairs), 1)] ** power)
    row = {
        "sensitivity": by_deformation.mean() / baseline,
        "noise_sensitivity": by_noise.mean() / baseline,
    }
    if not by_deformation.any() and not by_noise.any():
        return {**row, "note": UNMOVED}
    ratio, low, high = paired_ratio(by_deformation, by_noise, intervals)
    row |= {
        "relative_stability": ratio,
        "relative_stability_low": low,
        "relative_stability_high": high,
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        row["relative_stability_median"] = np.median(by_deformation) / np.median(by_noise)
    return row
