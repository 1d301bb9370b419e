"""The images and labels of a run: what it trains on, and what tells its accuracy."""

import functools

from deformstab.paper.data import datasets, tasks
from deformstab.paper.runs.experiments import Experiment

_TEST_IMAGES = 512  # of which the first ones measure


def dataset_of(experiment: Experiment) -> datasets.Dataset:
    """The data an experiment trains on, its task included."""
    data = _load(
        experiment.dataset,
        experiment.data_dir,
        experiment.image_size,
        experiment.train_images,
        max(_TEST_IMAGES, experiment.measured_images),
    )
    if experiment.epochs and data.measured_only:
        raise ValueError(
            f"{experiment.data_dir} has no folders train/ and test/, so networks can be measured on "
            "its images but not trained; set the epochs to 0"
        )
    data = tasks.scaled(data, experiment.input_scaling)
    if experiment.task == "random_labels":
        return tasks.random_labels(data, experiment.seed)
    if experiment.task == "random_images":
        return tasks.random_images(data, experiment.seed)
    if experiment.task == "deformed_classes":
        displacement = experiment.class_displacement
        return tasks.deformed_classes(
            data, experiment.control_points, displacement, experiment.seed
        )
    return data


_load = functools.lru_cache(maxsize=4)(datasets.load)


def test_images_of(experiment, data):
    """To tell the accuracy: more than are measured if asked for, where there is something to tell."""
    if experiment.test_images <= len(data.x_test) or experiment.task != "true_labels":
        return data.x_test, data.y_test
    # Others than these, and not kept: which images are measured does not depend on it.
    source = experiment.dataset, experiment.data_dir, experiment.image_size
    more = datasets.load(*source, experiment.train_images, experiment.test_images)
    more = tasks.scaled(more, experiment.input_scaling)
    return more.x_test, more.y_test
