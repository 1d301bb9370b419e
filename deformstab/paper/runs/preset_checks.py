"""Checks of what a preset holds."""

import math

from deformstab.networks.downsampling import DOWNSAMPLING_KINDS, check_downsampling
from deformstab.paper.data import datasets
from deformstab.paper.runs.experiments import MAIN_TASKS, MORE_MEASURES, SCALINGS
from deformstab.paper.runs.recipes import RECIPES

ONE_OF = {
    "input_scaling": SCALINGS,
    "optimizer": ("adam", "sgd"),
    "schedule": ("constant", "cosine"),
    "precision": ("float32", "mixed_bfloat16"),
}


def check_list(name, values, known):
    """Refuses an empty list, a value that comes twice, is unknown or, a number, below zero.

    Args:
        name: of the field.
        values: its values.
        known: what they may be; `None` for numbers, `()` for any names.
    """
    if not values:
        told = "numbers" if known is None else f"some of {', '.join(known)}" if known else "names"
        raise ValueError(f"{name} is empty; give {told}")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} names something twice: {values}")
    for value in values:
        if known and value not in known:
            raise ValueError(f"unknown {name} {value!r}; the known ones are {', '.join(known)}")
        if known is None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0, received {value}")


def check_blocks(name, blocks):
    """Refuses blocks that are no (convolutions, filters) of at least 1, or none."""
    if not blocks or any(min(block) < 1 for block in blocks):
        raise ValueError(f"{name} must be convolutions×filters of 1 or more, received {blocks}")


def check_preset(preset, studies) -> None:
    """Refuses choices that make no sense.

    Args:
        preset: `Preset`.
        studies: that there are.

    Raises:
        ValueError: with the first of them.
    """
    positive = ("seeds", "epochs", "train_images", "batch_size", "learning_rate", "threads")
    positive += ("recipes_seeds", "large_train_images", "max_displacement", "circular_seeds")
    for name in (*positive, "shuffles"):
        if not 0 < getattr(preset, name) < math.inf:
            raise ValueError(f"{name} must be above 0, received {getattr(preset, name)}")
    at_least = {
        **dict.fromkeys(("seed", "large_epochs", "weight_decay"), 0),
        **dict.fromkeys(("stop_accuracy", "random_stop_accuracy"), 0),
        **{"measured_images": 2, "test_images": 512, "searched_images": 2},
        **dict.fromkeys(("control_points", "large_control_points"), 2),
        **dict.fromkeys(("train_images", "large_train_images"), 20),
        # Every block halves the image.
        "image_size": 2 ** len(preset.blocks),
        "large_image_size": 2 ** len(preset.large_blocks),
    }
    for name, bound in at_least.items():
        if not bound <= getattr(preset, name) < math.inf:
            raise ValueError(f"{name} must be at least {bound}, received {getattr(preset, name)}")
    # More fill the memory.
    at_most = {"seeds": 10_000, "recipes_seeds": 10_000, "threads": 1024, "shuffles": 1000}
    at_most |= {"circular_seeds": 10_000}
    at_most |= {"control_points": preset.image_size, "stop_accuracy": 1}
    at_most |= {"large_control_points": preset.large_image_size, "random_stop_accuracy": 1}
    for name, bound in at_most.items():
        if getattr(preset, name) > bound:
            raise ValueError(f"{name} must be at most {bound}, received {getattr(preset, name)}")
    choices = {
        "studies": studies,
        "downsampling": DOWNSAMPLING_KINDS,
        "large_downsampling": DOWNSAMPLING_KINDS,
        "circular_downsampling": DOWNSAMPLING_KINDS,
        "main_tasks": MAIN_TASKS,
        "recipes": tuple(RECIPES),
        "sigmas": None,
        "pretrained": (),
        "class_displacements": None,
        "sizes": None,
    }
    if preset.more_measures:
        choices["more_measures"] = MORE_MEASURES
    for name, known in choices.items():
        check_list(name, getattr(preset, name), known)
    for name, known in ONE_OF.items():
        check_list(name, (getattr(preset, name),), known)
    if min(preset.sizes) < at_least["train_images"]:
        raise ValueError(
            f"sizes must be at least {at_least['train_images']}, received {preset.sizes}"
        )
    for name in ("blocks", "large_blocks"):
        check_blocks(name, getattr(preset, name))
    for kind in (preset.tasks_downsampling, preset.filters_downsampling):
        check_downsampling(kind)
    for part in ("", "tasks_", "large_"):
        source = (getattr(preset, f"{part}{name}") for name in ("dataset", "data_dir"))
        datasets.check_source(*source, needed=False)
