"""Exchanges the downsampling of a model: other pooling, every other weight kept."""

from typing import Literal

import keras

from deformstab.checks import check_whole
from deformstab.networks.circular import CircularConv2D
from deformstab.networks.copying import Copy, from_config
from deformstab.networks.downsampling import (
    DOWNSAMPLING_KINDS,
    POOLING_LAYERS,
    BlurPooling2D,
    DownsamplingKind,
    border_options,
    check_blur_size,
    check_downsampling,
)
from deformstab.networks.exchangeable import SWAPPED_IN, find_downsampling
from deformstab.networks.finite import check_outputs, neutral_padding
from deformstab.networks.initializers import paper_initializer, seeded
from deformstab.networks.strided import AverageKernel
from deformstab.networks.vgg import layer_seed
from deformstab.networks.window_layers import Bordered2D

SWAP_KINDS = DOWNSAMPLING_KINDS
_STARTS = ("paper", "average")
# Kinds that minus infinity beside the image suits.
_OF_MAXIMA = ("max", "max_blur", "subsample", "max_aps")
# What each kind puts behind a convolution that was strided. The maximum is for what was pooling.
_BEHIND = {"subsample": "subsample", "blur": "blur", "max_blur": "blur", "aps": "aps"}
_BEHIND["max_aps"] = "aps"


def swap_downsampling(
    model: keras.Model,
    downsampling: DownsamplingKind,
    strided_convolutions: bool = False,
    *,
    blur_size: int = 3,
    start: Literal["paper", "average"] = "paper",
    seed: int | None = None,
) -> keras.Model:
    """The same model with another kind of downsampling: every other weight is kept.

    Replaced is every 2-D max and average pooling with a stride above one, in nested models as well,
    and what stands in for one: of an earlier swap, or of a model made by `ds.vgg` (its layers
    `block1_downsample`, …, with `block1_downsample_conv` and `…_bn`). A replacement has the pool's
    name, window, strides, padding, data format and dtype policy, so that layers have the names and
    shapes they had; a frozen pool gives a frozen replacement. Global and adaptive pooling stay, and
    pooling at stride one. What a layer's own code or a Lambda computes cannot be seen.

    Blurring is Zhang's (2019, "Making Convolutional Networks Shift-Invariant Again", arXiv
    1904.11486): a binomial filter, the image reflected at its edges; `max_blur` takes the maximum
    over the pool's window at stride one first. Where a window has a middle pixel, the filter and
    `subsample` are centred there; of two middle pixels the first counts: in 2×2 windows the top
    left one. An axis of window and stride one is not blurred. In a model of
    `ds.vgg(padding="circular")` blurs and maxima go on at the other side of the image.

    Adaptive polyphase sampling, "aps", is Chaman and Dokmanić's (2021, "Truly Shift-Invariant
    Convolutional Neural Networks", arXiv 2011.14214): of the pixels that a stride may begin at, the
    one that gives the largest norm, image by image; `max_aps` takes the maximum over the window
    first. Branches that downsample side by side and are joined later keep the same pixels: the
    first of them decides, by a layer `…_choice` (not where one layer is called several times).

    With `strided_convolutions` a convolution with a stride (also a depthwise or separable one, and
    those of "strided" and "strided_relu") gets stride 1, and behind it stands `…_sampling`: the
    kind, with the stride and the places of the convolution. With "subsample" it gives what it gave.
    Of "max_blur" and "max_aps" the maximum takes the place of pooling only. Such a network computes
    each of these convolutions at every pixel, in so many times the time and memory.

    Args:
        model: a functional or Sequential model, built; it stays as it is.
        downsampling: one of `ds.SWAP_KINDS`: those of `ds.vgg` ("subsample", "max", "average",
            "strided", "strided_relu"), "blur", "max_blur", "aps" or "max_aps".
        strided_convolutions: whether strided convolutions are exchanged as well; "subsample" and
            the last four kinds can stand behind them.
        blur_size: of the binomial filter, 3 to 7 pixels a side.
        start: how the convolutions of "strided" and "strided_relu" start: "paper" (truncated normal
            of standard deviation 1/√n_in) or "average" (as average pooling; with padding "same" the
            zeros outside the image count).
        seed: int of at least 0, for the kernels of "paper", each layer's by its name, as `ds.vgg`
            has them; or `None` for different ones each time (`keras.utils.set_random_seed` rules).

    Returns:
        A new Sequential model or plain functional model of the same name, inputs and outputs, not
        compiled. It shares no weights with the old one; states of random layers are copied, too.

    Raises:
        ValueError: an unknown kind, size or start; a seed that is no such int; a kind that cannot
            stand behind a convolution, a strided convolution with code of its own; a subclassed model
            or a Sequential one that is not built; nothing to replace; pooling inside a layer where
            it cannot be replaced (a subclassed model, a custom layer, a wrapper as TimeDistributed),
            or by `keras.ops.max_pool`; a layer that its configuration does not make again; a model
            whose outputs were finite and would no longer be.

    Example:

    ```python
    blurred = ds.swap_downsampling(model, "blur", blur_size=5)
    table = ds.measure_sensitivity(blurred, images)
    ```
    """
    check_downsampling(downsampling, SWAP_KINDS)
    check_blur_size(blur_size)
    if start not in _STARTS:
        raise ValueError(f"unknown start {start!r}; the known ones are {', '.join(_STARTS)}")
    if strided_convolutions and downsampling not in _BEHIND:
        raise ValueError(
            f"behind a convolution with stride 1 no {downsampling!r} is put; with "
            f"strided_convolutions=True the kinds are {', '.join(_BEHIND)}"
        )
    if seed is not None:  # of every kind: one that makes no kernel would keep a wrong seed silently
        seed = check_whole("seed", seed, 0)
    windows, before, convolutions = find_downsampling(model, strided_convolutions)
    circular = any(
        isinstance(layer, CircularConv2D) or (isinstance(layer, Bordered2D) and layer.circular)
        for layer in model._flatten_layers()
    )
    made, behind = {}, {}  # layer → its successor, and what follows that
    for pool, (path, window) in windows.items():
        options = _border_and_blur(downsampling, blur_size, circular)
        if downsampling in ("strided", "strided_relu"):
            # As ds.vgg names the convolution: equal seeds then start equal.
            name = f"{path}_conv" if downsampling == "strided_relu" else path
            options["kernel_initializer"] = _initializer(start, seed, name)
        made[pool] = SWAPPED_IN[downsampling](
            pool_size=getattr(window, "pool_size", None) or window.kernel_size,
            strides=window.strides,
            padding=window.padding,
            data_format=window.data_format,
            name=pool.name,
            dtype=pool.dtype_policy,
            **options,
        )
    for convolution in convolutions:
        made[convolution] = from_config(convolution, strides=(1, 1))
        behind[convolution] = _sampling(convolution, _BEHIND[downsampling], blur_size, circular)
    padding = neutral_padding(model, windows) if downsampling not in _OF_MAXIMA else {}
    copy = Copy(made, before, padding, behind)
    swapped = copy.of(model)
    copy.copy_states(but=windows)
    check_outputs(model, swapped, downsampling)
    return swapped


def _border_and_blur(kind, blur_size, circular) -> dict:
    """The options of a kind's layer."""
    if kind not in POOLING_LAYERS:
        return {}
    options = border_options(kind, circular)
    if issubclass(POOLING_LAYERS[kind], BlurPooling2D):
        options["blur_size"] = blur_size
    return options


def _sampling(convolution, kind, blur_size, circular):
    """The layer that keeps, of a convolution with stride 1, what it computed with its stride.

    Of all places "same" lets a window begin at, the strided ones depend on the size of the image as
    those of a pooling layer with that window do. Without padding the first place is the first.
    """
    same = convolution.padding == "same"
    sizes = zip(convolution.kernel_size, convolution.strides)
    return POOLING_LAYERS[kind](
        pool_size=tuple(size if same and stride > 1 else 1 for size, stride in sizes),
        strides=tuple(convolution.strides),
        padding=convolution.padding,
        data_format=convolution.data_format,
        name=f"{convolution.name}_sampling",
        dtype=convolution.dtype_policy,
        **_border_and_blur(kind, blur_size, circular),
    )


def _initializer(start, seed, name):
    if start == "average":
        return AverageKernel()
    return seeded(paper_initializer(), None if seed is None else layer_seed(seed, name))
