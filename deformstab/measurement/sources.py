"""Images from whatever holds them: arrays, tensors, datasets, generators; one input or several."""

import keras
import numpy as np

from deformstab.checks import is_whole

DEFAULT_COUNT = 128  # of what may have no end; the paper measures 128 images


def first_images(images, max_images=None):
    """The first images of any source that Keras' `fit` takes, as NumPy arrays.

    Args:
        images: an array or tensor [images, …]; a list of images of one shape; a list, tuple or dict
            of such arrays for a model of several inputs; or a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a data loader, a generator: of batches or of single images,
            with or without labels, as `fit` takes them (x, (x, y) or (x, y, sample_weight)).
        max_images: how many at most; by default all of an array and 128 of what is iterated over.

    Returns:
        (inputs, labels): an array [images, …] or the structure of them, and the labels that came
        with the images (`None` without).

    Raises:
        ValueError: there is nothing in it, or it is no source of images.
    """
    if max_images is not None and not is_whole(max_images):
        raise ValueError(
            f"max_images must be an int of at least 1 or None, received {max_images!r}"
        )
    if isinstance(images, (dict, list, tuple)):
        if _is_list_of_images(images):
            return np.stack([to_numpy(image) for image in images[:max_images]]), None
        if not keras.tree.flatten(images):
            raise ValueError(f"images has no images: it is {images!r}")
        return keras.tree.map_structure(lambda x: _first(to_numpy(x), max_images), images), None
    if hasattr(images, "shape"):
        return to_numpy(_first(images, max_images)), None
    return _iterated(images, DEFAULT_COUNT if max_images is None else max_images)


def to_numpy(x) -> np.ndarray:
    """An array from a tensor of any library, whatever Keras computes with."""
    if hasattr(x, "detach"):  # PyTorch, perhaps on a GPU or with a gradient
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # NumPy has no such type
    return x.numpy() if hasattr(x, "numpy") else np.asarray(x)


def _first(x, count):
    return x[:count] if len(x.shape) else x  # a number is refused where it is said what is wanted


def _is_list_of_images(images) -> bool:
    if isinstance(images, dict) or not len(images):
        return False
    shapes = {np.shape(image) for image in images}
    return len(shapes) == 1 and len(next(iter(shapes))) == 3


def _batches(source):
    try:
        return iter(None if isinstance(source, (str, bytes)) else source)
    except TypeError:
        raise ValueError(
            "images must be an array, a tensor, a list or dict of them, a tf.data.Dataset, a "
            f"keras.utils.PyDataset or an iterable of batches; received {type(source).__name__}"
        ) from None


def _iterated(source, count):
    xs, ys, found = [], [], 0
    for batch in _batches(source):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        x = keras.tree.map_structure(to_numpy, x)
        y = None if y is None else keras.tree.map_structure(to_numpy, y)
        most = max([leaf.ndim for leaf in keras.tree.flatten(x)], default=0)
        if most < 3:
            raise ValueError(
                "images must come as images or batches of them, received "
                f"{keras.tree.map_structure(np.shape, x)}"
            )
        if most == 3:  # one image, not a batch
            x = keras.tree.map_structure(lambda leaf: leaf[None], x)
            y = None if y is None else keras.tree.map_structure(lambda leaf: leaf[None], y)
        xs.append(x)
        ys.append(y)
        found += len(keras.tree.flatten(x)[0])
        if found >= count:
            break
    if not xs:
        raise ValueError("images has no images: the dataset or generator ended at once")
    x, y = (keras.tree.map_structure(_joined(count), *parts) for parts in (xs, ys))
    return x, y


def _joined(count):
    return lambda *parts: None if parts[0] is None else np.concatenate(parts)[:count]
