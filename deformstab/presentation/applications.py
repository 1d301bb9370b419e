"""The networks of keras.applications by their names: with weights for ImageNet, of a file, or random."""

import inspect
import pathlib
import warnings
import zipfile

import keras

from deformstab.presentation.model_files import check_kind, told

SIDE = 224  # pixels, of a network that takes any size


def applications() -> list[str]:
    """The names of the networks of keras.applications, as the installed Keras has them."""
    return [name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)]


def load_application(
    name: str, weights: str = "imagenet", image_size: int | None = None, seed: int = 0
) -> keras.Model:
    """A network of keras.applications.

    Args:
        name: one of `applications()`.
        weights: "imagenet" (downloaded, and kept by Keras), "none" (random ones), or a file:
            `.weights.h5`, `.h5`, or `.keras`, of which only the weights are read.
        image_size: pixels a side; by default that of the constructor. Weights for ImageNet come at
            other sizes without the classifier, as Keras gives them.
        seed: of random weights. Keras' global seed is set to it.

    Raises:
        ValueError: an unknown name, a file whose weights are those of another network, a size that
            the network does not take.
        OSError: the weights could not be downloaded.
    """
    if name not in applications():
        raise ValueError(f"keras.applications has no {name}; it has {', '.join(applications())}")
    construct = getattr(keras.applications, name)
    if weights == "imagenet":
        return _for_imagenet(construct, name, image_size)
    file = None if weights == "none" else pathlib.Path(weights)
    if file is not None:
        check_kind(file)
    keras.utils.set_random_seed(seed)
    size = {} if image_size is None else {"input_shape": (image_size, image_size, 3)}
    model = construct(weights=None, **size)
    if file is not None:
        _load_weights(model, name, file)
    return model


def _for_imagenet(construct, name, image_size):
    try:
        with warnings.catch_warnings():  # MobileNetV3 of any size: the weights are those for 224
            warnings.filterwarnings("ignore", "`input_shape` is undefined")
            model = construct(weights="imagenet")
            if image_size not in (None, model.input_shape[1] or image_size):
                shape = (image_size, image_size, 3)
                model = construct(weights="imagenet", include_top=False, input_shape=shape)
    except ValueError:  # of a size that it does not take
        raise
    except Exception as error:  # of a network that is not there, or of a file that is cut
        raise OSError(
            f"the weights of {name} could not be downloaded: {error}. Without a network: "
            "--weights=FILE, a .weights.h5 or .keras file, or --weights=none, random ones"
        ) from error
    return model


def _load_weights(model, name, file) -> None:
    count = _layers_in(file)
    own = len(model.layers)
    if count is None and getattr(keras.applications, name).__module__.endswith(".efficientnet"):
        raise ValueError(
            f"{file}: weights of {name} in the old .h5 format do not say whether they are ImageNet's, "
            "for which the network has one layer more; take --weights=imagenet, or save the whole "
            "model, model.save('model.keras'), and pass it as --model"
        )
    if count not in (None, own):
        raise ValueError(
            f"{file} holds weights of a model with {count} layers; {name} has {own}. If it is {name} "
            "with another head, or EfficientNet as it is for ImageNet (one layer more), save the "
            "whole model, model.save('model.keras'), and pass it as --model"
        )
    try:
        model.load_weights(file)
    except Exception as error:  # of h5py, zipfile, Keras: whatever the file provokes
        raise ValueError(
            f"{file} does not hold weights of {name}: {told(error)} (With another number of classes, "
            "or another head, save the whole model, model.save('model.keras'), and pass it as "
            "--model.)"
        ) from error


def _layers_in(file) -> int | None:
    """How many layers the model had whose weights a file holds, those without weights as well.

    Keras' own loading passes over layers without weights, and so over a scaling that is missing.
    """
    import h5py  # comes with Keras

    if file.suffix != ".keras":
        with h5py.File(file, "r") as weights:
            return _counted(weights)
    with (
        zipfile.ZipFile(file) as archive,
        archive.open("model.weights.h5") as inner,
        h5py.File(inner, "r") as weights,
    ):
        return _counted(weights)


def _counted(weights) -> int | None:
    return len(weights["layers"]) if "layers" in weights else None
