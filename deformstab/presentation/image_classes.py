"""Folders of images whose names are classes → the class numbers of a network. Nothing is guessed."""

import functools
import importlib.resources
import json
import pathlib

import keras
import numpy as np

_IMAGENET = 1000
_WORDS = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
    "c2c37ea517e94d9795004a39431a14cb",
)
_HOW = (
    "say which class each folder is with --classes=FILE, a text file with the name of a folder a "
    "line, in the order of the model's outputs"
)


def folder_labels(files, root, classes: int, classes_file=None) -> tuple[np.ndarray, str]:
    """Class numbers of image files by the folder of `root` that each is in.

    In this order: as `classes_file` says; where there are as many folders as classes, by their
    alphabetical order, as Keras' own `image_dataset_from_directory` has it; of a network with 1,000
    classes, by ImageNet's WordNet numbers (n01440764) or names (tench).

    Args:
        files: paths below `root`.
        root: the folder of folders.
        classes: how many the network tells apart.
        classes_file: names of folders, one a line or as JSON, in the order of the outputs.

    Returns:
        (int64 [files], a sentence that says which folder is which class).

    Raises:
        ValueError: a file is in no folder, or it is not sure which class a folder is.
    """
    root = pathlib.Path(root)
    inside = [pathlib.Path(file).relative_to(root).parts for file in files]
    loose = [parts[0] for parts in inside if len(parts) == 1]
    if loose:
        raise ValueError(
            f"--labels=folders: {loose[0]} lies in no folder of {root}; each class is a folder there"
        )
    names = [parts[0] for parts in inside]
    numbers, how = _numbers(root, sorted(set(names)), classes, classes_file)
    examples = [f"{name} = {numbers[name]}" for name in sorted(set(names))]
    if len(examples) > 4:
        examples = [*examples[:2], "…", examples[-1]]
    return np.array([numbers[name] for name in names]), f"labels: {how}: {', '.join(examples)}"


def _numbers(root, names, classes, classes_file) -> tuple[dict, str]:
    """({folder: class}, in words how)."""
    if classes_file is not None:
        known = read_classes(classes_file)
        if len(known) != classes:
            raise ValueError(
                f"{classes_file} names {len(known)} classes, and the model tells {classes} apart"
            )
        return _known(names, [known], f"{classes_file} does not name"), f"by {classes_file}"
    folders = sorted(each.name for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
    if len(folders) == classes:
        if all(name.isdecimal() for name in folders) and folders != sorted(folders, key=int):
            raise ValueError(
                f"--labels=folders: the folders of {root} are numbers, and by the alphabet "
                f"{folders[1]} comes before {folders[2]}: {_HOW}"
            )
        return {name: number for number, name in enumerate(folders)}, (
            f"{classes} folders for {classes} classes, in alphabetical order"
        )
    if classes != _IMAGENET:
        raise ValueError(
            f"--labels=folders: {root} has {len(folders)} folders, and the model tells {classes} "
            f"classes apart: {_HOW}"
        )
    ids = imagenet_classes()
    if set(names) <= set(ids):
        return _known(names, [ids], ""), "ImageNet's classes by their WordNet numbers"
    said = f"no class of ImageNet is called (by WordNet's number, such as {ids[0]}, or its name)"
    return _known(names, [ids, _imagenet_words()], said), "ImageNet's classes by their names"


def _known(names, lists, said) -> dict:
    found = {}
    for name in names:
        places = {
            place
            for known in lists
            for place, each in enumerate(known)
            if _plain(each) == _plain(name)
        }
        if len(places) != 1:
            several = "two classes are called " if len(places) > 1 else f"{said} "
            raise ValueError(f"--labels=folders: {several}{name}: {_HOW}")
        (found[name],) = places
    return found


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "_")


def read_classes(path) -> list[str]:
    """Names of classes in their order: of a text file a line each; of JSON a list, or a dict by
    numbers as Keras' `imagenet_class_index.json` (of a pair, the first)."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if pathlib.Path(path).suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
        found = [found[str(place)] for place in range(len(found))] if type(found) is dict else found
        return [str(each if isinstance(each, str) else each[0]) for each in found]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f'{path} is no list of names, ["cat", "dog"], nor {{"0": "cat", "1": "dog"}}: {error!r}'
        ) from error


@functools.cache
def imagenet_classes() -> list[str]:
    """WordNet's numbers of the 1,000 classes of ImageNet (2012), in the order of networks' outputs.

    It is the alphabetical one.
    """
    file = importlib.resources.files("deformstab.presentation") / "imagenet_classes.txt"
    return file.read_text(encoding="utf-8").split()


def _imagenet_words() -> list[str]:
    """The names of these classes, of the file that Keras' `decode_predictions` downloads."""
    try:
        path = keras.utils.get_file(
            "imagenet_class_index.json", _WORDS[0], cache_subdir="models", file_hash=_WORDS[1]
        )
    except Exception as error:
        raise ValueError(
            "--labels=folders: the names of ImageNet's classes could not be downloaded "
            f"({error}): {_HOW}"
        ) from error
    index = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    return [index[str(place)][1] for place in range(_IMAGENET)]
