"""Exchanges the downsampling of a model: other pooling, every other weight kept."""

import functools
import tempfile
from typing import Literal

import keras
import numpy as np
from keras import layers

from deformstab.backend import variable_to_numpy
from deformstab.networks.downsampling import (
    DOWNSAMPLING_KINDS,
    DownsamplingKind,
    check_blur_size,
    check_downsampling,
)
from deformstab.networks.exchangeable import SWAPPED_IN, find_downsampling, is_graph
from deformstab.networks.finite import check_outputs, neutral_padding
from deformstab.networks.initializers import paper_initializer, seeded
from deformstab.networks.strided import AverageKernel
from deformstab.networks.vgg import layer_seed

SWAP_KINDS = DOWNSAMPLING_KINDS
_STARTS = ("paper", "average")
_OF_MAXIMA = ("max", "max_blur", "subsample")  # kinds that minus infinity beside the image suits


def swap_downsampling(
    model: keras.Model,
    downsampling: DownsamplingKind,
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
    left one. An axis of window and stride one is not blurred.

    Args:
        model: a functional or Sequential model, built; it stays as it is.
        downsampling: one of `ds.SWAP_KINDS`: those of `ds.vgg` ("subsample", "max", "average",
            "strided", "strided_relu"), "blur" or "max_blur".
        blur_size: of the binomial filter, 3 to 7 pixels a side.
        start: how the convolutions of "strided" and "strided_relu" start: "paper" (truncated normal
            of standard deviation 1/√n_in) or "average" (as average pooling; with padding "same" the
            zeros outside the image count).
        seed: int, for the kernels of "paper", each layer's by its name, as `ds.vgg` has them; or
            `None` for different ones each time (`keras.utils.set_random_seed` rules).

    Returns:
        A new Sequential model or plain functional model of the same name, inputs and outputs, not
        compiled. It shares no weights with the old one; states of random layers are copied, too.

    Raises:
        ValueError: an unknown kind, size or start; a subclassed model or a Sequential one that is
            not built; nothing to replace; pooling inside a layer where it cannot be replaced (a
            subclassed model, a custom layer, a wrapper as TimeDistributed), or by
            `keras.ops.max_pool`; a layer that its configuration does not make again; a model whose
            outputs were finite and would no longer be.

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
    windows, before = find_downsampling(model)
    made = {}  # layer → its successor; an inner one comes before the models that it is in
    for pool, (path, window) in windows.items():
        options = {}
        if downsampling in ("blur", "max_blur"):
            options["blur_size"] = blur_size
        elif downsampling in ("strided", "strided_relu"):
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
    padding = neutral_padding(model, windows) if downsampling not in _OF_MAXIMA else {}
    swapped = _again(model, made, before, padding)
    # Models come first: freezing one freezes all its layers.
    for old, new in reversed(made.items()):
        if isinstance(old, layers.Layer):
            new.trainable = old.trainable
            if old not in windows and not is_graph(old):
                _copy_state(old, new)
    check_outputs(model, swapped, downsampling)
    return swapped


def _initializer(start, seed, name):
    if start == "average":
        return AverageKernel()
    return seeded(paper_initializer(), None if seed is None else layer_seed(seed, name))


def _again(operation, made, before, padding):
    """A copy of an operation, layer or model, its weights still to be copied; `made` remembers."""
    if operation not in made:
        again = functools.partial(_again, made=made, before=before, padding=padding)
        if not is_graph(operation):
            made[operation] = _from_config(operation)
        elif isinstance(operation, keras.Sequential):
            inner = [again(layer) for layer in operation.layers if layer not in before]
            inputs = getattr(operation, "inputs", None)
            if inputs is not None:
                inner = _inputs(keras.Model(inputs, operation.outputs)) + inner
            made[operation] = keras.Sequential(inner, name=operation.name)
        else:
            # Of the graph alone: a copy of the model itself would be compiled as it is.
            graph = keras.Model(operation.input, operation.output, name=operation.name)
            made[operation] = keras.models.clone_model(
                graph,
                _inputs(graph),
                clone_function=again,
                call_function=_bypass(made, before, padding),
            )
    return made[operation]


def _bypass(made, before, padding):
    """A `call_function` by which a replacement takes what the first layer before it takes.

    The layers between are called all the same, and fall out of the graph unless others use them.
    What pads for a maximum pads with zero for what takes its place.
    """
    taken = {}

    def call(layer, *args, **kwargs):
        for old, pool in before.items():
            if layer is made.get(old):
                taken.setdefault(made[pool], args)
        args = taken.get(layer, args)
        for old in padding:
            if layer is made.get(old):
                args, kwargs = padding[old](args, kwargs)
        return layer(*args, **kwargs)

    return call


def _inputs(graph):
    """New inputs for a copy of a functional model. Keras' own would have other layer names."""
    found = {id(each.output): each for each in graph.layers if isinstance(each, layers.InputLayer)}
    return keras.tree.map_structure(
        lambda tensor: layers.InputLayer.from_config(found[id(tensor)].get_config()).output,
        graph.input,
    )


def _from_config(operation):
    try:
        if isinstance(operation, layers.Lambda):  # Keras would refuse to read code from it
            config = layers.Layer.get_config(operation)
            return layers.Lambda(
                operation.function,
                operation._output_shape,
                operation.mask,
                operation.arguments,
                **config,
            )
        return type(operation).from_config(operation.get_config())
    except Exception as error:
        raise ValueError(
            f"layer {operation.name!r} ({type(operation).__name__}) is not made again by its "
            f"get_config and from_config: {error}"
        ) from error


def _copy_state(old, new) -> None:
    """Copies all that a layer keeps, as a file would: weights, seeds, vocabularies."""
    pairs = zip(old._flatten_layers(), new._flatten_layers(), strict=True)
    for old_layer, new_layer in pairs:
        store = {}
        old_layer.save_own_variables(store)
        # Arrays of our own: JAX's training gives the memory of its variables away.
        new_layer.load_own_variables({name: _array(value) for name, value in store.items()})
        for ours, theirs in zip(new_layer._seed_generators, old_layer._seed_generators):
            ours.state.assign(_array(theirs.state))
        if hasattr(old_layer, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                old_layer.save_assets(folder)
                new_layer.load_assets(folder)
        new_layer.trainable = old_layer.trainable
        new_layer.name = old_layer.name  # automatic ones of layers within layers are new


def _array(value) -> np.ndarray:
    return np.array(variable_to_numpy(value))
