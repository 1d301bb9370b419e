"""How well the deformations approximate a change of pose, a translation, a rotation.

Each target is a map of the plane, given as a backward map as everywhere here. Its values at the
control points are the displacements a draw would have to have; what the spline then does between
them is compared with the target. Strengths are such that the largest displacement is exactly
`max_displacement`, so that each lies within what `RandomDeformation` draws from.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from deformstab.deformations.splines import control_grid, spline_matrix

SIDE, CONTROL_POINTS, MAX_DISPLACEMENT = 224, (5, 5), 10.0  # the paper's, for ImageNet


def translation(points, pixels):
    """Every point by as much to the right and down."""
    return np.full_like(points, pixels)


def rotation(points, degrees):
    """Around the centre of the image."""
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centred = points - (SIDE - 1) / 2
    return centred @ matrix.T - centred


def pose(points, degrees):
    """The image as a plane that turns around its vertical axis, seen by a pinhole camera.

    The camera stands two image widths in front of the centre.
    """
    distance, turn = 2.0 * SIDE, np.deg2rad(degrees)
    y, x = (points - (SIDE - 1) / 2).T
    # The point u, v of the plane is seen at x = f u cos / (f + u sin), y = f v / (f + u sin).
    u = distance * x / (distance * np.cos(turn) - x * np.sin(turn))
    v = y * (distance + u * np.sin(turn)) / distance
    return np.stack([v - y, u - x], axis=-1)


TARGETS = {"pose": pose, "translation": translation, "rotation": rotation}
_STRENGTHS = {"pose": "degrees", "translation": "pixels", "rotation": "degrees"}


def approximation(target: str):
    """The strongest target within reach, and the spline through its values at the control points.

    Returns:
        (strength, displacements [25, 2], exact flow [SIDE, SIDE, 2], spline's flow, the same).
    """
    function, control = TARGETS[target], control_grid(CONTROL_POINTS, SIDE, SIDE)
    pixels = np.stack(np.indices((SIDE, SIDE)), axis=-1).reshape(-1, 2).astype("float64")

    def excess(strength):
        return np.abs(function(control, strength)).max() - MAX_DISPLACEMENT

    strength = brentq(excess, 0, 40)
    displacements = function(control, strength)
    exact = function(pixels, strength).reshape(SIDE, SIDE, 2)
    spline = (spline_matrix(CONTROL_POINTS, SIDE, SIDE) @ displacements).reshape(SIDE, SIDE, 2)
    return strength, displacements, exact, spline


def approximations() -> pd.DataFrame:
    """A row a target: its strength, how far it moves pixels, and how far off the spline is, in px."""
    rows = []
    for target in TARGETS:
        strength, displacements, exact, spline = approximation(target)
        off = np.linalg.norm(spline - exact, axis=-1)
        rows.append(
            {
                "target": target,
                "strength": strength,
                "unit": _STRENGTHS[target],
                "max_displacement": np.abs(displacements).max(),
                "rms_flow": np.sqrt((exact**2).sum(axis=-1).mean()),
                "rms_error": np.sqrt((off**2).mean()),
                "max_error": off.max(),
            }
        )
    return pd.DataFrame(rows)
