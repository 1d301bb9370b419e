"""What the search for worst deformations found of a layer, and the columns of its table."""

import keras
import numpy as np

from deformstab.measurement.objectives import PREDICTION


class Rows:
    """What was found of a layer, image by image.

    Args:
        images: how many.
        parameters: the shape of an image's displacements.
    """

    def __init__(self, images, parameters):
        names = "mean", "best_of_k", "search", "worst"
        self.values = {name: np.full(images, np.nan) for name in names}
        self.worst = np.zeros((images, *parameters))
        self.broken, self.answers = np.zeros(images, bool), np.zeros(images, int)

    def keep(self, now, objective, by_chance, found):
        """The first `len(now)` rows of what was found are those of the images `now`."""
        few = len(now)
        self.values["mean"][now] = by_chance.mean[:few]
        self.values["best_of_k"][now] = by_chance.values[:few]
        self.values["search"][now] = found.values[:few]
        found.look(by_chance.values, by_chance.displacements)
        self.values["worst"][now] = found.values[:few]
        self.worst[now], self.broken[now] = found.displacements[:few], objective.broken[:few]
        if objective.kind == PREDICTION:
            self.answers[now] = objective.answers[:few]

    def answered(self, labels) -> dict:
        """Whether answers stay, and are right as well."""
        unchanged = ~(self.values["worst"] > 0)
        right = (
            np.nan if labels is None else (unchanged & (self.answers == labels)).astype("float64")
        )
        return {"unchanged": unchanged, "accuracy": right}

    def over(self, baseline) -> dict:
        """Distances over the median one between images."""
        if baseline is None:
            return {}
        if baseline <= 0:
            return {"baseline": baseline}
        return {
            "baseline": baseline,
            "mean_sensitivity": self.values["mean"] / baseline,
            "worst_sensitivity": self.values["worst"] / baseline,
        }


def baseline_of(layer) -> float | None:
    """The median distance between images, of `LayerDistances`."""
    if layer.pairs is None:
        return None
    return np.median(layer.pairs[np.triu_indices(len(layer.pairs), 1)])


def columns_of(images, chosen, worst, rows, passes, within, kind) -> dict:
    """What every table says of every image."""
    deformation = images.deformation
    height, width = images.size
    mean_square, folded = deformation.flow_statistics(worst, height, width)
    longest = []
    for start in range(0, len(worst), 64):
        few = worst[start : start + 64].astype(deformation.geometry_dtype)
        flow = keras.ops.convert_to_numpy(deformation.flow(few, height, width))
        longest.append(np.sqrt((flow**2).sum(axis=-1)).max(axis=(1, 2)))
    note = (
        "no finite representation of the image"
        if kind != "cosine"
        else ("zero or non-finite representation of the image: it has no direction")
    )
    return {
        "layer": chosen.name,
        "metric": "margin" if kind == PREDICTION else kind,
        "within": within,
        "image": np.arange(len(worst)),
        **rows.values,
        "baseline": np.nan,
        "mean_sensitivity": np.nan,
        "worst_sensitivity": np.nan,
        "passes": passes,
        "rms_displacement": np.sqrt(mean_square),
        "max_displacement": np.concatenate(longest),
        "folded": folded,
        "note": np.where(rows.broken, note, ""),
    }
