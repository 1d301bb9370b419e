"""Folders of images: read whole, or, as ImageNet does not fit into memory, when they are needed."""

import dataclasses
import functools
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from deformstab.presentation.image_reader import MARGIN, as_array, open_image, resized

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class ImageFiles:
    """Image files that can be used as an array of float32, [images, size, size, 3].

    A slice is again an `ImageFiles`, an array of indices reads those files, on all cores.

    Attributes:
        paths: of the files.
        size: pixels of a side. An image that has that size already is taken as it is; of any other
            the shorter side is brought to size · 256/224 pixels, and the centre kept.
        shift, scale: pixels are in [-1, 1]; of these, (pixel - shift) / scale is given.
    """

    paths: tuple
    size: int
    shift: float | np.ndarray = 0.0
    scale: float | np.ndarray = 1.0

    @property
    def shape(self) -> tuple:
        return (len(self.paths), self.size, self.size, 3)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, which):
        if isinstance(which, slice):
            return dataclasses.replace(self, paths=self.paths[which])
        if np.ndim(which) == 0:
            return self[np.array([which])][0]
        images = np.empty((len(which), *self.shape[1:]), "float32")

        def read(place):
            images[place] = _pixels(self.paths[which[place]], self.size)

        list(_readers().map(read, range(len(which))))  # a list, so that errors are raised here
        return (images - self.shift) / self.scale

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[np.arange(len(self))], dtype)

    def scaled(self, shift, scale) -> "ImageFiles":
        """The same images with (pixel - shift) / scale for each pixel."""
        return dataclasses.replace(
            self, shift=self.shift + self.scale * shift, scale=self.scale * scale
        )


def class_folders(path, like=None) -> tuple[list[str], np.ndarray, list[str]]:
    """(files, labels, names of classes) of a folder `{class}/*.{jpg,png}`, in sorted order.

    A folder without folders is one class.

    Args:
        path: of the folder.
        like: the names of classes that it must have, those of the training images.

    Raises:
        ValueError: a class without images, no class, or other classes than `like`.
    """
    path = pathlib.Path(path)
    names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir()) or ["."]
    if like is not None and names != like:
        odd = sorted({*names} ^ {*like})
        raise ValueError(
            f"{path} has {len(names)} classes, the training images {len(like)}; only one of them has "
            f"{', '.join(odd[:5])}{', …' if len(odd) > 5 else ''}"
        )
    files, labels = [], []
    for label, name in enumerate(names):
        with os.scandir(path / name) as entries:
            found = [e.path for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES)]
        if not found and name == ".":
            raise ValueError(
                f"{path} has neither .jpg nor .png images nor folders of them, one for each class"
            )
        if not found:
            raise ValueError(f"{path / name} has no .jpg or .png image")
        files += sorted(found)
        labels += [label] * len(found)
    return files, np.array(labels), names


def image_folder(path) -> list[np.ndarray]:
    """[images, labels] to train on, then to test on, from `{train,test}/{class}/*.{jpg,png}`.

    All of one size, as uint8, or as float32 in 0…1 where any has more than 8 bits. Of
    `{class}/*.{jpg,png}` or `*.{jpg,png}` both are the same arrays.
    """
    names, arrays = None, []
    flat = not (path / "train").is_dir() and any(
        file.suffix.lower() in IMAGE_SUFFIXES for file in (*path.glob("*"), *path.glob("*/*"))
    )
    for part in (".",) if flat and not (path / "test").is_dir() else ("train", "test"):
        if not (path / part).is_dir():
            raise FileNotFoundError(f"data_dir {path} has no folder {part}/")
        files, labels, names = class_folders(path / part, like=names)
        images = []
        for file in files:
            pixels = as_array(open_image(file))
            if images and pixels.shape != images[0].shape:
                raise ValueError(
                    f"images must have one size: {files[0]} has {images[0].shape[:2]}, {file} has "
                    f"{pixels.shape[:2]} (height, width); resize or crop them first"
                )
            images.append(pixels)
        arrays += [_stacked(images), labels]
    return arrays if len(arrays) == 4 else arrays * 2


def _stacked(images) -> np.ndarray:
    """Bytes stay bytes; beside images that have more bits they become what those are."""
    if len({image.dtype for image in images}) > 1:
        images = [x / np.float32(255) if x.dtype == np.uint8 else x for x in images]
    return np.stack(images)


@functools.cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="deformstab-images")


def _pixels(path, size) -> np.ndarray:
    """An image of a size, in [-1, 1]."""
    image = open_image(path, enough=2 * round(size * MARGIN))
    pixels = as_array(resized(image, size, size))
    if pixels.dtype != np.uint8:
        return 2 * pixels - 1
    return pixels.astype("float32") / np.float32(127.5) - 1
