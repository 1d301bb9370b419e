"""A folder of images or an .npz file → an array: a fair sample of what is there, and no more read."""

import collections
import math
import pathlib
import warnings
import zipfile

import numpy as np

from deformstab.presentation.image_reader import MARGIN, as_array, open_image, resized

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
RESIZINGS = ("crop", "squash")
MOST_BYTES = 8 << 30  # of an array in an .npz file, which is unpacked row by row
_NAMES = ("images", "x_test")
_CHUNK = 1 << 24  # bytes that are unpacked at a time


def read_images(
    path, input_shape, count: int, seed: int = 0, resize: str = "crop"
) -> tuple[np.ndarray, str]:
    """Images from a folder (any depth) or an .npz file, at most so many.

    Of more, a sample by the seed: of a folder, equally many from each folder that holds images (a
    class often is a folder), as far as they go; of an .npz file, rows drawn evenly. What is taken
    keeps its order, that of paths or rows.

    Args:
        path: a folder, or an .npz file, of which the array `images`, `x_test` or only array is
            taken: integers in 0…255 or floats in 0…1.
        input_shape: [batch, height, width, channels] of the model. Files are resized to it; a side
            that it leaves open has the length of the first image's.
        count: at most so many images.
        seed: of the sample.
        resize: how files are resized, one of `RESIZINGS`; see `image_reader.resized`.

    Returns:
        float32 in 0…1, [images, height, width, channels], and a sentence that says what was taken.

    Raises:
        ValueError: there are no such images, or fewer than two; a file that cannot be read.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        images, taken = _folder(path, input_shape[1:], count, seed, resize)
        try:
            _check_size(images.shape, input_shape)
        except _Refused as error:  # its channels, or a side that the first image decides
            raise ValueError(f"{path} {error}") from None
        return images, taken
    if path.suffix != ".npz" or not path.is_file():
        raise ValueError(f"{path} is neither a folder of images nor an .npz file")
    return _npz(path, input_shape, count, seed)


def sampled(groups, count: int, seed: int) -> np.ndarray:
    """Indices of at most `count` of the members of groups, in order; evenly over the groups.

    Args:
        groups: the group of each member.
        count: where there are not more, all are taken.
        seed: of the draw.
    """
    if len(groups) <= count:
        return np.arange(len(groups))
    rng = np.random.default_rng([seed, 0])
    turns, taken = np.empty(len(groups)), collections.Counter()
    for place in rng.permutation(len(groups)):
        turns[place] = taken[groups[place]]  # a member's turn is after those of its group before it
        taken[groups[place]] += 1
    # Where a turn is not everybody's, whose it is must not depend on the order of the groups.
    order = np.lexsort((rng.random(len(groups)), turns))
    return np.sort(order[:count])


class _Refused(ValueError):
    """What is said of a file or folder, whose name is said before it."""


def _check_size(shape, wanted) -> None:
    if any(size not in (None, has) for size, has in zip(wanted[1:], shape[1:])):
        raise _Refused(
            f"has images {shape[1:]}, the model takes {wanted[1:]}; resize them, or pass a folder, "
            "whose images are resized"
        )


def chosen_files(path, count: int, seed: int = 0) -> tuple[list[pathlib.Path], int, int]:
    """The files of a folder that `read_images` reads, in its order.

    Returns:
        (the files, of how many, in how many folders).

    Raises:
        ValueError: there are fewer than two, or one is no regular file.
    """
    path = pathlib.Path(path)
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
    files = [each for each in found if not each.is_dir()]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} is no regular file: remove it, or choose another folder")
    if len(files) < 2:
        raise ValueError(
            f"{path} has {len(files)} images ({', '.join(SUFFIXES)}); at least two are needed"
        )
    folders = [each.parent for each in files]
    chosen = [files[place] for place in sampled(folders, count, seed)]
    return chosen, len(files), len(set(folders))


def _folder(path, size, count, seed, resize):
    height, width, channels = size
    from PIL import Image

    chosen, total, folders = chosen_files(path, count, seed)
    channels = 1 if channels == 1 else 3
    images = []
    with warnings.catch_warnings():
        # Pillow warns of images that are unsafely large, and refuses those twice as large.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for file in chosen:
            # Of a JPEG that is squashed all pixels count, as they always did.
            known = resize == "crop" and None not in (height, width)
            enough = 2 * round(max(height, width) * MARGIN) if known else None
            image = open_image(file, channels, enough)
            height, width = height or image.height, width or image.width
            pixels = as_array(resized(image, height, width, resize), channels)
            images.append(pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels)
    taken = f"{len(chosen)} of {total} files in {path}"
    if len(chosen) < total:
        taken += ", sampled" + " evenly over its folders" * (folders > 1)
        taken += f" by image seed {seed}"
    how = "shorter side and centre crop" if resize == "crop" else "squashed"
    return np.stack(images), f"{taken}; resized to {height} × {width} pixels ({how})"


def _npz(path, input_shape, count, seed):
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = [name[: -len(".npy")] for name in names]
            wanted = [name for name in _NAMES if name in arrays] or arrays
            if not wanted:
                raise _Refused("holds no array")
            if len(wanted) != 1 and wanted[0] not in _NAMES:
                raise _Refused(f"has {', '.join(wanted)}: which are the images? Call them images")
            with archive.open(f"{wanted[0]}.npy") as file:
                shape, by_columns, dtype = _header(file, wanted[0])
                _check_size((*shape, 1)[:4], input_shape)
                places = _rows(shape[0], count, seed)
                images = (_by_columns if by_columns else _by_rows)(file, shape, dtype, places)
    except _Refused as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # of zipfile, zlib or NumPy: whatever a damaged file provokes
        raise ValueError(f"{path} cannot be read as an .npz file: {error!r}") from error
    images = images[..., None] if images.ndim == 3 else images
    low, high, white = images.min(), images.max(), 255 if images.dtype.kind in "iu" else 1
    if not (low >= 0 and high <= white):
        raise ValueError(
            f"{path}: expected values in 0…255 (integers) or 0…1 (floats), received {low:g} to {high:g}"
        )
    images = images.astype("float32") / white
    taken = f"{len(images)} of {shape[0]} images in {path}"
    return images, taken + f", sampled by image seed {seed}" * (len(images) < shape[0])


def _header(file, name):
    """(shape, whether in Fortran's order, dtype) of an .npy file, whose array is not read yet."""
    version = np.lib.format.read_magic(file)
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0", None)
    if read is None:
        raise _Refused(f"has {name} in version {version} of the .npy format, which is not read")
    shape, by_columns, dtype = read(file)
    if len(shape) not in (3, 4) or dtype.kind not in "iuf" or 0 in shape:
        raise _Refused(f"expected images [n, height, width, channels], received {dtype} {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise _Refused(
            f"has {name} {shape}, {size / 2**30:.3g} GiB; at most {MOST_BYTES >> 30} GiB are read: "
            "save fewer images"
        )
    return shape, by_columns, dtype


def _rows(total, count, seed) -> np.ndarray:
    """Which rows are taken, in order; in memory of so many, whatever a header says there are."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng([seed, 1]).choice(total, count, replace=False))


def _by_rows(file, shape, dtype, places) -> np.ndarray:
    """Some rows of an array, of which the others are passed over."""
    rows = np.empty((len(places), *shape[1:]), dtype)
    length, at = math.prod(shape[1:]) * dtype.itemsize, 0
    for number, place in enumerate(places):
        _pass_over(file, (int(place) - at) * length)
        rows[number] = np.frombuffer(_exactly(file, length), dtype).reshape(shape[1:])
        at = int(place) + 1
    return rows


def _by_columns(file, shape, dtype, places) -> np.ndarray:
    """The rows of an array in Fortran's order, where the first axis varies fastest."""
    lines, line = math.prod(shape[1:]), shape[0] * dtype.itemsize
    found = np.empty((lines, len(places)), dtype)
    step = max(1, _CHUNK // line)
    for start in range(0, lines, step):
        read = np.frombuffer(_exactly(file, line * min(step, lines - start)), dtype)
        found[start : start + step] = read.reshape(-1, shape[0])[:, places]
    return found.reshape(*shape[:0:-1], len(places)).T


def _pass_over(file, length) -> None:
    while length > 0:
        length -= len(_exactly(file, min(length, _CHUNK)))


def _exactly(file, length) -> bytes:
    content = file.read(length)
    if len(content) < length:
        raise EOFError("it ends before its array does")
    return content
