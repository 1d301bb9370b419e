"""Where the units of each layer lie on the image: its stride, its offset, and how much a unit sees.

It follows from what layers see, never from shapes. One walk through the model says which tensor each
call of a layer took and gave. From the image on, a layer that is known moves the grid by arithmetic
(`layer_windows`). One that is not is called alone, on maps of which a single row changes (`probing`).
Where code between layers made a tensor (an addition within a subclassed model, a cast), the same is
done within the model: the rows of the last map before it that all its dependence on the image goes
through.
"""

from dataclasses import dataclass

import keras

from deformstab.backend import kept_with, trace_model
from deformstab.measurement.layer_windows import Window, composed, windows_of
from deformstab.measurement.map_probes import alone, within
from deformstab.measurement.probing import FEW, NO_MAP, SEES_ALL
from deformstab.measurement.representations import TRACED
from deformstab.measurement.watching import INPUT, is_ranked, watch

DIFFERENT = "its inputs lie on different grids"
WINDOWS = "an image has several rows of its output (windows): none is a map of the image"
SEVERAL = "its output is several tensors"
UNSEEN = "it does not depend on the deformed image"


@dataclass(frozen=True)
class Grid:
    """Where the units of a map lie: unit (i, j) at input pixel offset + stride · (i, j).

    Attributes:
        stride: (y, x), input pixels from unit to unit; below 1 where a map is finer than the image.
        offset: (y, x), the input pixel in the centre of what unit (0, 0) sees (or would see, were
            there no border).
        field: (y, x), how many pixels a unit sees, the receptive field. `None` where each unit also
            sees all of the image through a common factor or statistic (squeeze and excitation,
            normalization over the map).
        size: (rows, columns) of units.
        axes: which axes of the layer's output, batch included, are y and x: (1, 2) or (2, 3).
    """

    stride: tuple[float, float]
    offset: tuple[float, float]
    field: tuple[int, int] | None
    size: tuple[int, int]
    axes: tuple[int, int] = (1, 2)

    @property
    def border(self) -> tuple[int, int] | None:
        """(y, x), ⌈field / 2 stride⌉: units this close to an edge may see beyond the image's."""
        if self.field is None:
            return None
        pairs = zip(self.field, self.stride)
        return tuple(int(-(-field // (2 * stride))) for field, stride in pairs)

    def behind(self, windows, axes, size) -> "Grid":
        """The grid of a layer on top, of which a unit sees these windows (y, x) of this map."""
        along = [
            composed(Window(self.stride[k], self.offset[k], self.field and self.field[k]), each)
            for k, each in enumerate(windows)
        ]
        stride, offset, field = zip(*along)
        return Grid(stride, offset, None if None in field else field, tuple(size), tuple(axes))

    def is_at(self, other: "Grid") -> bool:
        """Whether units of both lie at the same pixels."""
        mine, others = (
            (*each.stride, *each.offset, *each.size, *each.axes) for each in (self, other)
        )
        return all(abs(a - b) < 1e-6 for a, b in zip(mine, others))


def layer_grids(model, images, chosen) -> dict:
    """Where the units of representations lie on the image.

    Args:
        model: any Keras model, built.
        images: `DeformedImages`; the deformation's data format says which axes are y and x.
        chosen: `Representation`s of the model.

    Returns:
        Name → `Grid`, or a note that says why it has none. "input" has stride 1 and offset 0.

    Example:

    ```python
    grids = layer_grids(model, images, representations(model, images))
    grids["block1_downsample"]  # Grid(stride=(2.0, 2.0), offset=(0.5, 0.5), field=(6, 6), …)
    ```
    """
    wanted = tuple(each.name for each in chosen)
    shapes = ((x.shape[1:], str(x.dtype)) for x in images.inputs)
    axes = _image_axes(images)
    key = ("grids", images.place, str(images.structure), axes, wanted, *shapes)
    found = kept_with(model, key, dict)
    if found.keys() != {*wanted}:
        lineage = _Lineage(model, images)
        for call in lineage.calls:
            lineage.follow(call)
        now = {name: lineage.named.get(name, NO_MAP) for name in wanted}
        if not lineage.probed:  # what a probe sees may be others with other weights
            found.update(now)
        found = now
    notes = {each.name: each.note for each in chosen if each.note}
    notes |= {each.name: WINDOWS for each in chosen if each.rows > 1 and not each.note}
    return {name: notes.get(name) or found[name] for name in wanted}


def _image_axes(images) -> tuple[int, int]:
    """Which axes of the images are y and x: by the deformation's data format, or Keras'."""
    return (2, 3) if images.data_format == "channels_first" else (1, 2)


class _Lineage:
    """What is known of each tensor of a trace: a grid, or a note that says why there is none."""

    def __init__(self, model, images):
        self.model, self.images = model, images
        self.calls, self.named, self.states = [], {}, {}
        self.maps = []  # (name, grid) of calls, in order
        self.probed = False
        self._trace()

    def _trace(self):
        images = self.images

        def list_calls(*tensors):
            self.calls.clear()
            root = tensors[images.place]
            watch(self.model, images.pack(list(tensors)), root, self.calls.append)
            return root

        some = [index % len(images) for index in range(2)]
        trace_model(list_calls, self.model, *(each[some] for each in images.inputs))

    def follow(self, call):
        if call.output is None:
            self.named[call.name] = TRACED
            return
        leaves = keras.tree.flatten(call.output)
        if call.name == INPUT:
            axes = _image_axes(self.images)
            size = tuple(call.output.shape[axis] for axis in axes)
            self.states[id(leaves[0])] = Grid((1.0, 1.0), (0.0, 0.0), (1, 1), size, axes)
        for place, leaf in enumerate(leaves):
            # What a model only hands on (in inference, Dropout does) is the tensor that it was. Of
            # a layer as a whole more may be seen than of the last layer in it.
            known = self.states.get(id(leaf))
            if known is None or (known in (SEES_ALL, FEW) and call.layer is not None):
                self.states[id(leaf)] = self._state(call, place, leaf)
        (state, *others) = [self.states[id(leaf)] for leaf in leaves] or [NO_MAP]
        self.named[call.name] = SEVERAL if others else state
        if isinstance(state, Grid) and not others:
            self.maps.append((call.name, state))

    def _state(self, call, place, leaf):
        if not is_ranked(leaf) or len(leaf.shape) != 4 or None in tuple(leaf.shape):
            return NO_MAP
        if call.layer is None:
            return self._within(call.name, place, leaf, of_argument=False)
        inputs = []
        for number, each in enumerate(keras.tree.flatten(call.arguments)):
            if not hasattr(each, "shape"):
                continue
            if id(each) not in self.states:
                self.states[id(each)] = self._argument(call, number, each)
            inputs.append((number, each, self.states[id(each)]))
        inputs = [each for each in inputs if each[2] != UNSEEN]
        if not inputs:
            return UNSEEN
        if any(state == DIFFERENT for _, _, state in inputs):
            return DIFFERENT
        grids = [each for each in inputs if isinstance(each[2], Grid)]
        if len(grids) == len(inputs) or _are_factors(inputs, grids):
            found = self._of_layer(call, place, leaf, grids, len(grids) < len(inputs))
            if found is not None:
                return found
        return self._within(call.name, place, leaf, of_argument=False)

    def _argument(self, call, number, tensor):
        if not is_ranked(tensor) or len(tensor.shape) != 4 or None in tuple(tensor.shape):
            return NO_MAP
        return self._within(call.name, number, tensor, of_argument=True)

    def _of_layer(self, call, place, leaf, inputs, has_factors):
        """The grid by arithmetic, or of the layer called alone; `None` if neither says it."""
        # Of maps of several sizes that broadcast, one that has a single unit is a factor.
        sizes = [grid.size for _, _, grid in inputs]
        larger = [each for each in inputs if each[2].size != (1, 1)]
        if len(set(sizes)) > 1 and larger and _broadcasts(call.layer):
            inputs, has_factors = larger, True
        found = []
        for number, _, grid in inputs:
            windows = windows_of(call.layer, grid.size, grid.axes)
            seen = None
            if windows is not None:
                seen = windows, grid.axes, tuple(leaf.shape[axis] for axis in grid.axes)
            elif not has_factors and _has_units(leaf, 2):
                self.probed = True
                seen = alone(self.model, call, number, place, grid.axes)
            if seen is None or isinstance(seen, str):
                return seen
            found.append(grid.behind(*seen))
        if not all(found[0].is_at(each) for each in found):
            return DIFFERENT
        fields = [each.field for each in found]
        field = None
        if None not in fields and not has_factors:
            field = tuple(max(pair) for pair in zip(*fields))
        first = found[0]
        return Grid(first.stride, first.offset, field, first.size, first.axes)

    def _within(self, name, number, tensor, of_argument):
        """Of a tensor that no layer gave, by probing the model; a note if it has no grid."""
        if not _has_units(tensor, 3):
            return FEW
        self.probed = True
        found = within(self.model, self.images, self.maps, (name, number, of_argument))
        if found is None:
            return UNSEEN
        if isinstance(found, str):
            return found
        grid, seen = found
        return grid.behind(*seen)


def _has_units(tensor, least: int) -> bool:
    """Whether it may be a map of so many units on each side, its channels first or last."""
    rows, columns, more = (size >= least for size in tensor.shape[1:])
    return columns and (rows or more)


def _are_factors(inputs, grids) -> bool:
    """Whether all but the maps have one number for each channel of an image, and broadcast."""
    others = [tensor for _, tensor, state in inputs if not isinstance(state, Grid)]
    axes = grids[0][2].axes if grids else ()
    return bool(grids) and all(
        len(tensor.shape) == 4 and all(tensor.shape[axis] == 1 for axis in axes)
        for tensor in others
    )


def _broadcasts(layer) -> bool:
    return windows_of(layer, (1, 1), (1, 2)) is not None
