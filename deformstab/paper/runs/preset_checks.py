"""Checks of the lists that a preset holds."""

import math

from deformstab.paper.runs.experiments import SCALINGS

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
