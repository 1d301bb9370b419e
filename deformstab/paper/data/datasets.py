"""The data sets of the reproduction.

Images are float32 in [-1, 1], [images, height, width, channels]; labels int64 [images]; both in a
random order that only the seed decides. Nothing is augmented: that would itself change stability.
"""

import hashlib
import pathlib
import zipfile
from dataclasses import dataclass

import numpy as np

from deformstab.paper.data import bundled
from deformstab.paper.data.image_files import (
    IMAGE_SUFFIXES,
    ImageFiles,
    class_folders,
    image_folder,
)

EMBEDDED = ("photos", "digits")
DOWNLOADED = ("cifar10", "mnist", "fashion_mnist")
FROM_DISK = ("npz", "folder", "imagenet")
DATASETS = EMBEDDED + DOWNLOADED + FROM_DISK
HASHED_FILES = 200_000  # as many as CIFAR-10 and more, as image files


@dataclass(frozen=True)
class Dataset:
    """Images and labels to train and to test on, and a name for captions.

    Attributes:
        measured_only: the images to train on are those to test on.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    measured_only: bool = False

    @property
    def image_shape(self) -> tuple:
        return self.x_train.shape[1:]


def load(
    name: str, data_dir=None, image_size: int = 32, train_images: int = 1500, test_images: int = 512
) -> Dataset:
    """Loads a data set, or as much of it as is asked for.

    Args:
        name: `photos` (random crops of ten bundled photographs, class = photograph), `digits`
            (scikit-learn's, resized), `cifar10`, `mnist`, `fashion_mnist` (downloaded by Keras, or
            from `data_dir`), `npz` (x_train, y_train, x_test, y_test), `folder`
            (`{train,test}/{class}/*.{jpg,png}`; `{class}/*.jpg` or `*.jpg` to measure only), or
            `imagenet` (the same with `train` and `val`; resized, cropped, and read when needed).
        data_dir: the .npz file or the folder.
        image_size: pixels of the shorter side. `photos`, `digits` and `imagenet` are made in that
            size; the others come as they are, and must have it.
        train_images, test_images: at most so many, of each class equally many where there are.
    """
    check_source(name, data_dir)
    if name == "photos":
        parts = bundled.photos(image_size, train_images, test_images)
        return Dataset("photos", *parts, classes=len(bundled.PHOTOS))
    if name == "imagenet":
        return _imagenet(pathlib.Path(data_dir), image_size, train_images, test_images)
    if name == "digits":
        arrays = bundled.digits(image_size)
    elif data_dir is not None:
        path = pathlib.Path(data_dir)
        arrays = _npz(path) if path.suffix == ".npz" else image_folder(path)
    else:
        arrays = _downloaded(name)
    x_train, y_train, x_test, y_test = _checked(arrays, data_dir or name)
    if min(x_train.shape[1:3]) != image_size:
        height, width = x_train.shape[1:3]
        raise ValueError(
            f"{data_dir or name}: images are {height}×{width} pixels, but image_size is {image_size} "
            f"(the shorter side); say image_size={min(height, width)}, or resize them"
        )
    train = _balanced(y_train, train_images, np.random.default_rng([0, 0]))
    test = _balanced(y_test, test_images, np.random.default_rng([0, 1]))
    classes = int(max(y_train.max(), y_test.max())) + 1
    # Others stay bytes: all of CIFAR-10 are 0.7 GB of float32.
    x_train, x_test = (
        2 * _from_0_to_1(x[part]) - 1 for x, part in ((x_train, train), (x_test, test))
    )
    parts = (title(name, data_dir), x_train, y_train[train], x_test, y_test[test], classes)
    return Dataset(*parts, measured_only=arrays[0] is arrays[2])


def _imagenet(path, image_size, train_images, test_images) -> Dataset:
    """Training images stay files; those to test on are few, and come into memory."""
    trained = (path / "train").is_dir()
    held_out = next((part for part in ("val", "test") if (path / part).is_dir()), None)
    if trained and held_out is None:
        raise FileNotFoundError(f"data_dir {path} has train/, but neither val/ nor test/")
    parts, names = [], None
    for part, count in (("train", train_images), (held_out, test_images)):
        if not trained:
            part, count = ".", test_images
        files, labels, names = class_folders(path / part, like=names)
        chosen = _balanced(labels, count, np.random.default_rng([0, len(parts) // 2]))
        parts += [ImageFiles(tuple(files[index] for index in chosen), image_size), labels[chosen]]
    parts[2] = np.asarray(parts[2])
    return Dataset(title("imagenet", path), *parts, len(names), measured_only=not trained)


def check_source(name: str, data_dir, needed: bool = True) -> None:
    """Refuses an unknown data set, and a place on disk where there is none, before any work.

    needed: whether a data set that is read from disk must say where already.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; the known ones are {', '.join(DATASETS)}")
    if name in FROM_DISK and data_dir is None and needed:
        raise ValueError(
            f"dataset {name} is read from disk: say where with data_dir (or large_data_dir for the "
            "larger images, tasks_data_dir for those of Figure 3)"
        )
    if data_dir is None:
        return
    if name in EMBEDDED:
        raise ValueError(f"dataset {name} comes with a package and takes no data_dir ({data_dir})")
    path = pathlib.Path(data_dir)
    if not path.exists():
        raise FileNotFoundError(f"data_dir {path} does not exist")
    if (name == "npz") != (path.suffix == ".npz") and name in FROM_DISK:
        raise ValueError(
            f"dataset {name} does not go with data_dir {path}: npz takes an .npz file, folder and "
            "imagenet take a folder"
        )
    if path.suffix == ".npz" and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"data_dir {path} is no regular file")
    if path.suffix != ".npz" and not path.is_dir():
        raise ValueError(
            f"data_dir {path} is neither an .npz file nor a folder; give the arrays of {name} as "
            "FILE.npz, with x_train, y_train, x_test, y_test"
        )


def title(name: str, data_dir) -> str:
    """What captions call a data set."""
    if name not in FROM_DISK or data_dir is None:
        return name
    path = pathlib.Path(data_dir).resolve()
    return path.stem if path.suffix == ".npz" else path.name


def fingerprint(data_dir) -> str:
    """What identifies data on disk: the names and the content of its files.

    Of more files than `HASHED_FILES` the names and sizes only: to read all of ImageNet takes hours.
    """
    if data_dir is None:
        return ""
    path, digest = pathlib.Path(data_dir), hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.suffix.lower() in (".npz", *IMAGE_SUFFIXES) and file.is_file():
            digest.update(file.relative_to(path).as_posix().encode())
            if len(files) > HASHED_FILES:
                digest.update(str(file.stat().st_size).encode())
                continue
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _downloaded(name):
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise OSError(
            f"dataset {name} could not be downloaded ({error}); without a network take "
            f"{' or '.join(EMBEDDED)}, or data of your own with data_dir: an .npz file with "
            "x_train, y_train, x_test, y_test, or a folder {train,test}/{class}/*.{jpg,png}"
        ) from error
    return x_train, y_train, x_test, y_test


def _npz(path):
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        if not zipfile.is_zipfile(path):  # NumPy would speak of pickles
            raise ValueError("it is damaged, or another kind of file")
        with np.load(path) as file:
            missing = [name for name in names if name not in file]
            if not missing:
                return [file[name] for name in names]
    except Exception as error:  # of zipfile, zlib or NumPy: whatever a damaged file provokes
        raise ValueError(f"{path} cannot be read as an .npz file: {error}") from error
    raise ValueError(f"{path} has no {', '.join(missing)}; it needs {', '.join(names)}")


def _from_0_to_1(x):
    return x.astype("float32") / (255 if x.dtype.kind in "iu" else 1)


def _checked(arrays, source):
    """Images with a channel axis, labels flat integers; anything else is refused."""
    checked = []
    for x, y in (arrays[:2], arrays[2:]):
        x, y = np.asarray(x), np.asarray(y)
        x = x[..., None] if x.ndim == 3 else x
        one_each = y.shape in ((len(x),), (len(x), 1)) if x.ndim == 4 else False
        numbers = x.dtype.kind in "biuf" and y.dtype.kind in "iu"
        if not (one_each and x.size and numbers):
            raise ValueError(
                f"{source}: expected images [n, height, width, channels] and integer labels [n], no "
                f"empty arrays; received {x.dtype} {x.shape} and {y.dtype} {y.shape}"
            )
        y = y.reshape(-1)
        if y.min() < 0:
            raise ValueError(f"{source}: labels count from 0, received {y.min()}")
        if len(np.unique(y)) < 2 and arrays[0] is not arrays[2]:  # which measure only
            raise ValueError(f"{source} has one class, {np.unique(y)}; a task needs at least two")
        low, high = _from_0_to_1(np.array([x.min(), x.max()]))
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"{source}: expected images in 0…255 (integers) or 0…1 (floats), received values "
                f"from {low:g} to {high:g}"
            )
        checked += [x, y.astype("int64")]
    if checked[0].shape[1:] != checked[2].shape[1:]:
        raise ValueError(
            f"{source}: train images are {checked[0].shape[1:]}, test images {checked[2].shape[1:]}"
        )
    return checked


def _balanced(labels, count, rng):
    """Indices of at most `count` examples in random order, round robin over the classes."""
    order = rng.permutation(len(labels))
    turns = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        turns[members] = np.arange(len(members))
    chosen = order[np.argsort(turns[order], kind="stable")][:count]
    return rng.permutation(chosen)
