"""SmoothedInitializer: random convolution filters that are smooth over space from the start."""

import numbers
from collections.abc import Callable

import keras
import numpy as np
from keras import ops


def paper_initializer(seed=None) -> keras.initializers.Initializer:
    """Truncated normal with standard deviation 1/√n_in, n_in = height · width · input channels.

    The normal is cut at two standard deviations and then scaled, so 1/√n_in is the deviation of
    what is drawn (Keras' "lecun_normal"). The paper does not say which of the two it means; they
    differ by a factor of 0.88 in every weight, which no sensitivity at initialization depends on.
    """
    return keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal", seed=seed)


@keras.saving.register_keras_serializable(package="deformstab")
class SmoothedInitializer(keras.initializers.Initializer):
    """Convolves another initializer's filters with a Gaussian over their two spatial axes.

    Figure 5a of Ruderman et al. (2018). Outside a filter's support is zero, and what the Gaussian
    carries there is cut off, so the filter keeps its size. Smoothing alone would shrink the filters
    (at σ = 1 random 3×3 filters keep about a quarter of their norm), and with it the activations of
    every later layer; the kernel as a whole is therefore scaled back to the Frobenius norm that it
    had. Without biases, at initialization, no sensitivity depends on that scale.

    Args:
        sigma: standard deviation of the Gaussian, in pixels, at least 0. Zero is the base
            initializer, bit for bit; towards infinity every filter becomes constant.
        initializer: the base, as Keras' layers take it; by default the paper's truncated normal
            with standard deviation 1/√n_in.
        seed: int, for the default base only: another initializer brings its own.

    Example:

    ```python
    model = ds.vgg((32, 32, 3), 10, kernel_initializer=ds.SmoothedInitializer(1.0), seed=0)
    ```
    """

    def __init__(
        self,
        sigma: float,
        initializer: str | keras.initializers.Initializer | Callable | None = None,
        seed: int | None = None,
    ):
        number = isinstance(sigma, numbers.Real) and not isinstance(sigma, bool)
        if not number or not sigma >= 0:
            raise ValueError(f"sigma must be a number of pixels of at least 0, received {sigma!r}")
        if initializer is not None and seed is not None:
            raise ValueError(
                "seed is for the default initializer; give the seed to the initializer you pass, "
                f"received seed={seed!r} and initializer={initializer!r}"
            )
        self.sigma = float(sigma)
        base = paper_initializer(seed) if initializer is None else initializer
        self.initializer = keras.initializers.get(base)

    def __call__(self, shape, dtype=None):
        if len(shape) != 4:
            raise ValueError(
                "SmoothedInitializer smooths kernels [height, width, in, out] of 2-D convolutions, "
                f"received shape {tuple(shape)}"
            )
        kernel = self.initializer(shape, dtype=dtype)
        if self.sigma == 0:
            return kernel
        along_y, along_x = (_gaussian_matrix(size, self.sigma) for size in shape[:2])
        values = ops.convert_to_numpy(ops.cast(kernel, "float32")).astype("float64")
        smoothed = np.einsum("ya,xb,abio->yxio", along_y, along_x, values)
        norm = np.linalg.norm(smoothed)
        if norm > 0:
            smoothed *= np.linalg.norm(values) / norm
        return ops.cast(ops.convert_to_tensor(smoothed.astype("float32")), kernel.dtype)

    def get_config(self):
        base = keras.saving.serialize_keras_object(self.initializer)
        return {"sigma": self.sigma, "initializer": base}

    @classmethod
    def from_config(cls, config):
        return cls(config["sigma"], keras.initializers.deserialize(config["initializer"]))


def _gaussian_matrix(size: int, sigma: float) -> np.ndarray:
    """The convolution of `size` samples with a Gaussian, zero outside, as a matrix [size, size].

    Not normalized: the scale is set afterwards, and stays finite for any σ this way.
    """
    offsets = np.subtract.outer(np.arange(size), np.arange(size))
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return np.exp(-0.5 * (offsets / sigma) ** 2)


def seed_of(initializer) -> int | None:
    """The integer seed an initializer was given, if any."""
    if isinstance(initializer, SmoothedInitializer):
        return seed_of(initializer.initializer)
    seed = _config(initializer).get("seed")
    return seed if isinstance(seed, int) else None


def _config(initializer) -> dict:
    """The configuration of an initializer; a plain function, which Keras takes as well, has none."""
    return initializer.get_config() if hasattr(initializer, "get_config") else {}


def seeded(initializer, seed: int | None) -> keras.initializers.Initializer:
    """A copy of an initializer with another seed, so that layers do not share their filters.

    An initializer gives the same values at every call, and two layers of one shape would start
    equal. Initializers that draw nothing are returned as they are.
    """
    if isinstance(initializer, SmoothedInitializer):
        return SmoothedInitializer(initializer.sigma, seeded(initializer.initializer, seed))
    config = _config(initializer)
    if "seed" not in config:
        return initializer
    return type(initializer).from_config({**config, "seed": seed})
