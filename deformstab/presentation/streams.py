"""Printing that ends no work: streams whose reader has gone, or that were never open."""

import contextlib
import io
import os
import sys


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


class SurvivingStream:
    """A text stream whose errors end nothing: what cannot be written is lost.

    `error` is the last of them that was not a reader's leaving (as `head` does), else `None`.
    """

    def __init__(self, stream):
        self._stream, self.error = stream, None

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method, *arguments) -> None:
        try:
            getattr(self._stream, method)(*arguments)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.error = error
            self._give_up()
        except ValueError:
            if not self._stream.closed:
                raise
            self._give_up()

    def _give_up(self) -> None:
        """From now on to nowhere, at the level of the system too: Python writes what is left at exit."""
        with contextlib.suppress(OSError, ValueError):
            number, nowhere = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        self._stream = _Nowhere()

    def __getattr__(self, name):
        return getattr(self._stream, name)


def surviving(stream) -> SurvivingStream:
    """A stream, or `None` as Python has it for one that was closed, as one that ends no work."""
    if isinstance(stream, SurvivingStream):
        return stream
    if stream is None:
        stream = _Nowhere()
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # an ASCII terminal cannot show every name
    return SurvivingStream(stream)


def survive_closed_streams() -> None:
    """Has all that this process prints end no work; for a script's beginning."""
    sys.stdout, sys.stderr = surviving(sys.stdout), surviving(sys.stderr)
