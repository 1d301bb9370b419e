"""Sparse interactions: a unit sees some pixels, its receptive field, and no others."""

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.grids import layer_grids
from deformstab.measurement.representations import representations, select
from deformstab.measurement.stimuli import deformed_images
from deformstab.networks.vgg import paper_layers, vgg

BLOCKS = ((2, 8),) * 4
SIDE = 96  # the largest field, 76, fits around a unit in the middle
# Far beyond the range of images, so that no maximum and no ReLU on the way hides a change.
_CHANGES = (1e3, -1e3)


def fields(kind: str, blocks=BLOCKS) -> list[int]:
    """Receptive fields by the arithmetic of windows: k pixels of a map add (k - 1) · its stride.

    Args:
        kind: of downsampling; "subsample" has windows of 1, all others of the paper 2.
        blocks: (convolutions, filters) of each block, as of `ds.vgg`; convolutions are 3×3.

    Returns:
        Pixels a side of each convolution and each downsampling layer, in order.
    """
    field, stride, found = 1, 1, []
    for convolutions, _ in blocks:
        for window in [3] * convolutions + [1 if kind == "subsample" else 2]:
            field += (window - 1) * stride
            found.append(field)
        stride *= 2
    return found


def one_pixel_changes(kind: str, seed: int, side: int = SIDE, blocks=BLOCKS) -> pd.DataFrame:
    """Changes the pixels of the middle row and of the middle column, one at a time, and looks.

    A unit is inside where its field, by `layer_grids`, holds the pixel. Both forward passes have
    batches of one shape, so that what does not depend on the pixel is the same bit for bit.

    Args:
        kind: of downsampling.
        seed: of the weights and of the image, noise in [-1, 1].
        side: of the image, pixels.
        blocks: as of `ds.vgg`.

    Returns:
        A row a layer of `ds.paper_layers`: `kind`, `layer`, `layer_index`; `field` by the
        arithmetic; `field_y`, `field_x`: how many pixels of the column, of the row, change the unit
        in the middle of the map; `pairs_outside`: pairs of a pixel and a unit that does not see it;
        `changed_outside`: how many of these units changed; `largest_outside`: by how much at most;
        `share_inside`: of the pairs of a pixel and a unit that sees it, how many changed.
    """
    model = vgg((side, side, 3), 10, blocks, kind, seed=seed)
    names = paper_layers(model)[1:]
    outputs = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    image = np.random.default_rng(seed).uniform(-1, 1, (side, side, 3)).astype("float32")
    prepared = deformed_images(np.stack([image, -image]))
    grids = layer_grids(model, prepared, select(representations(model, prepared), names))
    changed = [_changed(outputs, image, axis) for axis in (0, 1)]
    rows = []
    for place, (name, field) in enumerate(zip(names, fields(kind, blocks))):
        grid, middle = grids[name], tuple(size // 2 for size in grids[name].size)
        row = {"kind": kind, "layer": name, "layer_index": place + 1, "field": field}
        inside = [_inside(grid, side, axis) for axis in (0, 1)]
        amounts = [each[place] for each in changed]
        row |= {
            f"field_{letter}": int((each[:, *middle] > 0).sum())
            for letter, each in zip("yx", amounts)
        }
        outside = np.concatenate([each[~seen] for each, seen in zip(amounts, inside)])
        within = np.concatenate([each[seen] for each, seen in zip(amounts, inside)])
        row |= {"pairs_outside": outside.size, "changed_outside": int((outside > 0).sum())}
        row |= {"largest_outside": float(outside.max(initial=0))}
        rows.append(row | {"share_inside": float((within > 0).mean())})
    return pd.DataFrame(rows)


def _changed(outputs, image, axis) -> list[np.ndarray]:
    """By how much units change: of each layer [pixels along the axis, rows, columns]."""
    side = len(image)
    clean = np.repeat(image[None], side, axis=0)
    before, largest = outputs.predict_on_batch(clean), None
    for change in _CHANGES:
        moved = clean.copy()
        for pixel in range(side):
            moved[(pixel, pixel, side // 2) if axis == 0 else (pixel, side // 2, pixel)] += change
        after = outputs.predict_on_batch(moved)
        by = [np.abs(new - old).max(axis=-1) for new, old in zip(after, before)]
        largest = by if largest is None else [np.maximum(*each) for each in zip(largest, by)]
    return largest


def _inside(grid, side, axis) -> np.ndarray:
    """Whether units see the pixels of `_changed`: [pixels, rows, columns]."""
    seen = []
    for along in (0, 1):
        pixels = np.arange(side) if along == axis else np.full(side, side // 2)
        centres = grid.offset[along] + grid.stride[along] * np.arange(grid.size[along])
        seen.append(np.abs(pixels[:, None] - centres) <= (grid.field[along] - 1) / 2)
    return seen[0][:, :, None] & seen[1][:, None, :]
