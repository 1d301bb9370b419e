"""EfficientNet-Lite in Keras, with weights of a PyTorch checkpoint.

EfficientNet (Tan and Le 2019) as its authors changed it for small devices in 2020: without
squeeze-and-excitation, with ReLU6, the stem, the head and the first and last stage of one size. It
halves the image five times, each time by a convolution with stride 2: the first by a usual one, the
others depthwise.
"""

import math

import keras
from keras import layers

# (repeats, kernel, stride of the first, expansion, filters) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
# (factor of filters, factor of repeats, pixels a side) of each size.
SIZES = {"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260)}


def stages(size: str) -> tuple:
    """The table of stages of one of `SIZES`, scaled: the first and last keep their repeats."""
    width, depth, _ = SIZES[size]
    last = len(_STAGES) - 1
    return tuple(
        (repeats if place in (0, last) else math.ceil(repeats * depth), *rest, _rounded(f * width))
        for place, (repeats, *rest, f) in enumerate(_STAGES)
    )


def efficientnet_lite(
    image_size: int, table=_STAGES, stem: int = _STEM, head: int = _HEAD, classes: int = _CLASSES
) -> keras.Model:
    """The network, with random weights.

    Args:
        image_size: pixels a side.
        table: (repeats, kernel, stride of the first, expansion, filters) of each stage.
        stem, head, classes: filters of the first and last convolution, outputs.

    Returns:
        A functional model from images, (pixel of 255 - 127) / 128, to logits. Layers are called
        `stem…`, `block0_expand…`, `block0_depthwise…`, `block0_project…`, `block0_add`, `head…`,
        `logits`; a convolution is followed by `…_bn`, and, but for projections, `…_relu`.
    """
    images = tensor = keras.Input((image_size, image_size, 3), name="input")
    tensor = _convolution(tensor, "stem", stem, 3, 2)
    filters, number = stem, 0
    for repeats, kernel, stride, expansion, wanted in table:
        for repeat in range(repeats):
            name, before = f"block{number}", tensor
            if expansion != 1:
                tensor = _convolution(tensor, f"{name}_expand", expansion * filters, 1)
            step = stride if repeat == 0 else 1
            tensor = _convolution(tensor, f"{name}_depthwise", None, kernel, step)
            tensor = _convolution(tensor, f"{name}_project", wanted, 1, activation=False)
            if step == 1 and filters == wanted:
                tensor = layers.Add(name=f"{name}_add")([before, tensor])
            filters, number = wanted, number + 1
    tensor = _convolution(tensor, "head", head, 1)
    tensor = layers.GlobalAveragePooling2D(name="global_average")(tensor)
    return keras.Model(images, layers.Dense(classes, name="logits")(tensor))


def convert(model: keras.Model, tensors) -> None:
    """Gives a network of `efficientnet_lite` the weights of a checkpoint.

    Args:
        model: of the architecture of the checkpoint.
        tensors: name → array, of `torch_files.read_checkpoint`. PyTorch keeps convolutions
            [out, in, height, width] and linear layers [out, in].

    Raises:
        ValueError: a tensor is missing, of another shape, or one is left over.
    """
    left = {name: each for name, each in tensors.items() if not name.endswith("batches_tracked")}
    for layer in model.layers:
        if not layer.weights:
            continue
        prefix, found = _name_there(layer.name), []
        for name, axes in _PARTS[type(layer)]:
            array = left.pop(f"{prefix}.{name}", None)
            if array is None:
                raise ValueError(f"the checkpoint has no {prefix}.{name}, which {layer.name} needs")
            found.append(array.transpose(axes) if axes else array)
        expected, received = [tuple(w.shape) for w in layer.weights], [x.shape for x in found]
        if expected != received:
            raise ValueError(f"{layer.name} has shapes {expected}, {prefix} in it {received}")
        layer.set_weights(found)
    if left:
        raise ValueError(f"the checkpoint has {len(left)} tensors more, {min(left)} among them")


_PARTS = {  # in the order of Keras' weights, with the axes of PyTorch's that they have
    layers.Conv2D: [("weight", (2, 3, 1, 0))],
    layers.DepthwiseConv2D: [("weight", (2, 3, 0, 1))],
    layers.Dense: [("weight", (1, 0)), ("bias", None)],
    layers.BatchNormalization: [
        *(("weight", None), ("bias", None)),
        *(("running_mean", None), ("running_var", None)),
    ],
}
_NORMALIZED = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
_OUTSIDE = {"stem": "_conv_stem", "stem_bn": "_bn0", "head": "_conv_head", "head_bn": "_bn1"}


def _name_there(name: str) -> str:
    """What the checkpoint calls a layer: `block3_depthwise_bn` → `_blocks.3._bn1`."""
    if not name.startswith("block"):
        return _OUTSIDE.get(name, "_fc")
    block, part, *normalization = name.removeprefix("block").split("_")
    return f"_blocks.{block}." + (_NORMALIZED[part] if normalization else f"_{part}_conv")


def _convolution(tensor, name, filters, kernel, stride=1, activation=True):
    """Convolution, depthwise where no filters are said, normalization, ReLU6."""
    shared = {"strides": stride, "padding": "same", "use_bias": False, "name": name}
    if filters is None:
        tensor = layers.DepthwiseConv2D(kernel, **shared)(tensor)
    else:
        tensor = layers.Conv2D(filters, kernel, **shared)(tensor)
    tensor = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(tensor)
    return layers.ReLU(6.0, name=f"{name}_relu")(tensor) if activation else tensor


def _rounded(filters: float, divisor: int = 8) -> int:
    """To the nearest multiple of 8, and by no more than a tenth downwards."""
    found = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * filters else found
