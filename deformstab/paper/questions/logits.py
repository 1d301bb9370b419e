"""Question 6: does the error of a network follow the relative stability of its logits?

Petrini et al. (2021) report, over 15 architectures trained on all of CIFAR-10, a test error of about
0.2 · √R. Their R is of the output, by squared Euclidean distances, of diffeomorphisms of maximal
entropy; the paper's splines are measured beside.
"""

import pandas as pd

from deformstab.deformations.families import RandomDiffeomorphism
from deformstab.measurement.stability import measure_stability

CUTOFF = 3  # the lowest of theirs; on 32×32 pixels higher ones fold images at this strength
FACTOR, POWER = 0.2, 0.5  # error ≈ FACTOR · R^POWER
SPLINE, DIFFEOMORPHISM = "spline", "diffeomorphism"
FAMILIES = (SPLINE, DIFFEOMORPHISM)
_DRAWS = 4


def by_family(model, images, deformation) -> pd.DataFrame:
    """Relative stability of the logits, of deformations of two families at one strength.

    Args:
        model: of `ds.vgg`.
        images: that measure it.
        deformation: the paper's, a `ds.RandomDeformation`; the diffeomorphisms move pixels as far,
            root mean square.

    Returns:
        The rows of `ds.measure_stability` for the logits, with `family`, one of `FAMILIES`; without
        intervals over images.
    """
    reach = deformation.expected_rms(*images.shape[1:3])
    families = {
        SPLINE: deformation,
        DIFFEOMORPHISM: RandomDiffeomorphism(CUTOFF, reach, seed=0),
    }
    options = {"deformations": _DRAWS, "intervals": False, "progress": False}
    tables = [
        measure_stability(model, images, each, ["logits"], **options).assign(family=name)
        for name, each in families.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.drop(columns=["relative_stability_low", "relative_stability_high"])
