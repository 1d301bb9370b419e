"""Question 5: does training teach layers to move with the image, or to ignore that it moves?

Sensitivity is large for a map that moves along with its image, and for one that becomes another map;
`ds.measure_equivariance` tells the two apart. Its distances are followed from initialization on, at
the steps that tracking has, batch normalization re-estimated over the same training images each time.
"""

import pandas as pd

from deformstab.measurement.distances import METRICS

# What is noted of each layer: distance to the map that moved along, and to the map as it was.
QUANTITIES = ("sensitivity", *(f"{name}_{m}" for name in ("moves_with", "stays") for m in METRICS))


def followed(trajectory, last: int) -> pd.DataFrame:
    """What was recorded while a network was trained, a row a step and layer.

    Args:
        trajectory: long, as the tracking of runs gives it: `step`, `layer`, `layer_index`,
            `accuracy_train`, `quantity`, `value`; from step 0 on.
        last: the step at which training ended.

    Returns:
        `phase` ("initial", "tracked", "trained"), `step`, `layer`, `layer_index`, `accuracy_train`,
        `QUANTITIES`, and `ratio_euclidean`, `ratio_cosine`, moves_with / stays: below 1 a layer
        moves with the image.
    """
    keys = ["step", "layer_index", "layer", "accuracy_train"]
    chosen = trajectory[trajectory["quantity"].isin(QUANTITIES)]
    table = chosen.pivot(index=keys, columns="quantity", values="value")[list(QUANTITIES)]
    table = table.reset_index().rename_axis(columns=None)
    phase = table["step"].map({0: "initial", last: "trained"}).fillna("tracked")
    table.insert(0, "phase", phase)
    for metric in METRICS:
        table[f"ratio_{metric}"] = table[f"moves_with_{metric}"] / table[f"stays_{metric}"]
    return table
