"""Files that cannot be written are named: before the work when asked, and when a disk is full."""

import errno
import os
import pathlib
import resource
import stat
import subprocess
import sys

import pytest
from helpers import ROOT

from deformstab.files import check_writable, write_bytes


def test_what_can_be_written_is_tried_and_nothing_is_left(tmp_path):
    check_writable(tmp_path / "new" / "deep" / "table.csv")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.csv").write_text("old")
    check_writable(tmp_path / "old.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"
    write_bytes(b"new", tmp_path / "new" / "deep" / "table.csv")


@pytest.mark.parametrize("do", [check_writable, lambda path: write_bytes(b"x", path)])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/below.csv", "Not a directory"),
        ("file/far/below.csv", "Not a directory"),
        ("folder", "folder|directory"),
        (f"{'long' * 100}.csv", "File name too long"),
        ("/proc/table.csv", "No such file"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, do, name, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(OSError, match=f"cannot be written: .*({reason})") as found:
        do(path)
    assert str(path) in str(found.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_a_device_is_written_to_and_stays_one():
    with pytest.raises(OSError, match=r"/dev/full cannot be written: No space left") as found:
        write_bytes(b"x", "/dev/full")
    assert found.value.errno == errno.ENOSPC
    check_writable("/dev/full")
    write_bytes(b"x", "/dev/null")
    for name in ("full", "null"):
        assert stat.S_ISCHR(os.stat(f"/dev/{name}").st_mode)


def test_a_file_beyond_the_limit_is_named_and_the_old_one_stays(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    code = (
        "import resource, sys\n"
        "from deformstab.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_bytes(bytes(5000), sys.argv[1])\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert f"{path} cannot be written: File too large" in done.stdout, done.stderr
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
    write_bytes(b"a table", tmp_path / "pipe")
    assert reader.communicate()[0] == b"a table"
    assert pathlib.Path(tmp_path / "pipe").is_fifo()
