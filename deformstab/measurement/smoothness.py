"""Filter smoothness: the normalized total variation of convolution kernels."""

from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import layers

from deformstab.backend import variable_to_numpy
from deformstab.checks import check_model
from deformstab.tables import SMOOTHNESS_COLUMNS, table

_KERNELS = {  # layer class → the attribute that holds its spatial kernel
    layers.Conv2D: "kernel",
    layers.Conv2DTranspose: "kernel",
    layers.DepthwiseConv2D: "kernel",
    layers.SeparableConv2D: "depthwise_kernel",
}

UNUSED = "it has no kernel: no call of the model has used it"


def normalized_total_variation(kernel: Any) -> float:
    """TV(W) / ‖W‖₁ of a kernel (Ruderman et al. 2018): lower is smoother.

    TV(W) = Σ_{i,j} ‖W_{i,j} - W_{i+1,j}‖₁ + ‖W_{i,j} - W_{i,j+1}‖₁ over neighbours inside the
    kernel. A spatially constant filter has 0. Independent normal weights have 12·√2/9 ≈ 1.886 for
    3×3 kernels (1.856 when truncated at two standard deviations) and about 1.39 for 2×2 kernels:
    only kernels of one size are comparable.

    Args:
        kernel: [height, width, …], an array or a tensor.

    Returns:
        A float; NaN for a 1×1 kernel, which has no neighbours, and for a kernel of zeros.

    Raises:
        ValueError: the kernel has fewer than two axes.

    Example:

    ```python
    ds.normalized_total_variation(model.get_layer("block1_conv1").kernel)
    ```
    """
    total_variation, norm, note = _total_variation(kernel)
    return np.nan if note else total_variation / norm


def filter_smoothness(model: keras.Model) -> pd.DataFrame:
    """Measures the smoothness of every 2-D convolution of a model, nested ones included.

    Convolutions are Conv2D, Conv2DTranspose, DepthwiseConv2D, and SeparableConv2D's depthwise part.

    Args:
        model: a built Keras model. A convolution without a kernel, which it does not use, keeps its
            row, with NaN and a note.

    Returns:
        A DataFrame, a row a layer: `layer` (a path, `backbone/block1_conv1`), `layer_index` (number
        of the row), `layer_type`, `kernel_height`, `kernel_width`, `total_variation`, `norm`
        (‖W‖₁), `smoothness` (their ratio: `ds.normalized_total_variation`), `note` (why it is NaN,
        if it is).

    Raises:
        ValueError: the model is not built, or has no 2-D convolution.

    Example:

    ```python
    smoothness = ds.filter_smoothness(model)
    smoothness[(smoothness.kernel_height == 3) & (smoothness.kernel_width == 3)]
    ```
    """
    found = smoothness_table(model)
    if not len(found):
        raise ValueError(f"model {model.name!r} has no 2-D convolution, so no filter smoothness")
    return found


def smoothness_table(model) -> pd.DataFrame:
    """`filter_smoothness`, empty of a model without 2-D convolutions."""
    check_model(model)
    rows = []
    for name, layer in _named_layers(model):
        attribute = next((name for kind, name in _KERNELS.items() if isinstance(layer, kind)), None)
        if attribute is None:
            continue
        if not layer.built and not model.built:
            raise ValueError(
                f"layer {name} has no kernel yet: build the model first, model.build(input_shape) "
                "or by calling it on images"
            )
        total_variation, norm, note = np.nan, np.nan, UNUSED
        if layer.built:
            total_variation, norm, note = _total_variation(getattr(layer, attribute))
        rows.append(
            {
                "layer": name,
                "layer_index": len(rows),
                "layer_type": type(layer).__name__,
                "kernel_height": layer.kernel_size[0],
                "kernel_width": layer.kernel_size[1],
                "total_variation": total_variation,
                "norm": norm,
                "smoothness": np.nan if note else total_variation / norm,
                "note": note,
            }
        )
    return table(rows, SMOOTHNESS_COLUMNS)


def _total_variation(kernel) -> tuple[float, float, str]:
    """(TV(W), ‖W‖₁, why the ratio is not defined or "")."""
    kernel = variable_to_numpy(kernel).astype("float64")
    if kernel.ndim < 2:
        raise ValueError(
            f"a kernel has a height and a width, its first two axes; received shape {kernel.shape}"
        )
    with np.errstate(invalid="ignore"):  # ∞ - ∞: the note says what is wrong with the kernel
        total = sum(np.abs(np.diff(kernel, axis=axis)).sum() for axis in (0, 1))
    norm = np.abs(kernel).sum()
    note = ""
    if kernel.shape[:2] == (1, 1):
        note = "a 1×1 kernel has no neighbours"
    elif not np.isfinite(norm):
        note = "non-finite kernel"
    elif norm == 0:
        note = "the kernel is zero"
    return float(total), float(norm), note


def _named_layers(layer, path="", seen=None):
    """(path, layer) of every layer inside a model, each once, however deep."""
    seen = set() if seen is None else seen
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        if id(inner) not in seen:
            seen.add(id(inner))
            yield path + inner.name, inner
            yield from _named_layers(inner, f"{path}{inner.name}/", seen)
