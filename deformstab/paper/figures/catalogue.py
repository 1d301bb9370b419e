"""Every figure, in the order of the paper: one module a figure, the same functions in each."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from deformstab.paper.figures import (
    approximation,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    note,
    over_training,
    pooling,
    pretrained,
    questions,
    trajectory,
)
from deformstab.paper.runs.preset import APART


@dataclass(frozen=True)
class FigureSpec:
    """A figure: what it needs, how it is drawn, what is said below it.

    Attributes:
        title: a line for the index.
        studies: whose runs it needs (`deformstab.paper.runs.experiments.STUDIES`).
        tables: it is drawn from, in `tables/`.
        claims: of the paper that it shows.
        plot, caption: of `Results`.
    """

    title: str
    studies: tuple
    tables: tuple
    claims: tuple
    plot: Callable
    caption: Callable


def _spec(module, target=None) -> FigureSpec:
    plot, caption = module.plot, module.caption
    if target is not None:
        plot = functools.partial(plot, target=target)
        caption = functools.partial(caption, target=target)
    title = module.TITLE if target is None else module.TITLES[target]
    return FigureSpec(title, module.STUDIES, module.TABLES, module.CLAIMS, plot, caption)


FIGURES = {
    "1": _spec(figure1),
    "2": _spec(figure2),
    "3": _spec(figure3),
    "4": _spec(figure4),
    "5": _spec(figure5),
    "A1": _spec(approximation, "pose"),
    "A2": _spec(approximation, "translation"),
    "A3": _spec(approximation, "rotation"),
    "pooling": _spec(pooling),
    "trajectory": _spec(trajectory),
    "over_training": _spec(over_training),
    "pretrained_2b": _spec(pretrained, "2b"),
    "pretrained_4a": _spec(pretrained, "4a"),
    "note": _spec(note),
    **{f"question_{number}": _spec(questions, number) for number in questions.TITLES},
}
PANELS = {  # the paper's panels, each with the studies whose runs it needs
    "2a": ("large",),
    "2b": ("large",),
    "2c": ("main",),
    "2d": ("main",),
    "3a": (),
    "3b": ("tasks",),
    "4a": ("large",),
    "4b": ("main",),
    "4c": ("main",),
    "5a": ("filters",),
    "5b": ("main",),
}


def needs_tracking(name: str) -> bool:
    """Whether a figure shows what is measured while networks train (`Preset.track`)."""
    return "trajectory" in FIGURES[name].tables


def drawable(wanted: dict, preset, asked) -> dict[str, set]:
    """Of the figures of `resolve`, those that there is something for.

    Without what was measured during training there is nothing in the figures that show it. Figures
    of networks that others trained, those of the note and of the open questions, and all others
    stand apart: none brings the others with it.

    Args:
        wanted: of `resolve`.
        preset: its choices.
        asked: the names that were asked for; none for all figures.

    Raises:
        ValueError: a figure was asked for that shows networks while they train, and they were not
            measured then.
    """
    if not asked:
        chosen = {*preset.studies}
        wanted = {
            name: studies
            for name, studies in wanted.items()
            if (studies & chosen if studies & {*APART} else chosen - {*APART})
        }
    if preset.track:
        return wanted
    missing = [name for name in wanted if needs_tracking(name)]
    if asked and missing:
        raise ValueError(
            f"figure {missing[0]} shows networks while they train: add --track (and, as its runs "
            "are other runs, another --output_dir), or take a preset that has it"
        )
    return {name: studies for name, studies in wanted.items() if name not in missing}


def resolve(names) -> dict[str, set]:
    """Figures asked for, by figure (`2`) or panel (`2c`) → the studies whose runs they need.

    Raises:
        ValueError: an unknown name, with the list of known ones.
    """
    found = {}
    for name in names or FIGURES:
        if name not in FIGURES and name not in PANELS:
            raise ValueError(
                f"unknown figure {name!r}; the known ones are {', '.join([*FIGURES, *PANELS])}"
            )
        number = name if name in FIGURES else name[0]
        studies = FIGURES[number].studies if name in FIGURES else PANELS[name]
        found.setdefault(number, set()).update(studies)
    return found
