"""Which rows are kept in which pass over the images, so that pairs are counted in bounded memory."""

import math

_ROWS = 0.85  # of the memory limit, for rows that wait for their pairs
_MOST_PASSES = 1000  # over the images; a limit that needs more was meant in another unit


def planned_passes(layers, count: int, memory_limit: float, copies: int = 1) -> list[dict]:
    """Which entries of which layers to keep, pass by pass: {name: (start, stop)}.

    What measures distances after other long work asks before it, to be refused in time.

    Args:
        layers: `Representation`s that can be measured, in the order in which they will be.
        count: images.
        memory_limit: as for `ds.measure_sensitivity`.
        copies: how much is held at once, in rows of the layers.

    Raises:
        ValueError: so few bytes would take too many passes.
    """
    share = _ROWS / copies
    room = share * min(memory_limit, 1 << 60) / count  # bytes an image; infinity has no whole parts
    passes, left = [], 0
    for each in reversed(layers):
        start = 0
        while start is not None and start != each.features and len(passes) <= _MOST_PASSES:
            if left < each.itemsize:
                passes.append({})
                left = max(room, each.itemsize)
            if each.features is None:  # no way to count them before: kept as a whole
                stop = None
            else:
                stop = min(each.features, start + int(left // each.itemsize))
                left -= (stop - start) * each.itemsize
            passes[-1][each.name] = (start, stop)
            start = stop
    if len(passes) > _MOST_PASSES:
        entries = sum((each.features or 0) * each.itemsize for each in layers)
        raise ValueError(
            f"memory_limit={memory_limit:g} is a number of bytes, and so few would take over "
            f"{_MOST_PASSES} passes over the images: give at least "
            f"{math.ceil(entries * count / (share * _MOST_PASSES))}, or measure fewer layers"
        )
    return passes


def widths_of(spans, layers) -> tuple[tuple, list]:
    """Of a pass: how much of which layers it keeps, and where that starts.

    A layer that does not fit into memory comes in many parts of one width. A step that is compiled
    for a width, with the start as its input, serves all of them.

    Args:
        spans: name → (start, stop), as `planned_passes` gives them.
        layers: name → `Representation`.

    Returns:
        (name, number of entries, `None` for all of them) of each layer; and (0, start), image and
        entry, of each that is kept in part.
    """
    widths, starts = [], []
    for name, (start, stop) in spans.items():
        if stop is None or (start, stop) == (0, layers[name].features):
            widths.append((name, None))
        else:
            widths.append((name, stop - start))
            starts.append((0, start))
    return tuple(widths), starts
