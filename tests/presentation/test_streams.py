"""Streams whose reader has gone, that are full, closed, or were never open."""

import io
import os
import sys

import pytest

from deformstab.presentation.streams import SurvivingStream, surviving


def broken_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", encoding="utf-8")


def test_what_can_be_written_arrives():
    plain = io.StringIO()
    stream = surviving(plain)
    assert print("a line", file=stream, flush=True) is None
    assert plain.getvalue() == "a line\n"
    assert stream.error is None
    assert surviving(stream) is stream
    assert stream.getvalue() == "a line\n"  # all else is the stream's own


def test_a_reader_that_has_gone_ends_nothing_and_is_no_error():
    with broken_pipe() as pipe:
        stream = surviving(pipe)
        for _ in range(3):
            print("x" * 100_000, file=stream, flush=True)
        assert stream.error is None


def test_a_full_disk_ends_nothing_and_is_remembered():
    with open("/dev/full", "w", encoding="utf-8") as full:
        stream = surviving(full)
        print("x", file=stream, flush=True)
        print("x", file=stream, flush=True)
    assert "No space left" in str(stream.error)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_closed_takes_all(stream, tmp_path):
    if stream == "closed":
        with open(tmp_path / "file", "w", encoding="utf-8") as stream:
            pass
    found = SurvivingStream(stream) if stream else surviving(stream)
    assert print("x", file=found, flush=True) is None
    assert found.error is None


def test_what_a_terminal_cannot_show_is_shown_otherwise():
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print("2 × 2", file=surviving(plain), flush=True)
    assert plain.buffer.getvalue() == b"2 \\xd7 2\n"


def test_other_mistakes_are_still_mistakes():
    with pytest.raises(TypeError):
        surviving(sys.stdout).write(3)
