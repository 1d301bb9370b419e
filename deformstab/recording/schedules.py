"""When to measure: before training, after epochs, and at steps of the optimizer."""

import bisect
import math

import numpy as np


def check_every(every, steps) -> int | None:
    """Epochs between measurements, `None` for none; by default 1 without steps and none with."""
    if every is None:
        return 1 if steps is None else None
    if not _is_int(every) or every < 1:
        raise ValueError(f"every must be an int of at least 1 epochs, received {every!r}")
    return int(every)


def next_step(steps):
    """The schedule that `steps` stands for.

    Args:
        steps: an int n (every n steps), a list, tuple, range or array of steps, "log" (1, 2, 4, 8,
            …) or `None`.

    Returns:
        A function of a step, at least 0: the first one after it that is due, ∞ if there is none.
    """
    if steps is None:
        return lambda step: math.inf
    if isinstance(steps, str) and steps == "log":
        return lambda step: 1 << int(step).bit_length()
    if _is_int(steps) and steps >= 1:
        return lambda step: (step // int(steps) + 1) * int(steps)
    if isinstance(steps, (list, tuple, range, np.ndarray)) and np.ndim(steps) == 1:
        due = [*steps, math.inf]
        if len(due) > 1 and all(_is_int(step) and step >= 0 for step in steps):
            due.sort()
            return lambda step: due[bisect.bisect_right(due, step)]
    raise ValueError(
        "steps must be an int of at least 1 (every so many optimizer steps), a list of steps (ints "
        f'of at least 0), "log" (1, 2, 4, 8, …) or None, received {steps!r}'
    )


def _is_int(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
