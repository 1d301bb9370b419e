"""What flows the families make of their parameters, and how these are drawn.

Each class here is small and hashable: what is compiled is kept by it (`flows.Field`).
"""

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from deformstab.deformations.splines import check_fit

_ANY = (2, 2)  # a control grid that fits every image


def modes(cutoff: int) -> np.ndarray:
    """The frequencies (along y, along x) of a diffeomorphism: int [modes, 2]."""
    pairs = np.indices((cutoff + 1, cutoff + 1)).reshape(2, -1).T
    squares = (pairs**2).sum(axis=1)
    return pairs[(pairs.min(axis=1) > 0) & (squares <= (cutoff + 0.5) ** 2)]


@dataclass(frozen=True)
class NormalCoefficients:
    """Draws coefficients [batch, modes, 2], normal of variance 1 / (i² + j²)."""

    cutoff: int

    def __call__(self, batch_size, dtype, seed):
        found = modes(self.cutoff)
        deviations = ((found**2).sum(axis=1) ** -0.5)[:, None].astype(dtype)
        normal = keras.random.normal((batch_size, len(found), 2), dtype=dtype, seed=seed)
        return normal * ops.convert_to_tensor(deviations)


@dataclass(frozen=True)
class DiffeomorphismField:
    """Flows are sums of sines, zero at the border (Petrini et al. 2021)."""

    cutoff: int
    rms_displacement: float
    name = "coefficients"
    whole = False
    linear = True

    def __str__(self):
        return f"cutoff={self.cutoff}"

    @property
    def shape(self):
        return len(modes(self.cutoff)), 2

    @property
    def grid(self):
        return 2 * self.cutoff + 1, 2 * self.cutoff + 1

    def check(self, height, width):
        check_fit(_ANY, height, width)
        if min(height, width) < self.cutoff + 2:
            raise ValueError(
                f"sines up to cutoff={self.cutoff} need images of at least {self.cutoff + 2} pixels "
                f"a side, received {height}×{width}; take a smaller cutoff or larger images"
            )

    def amplitude(self, height, width) -> float:
        """Pixels a unit: of each axis the mean square is Σ_k c_k² times that of two sines.

        Over n pixels, ends included, the mean of sin² is (n - 1) / 2n, exactly.
        """
        squares = (1.0 / (modes(self.cutoff) ** 2).sum(axis=1)).sum()
        sines = np.prod([(side - 1) / (2 * side) for side in (height, width)])
        return self.rms_displacement / math.sqrt(2 * squares * sines)

    def flow(self, parameters, height, width):
        dtype = keras.backend.standardize_dtype(parameters.dtype)
        y, x = (np.linspace(0, 1, side) for side in (height, width))
        found = modes(self.cutoff)
        high = found.max()
        frequencies = np.arange(1, high + 1)
        down = self.amplitude(height, width) * np.sin(np.pi * np.outer(y, frequencies))
        along = np.sin(np.pi * np.outer(frequencies, x))
        # To whole pixels at the ends, where sin(kπ) is rounding.
        down[[0, -1]], along[:, [0, -1]] = 0, 0
        # Coefficients as a square, those beyond the cutoff zero: two products of thin matrices.
        places = np.zeros((len(found), high * high), dtype)
        places[np.arange(len(found)), (found[:, 0] - 1) * high + found[:, 1] - 1] = 1
        planes = ops.reshape(ops.transpose(parameters, (0, 2, 1)), (-1, len(found)))
        square = ops.reshape(planes @ ops.convert_to_tensor(places), (-1, high))
        rows = ops.reshape(square @ ops.convert_to_tensor(along.astype(dtype)), (-1, high, width))
        rows = ops.reshape(ops.transpose(rows, (0, 2, 1)), (-1, high))
        flow = rows @ ops.convert_to_tensor(down.T.astype(dtype))
        return ops.transpose(ops.reshape(flow, (-1, 2, width, height)), (0, 3, 2, 1))

    def at(self, parameters, positions, height, width):
        parameters = np.asarray(parameters, "float64")
        found = np.pi * modes(self.cutoff) / (height - 1, width - 1)
        (y, sin_y, cos_y), (x, sin_x, cos_x) = (
            (rate, np.sin(place), np.cos(place))
            for rate, place in (
                (found[:, axis], np.outer(positions[:, axis], found[:, axis])) for axis in (0, 1)
            )
        )
        scaled = self.amplitude(height, width) * parameters
        return (sin_y * sin_x) @ scaled, (y * cos_y * sin_x) @ scaled, (x * sin_y * cos_x) @ scaled


@dataclass(frozen=True)
class Directions:
    """Draws shifts [batch, 2] of one length in any direction."""

    length: float

    def __call__(self, batch_size, dtype, seed):
        angle = keras.random.uniform((batch_size,), 0.0, 2 * math.pi, dtype=dtype, seed=seed)
        return self.length * ops.stack([ops.sin(angle), ops.cos(angle)], axis=-1)


@dataclass(frozen=True)
class WholeSteps:
    """Draws shifts [batch, 2] along the axes, by the whole numbers around a root mean square."""

    root_mean_square: float

    def __call__(self, batch_size, dtype, seed):
        low = math.floor(self.root_mean_square)
        longer = (self.root_mean_square**2 - low**2) / (2 * low + 1)
        # One number tells both: its eighth the direction, its rest the length.
        unit = 4 * keras.random.uniform((batch_size,), dtype=dtype, seed=seed)
        direction = ops.floor(unit)
        length = low + ops.cast(unit - direction < longer, dtype)
        sign = 1 - 2 * ops.mod(direction, 2)
        down = ops.cast(direction < 2, dtype)
        return (length * sign)[:, None] * ops.stack([down, 1 - down], axis=-1)


@dataclass(frozen=True)
class TranslationField:
    """Flows are constant."""

    whole: bool
    name = "shifts"
    shape = (2,)
    grid = _ANY

    @property
    def linear(self):
        return not self.whole

    def __str__(self):
        return "translations"

    def check(self, height, width):
        check_fit(_ANY, height, width)

    def flow(self, parameters, height, width):
        size = ops.shape(parameters)[0], height, width, 2
        return ops.broadcast_to(parameters[:, None, None], size)

    def at(self, parameters, positions, height, width):
        nothing = np.zeros(np.shape(positions))
        return nothing + np.asarray(parameters, "float64"), nothing, nothing


@dataclass(frozen=True)
class Signs:
    """Draws [batch, 1], each 1 or -1."""

    def __call__(self, batch_size, dtype, seed):
        unit = keras.random.uniform((batch_size, 1), -1.0, 1.0, dtype=dtype, seed=seed)
        return 1 - 2 * ops.cast(unit < 0, dtype)


@dataclass(frozen=True)
class _CentralField:
    """Flows are linear about the centre: (even + sign · odd) (p - centre).

    A family says `matrices(height, width)`: even and odd, each [2, 2].
    """

    rms_displacement: float
    name = "signs"
    shape = (1,)
    grid = _ANY
    whole = False
    linear = False

    def _radius(self, height, width) -> float:
        """The root mean square distance of pixels from the centre."""
        return math.sqrt(((height**2 - 1) + (width**2 - 1)) / 12)

    def _check(self, height, width, most: float, what: str):
        check_fit(_ANY, height, width)
        if not self.rms_displacement <= most * self._radius(height, width):
            raise ValueError(
                f"rms_displacement must be at most {most * self._radius(height, width):.4g} px, "
                f"{what}, on images of {height}×{width} pixels, received {self.rms_displacement}"
            )

    def flow(self, parameters, height, width):
        dtype = keras.backend.standardize_dtype(parameters.dtype)
        places = np.stack(np.indices((height, width)), axis=-1) - (
            (height - 1) / 2,
            (width - 1) / 2,
        )
        basis = np.stack([(places @ each.T).ravel() for each in self.matrices(height, width)])
        # A product of matrices: sums of arrays of different shapes take longer than the warp.
        terms = ops.concatenate([ops.ones_like(parameters), parameters], axis=1)
        flow = terms @ ops.convert_to_tensor(basis.astype(dtype))
        return ops.reshape(flow, (-1, height, width, 2))

    def at(self, parameters, positions, height, width):
        even, odd = self.matrices(height, width)
        matrix = even + float(np.ravel(parameters)[0]) * odd
        places = np.asarray(positions, "float64") - ((height - 1) / 2, (width - 1) / 2)
        flow = places @ matrix.T
        return (
            flow,
            np.broadcast_to(matrix[:, 0], flow.shape),
            np.broadcast_to(matrix[:, 1], flow.shape),
        )


@dataclass(frozen=True)
class RotationField(_CentralField):
    """Flows are rotations about the centre by ± one angle."""

    def __str__(self):
        return "rotations"

    def check(self, height, width):
        self._check(height, width, 2.0, "half a turn")

    def matrices(self, height, width):
        # 1 - cos θ = 2 sin²(θ/2), without cancellation.
        half = self.rms_displacement / (2 * self._radius(height, width))
        sine = 2 * half * math.sqrt(1 - half**2)
        return -2 * half**2 * np.eye(2), sine * np.array([[0.0, 1.0], [-1.0, 0.0]])


@dataclass(frozen=True)
class ScalingField(_CentralField):
    """Flows are scalings about the centre by 1 ± one number."""

    def __str__(self):
        return "scalings"

    def check(self, height, width):
        self._check(height, width, 1 - 1e-6, "where an image would shrink to a point")

    def matrices(self, height, width):
        scale = self.rms_displacement / self._radius(height, width)
        return np.zeros((2, 2)), scale * np.eye(2)
