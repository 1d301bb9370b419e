"""Measuring a model file on image files: what `bin/measure_sensitivity` calls."""

import pathlib

import keras
import numpy as np

from deformstab.deformation import RandomDeformation
from deformstab.sensitivity import measure_sensitivity, paper_deformation
from deformstab.tables import write_csv


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
    try:
        model = keras.models.load_model(model_file, compile=False, safe_mode=not allow_unsafe_model)
    except Exception as error:  # of h5py, zipfile, Keras: whatever the file provokes
        raise ValueError(
            f"{model_file} was not loaded: {error}\n(Code in a model file runs only with "
            "--allow_unsafe_model; take that for files whose source you trust.)"
        ) from error
    low, high = value_range
    images = low + (high - low) * _images(images_path, model.input_shape, max_images)
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


def plot_sensitivity(table, title: str = ""):
    """The sensitivity of each layer with its interval, as a matplotlib Figure."""
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(figsize=(max(4, 0.25 * len(table) + 1.5), 4), layout="constrained")
    value = table["sensitivity"]
    axis.fill_between(
        table["layer_index"], table["sensitivity_low"], table["sensitivity_high"], alpha=0.25
    )
    axis.plot(table["layer_index"], value, "o-", markersize=4)
    axis.set_xticks(table["layer_index"], table["layer"], rotation=90, fontsize=7)
    axis.set_ylim(bottom=0)
    axis.set(ylabel=f"normalized sensitivity ({table['metric'].iloc[0]})", title=title)
    return fig


def _images(path, input_shape, count) -> np.ndarray:
    """float32 in [0, 1], [images, height, width, channels]."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            names = [name for name in ("images", "x_test") if name in file] or file.files
            images = file[names[0]][:count]
        images = images[..., None] if images.ndim == 3 else images
        scale = 255 if images.dtype.kind in "iu" else 1
        return images.astype("float32") / scale
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
