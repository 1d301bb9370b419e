"""Copies of a model with other layers in some places, every other weight kept."""

import tempfile

import keras
import numpy as np
from keras import layers

from deformstab.backend import variable_to_numpy
from deformstab.networks.adaptive import (
    AdaptivePolyphase2D,
    MaxAdaptivePolyphase2D,
    PolyphaseChoice2D,
)
from deformstab.networks.branches import parallel
from deformstab.networks.exchangeable import is_graph


class Copy:
    """A copy of a model, and of those inside it.

    Args:
        made: operation → its successor, of those that have another one than a copy of themselves.
        before: layer → the one of `made` that takes what the first of these takes.
        padding: operation → a function that changes the arguments of its call.
        behind: layer → what takes its output, for all that took it.
    """

    def __init__(self, made: dict, before: dict, padding: dict, behind: dict):
        self._made, self._before, self._padding, self._behind = made, before, padding, behind
        self._downsampling = {*made}

    def of(self, operation):
        """A copy of an operation, layer or model, its weights still to be copied."""
        made = self._made  # an inner one comes before the models that it is in
        if operation not in made:
            if not is_graph(operation):
                made[operation] = from_config(operation)
            elif isinstance(operation, keras.Sequential):
                made[operation] = self._sequential(operation)
            else:
                # Of the graph alone: a copy of the model itself would be compiled as it is.
                graph = keras.Model(operation.input, operation.output, name=operation.name)
                made[operation] = keras.models.clone_model(
                    graph,
                    _inputs(graph),
                    clone_function=self.of,
                    call_function=self._calls(graph),
                )
        return made[operation]

    def _sequential(self, model):
        inner = []
        for layer in model.layers:
            if layer not in self._before:
                inner += [self.of(layer), *filter(None, [self._behind.get(layer)])]
        if getattr(model, "inputs", None) is not None:
            inner = _inputs(keras.Model(model.inputs, model.outputs)) + inner
        return keras.Sequential(inner, name=model.name)

    def _calls(self, graph):
        """A `call_function` by which a replacement takes what the first layer before it takes.

        The layers between are called all the same, and fall out of the graph unless others use
        them. What pads for a maximum pads with zero for what takes its place.
        """
        groups = parallel(graph, self._downsampling, self._before)
        taken, choices = {}, {}

        def sampled(old, layer, *args, **kwargs):
            """What a layer of the kind gives; of one that chooses, by the choice of its group."""
            if old in groups and isinstance(layer, AdaptivePolyphase2D):
                if groups[old] not in choices:
                    choices[groups[old]] = _choice(layer)(*args, **kwargs)
                kwargs["choice"] = choices[groups[old]]
            return layer(*args, **kwargs)

        def call(layer, *args, **kwargs):
            old = next(old for old, new in self._made.items() if new is layer)
            if old in self._before:
                taken.setdefault(self._made[self._before[old]], args)
            args = taken.get(layer, args)
            if old in self._padding:
                args, kwargs = self._padding[old](args, kwargs)
            if old in self._behind:
                return sampled(old, self._behind[old], layer(*args, **kwargs))
            if old in self._downsampling:
                return sampled(old, layer, *args, **kwargs)
            return layer(*args, **kwargs)

        return call

    def copy_states(self, but) -> None:
        """Copies what layers keep, and whether they are trainable; of those in `but` only that."""
        # Models come first: freezing one freezes all its layers.
        for old, new in reversed(self._made.items()):
            if isinstance(old, layers.Layer):
                new.trainable = old.trainable
                if old not in but and not is_graph(old):
                    _copy_state(old, new)


def _choice(layer):
    """A layer that says what an adaptive one would keep."""
    config = layer.get_config()
    name, maxima = f"{layer.name}_choice", isinstance(layer, MaxAdaptivePolyphase2D)
    return PolyphaseChoice2D.from_config({**config, "name": name, "maxima": maxima})


def _inputs(graph):
    """New inputs for a copy of a functional model. Keras' own would have other layer names."""
    found = {id(each.output): each for each in graph.layers if isinstance(each, layers.InputLayer)}
    return keras.tree.map_structure(
        lambda tensor: layers.InputLayer.from_config(found[id(tensor)].get_config()).output,
        graph.input,
    )


def from_config(operation, **changes):
    """Another operation of the same configuration, but for some changes.

    Raises:
        ValueError: its configuration does not make it again.
    """
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
        return type(operation).from_config({**operation.get_config(), **changes})
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
