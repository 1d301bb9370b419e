"""Where points of an image lie after its deformation. NumPy, in float64.

A flow says where each pixel of the deformed image comes from: out(p) = image(p + flow(p)). So a
landmark q of the original is found at the p with p + flow(p) = q, which has to be solved for.
"""

import functools

import numpy as np

_NODES = 1 << 12  # of the lattice on which solutions are looked for, at least, if cells allow
_CELL = 8  # nodes to a cell of the control grid, at least
_STEPS = 50
_EDGE = 1e-3  # pixels beyond the image that are rounding


def moved_points(points, parameters, field, height: int, width: int):
    """The positions p with p + flow(p) = point.

    All solutions in the image are looked for: the map p + flow(p) takes the cells of a lattice to
    quadrilaterals, and Newton's method starts, from several places, in each cell whose image comes
    near the point. The flow and its derivatives are exact at every position.

    Args:
        points: [batch, n, 2], pixels, (y, x).
        parameters: [batch, …], of each image's deformation.
        field: the `Field` that they are of.
        height, width: of the image, in pixels.

    Returns:
        float64 [batch, n, 2]; NaN where there is no solution in the image, or more than one, or the
        map turns the image over there (its Jacobian determinant is ≤ 0).
    """
    points, parameters = np.asarray(points, "float64"), np.asarray(parameters, "float64")
    found = np.full(points.shape, np.nan)
    if not points.size:
        return found
    last = np.array([height - 1.0, width - 1.0])
    nodes = [_nodes(side, n) for side, n in zip(last, field.grid)]
    lattice = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
    usable = np.isfinite(parameters.reshape(len(parameters), -1)).all(axis=1)
    for number in np.flatnonzero(usable):
        which = np.flatnonzero(np.isfinite(points[number]).all(axis=-1))
        targets = points[number, which]
        at = functools.partial(field.at, parameters[number], height=height, width=width)
        images = lattice + at(lattice.reshape(-1, 2))[0].reshape(lattice.shape)
        owner, starts = _starts(lattice, images, targets)
        reach = last / (len(nodes[0]), len(nodes[1]))
        solutions, determinants, solved = _newton(starts, targets[owner], at, reach)
        solved &= (solutions > -_EDGE).all(axis=-1) & (solutions < last + _EDGE).all(axis=-1)
        for place in np.unique(owner[solved]):
            mine = solved & (owner == place)
            each = solutions[mine]
            one = np.abs(each - each[0]).max() < _EDGE and (determinants[mine] > 0).all()
            if one:
                found[number, which[place]] = np.clip(each[0], 0, last)
    return found


def _nodes(last, points):
    cells = points - 1
    each = max(_CELL, int(np.ceil(np.sqrt(_NODES) / cells)))
    return np.linspace(0, last, cells * each + 1)


def _starts(lattice, images, targets):
    """(which target, where to start) of every cell whose image comes near a target."""
    corners = np.stack([images[:-1, :-1], images[:-1, 1:], images[1:, :-1], images[1:, 1:]])
    low, high = corners.min(axis=0).reshape(-1, 2), corners.max(axis=0).reshape(-1, 2)
    # A cell's image is curved: half its size more on each side, and what is next to it.
    margin = 0.5 * (high - low).max(axis=-1, keepdims=True) + 1e-6
    low, high = low - margin, high + margin
    owner, cell = [], []
    for start in range(0, len(targets), 64):
        part = targets[start : start + 64, None]
        inside = ((part >= low) & (part <= high)).all(axis=-1)
        which, where = np.nonzero(inside)
        owner.append(which + start)
        cell.append(where)
    owner, cell = (np.concatenate(each or [np.empty(0, int)]) for each in (owner, cell))
    first, size = lattice[:-1, :-1].reshape(-1, 2), lattice[1, 1] - lattice[0, 0]
    quarters = np.array([[1, 1], [1, 3], [3, 1], [3, 3]]) / 4
    starts = first[cell][:, None] + quarters * size
    return np.repeat(owner, 4), starts.reshape(-1, 2)


def _newton(positions, targets, at, reach):
    """(solutions, their Jacobian determinants, whether they are solutions), by damped steps."""
    positions = positions.copy()
    determinants = np.full(len(positions), np.nan)
    residuals = np.full(len(positions), np.inf)
    running = np.arange(len(positions))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_STEPS):
            if not len(running):
                break
            here = positions[running]
            flow, by_y, by_x = at(here)
            y, x = (here + flow - targets[running]).T
            # The Jacobian [[a, b], [c, d]] of p + flow(p).
            a, b, c, d = 1 + by_y[:, 0], by_x[:, 0], by_y[:, 1], 1 + by_x[:, 1]
            determinants[running] = determinant = a * d - b * c
            residuals[running] = np.hypot(y, x)
            step = np.stack([b * x - d * y, c * y - a * x], axis=-1) / determinant[:, None]
            # No further than a few cells at once: solutions far away have starts of their own.
            length = (np.abs(step) / (4 * reach)).max(axis=-1, keepdims=True)
            step = step / np.maximum(length, 1)
            going = np.isfinite(step).all(axis=-1) & (np.abs(step).max(axis=-1) > 1e-10)
            running, step = running[going], step[going]
            positions[running] += step
    return positions, determinants, residuals < 1e-6
