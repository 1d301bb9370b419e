"""What a model is known by from process to process: its architecture, and its weights."""

import base64
import hashlib
import math
from dataclasses import dataclass

import numpy as np

from deformstab.backend import variable_to_numpy

_SAMPLED = 2048  # weights of a model, about


@dataclass(frozen=True)
class Weights:
    """The weights of a model at one time.

    Attributes:
        digest: equal for weights that are equal in every bit.
        sample: some of them, one array for each kernel: weights that training has moved resemble
            those from before, see `related`.
    """

    digest: str
    sample: tuple


def weights_of(model) -> Weights:
    """Of the model's weights: without seeds, metrics and what an optimizer remembers."""
    digest, sample = hashlib.blake2b(digest_size=16), []
    kernels = sum(len(variable.shape) > 1 for variable in model.weights)
    for variable in model.weights:
        value = np.ascontiguousarray(variable_to_numpy(variable))
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.reshape(-1).view("uint8"))
        if value.ndim > 1:
            size = min(value.size, max(2, _SAMPLED // kernels))
            places = np.linspace(0, value.size - 1, size).astype(int)
            sample.append(value.reshape(-1)[places].astype("float32"))
    return Weights(digest.hexdigest(), tuple(sample))


def architecture_of(model) -> str:
    """Equal for models of equal layers: their classes, and the shapes of their weights, in order.

    Names that Keras makes up count on from model to model, and are left out.
    """
    layers = [
        [type(layer).__name__, *(f"{list(v.shape)} {v.dtype}" for v in layer.weights)]
        for layer in model._flatten_layers(include_self=False)
    ]
    return hashlib.blake2b(repr(layers).encode(), digest_size=16).hexdigest()


def related(a: tuple, b: tuple) -> bool:
    """Whether two samples of weights have more in common than two that were drawn at random.

    Kernels that were drawn independently have correlation 0 ± 1/√n. What training has made of a
    kernel in the time between two measurements remains correlated with it. Kernels that are equal
    (frozen ones, fixed filters) say nothing.
    """
    if [len(x) for x in a] != [len(x) for x in b]:
        return False
    products, count = 0.0, 0
    for x, y in zip(a, b):
        x, y = x - x.mean(dtype="float64"), y - y.mean(dtype="float64")
        lengths = np.linalg.norm(x) * np.linalg.norm(y)
        if not np.array_equal(x, y) and 0 < lengths < math.inf:  # nor what is NaN
            products += len(x) * (x @ y) / lengths
            count += len(x)
    return bool(count < 32 or products / count > 4 / math.sqrt(count))


def sample_to_text(sample: tuple) -> list[str]:
    return [base64.b64encode(each.astype("<f4")).decode() for each in sample]


def sample_from_text(texts: list[str]) -> tuple:
    return tuple(np.frombuffer(base64.b64decode(each), "<f4") for each in texts)
