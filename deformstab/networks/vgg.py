"""The VGG-like networks of the paper, as a table of blocks and one line where the kind enters."""

import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import keras
import numpy as np
from keras import layers

from deformstab.checks import check_model, check_whole, is_whole
from deformstab.networks.circular import CircularConv2D
from deformstab.networks.downsampling import DownsamplingKind, check_downsampling, downsample
from deformstab.networks.initializers import paper_initializer, seed_of, seeded

# (convolutions, filters) of each block; a downsampling layer follows every block.
CIFAR10_BLOCKS = ((2, 32), (2, 64), (2, 128), (2, 256))
IMAGENET_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg(
    input_shape: Sequence[int | None],
    classes: int,
    blocks: Sequence[tuple[int, int]] = CIFAR10_BLOCKS,
    downsampling: DownsamplingKind = "max",
    kernel_initializer: str | keras.initializers.Initializer | Callable | None = None,
    seed: int | None = None,
    padding: Literal["zeros", "circular"] = "zeros",
) -> keras.Model:
    """A VGG-like network (Ruderman et al. 2018): the kind of downsampling is all that varies.

    Blocks of (3×3 convolution → batch normalization → ReLU), a downsampling layer after every
    block, global average pooling, one linear layer. Layers have equal names whatever the kind:
    `block1_conv1`, `block1_conv1_bn`, `block1_conv1_relu`, …, `block1_downsample` (of
    `strided_relu` the last of `block1_downsample_conv`, `…_bn`, `block1_downsample`), …, `logits`.
    Layers of equal name start with equal weights, whatever the kind, when `seed` is equal.

    Where the paper is silent: convolutions have no bias (batch normalization follows; the `strided`
    kind has none either), zeros outside the image, and Keras' defaults for batch normalization.

    With `padding="circular"` and "aps" or "max_aps" the network is exactly shift consistent: logits
    for a rolled image are those for the image, but for rounding.

    Args:
        input_shape: (height, width, channels), by Keras' data format.
        classes: outputs of the linear layer.
        blocks: (convolutions, filters) of each block: `ds.CIFAR10_BLOCKS`, `ds.IMAGENET_BLOCKS`,
            or your own.
        downsampling: "subsample" (keeps the top left of each 2×2 block), "max", "average" (2×2
            pooling), "strided" (a 2×2 convolution of stride 2), "strided_relu" (the same, with
            batch normalization and ReLU): the paper's five, `ds.PAPER_KINDS`. Or "blur",
            "max_blur" (Zhang 2019), "aps", "max_aps" (adaptive polyphase sampling, Chaman and
            Dokmanić 2021), as in `ds.swap_downsampling`.
        kernel_initializer: of every convolution and the linear layer, as Keras takes it; by default
            a truncated normal of standard deviation 1/√n_in. Each layer gets a copy with a seed of
            its own. A `ds.SmoothedInitializer` is for the convolutions; the linear layer gets its
            base.
        seed: int of at least 0, or `None` for different weights each time
            (`keras.utils.set_random_seed` rules).
        padding: what 3×3 convolutions, blurs and maxima find outside the image: "zeros" (blurs its
            reflection, maxima nothing), or "circular", its other side. Weights and names are equal.

    Returns:
        A functional model from images (scaled by you; the paper's experiments here use [-1, 1]) to
        logits [batch, classes]. Logits are no probabilities, and a loss must know: compile with
        `from_logits=True`, as below. The string "sparse_categorical_crossentropy" takes them for
        probabilities; the network then hardly learns, and Keras does not warn.

    Example:

    ```python
    model = ds.vgg((32, 32, 3), classes=10, downsampling="average", seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    ```
    """
    check_downsampling(downsampling)
    circular = _check_padding(padding) == "circular"
    input_shape = _check_sizes(input_shape, blocks, classes, circular)
    channel_axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    base = paper_initializer() if kernel_initializer is None else kernel_initializer
    base = keras.initializers.get(base)
    root = seed if seed is not None else seed_of(base)

    def initializer(layer):
        chosen = base
        if layer == "logits":
            chosen = getattr(base, "initializer", base)
        # Of the layer's name, not its number: layers two kinds have in common then start equal.
        return seeded(chosen, None if root is None else layer_seed(root, layer))

    def convolution(filters, kernel_size, strides=1, padding="same", *, name):
        options = {"use_bias": False, "kernel_initializer": initializer(name), "name": name}
        if circular and padding == "same":
            return CircularConv2D(filters, kernel_size, strides, **options)
        return layers.Conv2D(filters, kernel_size, strides, padding, **options)

    def normalization(name):
        return layers.BatchNormalization(axis=channel_axis, name=name)

    images = tensor = keras.Input(input_shape, name="input")
    for block, (convolutions, filters) in enumerate(blocks, start=1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            tensor = convolution(filters, 3, name=name)(tensor)
            tensor = normalization(name=f"{name}_bn")(tensor)
            tensor = layers.ReLU(name=f"{name}_relu")(tensor)
        name = f"block{block}_downsample"
        tensor = downsample(tensor, downsampling, name, convolution, normalization, circular)
    tensor = layers.GlobalAveragePooling2D(name="global_average")(tensor)
    logits = layers.Dense(classes, kernel_initializer=initializer("logits"), name="logits")(tensor)
    return keras.Model(images, logits, name=f"vgg_{downsampling}")


def paper_layers(model: keras.Model) -> list[str]:
    """The representations the paper plots: the input, every convolution, every downsampling layer.

    Convolutions count after their batch normalization and ReLU. For `ds.CIFAR10_BLOCKS` these are
    1 + 8 + 4 = 13 names, in order, to be passed as `layers=` to `ds.measure_sensitivity`.

    Args:
        model: made by `ds.vgg`.

    Returns:
        A list of names.

    Raises:
        ValueError: for another model, whose layers the paper does not name.

    Example:

    ```python
    table = ds.measure_sensitivity(model, images, layers=ds.paper_layers(model))
    ```
    """
    check_model(model)
    names = [layer.name for layer in model.layers]
    chosen = [name for name in names if name.endswith(("_relu", "_downsample"))]
    if not chosen or not all(name.startswith("block") for name in chosen):
        raise ValueError(
            "paper_layers knows the layers of models made by ds.vgg; for another model pass the "
            f"names you want as layers=, received a model with the layers {', '.join(names[:8])}, …"
        )
    return ["input", *chosen]


def layer_seed(root: int, name: str) -> int:
    """The seed of the layer of some name, where the whole model's is `root`."""
    root = check_whole("seed", root, 0)
    return int(np.random.SeedSequence([root, zlib.crc32(name.encode())]).generate_state(1)[0] >> 1)


def _check_padding(padding) -> str:
    if padding not in ("zeros", "circular"):
        raise ValueError(f"padding must be 'zeros' or 'circular', received {padding!r}")
    return padding


def _check_sizes(input_shape, blocks, classes, circular) -> tuple:
    pairs = isinstance(blocks, Sequence) and all(
        isinstance(block, Sequence) and len(block) == 2 and all(map(is_whole, block))
        for block in blocks
    )
    if not is_whole(classes) or not pairs or not blocks:
        raise ValueError(
            "classes must be at least 1, and blocks pairs (convolutions, filters) of at least 1; "
            f"received classes={classes!r}, blocks={blocks!r}"
        )
    input_shape = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    channels_first = keras.config.image_data_format() == "channels_first"
    size = input_shape[1:] if channels_first else input_shape[:2]
    known = all(side is None or is_whole(side, 2 ** len(blocks)) for side in size)
    if len(input_shape) != 3 or not known:
        raise ValueError(
            f"input_shape must be (height, width, channels) by Keras' data format, and at least "
            f"{2 ** len(blocks)} pixels a side for {len(blocks)} blocks that each halve it; "
            f"received {input_shape}"
        )
    if circular and any(side is not None and side % 2 ** len(blocks) for side in size):
        raise ValueError(
            f"with padding='circular' sides must be multiples of {2 ** len(blocks)}, for "
            f"{len(blocks)} blocks that each halve them: of an odd circle no half can be kept; "
            f"received {input_shape}"
        )
    return input_shape
