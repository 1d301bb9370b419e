"""Which downsampling layers of a network must keep the same pixels: those of parallel branches."""

import itertools

import keras
import numpy as np
from keras import layers


def parallel(graph, downsampling, ignored=()) -> dict:
    """The downsampling layers of a functional model that lead from one grid to one other grid.

    Two tensors lie on one grid if a layer without a stride leads from one to the other, or joins
    them. Of branches that are added later, all go from the grid of their common input to the grid
    of the sum; a choice of pixels must be the same in all of them.

    Args:
        graph: the model; layers of models inside it count as one.
        downsampling: layers, of which those inside `graph` count.
        ignored: layers with a stride that falls away.

    Returns:
        {layer: the number of its group}, of groups of two or more. A layer that is called several
        times has no group: its calls may belong to several.
    """
    grids, found = _Sets(), []
    for node in itertools.chain(*graph._nodes_by_depth.values()):
        operation, inputs = node.operation, node.input_tensors
        if operation in downsampling:
            found.append((operation, id(inputs[0]), id(node.outputs[0])))
            continue
        for before in inputs:
            for after in node.outputs:
                if operation in ignored or _keeps_grid(operation, before, after):
                    grids.join(id(before), id(after))
    called = [operation for operation, *_ in found]
    groups = {}
    for operation, *ends in found:
        if called.count(operation) == 1:
            groups.setdefault(tuple(map(grids.name, ends)), []).append(operation)
    several = [group for group in groups.values() if len(group) > 1]
    return {operation: number for number, group in enumerate(several) for operation in group}


# Whatever they do to the size, without a stride.
_STAY = (
    *(layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D),
    *(layers.ZeroPadding2D, layers.Cropping2D, layers.MaxPooling2D, layers.AveragePooling2D),
)


def _keeps_grid(operation, before, after) -> bool:
    if len(before.shape) != 4 or len(after.shape) != 4:
        return False
    strides = getattr(operation, "strides", None)
    if strides is None:  # of pooling, the size of its window
        strides = getattr(operation, "pool_size", None) or 1
    if np.max(strides) > 1 or isinstance(operation, layers.UpSampling2D):
        return False
    if isinstance(operation, _STAY):
        return True
    data_format = getattr(operation, "data_format", None) or keras.config.image_data_format()
    axes = (2, 3) if data_format == "channels_first" else (1, 2)
    return all(_alike(before.shape[axis], after.shape[axis]) for axis in axes)


def _alike(before, after) -> bool:
    """Whether sizes may be of one grid: a border comes or goes, but no half of the pixels."""
    if before is None or after is None:
        return 1 not in (before, after)  # one pixel is a mean over all, or what is made of it
    return before == after or before / 2 < after < before * 1.5


class _Sets:
    """Sets that are joined, each known by one of its members (union-find)."""

    def __init__(self):
        self._above = {}

    def name(self, member):
        while member in self._above:
            member = self._above[member]
        return member

    def join(self, one, other) -> None:
        one, other = self.name(one), self.name(other)
        if one != other:
            self._above[one] = other
