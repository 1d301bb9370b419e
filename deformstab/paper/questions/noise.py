"""Question 1: is a network stable to deformations, or does it smooth whatever comes?"""

import pandas as pd

from deformstab.measurement.stability import measure_stability
from deformstab.networks.vgg import paper_layers

# Independent for each pixel; with the spectrum of what the deformation changes.
NOISES = ("gaussian", "spectrum")
DRAWS = 4  # of deformations and of noise, of each image


def beside_noise(model, images, deformation) -> pd.DataFrame:
    """Sensitivity to deformations and to noise of the same length, of the paper's layers and logits.

    Args:
        model: of `ds.vgg`.
        images: that measure it.
        deformation: a layer of this package.

    Returns:
        The rows of `ds.measure_stability`, of each of `NOISES`, without intervals over images.
    """
    layers = [*paper_layers(model), "logits"]
    table = pd.concat(
        [
            measure_stability(
                model, images, deformation, layers, noise, DRAWS, intervals=False, progress=False
            )
            for noise in NOISES
        ],
        ignore_index=True,
    )
    return table.drop(columns=["relative_stability_low", "relative_stability_high"])
