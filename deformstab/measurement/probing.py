"""What units of any map see of another map: which of them change when one row of it does.

Rows, then columns, of the first map are changed by noise, one in each copy. The first row that a
unit sees, and the last one, advance evenly from unit to unit (in turns where a map is interpolated),
except where they lie at the border: there the unit sees past it, and they are left out.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from deformstab.measurement.layer_windows import Window

SEES_ALL = "it sees the whole image"
NO_MAP = "its axes are no map of the image"
FEW = "too few units that see no border to tell where they lie"
UNEVEN = "what its units see does not advance evenly"
DEAD = "no unit of it changes with the image"
_LONGEST_TURN = 8  # units after which an interpolated map repeats itself
_TRIALS = 3
_ENTRIES = 1 << 24  # of the maps at once
_ROUNDING = {"float16": 2**-10, "bfloat16": 2**-7}


def probe(run, shape: tuple, axes: tuple, scale: float = 1.0, seed: int = 0):
    """The windows of the units of a map, in positions of another one.

    Args:
        run: (float32 array [rows, …], to be added to as many copies of the first map) → tensor
            [rows, …], the second map. No row depends on another.
        shape: of the first map without batch, three axes.
        axes: which axes, batch included, are y and x in the first map.
        scale: of the noise.

    Returns:
        (windows of y and x, axes of the second map, its size), or a note.
    """
    seen = [None, None]
    for trial in range(_TRIALS):
        rng = np.random.default_rng((seed, trial))
        noise = 4 * scale * rng.normal(size=shape).astype("float32")
        for place, axis in enumerate(axes):
            found = _changed(run, noise, axis - 1)
            if isinstance(found, str):
                return found
            seen[place] = found if seen[place] is None else _union(seen[place], found)
    notes = []
    for candidate in dict.fromkeys([axes, (1, 2), (2, 3)]):
        found = [fitted(seen[place][candidate[place]]) for place in (0, 1)]
        if not any(isinstance(each, str) for each in found):
            size = tuple(seen[place][candidate[place]].shape[1] for place in (0, 1))
            return tuple(found), candidate, size
        notes += [each for each in found if isinstance(each, str)]
    for note in (SEES_ALL, DEAD):
        if notes[0] == note or set(notes[:2]) == {note}:
            return note
    return notes[0]


def _union(first: dict, second: dict) -> dict:
    return {axis: first[axis] | second[axis] for axis in first}


def _changed(run, noise, axis: int):
    """{axis of the second map: bool [positions of the first, units]}, from one noise."""
    count = noise.shape[axis]
    step = max(1, _ENTRIES // noise.size - 1)
    found = {each: [] for each in (1, 2, 3)}
    for start in range(0, count, step):
        places = range(start, min(count, start + step))
        delta = np.zeros((1 + len(places), *noise.shape), "float32")
        for row, place in enumerate(places):
            here = (slice(None),) * axis + (place,)
            delta[1 + row][here] = noise[here]
        given = run(delta)
        if len(given.shape) != 4 or given.shape[0] != len(delta):
            return NO_MAP
        rounding = 8 * _ROUNDING.get(keras.backend.standardize_dtype(given.dtype), 2**-23)
        given = ops.convert_to_numpy(ops.cast(given, "float32"))
        largest = np.abs(given[0]).max(initial=0)
        change = ~(np.abs(given[1:] - given[:1]) <= rounding * largest)  # NaN is a change
        for each in found:
            others = tuple({1, 2, 3} - {each})
            found[each].append(change.any(axis=others))
    return {each: np.concatenate(parts) for each, parts in found.items()}


def fitted(seen: np.ndarray):
    """The window along one axis.

    Args:
        seen: bool [positions, units].

    Returns:
        `Window`, or a note.
    """
    count = len(seen)
    alive = np.nonzero(seen.any(axis=0))[0]
    if not len(alive):
        return DEAD
    first = seen.argmax(axis=0)
    last = count - 1 - seen[::-1].argmax(axis=0)
    starts = [unit for unit in alive if first[unit] > 0]
    ends = [unit for unit in alive if last[unit] < count - 1]
    if not starts or not ends:
        return SEES_ALL
    if min(len(starts), len(ends)) < 3:
        return FEW
    for turn in range(1, _LONGEST_TURN + 1):
        lines = [_line(units, edge, turn) for units, edge in ((starts, first), (ends, last))]
        if None in lines or lines[0].step != lines[1].step or lines[0].step <= 0:
            continue
        (start, end), stride = lines, lines[0].step / turn
        inside = [unit for unit in alive if start.at(unit) >= 0 and end.at(unit) < count]
        if any(first[unit] != start.at(unit) or last[unit] != end.at(unit) for unit in inside):
            continue
        turns = range(turn)
        offset = np.mean([(start.at(unit) + end.at(unit)) / 2 - stride * unit for unit in turns])
        field = max(end.at(unit) - start.at(unit) + 1 for unit in turns)
        return Window(float(stride), float(offset), int(field))
    return UNEVEN


class _Line(NamedTuple):
    """An edge that advances by `step` positions every so many units: `edges` of those from `unit`."""

    unit: int
    edges: np.ndarray
    step: int

    def at(self, unit: int) -> int:
        turns, rest = divmod(unit - self.unit, len(self.edges))
        return int(self.edges[rest] + turns * self.step)


def _line(units, edge, turn: int) -> _Line | None:
    """The longest stretch of units whose edge advances by equal steps.

    Not all: what sees past the border with a window that has holes does not end at the border. That
    the line fits is asked of the units that see no border.
    """
    stretches = [[]]  # of (unit, step to the unit a turn later)
    there = set(units)
    for unit in units:
        whole = there.issuperset(range(unit, unit + turn + 1))
        step = int(edge[unit + turn] - edge[unit]) if whole else None
        if not stretches[-1] or stretches[-1][-1] != (unit - 1, step):
            stretches.append([])
        if whole:
            stretches[-1].append((unit, step))
    longest = max(stretches, key=len)
    if len(longest) < max(2, turn):
        return None
    unit, step = longest[0]
    return _Line(int(unit), edge[unit : unit + turn], step)
