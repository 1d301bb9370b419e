"""Figures that pyplot does not keep, and writing them. Imported when something is drawn."""

import io
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deformstab.tables import write_bytes


class Picture(Figure):
    """A figure that belongs to whoever holds it: pyplot neither keeps nor shows it.

    A notebook shows it as the last line of a cell, once, also where pyplot was never used.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)  # without a canvas of its own it could not be drawn, only saved

    def _repr_png_(self) -> bytes:
        return as_bytes(self, "png", self.dpi)


def as_bytes(fig: Figure, kind: str, dpi: float = 200) -> bytes:
    """A figure as the bytes of a "png", "pdf" or "svg" file."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()


def save_picture(fig: Figure, path) -> None:
    """Writes a figure as PNG, PDF or SVG, by the name of the file, atomically."""
    write_bytes(as_bytes(fig, check_picture(path)), path)


def check_picture(path) -> str:
    """The format of a picture by its name; one that cannot be drawn is refused."""
    suffix = pathlib.Path(path).suffix.lower().removeprefix(".")
    if suffix not in ("png", "pdf", "svg"):
        raise ValueError(f"a picture is a .png, .pdf or .svg file, not {path}")
    return suffix
