"""Probing what units see: of one layer called alone, and of a tensor inside of a model."""

import keras
import numpy as np
from keras import ops

from deformstab.backend import model_step
from deformstab.measurement.probing import NO_MAP, probe
from deformstab.measurement.watching import INPUT, Instead, watch

_PROBED = 48  # units of a side; sizes alike up to a multiple of it are padded alike by most strides
_TRIED = 3  # maps whose rows are changed, at most, beside the image
_CANDIDATES = 32  # maps before a tensor that it may depend on the image through


def alone(model, call, number: int, place: int, axes: tuple):
    """What units of a layer's output see of one of its inputs, the layer called alone.

    Args:
        model: that it is a part of.
        call: the `watching.Call`.
        number: of the input among the flattened arguments.
        place: of the output among its tensors.
        axes: of the input, batch included, which are y and x.

    Returns:
        As `probing.probe`; `None` if it cannot be called alone, or its map is too small to tell.
    """
    arguments = keras.tree.flatten(call.arguments)
    shape = tuple(arguments[number].shape[1:])
    single = sum(hasattr(each, "shape") for each in arguments) == 1
    sizes = [shape]
    if single:
        # A large map costs much, and on a small one every unit may see the border.
        large = [shape[axis - 1] > 2 * _PROBED for axis in axes]
        resized = [
            _resized(shape, axes, [large[k] * (2 * _PROBED) for k in (0, 1)]),
            *(_resized(shape, axes, [-_PROBED * times] * 2) for times in (1, 2)),
        ]
        sizes = [resized[0], shape, *resized[1:]] if any(large) else [shape, *resized[1:]]
    answer = None
    for size in dict.fromkeys(sizes):
        try:
            found = probe(_layer_alone(model, call, number, place, size), size, axes)
        except Exception:  # whatever a layer of somebody's raises for another size, or called alone
            continue
        if not isinstance(found, str):
            windows, new_axes, new_size = found
            output = keras.tree.flatten(call.output)[place].shape
            actual = tuple(output[axis] for axis in new_axes)
            more = [
                (shape[axis - 1] - size[axis - 1]) / each.stride
                for axis, each in zip(axes, windows)
            ]
            # Or its size decides what it does (as in pooling to a fixed size).
            if actual == tuple(units + further for units, further in zip(new_size, more)):
                return windows, new_axes, actual
        elif size == shape:
            answer = found
    return answer


def _resized(shape, axes, less) -> tuple:
    """The shape with sides shorter (longer) by whole multiples of what padding repeats with."""
    sides = list(shape)
    for axis, by in zip(axes, less):
        side = sides[axis - 1]
        sides[axis - 1] = side % _PROBED + _PROBED if by > 0 else side - by
    return tuple(sides)


def _layer_alone(model, call, number, place, size):
    """(changes of one input [rows, …]) → the layer's output; its other inputs are noise."""
    arguments = keras.tree.flatten(call.arguments)
    rng = np.random.default_rng(1)
    base = rng.normal(size=size).astype("float32")
    others = {
        index: rng.normal(size=tuple(each.shape[1:])).astype("float32")
        for index, each in enumerate(arguments)
        if index != number and hasattr(each, "shape") and len(each.shape) > 0
    }

    def run(delta):
        def step(changed):
            given = list(arguments)
            given[number] = ops.cast(changed, arguments[number].dtype)
            for index, each in others.items():
                rows = np.broadcast_to(each, (len(delta), *each.shape))
                given[index] = ops.cast(ops.convert_to_tensor(rows), arguments[index].dtype)
            positional, named = keras.tree.pack_sequence_as(call.arguments, given)
            output = call.layer(*positional, **named)
            return keras.tree.flatten(output)[place]

        return model_step(step, model)(ops.convert_to_tensor(base + delta))

    return run


def within(model, images, maps: list, target: tuple):
    """What units of a tensor inside of a model see of the last map that it depends on alone.

    Args:
        model, images: as for `grids.layer_grids`.
        maps: (name of the call, its `Grid`) of all maps that are known, in the model's order, the
            input first.
        target: (name of a call, number, whether it is that argument of the call or that output).

    Returns:
        (the `Grid` of that map, what `probing.probe` says); a note; `None` if the tensor does not
        depend on the deformed image.
    """
    later = [each for each in maps[1:] if each[0] != target[0]][-_CANDIDATES:]
    candidates = [maps[0], *later]
    given = _held(model, images, candidates, target)
    if given is None:
        return NO_MAP
    first, *held = given
    scale = np.abs(first).max()
    other = held.pop()  # of another image, with nothing held

    def alike(x):
        return np.abs(x - first).max() <= 1e-4 * scale

    if alike(other):
        return None
    through = [each for each, x in zip(candidates, [other, *held]) if each is maps[0] or alike(x)]
    # The later the map, the less is in between. On a small one every unit may see the border.
    last = through[: -_TRIED - 1 : -1]
    for name, grid in [*last, *([] if maps[0] in last else maps[:1])]:
        found = _probed(model, images, name, grid, target)
        if not isinstance(found, str):
            return grid, found
    return found


def _run(model, images, rows: int, target, inputs, visit_map):
    """The target's value where maps on the way are replaced by what `visit_map` returns."""
    name, number, of_argument = target
    found = []

    def step(*tensors):
        def visit(call):
            if call.name == name:
                leaves = keras.tree.flatten(call.arguments if of_argument else call.output)
                found.append(leaves[number])
                return True
            return visit_map(call)

        watch(model, images.pack(list(tensors)), tensors[images.place], visit)
        return tensors[images.place]

    model_step(step, model)(*(ops.convert_to_tensor(each) for each in inputs))
    value = found[0]
    if not hasattr(value, "shape") or value.shape[0] != rows:
        return None
    return value


def _held(model, images, candidates, target):
    """The target for an image; for another one with each candidate held in turn; with none held."""
    rows = len(candidates) + 1
    places = {name: row for row, (name, _) in enumerate(candidates) if row}

    def hold(call):
        row = places.get(call.name)
        if row is None:
            return False
        kept = np.zeros((rows, 1, 1, 1), bool)
        kept[row] = True
        return Instead(ops.where(ops.convert_to_tensor(kept), call.output[:1], call.output))

    inputs = [np.repeat(each[:1], rows, axis=0) for each in images.inputs]
    inputs[images.place][1:] = _other(images)
    value = _run(model, images, rows, target, inputs, hold)
    return None if value is None else ops.convert_to_numpy(ops.cast(value, "float32"))


def _other(images):
    """An image unlike the first one."""
    pixels = images.inputs[images.place]
    noise = np.random.default_rng(2).normal(size=pixels.shape[1:])
    return (pixels[-1] + (pixels.std() or 1.0) * noise).astype(pixels.dtype)


def _probed(model, images, name, grid, target):
    pixels = images.inputs[images.place]
    if name == INPUT:
        shape, scale = pixels.shape[1:], float(pixels.std()) or 1.0
    else:
        output = []

        def look(call):
            if call.name == name:
                output.append(call.output)
            return bool(output)

        def step(*tensors):
            watch(model, images.pack(list(tensors)), tensors[images.place], look)
            return tensors[images.place]

        few = (ops.convert_to_tensor(each[:1]) for each in images.inputs)
        model_step(step, model)(*few)
        shape = tuple(output[0].shape[1:])
        scale = float(ops.std(ops.cast(output[0], "float32"))) or 1.0

    def run(delta):
        inputs = [np.repeat(each[:1], len(delta), axis=0) for each in images.inputs]
        if name == INPUT:
            inputs[images.place] = (inputs[images.place] + delta).astype(pixels.dtype)

        def change(call):
            if call.name != name or name == INPUT:
                return False
            return Instead(call.output + ops.cast(ops.convert_to_tensor(delta), call.output.dtype))

        value = _run(model, images, len(delta), target, inputs, change)
        return ops.zeros((0,)) if value is None else value

    return probe(run, shape, grid.axes, scale)
