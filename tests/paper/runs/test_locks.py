"""Two processes never write into one output folder."""

import os
import signal
import subprocess
import sys

import pytest
from test_result_tables import small_preset

from deformstab.paper.reproduce import reproduce
from deformstab.paper.runs import runs
from deformstab.paper.runs.locks import only_writer

HOLDER = """
import sys, time
from deformstab.paper.runs.locks import only_writer
with only_writer(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that writes into tmp_path / "out"."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    path = os.pathsep.join(sys.path)  # where the tests find the package
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(runs, "_run", lambda *_: pytest.fail("runs"))
    out = tmp_path / "out"
    half_written = out / "tables" / ".claims.csv.abcd1234"  # by the first one
    half_written.parent.mkdir()
    half_written.write_text("half")
    with pytest.raises(ValueError, match=r"another process is writing into .*out.*--output_dir"):
        reproduce(small_preset(), out, ["pooling"])
    assert half_written.exists()
    with only_writer(tmp_path / "other"):  # other folders are free
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(out):
        pass


def test_a_lock_leaves_nothing(tmp_path):
    with only_writer(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with only_writer(tmp_path / "c"):
        (tmp_path / "c" / "file").write_text("")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyError), only_writer(tmp_path / "empty"):
        raise KeyError
    assert (tmp_path / "empty").exists()  # it was there before
