"""The data sets of the reproduction.

Images are float32 in [-1, 1], [images, height, width, channels]; labels int64 [images]; both in a
random order that only the seed decides. Nothing is augmented: that would itself change stability.
"""

import functools
import hashlib
import pathlib
from dataclasses import dataclass

import numpy as np

EMBEDDED = ("photos", "digits")
DOWNLOADED = ("cifar10", "mnist", "fashion_mnist")
FROM_DISK = ("npz", "folder")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DATASETS = EMBEDDED + DOWNLOADED + FROM_DISK

_PHOTOS = {  # ten colour photographs that come with scikit-image and scikit-learn
    "astronaut": "skimage",
    "chelsea": "skimage",
    "coffee": "skimage",
    "rocket": "skimage",
    "hubble_deep_field": "skimage",
    "retina": "skimage",
    "immunohistochemistry": "skimage",
    "stereo_motorcycle": "skimage",
    "china": "sklearn",
    "flower": "sklearn",
}
_TRAIN_SHARE = 0.7  # of a photograph's longer side; test crops come from the rest
_PHOTO_SIDES = 5  # a photograph's shorter side, in crops


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
            from `data_dir`), `npz` (x_train, y_train, x_test, y_test) or `folder`
            (`{train,test}/{class}/*.{jpg,png}`, or `{class}/*.{jpg,png}` to measure only).
        data_dir: the .npz file or the folder.
        image_size: pixels of the shorter side. `photos` and `digits` are made in that size; the
            others come as they are, and must have it.
        train_images, test_images: at most so many, of each class equally many where there are.
    """
    check_source(name, data_dir)
    if name == "photos":
        return _photos(image_size, train_images, test_images)
    if name == "digits":
        arrays = _digits(image_size)
    elif data_dir is not None:
        path = pathlib.Path(data_dir)
        arrays = _npz(path) if path.suffix == ".npz" else _folder(path)
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
    parts = (x_train[train], y_train[train], x_test[test], y_test[test])
    return Dataset(title(name, data_dir), *parts, classes, measured_only=arrays[0] is arrays[2])


def check_source(name: str, data_dir) -> None:
    """Refuses an unknown data set, and a place on disk where there is none, before any work."""
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; the known ones are {', '.join(DATASETS)}")
    if name in FROM_DISK and data_dir is None:
        raise ValueError(f"dataset {name} is read from disk: say where with data_dir")
    if data_dir is None:
        return
    if name in EMBEDDED:
        raise ValueError(f"dataset {name} comes with a package and takes no data_dir ({data_dir})")
    path = pathlib.Path(data_dir)
    if not path.exists():
        raise FileNotFoundError(f"data_dir {path} does not exist")
    if (name == "npz") != (path.suffix == ".npz") and name in FROM_DISK:
        raise ValueError(f"dataset {name} does not go with data_dir {path}")
    if path.suffix != ".npz" and not path.is_dir():
        raise ValueError(f"data_dir {path} is neither an .npz file nor a folder")


def title(name: str, data_dir) -> str:
    """What captions call a data set."""
    if name not in FROM_DISK:
        return name
    path = pathlib.Path(data_dir).resolve()
    return path.stem if path.suffix == ".npz" else path.name


def fingerprint(data_dir) -> str:
    """What identifies data on disk: the names and the content of its files."""
    if data_dir is None:
        return ""
    path, digest = pathlib.Path(data_dir), hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.suffix.lower() in (".npz", *IMAGE_SUFFIXES):
            digest.update(file.relative_to(path).as_posix().encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def _photos(size, train_images, test_images) -> Dataset:
    parts = []
    for part, count in enumerate((train_images, test_images)):
        rng = np.random.default_rng([0, 5, part])
        labels = rng.permutation(count) % len(_PHOTOS)
        crops = np.empty((count, size, size, 3), "float32")
        for label, name in enumerate(_PHOTOS):
            area = _halves(photograph(name, _PHOTO_SIDES * size))[part]
            for index in np.flatnonzero(labels == label):
                y, x = (rng.integers(side - size + 1) for side in area.shape[:2])
                crops[index] = area[y : y + size, x : x + size]
        parts += [crops, labels]
    return Dataset("photos", *parts, classes=len(_PHOTOS))


@functools.lru_cache(maxsize=32)
def photograph(name: str, shorter_side: int) -> np.ndarray:
    """A bundled photograph, its shorter side scaled to so many pixels: float32 in [-1, 1]."""
    from PIL import Image

    if _PHOTOS[name] == "sklearn":
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    else:
        import skimage.data

        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    scale = shorter_side / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    return np.asarray(image, "float32") / 127.5 - 1


def _halves(photo):
    """The parts of a photograph for training and for test: they share no pixel."""
    axis = int(np.argmax(photo.shape[:2]))
    return np.split(photo, [round(_TRAIN_SHARE * photo.shape[axis])], axis=axis)


def _digits(size):
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    # A margin as MNIST's digits have, so that deformations do not push them over the edge.
    padded = np.pad(digits.images / 16, ((0, 0), (2, 2), (2, 2))).astype("float32")
    images = [
        Image.fromarray(image).resize([size] * 2, Image.Resampling.BICUBIC) for image in padded
    ]
    images = np.clip(np.stack(images), 0, 1)
    test = np.arange(len(images)) % 4 == 3  # writers come in blocks: every fourth image
    return images[~test], digits.target[~test], images[test], digits.target[test]


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
        with np.load(path) as file:
            missing = [name for name in names if name not in file]
            if not missing:
                return [file[name] for name in names]
    except Exception as error:  # of zipfile, zlib or NumPy: whatever a damaged file provokes
        raise ValueError(f"{path} cannot be read as an .npz file: {error}") from error
    raise ValueError(f"{path} has no {', '.join(missing)}; it needs {', '.join(names)}")


def _folder(path):
    from PIL import Image

    names, arrays = None, []
    flat = not (path / "train").is_dir() and any(
        file.suffix.lower() in IMAGE_SUFFIXES for file in path.glob("*/*")
    )
    for part in (".",) if flat and not (path / "test").is_dir() else ("train", "test"):
        if not (path / part).is_dir():
            raise FileNotFoundError(f"data_dir {path} has no folder {part}/")
        classes = sorted(folder.name for folder in (path / part).iterdir() if folder.is_dir())
        if names is not None and classes != names:
            raise ValueError(f"{path}: train/ has the classes {names}, test/ has {classes}")
        names, images, labels, first = classes, [], [], None
        for label, name in enumerate(classes):
            folder = path / part / name
            files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise ValueError(f"{folder} has no .jpg or .png image")
            for file in files:
                try:
                    with Image.open(file) as image:
                        if image.mode.startswith(("I", "F")):
                            raise OSError(f"its pixels ({image.mode}) have more than 8 bits")
                        pixels = np.asarray(image.convert("RGB"))
                except OSError as error:
                    raise ValueError(f"{file} cannot be read as an image: {error}") from error
                first = first or (file, pixels.shape)
                if pixels.shape != first[1]:
                    raise ValueError(
                        f"images must have one size: {first[0]} has {first[1][:2]}, {file} has "
                        f"{pixels.shape[:2]} (height, width); resize or crop them first"
                    )
                images.append(pixels)
                labels.append(label)
        if not images:
            raise ValueError(f"{path / part} is empty: it needs a folder of images for each class")
        arrays += [np.stack(images), np.array(labels)]
    return arrays if len(arrays) == 4 else arrays * 2


def _checked(arrays, source):
    """Images in [-1, 1] with a channel axis, labels flat integers; anything else is refused."""
    checked = []
    for x, y in (arrays[:2], arrays[2:]):
        x, y = np.asarray(x), np.asarray(y)
        x = x[..., None] if x.ndim == 3 else x
        one_each = y.shape in ((len(x),), (len(x), 1)) if x.ndim == 4 else False
        if not one_each or x.size == 0 or y.dtype.kind not in "iu":
            raise ValueError(
                f"{source}: expected images [n, height, width, channels] and integer labels [n], no "
                f"empty arrays; received shapes {x.shape} and {y.shape} of {y.dtype}"
            )
        y = y.reshape(-1)
        if y.min() < 0:
            raise ValueError(f"{source}: labels count from 0, received {y.min()}")
        if len(np.unique(y)) < 2:
            raise ValueError(f"{source} has one class, {np.unique(y)}; a task needs at least two")
        x = x.astype("float32") / (255 if x.dtype.kind in "iu" else 1)
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"{source}: expected images in 0…255 (integers) or 0…1 (floats), received values "
                f"from {x.min():g} to {x.max():g}"
            )
        checked += [2 * x - 1, y.astype("int64")]
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
