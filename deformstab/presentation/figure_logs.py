"""figure_to: what a callback has measured so far as a picture, in TensorBoard or wherever you like."""

import functools
import os
import pathlib
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from deformstab.presentation.heatmaps import plot_heatmap
from deformstab.presentation.plots import plot_sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLOTS = {"lines": plot_sensitivity, "heatmap": functools.partial(plot_heatmap, by="step")}
_DPI = 100  # of a picture in TensorBoard
_TAG = "sensitivity"


def figure_to(
    to: "str | os.PathLike | Callable[[Figure, int], Any]",
    plot: "Literal['lines', 'heatmap'] | Callable[[pd.DataFrame], Figure]" = "lines",
) -> Callable[[pd.DataFrame, int], None]:
    """Sends the figure of a training to TensorBoard, Weights & Biases or anywhere, as it grows.

    For `ds.SensitivityCallback(figure=…)`, which calls it after each measurement. TensorBoard has a
    slider over steps then. Scalars get there without it: the callbacks of Keras and of Weights &
    Biases that are listed after `ds.SensitivityCallback` find them in the logs.

    Args:
        to: a folder of TensorBoard's, as `keras.callbacks.TensorBoard` has it (pictures go into
            `sensitivity` in it; needs the package tensorboard, and no TensorFlow); or a function of
            a matplotlib figure and the optimizer step.
        plot: what is drawn of the table so far: "lines" (`ds.plot_sensitivity`), "heatmap"
            (`ds.plot_heatmap`), or a function of the table.

    Returns:
        A function of a table and a step.

    Raises:
        ValueError: `to` or `plot` is something else.
        ImportError: tensorboard is not installed.

    Example:

    ```python
    callback = ds.SensitivityCallback(images, figure=ds.figure_to("logs", "heatmap"))

    def log(figure, step):  # with Weights & Biases: run.log({"sensitivity": wandb.Image(figure)})
        figure.savefig(f"step{step}.png")

    callback = ds.SensitivityCallback(images, figure=ds.figure_to(log))
    ```
    """
    draw = _PLOTS.get(plot) if isinstance(plot, str) else plot
    if not callable(draw):
        raise ValueError(f"plot must be {', '.join(_PLOTS)} or a function, received {plot!r}")
    if isinstance(to, (str, os.PathLike)):
        to = _TensorBoard(pathlib.Path(to))
    elif not callable(to):
        raise ValueError(
            "to must be a folder of TensorBoard's or a function of (figure, step), as in "
            "lambda figure, step: run.log({'sensitivity': wandb.Image(figure)}); received "
            f"{to!r}"
        )
    return lambda table, step: to(draw(table), step)


class _TensorBoard:
    """Writes figures as a file of events: through the package tensorboard alone, on any backend."""

    def __init__(self, folder):
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(f"{error}; figures go to it with: pip install tensorboard") from error
        self.folder, self.path = folder / _TAG, None

    def __call__(self, figure, step):
        from tensorboard.compat.proto.summary_pb2 import Summary

        from deformstab.presentation.pictures import as_bytes

        content = as_bytes(figure, "png", _DPI)
        width, height = struct.unpack(">II", content[16:24])  # as a PNG begins
        picture = Summary.Image(
            height=height,
            width=width,
            colorspace=4,  # RGB and transparency
            encoded_image_string=content,
        )
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=_TAG, image=picture)]))

    def _write(self, **event):
        """Opened anew each time: a training may end at any moment."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, events = time.time(), [Event(wall_time=time.time(), **event)]
        if self.path is None:  # which begins with the version of its format
            self.folder.mkdir(parents=True, exist_ok=True)
            place = f"{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{id(self)}"
            self.path = self.folder / f"events.out.tfevents.{place}"
            events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
        with self.path.open("ab") as file:
            for each in events:
                RecordWriter(file).write(each.SerializeToString())
