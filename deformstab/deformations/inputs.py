"""What layers that deform take, checked: images, dicts of images and masks, parameters, points."""

import keras
import numpy as np
from keras import ops

MOVED = "images", "segmentation_masks"
_POINTS = "bounding_boxes", "boxes", "keypoints", "landmarks", "points"


def known_rank(name: str, tensor):
    """Refuses a tensor whose shape nothing is known of, as `tf.py_function` and decoders give it."""
    shape = getattr(tensor, "shape", ())
    if getattr(shape, "rank", 0) is None or shape is None:
        raise ValueError(
            f"{name} must have a known rank, received a tensor of unknown shape; inside tf.data, "
            f"say it before: {name}.set_shape([height, width, channels])"
        )


def as_tensor(name: str, given):
    """An argument as a tensor of known rank; says what it should be where it is none."""
    if isinstance(given, keras.KerasTensor):
        raise ValueError(
            f"{name} must be an array or a tensor, received a symbolic keras.Input (or what a layer "
            "made of one): in a functional model call the layer itself, layer(inputs)"
        )
    known_rank(name, given)
    leaves = keras.tree.flatten(given) if isinstance(given, (list, tuple)) else [given]
    nothing = any(each is None or isinstance(each, (str, bytes)) for each in leaves)
    try:
        tensor = None if nothing else ops.convert_to_tensor(given)
        number = tensor is not None and keras.backend.standardize_dtype(tensor.dtype) != "string"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers, received {given!r}") from error
    if not number:
        raise ValueError(f"{name} must be an array or a tensor of numbers, received {given!r}")
    return tensor


def check_batch_size(batch_size):
    """Refuses what is no number of deformations: an int of at least 0, or a scalar tensor."""
    whole = isinstance(batch_size, (int, np.integer)) and not isinstance(batch_size, bool)
    if not (whole and batch_size >= 0) and (whole or not is_scalar_integer(batch_size)):
        raise ValueError(f"batch_size must be an integer of at least 0, received {batch_size!r}")


def is_scalar_integer(value) -> bool:
    """Whether a value is a scalar integer tensor, or NumPy's."""
    shape = getattr(value, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None or len(shape):
        return False
    return "int" in keras.backend.standardize_dtype(value.dtype)


def as_parameters(parameters, field, dtype: str):
    """Parameters of a family's deformations, [batch, …], as a tensor of a dtype."""
    parameters = ops.cast(as_tensor(field.name, parameters), dtype)
    if tuple(parameters.shape[1:]) != field.shape or not len(parameters.shape):
        raise ValueError(
            f"{field.name} must be [batch, {', '.join(map(str, field.shape))}] for {field}, "
            f"received shape {tuple(parameters.shape)}"
        )
    return parameters


def as_points(points, batch, dtype: str):
    """Points [batch, n, 2] as a tensor of a dtype, of as many images as there are deformations."""
    points = ops.cast(as_tensor("points", points), dtype)
    shape = tuple(points.shape)
    if len(shape) != 3 or shape[2] != 2 or (None not in (shape[0], batch) and shape[0] != batch):
        raise ValueError(
            "points must be [batch, n, 2], pixels, (y, x), of as many images as deformations, "
            f"{batch}; received shape {shape}"
        )
    return points


def check_images(images, data_format: str, interpolation: str):
    """Refuses dtypes and shapes that would be read as something else than they are."""
    known_rank("images", images)
    try:
        dtype = keras.backend.standardize_dtype(images.dtype)
        number = keras.backend.is_float_dtype(dtype) or "int" in dtype or dtype == "bool"
    except ValueError:  # NumPy's text and objects
        dtype, number = str(images.dtype), False
    if not number:
        raise ValueError(f"images must be floats, integers or booleans, received dtype {dtype}")
    if interpolation == "bilinear" and dtype in ("bool", "int32", "int64", "uint32", "uint64"):
        raise ValueError(
            f"images of {dtype} are taken for labels, and bilinear interpolation would mix them: "
            'use interpolation="nearest", or pass {"images": …, "segmentation_masks": …}; if these '
            'are intensities, cast them first: images.astype("float32")'
        )
    shape = tuple(images.shape)
    if len(shape) != 3 or None in shape:
        return
    channels, *sides = shape if data_format == "channels_first" else (shape[2], *shape[:2])
    whole = not keras.backend.is_float_dtype(dtype)
    if channels >= max(5, min(sides)) or (whole and channels > 32):
        raise ValueError(
            f"images of shape {shape} would be read as one image of {sides[0]}×{sides[1]} pixels "
            f"with {channels} channels: of a batch [batch, height, width] pass images[..., None] "
            "(by data_format); one image of so many channels as a batch of one, images[None]"
        )


def split(data, data_format: str) -> dict:
    """{"images", "segmentation_masks"} of a dict as Keras' layers take it: what moves.

    Refuses what it would leave where it was although it has a place in the image: points and boxes
    by their name, maps of the image by their shape.
    """
    if "images" not in data:
        raise ValueError(
            f'a dict needs the key "images", received the keys {", ".join(map(str, data))}'
        )
    for key in MOVED:
        known_rank(key, data.get(key))
    rest = {key: value for key, value in data.items() if key not in MOVED}
    first = data_format == "channels_first"
    shape = _shape(data["images"])
    start = max(0, len(shape) - 3)
    size = shape[start + 1 : start + 3] if first else shape[start : start + 2]
    for key, value in rest.items():
        if key in _POINTS:
            raise ValueError(
                f"{key!r} would stay where it is while its image moves: take it out, and move its "
                "points with layer.move_points(points, displacements, height, width), where "
                "displacements = layer.draw(…) deform the images by layer.deform"
            )
        found = _shape(value)[start:]
        inside = found[1:3] if first and len(found) > 2 else found[:2]
        if len(size) == 2 and inside == size and None not in inside:
            raise ValueError(
                f"{key!r} has the height and width of the images, and would stay where it is: pass "
                'it as "segmentation_masks", or deform it with layer.deform(…, displacements)'
            )
    return {key: data[key] for key in MOVED if key in data}


def _shape(value) -> tuple:
    """The shape of a tensor or array; () of what has none, or an unknown one."""
    shape = getattr(value, "shape", None)
    return () if shape is None or getattr(shape, "rank", 0) is None else tuple(shape)


def deformed_with_masks(layer, data, training, seed) -> dict:
    """What a layer that deforms makes of {"images", "segmentation_masks"}: one draw for both."""
    if "segmentation_masks" not in data:
        return {"images": layer.call(data["images"], training, seed)}
    images = as_tensor("images", data["images"])
    masks = as_tensor("segmentation_masks", data["segmentation_masks"])
    unmoved = layer.call(images, False)  # which checks them
    single = len(images.shape) == 3
    if single:
        images, masks = images[None], masks[None]
    channelled, added = _with_channels(masks, images, layer.data_format)
    if not training or layer.is_identity:
        return {**data, "images": unmoved, "segmentation_masks": masks[0] if single else masks}
    parameters = layer.draw(ops.shape(images)[0], seed)
    images = layer.deform(images, parameters)
    masks = layer.deform(channelled, parameters, "nearest")
    masks = masks if added is None else ops.squeeze(masks, added)
    moved = {"images": images, "segmentation_masks": masks}
    return {key: each[0] for key, each in moved.items()} if single else moved


def _with_channels(masks, images, data_format: str):
    """(masks with an axis of channels, which axis was added or None); refuses other sizes."""
    ranks = len(masks.shape), len(images.shape)
    added = None
    if ranks[0] == ranks[1] - 1:
        added = 1 if data_format == "channels_first" else -1
        masks = ops.expand_dims(masks, added)
    place = slice(2, 4) if data_format == "channels_first" else slice(1, 3)
    sizes = [tuple(each.shape) for each in (masks, images)]
    fits = len(sizes[0]) == len(sizes[1]) and sizes[0][place] == sizes[1][place]
    if not fits or (None not in (sizes[0][0], sizes[1][0]) and sizes[0][0] != sizes[1][0]):
        raise ValueError(
            "segmentation_masks must be [batch, height, width] or [batch, height, width, channels] "
            f"(by data_format) of as many images and pixels as the images, whose shape is "
            f"{sizes[1]}; received shape {tuple(masks.shape)}; resize them first (by nearest)"
        )
    return masks, added
