"""Photographs to measure networks on that others trained: a folder, or the bundled ones."""

import pathlib

import numpy as np

from deformstab.paper.data import datasets
from deformstab.paper.data.image_files import IMAGE_SUFFIXES
from deformstab.presentation.image_classes import imagenet_classes
from deformstab.presentation.image_reader import as_array, open_image, resized
from deformstab.presentation.image_sets import sampled

MOST_ANSWERS = 1000  # photographs of known class that a network's answers are compared with
_LUMA = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R 601, as Pillow's


def photographs(data_dir, size: tuple, count: int) -> np.ndarray:
    """Photographs in [0, 1], float32 [images, height, width, channels], at most so many.

    Args:
        data_dir: a folder of image files, of any depth; of more than `count`, a sample, evenly over
            its folders, the same for every network. Each is scaled until its shorter side is
            256/224 of what is asked for, of which the centre is kept; one that has the size
            already is taken as it is. `None`: random crops of the bundled photographs.
        size: (height, width, channels); 3 channels, or 1 for grey.
        count: at least two.

    Raises:
        ValueError: the folder holds fewer than two images, or one that cannot be read.
    """
    height, width, channels = size
    if channels not in (1, 3):
        raise ValueError(f"photographs have 3 channels, or 1; the network takes {channels}")
    if data_dir is not None:
        files = image_files(data_dir)
        chosen = sampled([file.parent for file in files], count, seed=0)
        return _read([files[place] for place in chosen], size)
    if height != width:
        raise ValueError(f"the bundled photographs are square; the network takes {height}×{width}")
    crops = (datasets.load("photos", None, height, 20, count).x_test + 1) / 2
    return crops if channels == 3 else crops @ _LUMA[:, None]


def of_known_class(data_dir, size: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The photographs in folders that are called as classes of ImageNet are, and their classes.

    Returns:
        (images as of `photographs`, labels in 0…999), at most `MOST_ANSWERS`; none of the bundled
        photographs, and of folders with other names.
    """
    numbers = {name: number for number, name in enumerate(imagenet_classes())}
    files = image_files(data_dir) if data_dir is not None else []
    files = [file for file in files if file.parent.name in numbers]
    chosen = sampled([file.parent for file in files], MOST_ANSWERS, seed=0)
    files = [files[place] for place in chosen]
    labels = np.array([numbers[file.parent.name] for file in files], "int64")
    return (_read(files, size) if files else np.empty((0, *size), "float32")), labels


def image_files(data_dir) -> list[pathlib.Path]:
    """All image files of a folder, of any depth, in sorted order.

    Raises:
        ValueError: it is no folder, or holds fewer than two.
    """
    path = pathlib.Path(data_dir)
    if not path.is_dir():
        raise ValueError(f"{path} is no folder of photographs")
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
    if len(found) < 2:
        raise ValueError(f"{path} has {len(found)} .jpg and .png images; at least two are needed")
    return found


def _read(files, size) -> np.ndarray:
    height, width, channels = size
    images = np.empty((len(files), *size), "float32")
    for place, file in enumerate(files):
        pixels = as_array(resized(open_image(file, channels), height, width), channels)
        images[place] = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
    return images
