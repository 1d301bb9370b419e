"""Pooling with a stride: fewer units, and fewer operations."""

import math

import pandas as pd
from keras import layers

from deformstab.networks.downsampling import PAPER_KINDS
from deformstab.networks.vgg import CIFAR10_BLOCKS, vgg

SIDE = 32


def units(side: int = SIDE, blocks=CIFAR10_BLOCKS, kinds=PAPER_KINDS) -> pd.DataFrame:
    """Counts the units and multiplications of networks that halve the image, and of one that does not.

    Units are those of convolutions and of what halves the image, each once (batch normalization and
    ReLU give no new ones). Multiplications are those of kernels: maxima, sums and copies have none.

    Args:
        side: of the image, pixels.
        blocks: as of `ds.vgg`.
        kinds: of downsampling.

    Returns:
        A row a kind, and first one for "none", the same convolutions at the image's size: `kind`,
        `units`, `multiplications`, `parameters`; and `of_none`: multiplications, as a share of those
        of "none".
    """
    rows = []
    for kind in kinds:
        model = vgg((side, side, 3), 10, blocks, kind, seed=0)
        rows.append({"kind": kind, **_count(model, None)})
        if kind == "subsample":  # which has the convolutions of the blocks and no others
            whole = {"kind": "none", **_count(model, (side, side))}
    rows.insert(0, whole)
    table = pd.DataFrame(rows)
    return table.assign(of_none=table["multiplications"] / whole["multiplications"])


def _count(model, size) -> dict:
    """Of a model; with a `size`, of its convolutions if all maps had that size."""
    units = multiplications = 0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        place = layer.output.shape[1:3] if size is None else size
        if kernel is not None and len(kernel.shape) == 4:
            units += math.prod(place) * kernel.shape[-1]
            multiplications += math.prod(place) * math.prod(kernel.shape)
        elif kernel is not None:
            units += kernel.shape[-1]
            multiplications += math.prod(kernel.shape)
        elif size is None and layer.name.endswith("_downsample"):
            # Of strided_relu this is a ReLU behind a convolution that has been counted.
            again = isinstance(layer, layers.ReLU)
            units += 0 if again else math.prod(layer.output.shape[1:])
    found = {"units": units, "multiplications": multiplications}
    return found | {"parameters": model.count_params()}
