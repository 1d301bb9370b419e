"""The arithmetic of max pooling and one-pixel shifts, counted by pooling shifted images."""

import itertools

import numpy as np
import pandas as pd
from keras import layers, ops

SHIFTS = [shift for shift in itertools.product((-1, 0, 1), repeat=2) if shift != (0, 0)]


def pooling_shifts(windows=(2, 3)) -> pd.DataFrame:
    """Under how many of the 8 one-pixel shifts a window keeps its maximum.

    A single bright pixel stands at each position of the middle window of an image in turn; the image
    is shifted, pooled, and the middle output compared with that of the unshifted image.

    Returns:
        A row a window and position of its maximum: `window` (pixels a side), `row`, `column`,
        `kept` (shifts, of 8).
    """
    rows = []
    for window in windows:
        pool = layers.MaxPooling2D(window, data_format="channels_last")
        for row, column in itertools.product(range(window), repeat=2):
            image = np.zeros((5 * window, 5 * window), "float32")
            image[2 * window + row, 2 * window + column] = 1
            images = [image, *(np.roll(image, shift, axis=(0, 1)) for shift in SHIFTS)]
            middle = ops.convert_to_numpy(pool(np.stack(images)[..., None]))[:, 2, 2, 0]
            kept = int((middle[1:] == middle[0]).sum())
            rows.append({"window": window, "row": row, "column": column, "kept": kept})
    return pd.DataFrame(rows)
