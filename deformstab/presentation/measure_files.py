"""Measuring a model file on image files: what `bin/measure_sensitivity` calls."""

import math
import pathlib
from dataclasses import dataclass

import keras
import numpy as np

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.files import check_writable
from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.stimuli import paper_deformation
from deformstab.presentation.image_sets import RESIZINGS, read_images
from deformstab.presentation.model_files import imported, load_model
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
    import_modules=(),
    image_seed: int = 0,
    resize: str = "crop",
    report=lambda sentence: None,
    **measurement,
):
    """Measures the sensitivity of a saved model to deformations of images on disk.

    Args:
        model_file: a `.keras` or `.h5` file. Nothing in it is executed unless `allow_unsafe_model`.
        images_path: a folder of image files (searched deeply, resized to what the model takes; see
            `image_reader` for what becomes of each kind) or an .npz file, whose array `images`,
            `x_test` or only array is taken.
        output: a CSV file for the table, by default none.
        max_images: where there are more, a sample: of a folder, equally many from each folder that
            holds images; of an .npz file, rows drawn evenly.
        value_range: what the model wants black and white to be: 0 and 255 of integers and files, 0
            and 1 of floats, the ends of more bits.
        control_points, max_displacement: of the deformation; by default the paper's for the size.
        allow_unsafe_model: whether code in the model file (a Lambda layer) may run.
        import_modules: Python files, or names of modules, with classes that the model needs.
        image_seed: of the sample.
        resize: "crop" (proportions kept, of what is too long the centre) or "squash".
        report: called with a sentence that says which images were taken, and how.
        **measurement: of `ds.measure_sensitivity`.

    Returns:
        The table of `ds.measure_sensitivity`.

    Raises:
        ValueError, OSError: anything that is not as described, before the measurement begins.
    """
    if output is not None:
        check_outputs([output], [model_file, images_path])
    files = load_files(
        model_file,
        images_path,
        max_images,
        value_range,
        control_points,
        max_displacement,
        allow_unsafe_model,
        import_modules,
        image_seed,
        resize,
        report,
    )
    table = measure_sensitivity(files.model, files.images, files.deformation, **measurement)
    if output is not None:
        write_csv(table, output)
    return table


@dataclass(frozen=True)
class LoadedFiles:
    """What is measured, of files.

    Attributes:
        model: with its weights.
        images: [images, height, width, channels], as the model wants them.
        deformation: of the size of the images, or as asked for.
        value_range: what black and white are in the images.
    """

    model: keras.Model
    images: np.ndarray
    deformation: RandomDeformation
    value_range: tuple[float, float]


def load_files(
    model_file,
    images_path,
    max_images: int = 128,
    value_range=(-1.0, 1.0),
    control_points=None,
    max_displacement=None,
    allow_unsafe_model: bool = False,
    import_modules=(),
    image_seed: int = 0,
    resize: str = "crop",
    report=lambda sentence: None,
) -> LoadedFiles:
    """Reads what `measure_files` measures; the arguments are its."""
    model_file, images_path = pathlib.Path(model_file), pathlib.Path(images_path)
    for path in (model_file, images_path):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    low, high = _checked_range(value_range)
    if max_images < 2:
        raise ValueError(f"max_images must be at least 2, received {max_images}")
    if image_seed < 0:
        raise ValueError(f"image_seed must be at least 0, received {image_seed}")
    if resize not in RESIZINGS:
        raise ValueError(f"resize is one of {', '.join(RESIZINGS)}, received {resize!r}")
    known = {name: value for module in import_modules for name, value in imported(module).items()}
    model = load_model(model_file, allow_unsafe_model, known)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(f"{model_file} does not take one input of images, but {shape}")
    images, taken = read_images(images_path, shape, max_images, image_seed, resize)
    report(taken)
    images = low + (high - low) * images
    deformation = _deformation(images.shape, control_points, max_displacement)
    return LoadedFiles(model, images, deformation, (low, high))


def check_outputs(outputs, inputs=()) -> None:
    """Refuses files to write that cannot be written, or that would replace each other or an input.

    Args:
        outputs: paths; `None` is passed over.
        inputs: paths that are read.

    Raises:
        ValueError: two are one file.
        OSError: one cannot be written.
    """
    given = [pathlib.Path(path) for path in outputs if path is not None]
    places = [path.resolve() for path in given]
    for number, path in enumerate(places):
        if path in places[:number] or path in [pathlib.Path(each).resolve() for each in inputs]:
            raise ValueError(f"{given[number]} is named twice: it would be overwritten")
        check_writable(given[number])


def _checked_range(value_range) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            "--value_range is two numbers low,high, the first below the second, as in "
            f"--value_range=0,1, not {value_range}"
        )
    return low, high


def _deformation(shape, control_points, max_displacement) -> RandomDeformation:
    chosen = paper_deformation(shape)
    if control_points is None and max_displacement is None:
        return chosen
    shorter = min(shape[1:3])
    if control_points is not None and control_points > shorter:
        raise ValueError(
            f"control_points must be at most {shorter} for images of {shape[1]} × {shape[2]} "
            f"pixels, one a pixel; received {control_points}"
        )
    if max_displacement is not None and max_displacement > max(shape[1:3]):
        raise ValueError(
            f"max_displacement must be at most {max(shape[1:3])} pixels, the longer side of the "
            f"images; received {max_displacement:g}"
        )
    return RandomDeformation(
        chosen.control_points if control_points is None else control_points,
        chosen.max_displacement if max_displacement is None else max_displacement,
        seed=0,
    )
