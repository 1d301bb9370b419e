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
    counts, start = _Counts(answering.shape[2], labels is not None, images.padding), 0
    for batch in answers(model, images, batch_size, output, answering, memory_limit):
        own, moved = batch[:, 0], batch[:, 1:]
        if (batch == NONE).any():
            return {"note": "the model answers with NaN for some pixels"}
        chosen = slice(start, start + len(own))
        truth = None if labels is None else labels[chosen]
        start += len(own)
        flows = (images.flow(chosen, draw) for draw in range(moved.shape[1]))
        counts.add(own, np.moveaxis(moved, 1, 0), truth, flows)
    return counts.row()


def _moved(maps, flow, padding):
    """Integer maps [b, height, width] along flows, each pixel from the nearest one."""
    maps = ops.convert_to_tensor(maps.astype("int32")[..., None])
    return ops.convert_to_numpy(warp(maps, flow, "nearest", padding))[..., 0]


class _Counts:
    """Sums over pixels, batch after batch."""

    def __init__(self, classes, labelled, padding="edge"):
        self.classes, self.labelled, self.padding = classes, labelled, padding
        # Of each batch the shares [images]. Draws of one image are alike, so they are averaged:
        # counted as more images, they would make the interval too narrow.
        self.agree, self.unmoved = [], []
        self.pairs = {name: np.zeros((classes, classes), "int64") for name in ("moved", "unmoved")}
        # Pixels (right, all): to keep the maps themselves would heed no memory_limit.
        names = "accuracy", "deformed_accuracy", "correct_consistency"
        self.right = {name: np.zeros(2, "int64") for name in names}

    def add(self, own, moved, truth, flows):
        """Answers for images [b, height, width], and those of each draw with its flows."""
        agree, unmoved = [], []
        for found, flow in zip(moved, flows):
            expected = _moved(own, flow, self.padding)
            agree.append((found == expected).mean(axis=(1, 2)))
            unmoved.append((found == own).mean(axis=(1, 2)))
            for name, other in (("moved", expected), ("unmoved", own)):
                np.add.at(self.pairs[name], (found.ravel(), other.ravel()), 1)
            if truth is not None:
                truth_there = _moved(truth, flow, self.padding)
                correct = (found == expected)[expected == truth_there]
                rights = own == truth, found == truth_there, correct
                for counted, right in zip(self.right.values(), rights):
                    counted += right.sum(), right.size
        self.agree.append(np.mean(agree, axis=0))
        self.unmoved.append(np.mean(unmoved, axis=0))

    def row(self) -> dict:
        share, low, high = mean_interval(np.concatenate(self.agree))
        row = {
            "consistency": share,
            "consistency_low": max(0.0, low),
            "consistency_high": min(1.0, high),
            "unmoved_consistency": np.concatenate(self.unmoved).mean(),
            "mean_iou": _mean_iou(self.pairs["moved"]),
            "unmoved_mean_iou": _mean_iou(self.pairs["unmoved"]),
        }
        if self.labelled:
            counted = self.right.items()
            row |= {name: right / all_ if all_ else np.nan for name, (right, all_) in counted}
        return row


def _mean_iou(pairs) -> float:
    """Of counts [class of one, class of the other]; classes that neither has are left out."""
    both = np.diag(pairs)
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - both
    return float((both[union > 0] / union[union > 0]).mean())
