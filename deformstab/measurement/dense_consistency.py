"""The consistency of answers that a model gives for each pixel, as in segmentation."""

import numpy as np
from keras import ops

from deformstab.deformations.warp import warp
from deformstab.measurement.answers import NONE, answers
from deformstab.measurement.intervals import mean_interval


def dense_shares(
    model, images, batch_size: int, output, answering, memory_limit: float, labels
) -> dict:
    """The columns of `prediction_consistency` about answers [images, height, width].

    Args:
        model, batch_size, output, answering, memory_limit: as for `answers`.
        images: `DeformedImages`.
        labels: int [images, height, width] or `None`.

    Raises:
        ValueError: the answers are not of the images' size, so that it is not known where the pixels
            of an answer lie in the image.
    """
    size = images.size
    if tuple(answering.shape[:2]) != size:
        raise ValueError(
            f"the model gives answers of {answering.shape[0]}×{answering.shape[1]} for images of "
            f"{size[0]}×{size[1]} pixels: resize its output to the image (keras.layers.Resizing) "
            "first, so that it is known where an answer lies"
        )
    counts, start = _Counts(answering.shape[2], labels is not None), 0
    for batch in answers(model, images, batch_size, output, answering, memory_limit):
        own, moved = batch[:, 0], batch[:, 1:]
        if (batch == NONE).any():
            return {"note": "the model answers with NaN for some pixels"}
        chosen = slice(start, start + len(own))
        truth = None if labels is None else labels[chosen]
        start += len(own)
        for draw in range(moved.shape[1]):
            flow = images.flow(chosen, draw)
            counts.add(own, _moved(own, flow), moved[:, draw], truth, flow)
    return counts.row()


def _moved(maps, flow):
    """Integer maps [b, height, width] along flows, each pixel from the nearest one."""
    maps = ops.convert_to_tensor(maps.astype("int32")[..., None])
    return ops.convert_to_numpy(warp(maps, flow, "nearest"))[..., 0]


class _Counts:
    """Sums over pixels, batch after batch."""

    def __init__(self, classes, labelled):
        self.classes, self.labelled = classes, labelled
        self.agree, self.unmoved = [], []  # a share an image and draw, in the order of images
        self.pairs = {name: np.zeros((classes, classes), "int64") for name in ("moved", "unmoved")}
        self.right = {name: [] for name in ("accuracy", "deformed_accuracy", "correct")}

    def add(self, own, expected, found, truth, flow):
        self.agree.append((found == expected).mean(axis=(1, 2)))
        self.unmoved.append((found == own).mean(axis=(1, 2)))
        for name, other in (("moved", expected), ("unmoved", own)):
            np.add.at(self.pairs[name], (found.ravel(), other.ravel()), 1)
        if truth is not None:
            truth_there = _moved(truth, flow)
            correct = expected == truth_there
            self.right["accuracy"].append(own == truth)
            self.right["deformed_accuracy"].append(found == truth_there)
            self.right["correct"].append((found == expected)[correct])

    def row(self) -> dict:
        shares = np.concatenate(self.agree)
        share, low, high = mean_interval(shares)
        row = {
            "consistency": share,
            "consistency_low": max(0.0, low),
            "consistency_high": min(1.0, high),
            "unmoved_consistency": np.concatenate(self.unmoved).mean(),
            "mean_iou": _mean_iou(self.pairs["moved"]),
            "unmoved_mean_iou": _mean_iou(self.pairs["unmoved"]),
        }
        if self.labelled:
            row |= {name: _mean(self.right[name]) for name in ("accuracy", "deformed_accuracy")}
            row["correct_consistency"] = _mean(self.right["correct"])
        return row


def _mean(parts) -> float:
    joined = np.concatenate([part.ravel() for part in parts])
    return float(joined.mean()) if joined.size else np.nan


def _mean_iou(pairs) -> float:
    """Of counts [class of one, class of the other]; classes that neither has are left out."""
    both = np.diag(pairs)
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - both
    return float((both[union > 0] / union[union > 0]).mean())
