"""Question 2: what does exact consistency under shifts give against other deformations?

A circular network is the same everywhere on a circle of pixels, so what is moved must say what
comes in at the borders. Shifts of the whole image go round ("circular"): one by a whole pixel is
then a roll, under which an adaptive network's logits do not change. The paper's deformation, and
each of its parts, repeats the nearest edge pixel ("edge"), as everywhere else here; it is measured
going round as well, for comparison.
"""

import pandas as pd

from deformstab.deformations.families import RandomTranslation
from deformstab.deformations.parts import PARTS, FlowPart
from deformstab.measurement.distances import METRICS
from deformstab.measurement.parts_of_sensitivity import sensitivity_by_part
from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.shifts import shift_consistency
from deformstab.networks.vgg import paper_layers

WHOLE, FRACTION = "whole pixel", "fraction"
# What moves the image, and what comes in at its borders.
CHANGES = (
    (WHOLE, "circular"),
    (FRACTION, "circular"),
    *((part, outside) for outside in ("edge", "circular") for part in PARTS),
)


class GoingRound:
    """Another deformation's flows, on images whose opposite borders touch.

    Args:
        deformation: an object with `draw` and `flow`; each part of it is moved by `FlowPart`, which
            asks for `padding`, and so is the whole.
    """

    padding = "circular"

    def __init__(self, deformation):
        self.draw, self.flow = deformation.draw, deformation.flow
        self.deform = FlowPart(self, "full").deform


def by_change(model, images, deformation) -> pd.DataFrame:
    """Sensitivity to shifts and to the parts of a deformation, of the paper's layers and logits.

    Args:
        model: of `ds.vgg`.
        images: that measure it.
        deformation: the paper's, a `ds.RandomDeformation`.

    Returns:
        `change` and `outside`, one of `CHANGES` ("whole pixel": a roll by one pixel; "fraction": a
        shift in any direction, as far as the deformation's root mean square; the parts of the
        deformation's own draws, which move less than it), then the columns of
        `ds.measure_sensitivity`, for both metrics, without intervals over images.
    """
    layers = [*paper_layers(model), "logits"]
    height, width = images.shape[1:3]
    shifts = {
        WHOLE: RandomTranslation(1.0, integer=True, padding="circular", seed=0),
        FRACTION: RandomTranslation(
            deformation.expected_rms(height, width), padding="circular", seed=0
        ),
    }
    outside = {"edge": deformation, "circular": GoingRound(deformation)}
    brief = {"intervals": False, "progress": False}
    found = []
    for metric in METRICS:
        for change, shift in shifts.items():
            table = measure_sensitivity(model, images, shift, layers, metric, **brief)
            found.append(table.assign(change=change, outside="circular"))
        for name, moved in outside.items():
            table = sensitivity_by_part(model, images, moved, layers, metric, **brief)
            found.append(table.rename(columns={"part": "change"}).assign(outside=name))
    table = pd.concat(found, ignore_index=True)
    first = ["change", "outside"]
    return table[[*first, *(name for name in table if name not in (*first, *_LEFT_OUT))]]


def consistency(model, images, labels) -> pd.DataFrame:
    """The row of `ds.shift_consistency` under rolls."""
    return shift_consistency(model, images, labels, protocol="circular", progress=False)


_LEFT_OUT = ("share", "share_low", "share_high", "sensitivity_low", "sensitivity_high")
