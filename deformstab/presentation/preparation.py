"""What a network was trained on: images in 0…1 → its inputs, and back for a screen."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np

MODES = {  # of keras.applications.imagenet_utils
    "caffe": "blue, green, red in 0…255 less ImageNet's means (caffe)",
    "torch": "0…1 less ImageNet's means, over its deviations (torch)",
    "tf": "-1…1 (tf)",
}


@dataclass(frozen=True)
class Preparation:
    """How images are prepared for a network. Each is affine in the channels of a pixel, so that it
    does not matter whether an image is deformed before it or after.

    Attributes:
        words: what comes out, for a reader.
        function: float32 [..., channels] in 0…1 → the same for the network.
        colour: whether it is for three channels only.
    """

    words: str
    function: Callable[[np.ndarray], np.ndarray]
    colour: bool = False

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images in 0…1, [..., height, width, channels], as the network takes them.

        Raises:
            ValueError: it is for colours, and the images have none.
        """
        if self.colour and images.shape[-1] != 3:
            raise ValueError(
                f"{self.words}: that is for three channels, and the model takes "
                f"{images.shape[-1]}; say --preprocessing=LOW,HIGH"
            )
        return np.ascontiguousarray(self.function(images))

    def undone(self, inputs: np.ndarray) -> np.ndarray:
        """What `__call__` gives, back in 0…1 (float64, and not clipped)."""
        black, matrix = self._affine(inputs.shape[-1])
        return (inputs - black) @ np.linalg.inv(matrix)

    def same_as(self, other: "Preparation", channels: int) -> bool:
        """Whether two prepare images of so many channels alike."""
        if channels != 3 and (self.colour or other.colour):
            return False
        pairs = zip(self._affine(channels), other._affine(channels))
        return all(np.allclose(*pair, rtol=1e-4, atol=1e-5) for pair in pairs)

    def _affine(self, channels: int):
        """(inputs of a black pixel, what each channel adds to it): [channels], [channels, channels]."""
        colours = np.concatenate([np.zeros((1, channels)), np.eye(channels)]).astype("float32")
        black, *full = self(colours[:, None, None])[:, 0, 0].astype("float64")
        return black, np.array(full) - black


def scaled_to(low: float, high: float) -> Preparation:
    """Black becomes `low`, white `high`."""
    return Preparation(f"{low:g}…{high:g}", lambda images: low + (high - low) * images)


def preparation(text) -> Preparation:
    """What `--preprocessing` says: one of `MODES`, or LOW,HIGH.

    Args:
        text: a name, "LOW,HIGH", or a pair of numbers.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(text, str) and text in MODES:
        return _mode(text)
    try:
        low, high = (float(bound) for bound in (text.split(",") if isinstance(text, str) else text))
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        shown = text if isinstance(text, str) else ",".join(map(str, text))
        raise ValueError(
            f"--preprocessing is {', '.join(MODES)} or two numbers LOW,HIGH (--value_range the "
            "numbers), the first below the second, as in --preprocessing=0,1; received "
            f"value_range {shown!r}"
        )
    return scaled_to(low, high)


def preparation_of_application(name: str) -> Preparation:
    """That of a network of keras.applications: the `preprocess_input` of the module that defines it.

    Where that does nothing, the network scales images itself, and takes 0…255.
    """
    # MobileNetV3's is not beside it in keras.applications, but where it is defined all are.
    own = sys.modules[getattr(keras.applications, name).__module__].preprocess_input

    def function(images):
        return np.asarray(own(255 * images, data_format="channels_last"))

    found = Preparation(f"by its preprocess_input, for {name}", function, colour=True)
    for known in (*map(_mode, MODES), scaled_to(0, 255)):
        if found.same_as(known, 3):
            return replace(found, words=f"{known.words}, for {name}")
    return found


def _mode(name) -> Preparation:
    def function(images):
        return keras.applications.imagenet_utils.preprocess_input(
            255 * images, data_format="channels_last", mode=name
        )

    return Preparation(MODES[name], function, colour=name != "tf")
