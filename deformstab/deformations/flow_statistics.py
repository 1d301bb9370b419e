"""How far flows move pixels, and whether they fold the image over itself."""

import operator
import warnings

import keras
import numpy as np
from keras import ops


def statistics_of_flows(flows) -> tuple[np.ndarray, np.ndarray]:
    """How far each flow moves pixels, and whether it folds the image over itself.

    Args:
        flows: [flows, height, width, 2], pixels, (y, x), a value for each pixel.

    Returns:
        (mean_square, folded), each [flows]: the mean over pixels of the squared length, px²; and
        whether the Jacobian determinant of p → p + flow(p), by forward differences, is ≤ 0
        somewhere.
    """
    flows = np.asarray(flows)
    mean_square = np.square(flows, dtype="float64").sum(axis=-1).mean(axis=(1, 2))
    y, x = np.moveaxis(flows, -1, 0)
    return mean_square, folds(y, x, (1.0, 1.0))


def statistics_in_blocks(flow, parameters, height: int, width: int) -> tuple:
    """`statistics_of_flows` of the flows that a function makes of parameters [n, …]."""
    count = len(keras.tree.flatten(parameters)[0])
    step = max(1, (1 << 22) // (height * width))
    mean_square, folded = [np.empty(0)], [np.empty(0, bool)]
    for start in range(0, count, step):
        some = slice(start, start + step)
        part = keras.tree.map_structure(operator.itemgetter(some), parameters)
        each = statistics_of_flows(ops.convert_to_numpy(flow(part, height, width)))
        mean_square.append(each[0])
        folded.append(each[1])
    return np.concatenate(mean_square), np.concatenate(folded)


def folds(y, x, apart) -> np.ndarray:
    """Whether flows fold.

    Args:
        y, x: [flows, rows, columns], the flow at the nodes of a lattice, in pixels.
        apart: (y, x), pixels from one node to the next.
    """
    along = (np.s_[:, 1:, :-1], np.s_[:, :-1, 1:])  # one node further in y, in x
    here = np.s_[:, :-1, :-1]
    (dy_dy, dy_dx), (dx_dy, dx_dx) = (
        [(f[there] - f[here]) / pixels for there, pixels in zip(along, apart)] for f in (y, x)
    )
    determinant = (1 + dy_dy) * (1 + dx_dx) - dy_dx * dx_dy
    return (determinant <= 0).any(axis=(1, 2))


def warn_of_folding(rate: float, what: str, size, remedy: str, stacklevel: int = 3) -> None:
    """Warns where a share of deformations folds the image: they are no changes of pose."""
    if rate > 0:
        warnings.warn(
            f"{rate:.0%} of the deformations with {what} fold an image of {size[0]}×{size[1]} "
            f"pixels over itself; use {remedy}",
            stacklevel=stacklevel + 1,
        )
