"""Parameter sharing: one kernel for all places, against a kernel for each place."""

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from deformstab.deformations.families import RandomTranslation
from deformstab.measurement.equivariance import measure_equivariance

SIDE, FILTERS, IMAGES = 16, 4, 16
EDGE_IMAGE = (280, 320)  # height and width in the book's example
# A kernel for all places; the same one, stored at each place; one of these changed; all different.
KERNELS = ("shared", "equal copies", "one place differs", "one of its own each")


def edge_counts(height: int = EDGE_IMAGE[0], width: int = EDGE_IMAGE[1]) -> pd.DataFrame:
    """What it takes to find vertical edges: each pixel minus its left neighbour.

    The example of Goodfellow, Bengio and Courville (2016), section 9.2. The convolution is built,
    and its parameters and outputs counted; two multiplications and an addition make an output. A
    matrix that does the same has an entry for each pair of an input and an output, and takes a
    multiplication and an addition an entry.

    Args:
        height, width: of the image, pixels.

    Returns:
        A row: `parameters`, `outputs`, `operations`, `matrix_entries`, `matrix_operations`, and
        `ratio` of the two numbers of operations.
    """
    layer = layers.Conv2D(1, (1, 2), use_bias=False, data_format="channels_last")
    shape = (1, height, width, 1)
    layer.build(shape)
    outputs = int(np.prod(layer.compute_output_shape(shape)))
    entries = height * width * outputs
    row = {"parameters": layer.count_params(), "outputs": outputs, "operations": 3 * outputs}
    row |= {"matrix_entries": entries, "matrix_operations": 2 * entries}
    return pd.DataFrame([row | {"ratio": 2 * entries / (3 * outputs)}])


class Untied(layers.Layer):
    """A 3×3 convolution with a kernel of its own at each place, and zeros outside the image.

    Args:
        filters: output channels.

    Input: [batch, height, width, channels]. Output: [batch, height, width, filters]. Its `kernel`
    is [height, width, 3, 3, channels, filters].
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, shape):
        kernel = (*shape[1:3], 3, 3, shape[3], self.filters)
        self.kernel = self.add_weight(shape=kernel, name="kernel")

    def call(self, images):
        height, width = images.shape[1:3]
        around = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(
            ops.einsum(
                "nhwc,hwcf->nhwf",
                around[:, y : y + height, x : x + width],
                self.kernel[:, :, y, x],
            )
            for y in range(3)
            for x in range(3)
        )

    def compute_output_shape(self, shape):
        return (*shape[:3], self.filters)


def sharing(seed: int) -> pd.DataFrame:
    """Whether a layer moves with its image, with one kernel for all places and with others.

    Images and kernels are whole numbers, so that sums are exact in any order and 0 is 0. Images move
    by a pixel along an axis; units that see beyond the image do not count.

    Args:
        seed: of kernels and images, noise.

    Returns:
        A row for each of `KERNELS`: `weights`, `parameters`, `largest_difference` of an output from
        that of the shared kernel, and of `ds.measure_equivariance` (squared Euclidean distances)
        `moves_with`, `stays`, `ratio`: 0 where the layer moves with its image.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, (IMAGES, SIDE, SIDE, 1)).astype("float32")
    kernel = rng.integers(-8, 9, (3, 3, 1, FILTERS)).astype("float32")
    other = rng.integers(-8, 9, kernel.shape).astype("float32")
    copies = np.broadcast_to(kernel, (SIDE, SIDE, *kernel.shape)).copy()
    changed = copies.copy()
    changed[SIDE // 2, SIDE // 2] = other
    own = rng.integers(-8, 9, copies.shape).astype("float32")
    expected, rows = None, []
    for name, weights in zip(KERNELS, (kernel, copies, changed, own)):
        layer = layers.Conv2D(FILTERS, 3, padding="same", use_bias=False, name="layer")
        if name != "shared":
            layer = Untied(FILTERS, name="layer")
        model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), layer])
        layer.set_weights([weights])
        output = ops.convert_to_numpy(model(images))
        expected = output if expected is None else expected
        table = measure_equivariance(
            model,
            images,
            RandomTranslation(1.0, integer=True),
            layers=["layer"],
            deformations=4,
            intervals=False,
            seed=seed,
            progress=False,
        )
        (found,) = table[table["metric"] == "euclidean"].to_dict("records")
        row = {"weights": name, "parameters": layer.count_params()}
        row["largest_difference"] = float(np.abs(output - expected).max())
        rows.append(row | {key: found[key] for key in ("moves_with", "stays", "ratio")})
    return pd.DataFrame(rows)
