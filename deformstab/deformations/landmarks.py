"""Where points of an image lie after its deformation. NumPy, in float64.

A flow says where each pixel of the deformed image comes from: out(p) = image(p + flow(p)). So a
landmark q of the original is found at the p with p + flow(p) = q, which has to be solved for.
"""

import numpy as np

from deformstab.deformations.splines import control_grid
from deformstab.deformations.thin_plates import thin_plate_kernel, thin_plate_spline

_NODES = 1 << 12  # of the lattice on which solutions are looked for, at least, if cells allow
_CELL = 8  # nodes to a cell of the control grid, at least
_BLOCK = 1 << 22  # pairs of positions and control points computed at once
_STEPS = 50
_EDGE = 1e-3  # pixels beyond the image that are rounding


def moved_points(points, displacements, control_points: tuple, height: int, width: int):
    """The positions p with p + flow(p) = point.

    All solutions in the image are looked for: the map p + flow(p) takes the cells of a lattice to
    quadrilaterals, and Newton's method starts, from several places, in each cell whose image comes
    near the point. The spline and its derivatives are exact at every position.

    Args:
        points: [batch, n, 2], pixels, (y, x).
        displacements: [batch, rows · columns, 2], pixels, (y, x), of the control points.
        control_points: (rows, columns).
        height, width: of the image, in pixels.

    Returns:
        float64 [batch, n, 2]; NaN where there is no solution in the image, or more than one, or the
        map turns the image over there (its Jacobian determinant is ≤ 0).
    """
    points, displacements = np.asarray(points, "float64"), np.asarray(displacements, "float64")
    found = np.full(points.shape, np.nan)
    if not points.size:
        return found
    spline = thin_plate_spline(control_grid(control_points, height, width))
    last = np.array([height - 1.0, width - 1.0])
    nodes = [_nodes(side, n) for side, n in zip(last, control_points)]
    lattice = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
    usable = np.isfinite(displacements).all(axis=(1, 2))
    weights = spline.weights @ np.where(np.isfinite(displacements), displacements, 0)
    together = np.moveaxis(weights, 0, 1).reshape(len(spline.weights), -1)
    flows = _at(lattice.reshape(-1, 2), spline, together)
    images = lattice[None] + np.moveaxis(flows.reshape(*lattice.shape[:2], -1, 2), 2, 0)
    for number in np.flatnonzero(usable):
        which = np.flatnonzero(np.isfinite(points[number]).all(axis=-1))
        targets = points[number, which]
        owner, starts = _starts(lattice, images[number], targets)
        solutions, determinants, solved = _newton(
            starts, targets[owner], spline, weights[number], last / (len(nodes[0]), len(nodes[1]))
        )
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


def _at(positions, spline, weights, derivatives=False):
    """The spline at positions [n, 2]: [n, values], or with its derivatives by y and x."""
    points = len(spline.control)
    values, by_y, by_x = (np.empty((len(positions), weights.shape[1])) for _ in range(3))
    block = max(1, _BLOCK // points)
    for start in range(0, len(positions), block):
        part = slice(start, start + block)
        centred = (positions[part] - spline.centre) / spline.scale
        y, x = (centred[:, None, axis] - spline.control[:, axis] for axis in (0, 1))
        squared = y**2 + x**2
        affine = np.concatenate([np.ones((len(centred), 1)), centred], axis=1)
        values[part] = thin_plate_kernel(squared) @ weights[:points] + affine @ weights[points:]
        if derivatives:
            # φ = ½ s log s of s = y² + x²: ∂φ/∂y = y (log s + 1).
            slope = np.log(np.where(squared > 0, squared, 1.0)) + 1
            by_y[part] = ((y * slope) @ weights[:points] + weights[points + 1]) / spline.scale
            by_x[part] = ((x * slope) @ weights[:points] + weights[points + 2]) / spline.scale
    return (values, by_y, by_x) if derivatives else values


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


def _newton(positions, targets, spline, weights, reach):
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
            flow, by_y, by_x = _at(here, spline, weights, derivatives=True)
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
