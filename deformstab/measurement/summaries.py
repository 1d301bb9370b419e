"""One number of each layer, and what it would be without each image: all that a comparison needs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deformstab.measurement.equivariance import UNCHANGED
from deformstab.measurement.grids import Grid
from deformstab.measurement.intervals import leave_one_out, leave_one_out_ratio
from deformstab.measurement.layer_distances import build, measured_layers
from deformstab.measurement.moving_maps import measured_maps, moving_and_staying
from deformstab.measurement.representations import representations, select
from deformstab.measurement.sensitivity import sensitivity_columns
from deformstab.measurement.smoothness import filter_smoothness
from deformstab.measurement.stability import UNMOVED, by_deformation_and_noise, with_noise

Measure = Literal["sensitivity", "smoothness", "stability", "equivariance"]
MEASURES = {  # what can be compared → the name of its number in a table of comparisons
    "sensitivity": "sensitivity",
    "smoothness": "smoothness",
    "stability": "relative_stability",
    "equivariance": "moving_ratio",
}


@dataclass
class Summary:
    """The logarithm of one layer's number, and its values without each image in turn.

    Attributes:
        place: number of the row.
        name, key, automatic: of the layer, as `watching.Call` has them.
        note: why there is no number, or "".
        log, logs: the logarithm; [images], or [0] where no image is left out.
        kernel: (height, width), of a convolution whose filters are the matter.
    """

    place: int
    name: str
    note: str
    log: float = np.nan
    logs: np.ndarray = field(default_factory=lambda: np.empty(0))
    key: str = ""
    automatic: bool = False
    kernel: tuple = ()


def layer_summaries(
    model, images, layers, measure, noise, seed, metric, batch_size, memory_limit, progress
) -> list[Summary]:
    """What is known of one model.

    Args:
        model, images, layers, metric, batch_size, memory_limit, progress: as for
            `measured_layers`.
        measure: one of `MEASURES`.
        noise, seed: of "stability".

    Returns:
        `Summary`s in the order of the layers.
    """
    options = metric, batch_size, memory_limit, progress
    if measure == "smoothness":
        return list(_smooth(model, images, layers))
    if measure == "equivariance":
        maps = measured_maps(model, images, layers, metric, True, *options[1:])
        found = [_summary(place, layer, *_of_map(layer, grid)) for place, layer, grid in maps]
    elif measure == "stability":
        both = with_noise(images, noise, seed)
        found = [
            _summary(place, layer, by_deformation_and_noise, UNMOVED)
            for place, layer in measured_layers(model, both, layers, *options)
        ]
    else:
        found = [_summary(*each) for each in measured_layers(model, images, layers, *options)]
    return sorted(found, key=lambda each: each.place)


def _of_map(layer, grid):
    if isinstance(grid, Grid):
        return moving_and_staying, UNCHANGED
    return None, layer.note or grid


def _summary(place, layer, parts=None, note="") -> Summary:
    """Of a sensitivity; or, with `parts` of distances, of the ratio of their means.

    `note` is that of a ratio 0/0, or of a layer that has no parts.
    """
    named = layer.representation
    identity = {"key": named.key, "automatic": named.automatic}
    broken = sensitivity_columns(layer, layer.metric, intervals=False).get("note", "")
    if broken or (note and not parts):
        return Summary(place, named.name, broken or note, **identity)
    if not parts:
        *_, value, logs = leave_one_out(layer.apart.mean(axis=1), layer.pairs)
    else:
        top, bottom = parts(layer)
        if not top.any() and not bottom.any():
            return Summary(place, named.name, note, **identity)
        value, logs = leave_one_out_ratio(top, bottom)
    with np.errstate(divide="ignore"):  # a layer that no deformation moves has sensitivity zero
        return Summary(place, named.name, "", np.log(value), logs, **identity)


def _smooth(model, images, layers) -> Iterator[Summary]:
    """Of the chosen layers those that are convolutions."""
    images = images.with_perturbations()  # filters depend on none, nor on the dtype of the input
    build(model, images)
    smoothness = filter_smoothness(model).set_index("layer")
    chosen = select(representations(model, images), layers)
    convolutions = [each for each in chosen if each.name in smoothness.index]
    for place, each in enumerate(convolutions):
        row = smoothness.loc[each.name]
        identity = {"key": each.key, "automatic": each.automatic}
        identity["kernel"] = (row["kernel_height"], row["kernel_width"])
        with np.errstate(divide="ignore"):  # filters that are constant in space
            log = np.log(row["smoothness"])
        yield Summary(place, each.name, row["note"], log, **identity)
