"""A model and images, as the shell names them → what is measured."""

import pathlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from deformstab.files import check_writable
from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.presentation.image_sets import RESIZINGS, read_images
from deformstab.presentation.model_sources import ModelSource
from deformstab.presentation.preparation import Preparation
from deformstab.presentation.shell_deformations import SPLINE, check_family, shell_deformation
from deformstab.tables import write_csv


@dataclass(frozen=True)
class LoadedFiles:
    """What is measured, of files.

    Attributes:
        model: with its weights.
        images: [images, height, width, channels], as the model wants them.
        deformation: of the size of the images, or as asked for.
        preparation: how the images were prepared.
    """

    model: keras.Model
    images: np.ndarray
    deformation: Any
    preparation: Preparation


def measure_files(
    model_file,
    images_path,
    output=None,
    max_images: int = 128,
    value_range=None,
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
        model_file, value_range, allow_unsafe_model, import_modules: `model`, `preprocessing` and
            these of `ModelSource`.
        output: a CSV file for the table, by default none.
        images_path, max_images, control_points, max_displacement, image_seed, resize, report: as
            for `load_files`.
        **measurement: of `ds.measure_sensitivity`.

    Returns:
        The table of `ds.measure_sensitivity`.

    Raises:
        ValueError, OSError: anything that is not as described, before the measurement begins.
    """
    source = ModelSource(
        model_file,
        preprocessing=value_range,
        allow_unsafe_model=allow_unsafe_model,
        import_modules=import_modules,
    )
    if output is not None:
        check_outputs([output], [*source.files, images_path])
    numbers = {"control_points": control_points, "max_displacement": max_displacement}
    files = load_files(source, images_path, max_images, image_seed, resize, report, **numbers)
    table = measure_sensitivity(files.model, files.images, files.deformation, **measurement)
    if output is not None:
        write_csv(table, output)
    return table


def load_files(
    source: ModelSource,
    images_path,
    max_images: int = 128,
    image_seed: int = 0,
    resize: str = "crop",
    report=lambda sentence: None,
    *,
    family: str = SPLINE,
    control_points=None,
    max_displacement=None,
) -> LoadedFiles:
    """Reads a model and images.

    Args:
        source: of the model.
        images_path: a folder of image files (searched deeply, resized to what the model takes; see
            `image_reader` for what becomes of each kind) or an .npz file, whose array `images`,
            `x_test` or only array is taken.
        max_images: where there are more, a sample: of a folder, equally many from each folder that
            holds images; of an .npz file, rows drawn evenly.
        image_seed: of the sample.
        resize: "crop" (proportions kept, of what is too long the centre) or "squash".
        report: called with sentences that say which images were taken, and how.
        family, control_points, max_displacement: as for `shell_deformation`.

    Raises:
        ValueError, OSError: anything that is not as described.
    """
    source.check()
    images_path = pathlib.Path(images_path)
    if not images_path.exists():
        raise FileNotFoundError(f"{images_path} does not exist")
    if max_images < 2:
        raise ValueError(f"max_images must be at least 2, received {max_images}")
    if image_seed < 0:
        raise ValueError(f"image_seed must be at least 0, received {image_seed}")
    if resize not in RESIZINGS:
        raise ValueError(f"resize is one of {', '.join(RESIZINGS)}, received {resize!r}")
    check_family(family, control_points, max_displacement, None)
    model = source.load()
    shape = source.input_shape(model)
    images, taken = read_images(images_path, shape, max_images, image_seed, resize)
    report(taken)
    images = source.preparation(images)
    assumed = source.preprocessing is None and not source.is_application
    hint = " (assumed; --preprocessing says another)" if assumed else ""
    report(f"prepared as {source.preparation.words}{hint}")
    deformation = shell_deformation(images.shape, family, control_points, max_displacement)
    return LoadedFiles(model, images, deformation, source.preparation)


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
