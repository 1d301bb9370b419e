"""Question 4: does the worst deformation of an image tell another story than the mean?

Of each layer, and of the prediction, the deformation is sought that moves it furthest, image by
image. At equal root mean square ("rms") that is about the shape of deformations alone; within the
box that random draws fill it is about their strength as well.
"""

import numpy as np
import pandas as pd
from keras import ops

from deformstab.measurement.objectives import PREDICTION
from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.worst_case import worst_deformations
from deformstab.networks.vgg import paper_layers

WITHIN = ("rms", "box")
# Of each search: from a spectral start, a corner and a draw.
STEPS, STARTS = 20, 3


class Given:
    """A deformation whose draws are given.

    Args:
        deformation: a `ds.RandomDeformation`.
        displacements: [images, control points, 2], which every `draw` gives.
    """

    def __init__(self, deformation, displacements):
        self.flow, self.deform = deformation.flow, deformation.deform
        self.displacements = displacements

    def draw(self, batch_size, seed=None):
        """The displacements, of exactly so many images."""
        if batch_size != len(self.displacements):
            raise ValueError(
                f"there are displacements of {len(self.displacements)} images, not of {batch_size}"
            )
        return ops.convert_to_tensor(self.displacements)


def by_layer(model, images, deformation) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """What the worst deformation that is found of each layer does to that layer.

    Args:
        model: of `ds.vgg`.
        images: that measure it.
        deformation: the paper's, a `ds.RandomDeformation`.

    Returns:
        A row for each of `WITHIN` and each of the paper's layers and the prediction: `within`,
        `layer`, `layer_index`; means over images of `mean`, `best_of_k`, `search`, `worst` as in
        `ds.worst_deformation` (cosine distances, margins of the prediction), and of
        `mean_sensitivity` and `worst_sensitivity`, which are comparable between networks; `ratio`,
        worst over mean, NaN of margins and where nothing moves a layer; `unchanged` and
        `unchanged_by_chance`, the share of answers that stay under the worst and under the best of k
        draws (of the prediction); `folded`, the share of images that it folds; `images` that could
        be measured; `note`. And the displacements of each layer at equal root mean square.
    """
    rows, displacements = [], {}
    layers = [*paper_layers(model), PREDICTION]
    options = {"steps": STEPS, "starts": STARTS, "batch_size": 64, "progress": False}
    for within in WITHIN:
        every = worst_deformations(model, images, layers, deformation, within, **options)
        for place, (layer, (table, found)) in enumerate(zip(layers, every)):
            if within == "rms":
                displacements[layer] = found
            rows.append({"within": within, "layer": layer, "layer_index": place, **_row(table)})
    return pd.DataFrame(rows), displacements


def _row(table) -> dict:
    columns = ["mean", "best_of_k", "search", "worst"]
    measured = table[table[columns].notna().all(axis=1)]
    means = measured[[*columns, "mean_sensitivity", "worst_sensitivity"]].mean()
    predicts = "unchanged" in table
    moved = not predicts and means["mean"] > 0
    return means.to_dict() | {
        "ratio": means["worst"] / means["mean"] if moved else np.nan,
        "unchanged": measured["unchanged"].mean() if predicts else np.nan,
        "unchanged_by_chance": (measured["best_of_k"] <= 0).mean() if predicts else np.nan,
        "folded": measured["folded"].mean(),
        "images": len(measured),
        "note": "; ".join(sorted({*table["note"]} - {""})),
    }


def transfer(model, images, deformation, displacements) -> pd.DataFrame:
    """What the worst deformation of one layer does to the others.

    Args:
        model, images, deformation: as for `by_layer`.
        displacements: that it gave.

    Returns:
        A row for each `source` (the prediction as well) and each of the paper's layers: `layer`,
        `layer_index`, `distance`, the mean cosine distance that the source's worst deformations
        cause there; and `unchanged`, the share of answers that stay under them, in each row of a
        source.
    """
    layers, rows = paper_layers(model), []
    answers = _answers(model, images)
    for source, worst in displacements.items():
        given = Given(deformation, worst)
        options = {"intervals": False, "progress": False}
        table = measure_sensitivity(model, images, given, layers, **options)
        unchanged = (_answers(model, deformation.deform(images, worst)) == answers).mean()
        table = table[["layer", "layer_index", "distance"]]
        rows.append(table.assign(source=source, unchanged=unchanged))
    return pd.concat(rows, ignore_index=True)


def _answers(model, images) -> np.ndarray:
    return model.predict_on_batch(images).argmax(axis=-1)
