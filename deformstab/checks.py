"""What rooms check of their arguments in common, before any work."""

import keras
import numpy as np


def is_whole(value, least: int = 1) -> bool:
    """Whether a value is an integer, Python's or NumPy's, of at least so much. A bool is none."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    return whole and value >= least


def check_whole(name: str, value, least: int = 1) -> int:
    """The value as an int; anything else is refused by name."""
    if not is_whole(value, least):
        raise ValueError(f"{name} must be an int of at least {least}, received {value!r}")
    return int(value)


def check_model(model) -> None:
    """Refuses what is no Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"model must be a keras.Model, received {model!r}. A file is loaded by "
            "keras.models.load_model; a layer becomes a model in keras.Sequential([layer])"
        )


def check_finite(images: np.ndarray) -> None:
    """Refuses images that hold NaN or infinity: behind a maximum or a ReLU they would vanish."""
    if images.dtype.kind in "biuOSU" or not images.size:
        return
    broken = ~np.isfinite(images.reshape(len(images), -1)).all(axis=1)
    if broken.any():
        raise ValueError(
            f"images must be finite: {broken.sum()} of {len(images)} hold NaN or infinity, image "
            f"{int(np.argmax(broken))} the first of them; leave these out, or mend their pixels"
        )
