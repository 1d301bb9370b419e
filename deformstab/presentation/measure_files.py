"""Measuring a model file on image files: what `bin/measure_sensitivity` calls."""

import inspect
import pathlib

import keras
import numpy as np

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.stimuli import paper_deformation
from deformstab.tables import write_csv

_NAMES = ("images", "x_test")
_CHANGED = (
    *(keras.layers.DepthwiseConv1D, keras.layers.SeparableConv1D, keras.layers.Conv1DTranspose),
    *(keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Conv2DTranspose),
    keras.layers.Conv3DTranspose,
)
_UNUSED = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")


def measure_files(
    model_file,
    images_path,
    output=None,
    max_images: int = 128,
    value_range=(-1.0, 1.0),
    control_points=None,
    max_displacement=None,
    allow_unsafe_model: bool = False,
    **measurement,
):
    """Measures the sensitivity of a saved model to deformations of images on disk.

    Args:
        model_file: a `.keras` or `.h5` file. Nothing in it is executed unless `allow_unsafe_model`.
        images_path: a folder of .jpg and .png files (searched deeply, in the order of their paths,
            resized to what the model takes) or an .npz file, whose array `images`, `x_test` or only
            array is taken.
        output: a CSV file for the table, by default none.
        max_images: the first so many.
        value_range: what the model wants 0…255 (integers, files) or 0…1 (floats) scaled to.
        control_points, max_displacement: of the deformation; by default the paper's for the size.
        allow_unsafe_model: whether code in the model file (a Lambda layer) may run.
        **measurement: of `ds.measure_sensitivity`.

    Returns:
        The table of `ds.measure_sensitivity`.
    """
    model_file, images_path = pathlib.Path(model_file), pathlib.Path(images_path)
    for path in (model_file, images_path):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    model = load_model(model_file, allow_unsafe_model)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(f"{model_file} does not take one input of images, but {shape}")
    low, high = value_range
    images = low + (high - low) * _images(images_path, shape, max_images)
    wanted = [size for size in zip(shape[1:], images.shape[1:]) if size[0] not in (None, size[1])]
    if wanted:
        raise ValueError(
            f"{images_path} has images {images.shape[1:]}, {model_file} takes {shape[1:]}; resize "
            "them, or pass a folder, whose images are resized"
        )
    chosen = paper_deformation(images.shape)
    if control_points is not None or max_displacement is not None:
        chosen = RandomDeformation(
            chosen.control_points if control_points is None else control_points,
            chosen.max_displacement if max_displacement is None else max_displacement,
            seed=0,
        )
    table = measure_sensitivity(model, images, chosen, **measurement)
    if output is not None:
        write_csv(table, output)
    return table


def load_model(path, allow_unsafe_model: bool = False):
    """A model from a `.keras` or `.h5` file, those of Keras 2 included, not compiled.

    Raises:
        ValueError: it cannot be loaded, or not without running code that it holds.
    """
    old = pathlib.Path(path).suffix in (".h5", ".hdf5")
    try:
        return keras.models.load_model(
            path,
            custom_objects={kind.__name__: _of_keras_2(kind) for kind in _CHANGED} if old else None,
            compile=False,
            safe_mode=not allow_unsafe_model,
        )
    except Exception as error:  # of h5py, zipfile, Keras: whatever the file provokes
        raise ValueError(
            f"{path} was not loaded: {error}\n(Code in a model file runs only with "
            "--allow_unsafe_model; take that for files whose source you trust.)"
        ) from error


def _of_keras_2(kind):
    """A layer class that passes over arguments which Keras 2 saved and never used, groups=1 and
    kernel settings of separable kernels: Keras 3 refuses them, and so every such file."""

    def from_config(cls, config):
        known = inspect.signature(kind).parameters
        unused = {name for name in _UNUSED if name not in known}
        return kind(**{name: value for name, value in config.items() if name not in unused})

    return type(kind.__name__, (kind,), {"from_config": classmethod(from_config)})


def _images(path, input_shape, count) -> np.ndarray:
    """float32 in [0, 1], [images, height, width, channels]."""
    if path.suffix == ".npz":
        return _npz_images(path, count)
    if not path.is_dir():
        raise ValueError(f"{path} is neither a folder of images nor an .npz file")
    from PIL import Image

    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(files) < 2:
        raise ValueError(f"{path} has {len(files)} .jpg or .png images; at least two are needed")
    height, width, channels = input_shape[1:]
    if None in (height, width):
        with Image.open(files[0]) as first:
            width, height = first.size
    images = []
    for file in files[:count]:
        try:
            with Image.open(file) as image:
                image = image.convert("L" if channels == 1 else "RGB").resize((width, height))
                images.append(np.asarray(image, "float32") / 255)
        except OSError as error:
            raise ValueError(f"{file} cannot be read as an image: {error}") from error
    images = np.stack(images)
    return images[..., None] if images.ndim == 3 else images


def _npz_images(path, count) -> np.ndarray:
    try:
        with np.load(path) as file:
            names = [name for name in _NAMES if name in file] or file.files
            images = file[names[0]][:count] if len(names) == 1 or names[0] in _NAMES else None
    except Exception as error:  # of zipfile, zlib or NumPy: whatever a damaged file provokes
        raise ValueError(f"{path} cannot be read as an .npz file: {error!r}") from error
    if images is None:
        raise ValueError(f"{path} has {', '.join(names)}: which are the images? Call them images")
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype.kind not in "iuf" or images.size == 0:
        raise ValueError(
            f"{path}: expected images [n, height, width, channels], received {images.dtype} "
            f"{images.shape}"
        )
    images = images.astype("float32") / (255 if images.dtype.kind in "iu" else 1)
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"{path}: expected values in 0…255 (integers) or 0…1 (floats), received "
            f"{images.min():g} to {images.max():g}"
        )
    return images
