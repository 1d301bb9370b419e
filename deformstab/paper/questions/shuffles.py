"""Question 3: is a layer stable by the shape of its filters, or by which channels it pairs?

Two shuffles of the weights of one 3×3 convolution take away one of the two. Which filter looks at
which channel, W'[a, b, c, o] = W[a, b, π_o(c), o]: every filter stays as smooth as it is. Where in
its 3×3 window a weight stands, one permutation of the nine for each pair of channels: smoothness
goes, and how strongly channels are paired stays. Both keep the distribution of all weights.
"""

import keras
import numpy as np
import pandas as pd

from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.smoothness import normalized_total_variation
from deformstab.networks.normalization import reestimate_batch_normalization

CHANNELS, TAPS = "channels", "taps"
SHUFFLES = (CHANNELS, TAPS)


def shuffled_channels(kernel, rng) -> np.ndarray:
    """A kernel [height, width, in, out] with its input channels permuted, for each output anew."""
    order = np.argsort(rng.random(kernel.shape[2:]), axis=0)
    return np.take_along_axis(kernel, order[None, None], axis=2)


def shuffled_taps(kernel, rng) -> np.ndarray:
    """A kernel [height, width, in, out] with its taps permuted, for each pair of channels anew."""
    flat = kernel.reshape(-1, *kernel.shape[2:])
    order = np.argsort(rng.random(flat.shape), axis=0)
    return np.take_along_axis(flat, order, axis=0).reshape(kernel.shape)


def by_shuffle(model, train_images, images, deformation, permutations: int, seed: int, batch_size):
    """What shuffling each 3×3 convolution alone does to the sensitivity of what it computes.

    Batch normalization is re-estimated each time, for the intact network as well: shuffled weights
    have other means and variances.

    Args:
        model: of `ds.vgg`; it is left as it was.
        train_images: that batch normalization is estimated over.
        images, deformation: that measure it.
        permutations: of each shuffle.
        seed: of all permutations.
        batch_size: of the re-estimation.

    Returns:
        A DataFrame, a row a convolution, shuffle and permutation: `layer`, `layer_index` (of the
        convolutions), `shuffle` one of `SHUFFLES`, `permutation`; `intact` and `sensitivity`, that
        of the representation that follows (cosine) before and after, `ratio`; `smoothness_before`
        and `smoothness`, TV/‖W‖₁ of the kernel; `note`, why a sensitivity is NaN, if it is.
    """
    shuffles = {CHANNELS: shuffled_channels, TAPS: shuffled_taps}
    before, rows = model.get_weights(), []
    for place, name in enumerate(convolutions(model)):
        layer, output = model.get_layer(name), f"{name}_relu"
        # Nothing behind it matters, nor is any of it computed.
        until = keras.Model(model.inputs, model.get_layer(output).output)

        def sensitivity(until=until, output=output):
            reestimate_batch_normalization(until, train_images, batch_size)
            options = {"intervals": False, "progress": False}
            table = measure_sensitivity(until, images, deformation, [output], **options)
            return table["sensitivity"].item(), table["note"].item()

        kernel = keras.ops.convert_to_numpy(layer.kernel)
        intact, note = sensitivity()
        for number, (shuffle, shuffled) in enumerate(shuffles.items()):
            for permutation in range(permutations):
                rng = np.random.default_rng([seed, place, number, permutation])
                weights = shuffled(kernel, rng)
                layer.kernel.assign(weights)
                found, why = sensitivity()
                rows.append(
                    {
                        "layer": name,
                        "layer_index": place,
                        "shuffle": shuffle,
                        "permutation": permutation,
                        "intact": intact,
                        "sensitivity": found,
                        "ratio": found / intact,
                        "smoothness_before": normalized_total_variation(kernel),
                        "smoothness": normalized_total_variation(weights),
                        "note": note or why,
                    }
                )
        model.set_weights(before)
    return pd.DataFrame(rows)


def convolutions(model) -> list[str]:
    """The names of the 3×3 convolutions of a network of `ds.vgg`."""
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    ]
