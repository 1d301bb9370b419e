"""What the shell says of deformations: a family's name and some numbers → a layer."""

import math
from collections.abc import Sequence

import numpy as np

from deformstab.deformations.families import (
    RandomDiffeomorphism,
    RandomRotation,
    RandomScaling,
    RandomTranslation,
)
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.stimuli import paper_deformation

SPLINE = "spline"  # the paper's
FAMILIES = {
    "diffeomorphism": RandomDiffeomorphism,
    "translation": RandomTranslation,
    "rotation": RandomRotation,
    "scaling": RandomScaling,
}


def checked_strengths(strengths) -> list[float] | None:
    """Strengths in pixels as numbers, in their order.

    Raises:
        ValueError: one is no finite number from 0, or is there twice.
    """
    if strengths is None:
        return None
    try:
        found = [float(each) for each in strengths]
    except (TypeError, ValueError):
        found = []
    wrong = not found or not all(math.isfinite(each) and each >= 0 for each in found)
    if wrong or len(set(found)) < len(found):
        raise ValueError(
            "--strengths is some numbers of pixels, each at least 0 and once, as in "
            f"--strengths=0.5,1,2; received {','.join(map(str, strengths))!r}"
        )
    return found


def check_family(family: str, control_points, max_displacement, strengths) -> None:
    """Refuses settings that a family does not have.

    Raises:
        ValueError: with what to say in their place.
    """
    if family not in (SPLINE, *FAMILIES):
        known = ", ".join((SPLINE, *FAMILIES))
        raise ValueError(f"--family is one of {known}; received {family!r}")
    if max_displacement is not None and strengths is not None:
        raise ValueError(
            f"--max_displacement={max_displacement:g} is one strength, and --strengths are several: "
            "pass one of the two"
        )
    if family == SPLINE:
        return
    for name, value in (("control_points", control_points), ("max_displacement", max_displacement)):
        if value is not None:
            raise ValueError(
                f"--{name}={value:g} is of --family={SPLINE}; how far --family={family} moves pixels "
                "(root mean square) is said by --strengths, as in --strengths=1.25"
            )


def shell_deformation(
    shape: Sequence[int],
    family: str = SPLINE,
    control_points: int | None = None,
    max_displacement: float | None = None,
    strength: float | None = None,
):
    """The deformation that the flags of the shell ask for.

    Args:
        shape: of the images, [images, height, width, channels].
        family: "spline", or one of `FAMILIES`.
        control_points, max_displacement: of a spline; by default the paper's for the size.
        strength: of another family, its RMS displacement in pixels; by default that of the paper's
            spline, so that families are compared at equal strength.

    Raises:
        ValueError: more control points than pixels, or a displacement beyond the image.
    """
    height, width = shape[1:3]
    paper = paper_deformation(shape)
    if family != SPLINE:
        rms = paper.expected_rms(height, width) if strength is None else strength
        _check_reach("strengths", rms, height, width)
        return FAMILIES[family](rms_displacement=float(rms), seed=0, dtype="float32")
    if control_points is None and max_displacement is None:
        return paper
    if control_points is not None and control_points > min(height, width):
        raise ValueError(
            f"control_points must be at most {min(height, width)} for images of {height} × {width} "
            f"pixels, one a pixel; received {control_points}"
        )
    if max_displacement is not None:
        _check_reach("max_displacement", max_displacement, height, width)
    return RandomDeformation(
        paper.control_points if control_points is None else control_points,
        paper.max_displacement if max_displacement is None else max_displacement,
        seed=0,
    )


def check_reaches(strengths, shape) -> None:
    """Refuses strengths beyond the image."""
    for strength in strengths or ():
        _check_reach("strengths", strength, *shape[1:3])


def _check_reach(name, pixels, height, width) -> None:
    if np.isfinite(pixels) and pixels > max(height, width):
        raise ValueError(
            f"{name} must be at most {max(height, width)} pixels, the longer side of the images; "
            f"received {pixels:g}"
        )
