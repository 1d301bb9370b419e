"""What a network learns: a data set scaled, or with labels, images or classes exchanged."""

from dataclasses import replace

import numpy as np
from keras import ops

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.paper.data.datasets import Dataset
from deformstab.paper.data.image_files import ImageFiles

SAMPLED_FILES = 1024


def scaled(dataset: Dataset, scaling: str) -> Dataset:
    """Images in [-1, 1] as they are ("symmetric"), in [0, 1] ("unit"), or "standardized".

    Standardized: each channel less its mean over the training images, over its deviation (of images
    that stay files, over the first `SAMPLED_FILES`).
    """
    if scaling == "symmetric":
        return dataset
    x_train, x_test = dataset.x_train, dataset.x_test
    if scaling == "unit":
        shift, scale = -1.0, 2.0
    else:
        sample = x_train
        if isinstance(x_train, ImageFiles):
            sample = np.asarray(x_train[:SAMPLED_FILES])
        shift = sample.mean(axis=(0, 1, 2), dtype="float64").astype("float32")
        scale = sample.std(axis=(0, 1, 2), dtype="float64").astype("float32")
        scale = np.where(scale == 0, np.float32(1), scale)  # a channel without contrast stays zero
    if isinstance(x_train, ImageFiles):
        x_train = x_train.scaled(shift, scale)
    else:
        x_train = (x_train - shift) / scale
    return replace(dataset, x_train=x_train, x_test=(x_test - shift) / scale)


def random_labels(dataset: Dataset, seed: int) -> Dataset:
    """Labels drawn uniformly, once (Zhang et al. 2017): the same at every epoch."""
    rng = np.random.default_rng([seed, 2])
    y_train = rng.integers(dataset.classes, size=len(dataset.y_train))
    y_test = rng.integers(dataset.classes, size=len(dataset.y_test))
    return replace(dataset, y_train=y_train, y_test=y_test)


def random_images(dataset: Dataset, seed: int) -> Dataset:
    """Images of independent normal pixels with the mean and deviation of each channel; same labels.

    Zhang et al. (2017), "Gaussian": changes P(X) alone. Not clipped to [-1, 1].

    Raises:
        ValueError: of images that stay files, which may be more than memory holds.
    """
    if isinstance(dataset.x_train, ImageFiles):
        raise ValueError(
            f"task random_images draws as many images as {dataset.name} has into memory: take a "
            "dataset that is read into memory (folder, npz), or other tasks (--main_tasks)"
        )
    rng = np.random.default_rng([seed, 3])
    mean = dataset.x_train.mean(axis=(0, 1, 2))
    deviation = dataset.x_train.std(axis=(0, 1, 2))
    drawn = [
        (mean + deviation * rng.standard_normal(x.shape)).astype("float32")
        for x in (dataset.x_train, dataset.x_test)
    ]
    return replace(dataset, x_train=drawn[0], x_test=drawn[1])


def deformed_classes(
    dataset: Dataset, control_points, max_displacement: float, seed: int
) -> Dataset:
    """The synthetic task of Figure 3: each class is one image, its examples that image deformed.

    Args:
        dataset: gives the images, the first of each class, and how many examples there are.
        control_points, max_displacement: of the deformations.
        seed: of the deformations, other ones for test than for training.
    """
    first = [np.flatnonzero(dataset.y_train == label)[0] for label in np.unique(dataset.y_train)]
    prototypes = dataset.x_train[first]
    deformation = RandomDeformation(control_points, max_displacement, seed=seed)
    parts = []
    for part, count in enumerate((len(dataset.x_train), len(dataset.x_test))):
        labels = np.random.default_rng([seed, 4, part]).permutation(count) % len(prototypes)
        draws = deformation.draw(count, seed=2 * seed + part)
        parts += [ops.convert_to_numpy(deformation.deform(prototypes[labels], draws)), labels]
    return Dataset(dataset.name, *parts, classes=len(prototypes))
