"""What the search for worst deformations found of a layer, and the columns of its table."""

import keras
import numpy as np

from deformstab.measurement.objectives import PREDICTION
from deformstab.measurement.sensitivity import sensitivity_columns


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
        self.broken, self.lost = np.zeros(images, bool), np.zeros(images, bool)
        self.answers = np.zeros(images, int)

    def keep(self, now, objective, by_chance, found):
        """The first `len(now)` rows of what was found are those of the images `now`."""
        few = len(now)
        self.values["mean"][now] = by_chance.mean[:few]
        self.values["best_of_k"][now] = by_chance.values[:few]
        self.values["search"][now] = found.values[:few]
        found.look(by_chance.values, by_chance.displacements)
        self.values["worst"][now] = found.values[:few]
        self.worst[now], self.broken[now] = found.displacements[:few], objective.broken[:few]
        self.lost[now] = (found.lost | by_chance.lost)[:few]
        if objective.kind == PREDICTION:
            self.answers[now] = objective.answers[:few]

    def answered(self, labels) -> dict:
        """Whether answers stay, and are right as well; neither where one is none."""
        changed = self.values["worst"] > 0
        none = self.broken | (self.lost & ~changed)
        unchanged = ~changed & ~none
        if labels is None:
            return {"unchanged": unchanged, "accuracy": np.nan}
        right = (unchanged & (self.answers == labels)).astype("float64")
        return {"unchanged": unchanged, "accuracy": np.where(none, np.nan, right)}

    def over(self, layer, metric: str, notes) -> dict:
        """Distances over the median one between images; or why there is none, in every row.

        Args:
            layer: `LayerDistances`.
            metric: of it.
            notes: of the rows.
        """
        found = sensitivity_columns(layer, metric, intervals=False)
        if "note" in found:
            return {"note": ["; ".join(filter(None, (own, found["note"]))) for own in notes]}
        return {
            "baseline": found["baseline"],
            "mean_sensitivity": self.values["mean"] / found["baseline"],
            "worst_sensitivity": self.values["worst"] / found["baseline"],
        }

    def notes(self, kind: str) -> np.ndarray:
        """What is wrong with each image by itself."""
        what = {
            "cosine": "zero or non-finite representation of the image{}: it has no direction",
            "euclidean": "no finite representation of the image{}",
            PREDICTION: "no finite answer for the image{}",
        }[kind]
        of_some = what.format(" under some of the deformations that were tried")
        return np.select([self.broken, self.lost], [what.format(""), of_some], "")


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
        "note": rows.notes(kind),
    }
