"""The sets in which a worst deformation is looked for, and where a quadratic form is largest in them.

Displacements d of the control points are [images, points, 2], pixels, (y, x). Of a flow M d the mean
square over pixels is Σ_axis d_axisᵀ G d_axis with G = MᵀM / pixels. Other families whose flows are
linear in their parameters have these in place of displacements: modes of a diffeomorphism, one shift.

- The box: |d| ≤ C, what random draws come from. A convex function is largest at one of its vertices.
- Equal strength: a flow whose mean square is at most ρ², that of the draws on average: for
  control points ρ² = (C_y² + C_x²) · |M|² / (3 · pixels), in closed form, as E d² = C² / 3.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from deformstab.deformations.flows import SplineField
from deformstab.deformations.splines import spline_matrix

_ENUMERATED = 18  # signs: 2¹⁷ vertices and their opposites, a tenth of a second an image
_TRIES = 16  # vertices from which signs are flipped where there are more


@dataclass(frozen=True)
class Box:
    """|d| ≤ reach. `reach`: [2], pixels, (y, x)."""

    reach: np.ndarray
    points: int

    def inside(self, d):
        """The nearest displacements of the set."""
        return np.clip(d, -self.reach, self.reach)

    def on_edge(self, d):
        """Draws as they come: they are from the set, and uniform in it."""
        return self.inside(d)

    def step(self, gradient, share: float):
        """A step uphill, of a share of the set's half width: that much in every coordinate."""
        return share * self.reach * np.sign(gradient)

    def top_of_form(self, form) -> np.ndarray:
        """Where dᵀ A d is largest. `form`: [points · 2, points · 2]. Returns [points, 2]."""
        reach = np.tile(self.reach, self.points)
        signs = _best_signs(form * reach[:, None] * reach)
        return (signs * reach).reshape(self.points, 2)

    def top_of_line(self, gradient) -> np.ndarray:
        """Where a linear function of this gradient [points, 2] is largest."""
        return np.where(gradient >= 0, 1.0, -1.0) * self.reach


@dataclass(frozen=True)
class EqualStrength:
    """Flows of a root mean square of at most `strength` pixels. `gram`: G, [points, points]."""

    strength: float
    gram: np.ndarray

    @functools.cached_property
    def _inverse(self):
        return np.linalg.inv(self.gram)

    @property
    def points(self) -> int:
        return len(self.gram)

    def rms(self, d):
        """Of the flows, [images]."""
        square = np.einsum("...pa,pq,...qa->...", d, self.gram, d)
        return np.sqrt(np.maximum(square, 0))

    def inside(self, d):
        """Scaled down to the strength where they are beyond it."""
        rms = self.rms(d)[..., None, None]
        return d * np.where(rms > self.strength, self.strength / np.where(rms > 0, rms, 1), 1.0)

    def on_edge(self, d):
        """Scaled to the strength: displacements of its own size in a random direction."""
        rms = self.rms(d)[..., None, None]
        return d * (self.strength / np.where(rms > 0, rms, 1))

    def step(self, gradient, share: float):
        """A step along the steepest direction in the norm of the flow, of a share of the strength."""
        direction = self._inverse @ gradient
        rms = self.rms(direction)[..., None, None]
        return share * self.strength * direction / np.where(rms > 0, rms, 1)

    def top_of_form(self, form) -> np.ndarray:
        """The eigenvector of dᵀ A d against G of the largest eigenvalue, at the strength."""
        factor = np.linalg.inv(np.linalg.cholesky(np.kron(self.gram, np.eye(2))))
        _, vectors = np.linalg.eigh(factor @ form @ factor.T)
        return self.strength * (factor.T @ vectors[:, -1]).reshape(self.points, 2)

    def top_of_line(self, gradient) -> np.ndarray:
        """Where a linear function of this gradient [points, 2] is largest."""
        return self.step(gradient, 1.0)


def displacement_set(deformation, within: str, height: int, width: int):
    """The set for a deformation and images of a size.

    Args:
        deformation: whose `max_displacement` is the box; or of another family, whose `field` is
            linear and which has no box.
        within: "box" or "rms".
        height, width: of the images.
    """
    field = deformation.field
    if not isinstance(field, SplineField):
        places = np.stack(np.indices((height, width)), axis=-1).reshape(-1, 2)
        units = np.eye(points_of(deformation)).reshape(-1, *field.shape[:-1], 1) * np.ones(2)
        matrix = np.stack(
            [field.at(unit, places, height, width)[0][:, 0] for unit in units], axis=1
        )
        gram = matrix.T @ matrix / len(matrix)
        return EqualStrength(deformation.expected_rms(height, width), gram)
    reach = np.array(deformation.max_displacement, "float64")
    matrix = spline_matrix(deformation.control_points, height, width)
    if within == "box":
        return Box(reach, matrix.shape[1])
    gram = matrix.T @ matrix / len(matrix)
    return EqualStrength(float(np.sqrt((reach**2).sum() * np.trace(gram) / 3)), gram)


def points_of(deformation) -> int:
    """How many pairs of parameters (y, x) a deformation with a linear field has: control points."""
    return math.prod(deformation.field.shape[:-1])


def _best_signs(form) -> np.ndarray:
    """The signs s with the largest sᵀ A s: all of them tried, or the best of flipping one by one."""
    count = len(form)
    if count <= _ENUMERATED:
        signs = _all_signs(count)
        return signs[np.argmax(np.einsum("si,si->s", signs @ form.astype("float32"), signs))]
    _, vectors = np.linalg.eigh(form)
    rng = np.random.default_rng(0)
    some = [*vectors.T[: -_TRIES - 1 : -1], *rng.normal(size=(_TRIES, count))]
    found = [_flipped(np.where(each >= 0, 1.0, -1.0), form) for each in some]
    return max(found, key=lambda signs: signs @ form @ signs)


@functools.lru_cache(maxsize=2)
def _all_signs(count) -> np.ndarray:
    """Half of the vertices of a cube, float32 [2^(count - 1), count]: the others are opposite."""
    numbers = np.arange(1 << (count - 1), dtype="int64")[:, None]
    return np.where(numbers >> np.arange(count) & 1, -1.0, 1.0).astype("float32")


def _flipped(signs, form) -> np.ndarray:
    """Flips the sign that gains most until none gains."""
    off = form - np.diag(np.diag(form))
    while True:
        gains = -signs * (off @ signs)
        best = int(np.argmax(gains))
        if gains[best] <= 1e-12 * np.abs(form).max():
            return signs
        signs[best] = -signs[best]
