"""Nothing is lost to `kill -9` or a full disk: what is started again gives the same tables."""

import errno
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile

import pytest
from helpers import ROOT

from deformstab.paper.runs import runs
from deformstab.paper.runs.experiments import Experiment
from deformstab.provenance import THREAD_VARIABLES

KILLS = 12
CHOICES = {
    "study": "main",
    "dataset": "photos",
    "downsampling": "max",
    "image_size": 16,
    "train_images": 40,
    "blocks": ((1, 4),),
    "epochs": 3,
    "stop_accuracy": 0.95,
    "batch_size": 16,
    "measured_images": 8,
    "max_displacement": 1.0,
    "learning_rate": 0.01,
    "track": True,
    "threads": 1,
}
SOME = [
    {"seed": 0, "variants": True},
    {"seed": 1, "task": "random_labels"},
    {"seed": 2, "stop_accuracy": 0.1},
]
# To import TensorFlow and load the images takes longer than a run. So one process does that, computes
# nothing, and each start is a fork of it, which computes as a new process does. A fork tells when it
# begins, and before and after each step of a write: half of the moments are drawn in these, half in
# seconds since it began.
SERVER = """
import json, os, pathlib, signal, sys, time, traceback
import numpy as np
from deformstab.paper.runs import runs
from deformstab.paper.runs.experiments import Experiment

choices, some, folder, kills = *map(json.loads, sys.argv[1:3]), sys.argv[3], int(sys.argv[4])
choices["blocks"] = tuple(map(tuple, choices["blocks"]))
experiments = [Experiment(**choices | each) for each in some]
runs.dataset_of(experiments[0])
rng = np.random.default_rng(0)

def fork(folder):
    listen, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        return child, listen

    def telling(function):
        def told(*arguments):
            os.write(tell, b".")
            result = function(*arguments)
            os.write(tell, b".")
            return result
        return told

    try:
        os.fsync, os.replace = telling(os.fsync), telling(os.replace)
        runs.run_all(experiments, folder, lambda *_: os.write(tell, b"."))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def killed(folder, steps, seconds):
    child, listen = fork(folder)
    while steps and os.read(listen, 1):
        steps -= 1
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.close(listen)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return bool(status)

def moment():
    return (1, rng.uniform(0, run_seconds)) if rng.random() < 0.5 else (rng.integers(2, 14), 0)

start = time.monotonic()
child, listen = fork(folder + "/undisturbed")
while os.read(listen, 100):
    pass
assert os.waitpid(child, 0)[1] == 0
os.close(listen)
run_seconds = (time.monotonic() - start) / len(experiments)

found, rounds = [], 0
while len(found) < kills:
    rounds += 1
    here = pathlib.Path(folder, f"killed{rounds}")
    while killed(here, *moment()):
        found.append(sorted(path.name for path in here.glob("runs/*")))
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def experiments():
    return [Experiment(**CHOICES | each) for each in SOME]


def tables(folder):
    """Every file of runs, hidden ones too, to the byte, but for the time a run took."""
    return {
        file.name: re.sub(rb'"seconds": [\d.]+,', b"", file.read_bytes())
        for file in (folder / "runs").iterdir()
    }


def run(experiments, folder):
    runs.run_all(experiments, folder, lambda *_: None)
    return tables(folder)


def test_killed_at_random_moments_it_gives_the_same_bytes(tmp_path, experiments):
    done = subprocess.run(
        [sys.executable, "-c", SERVER, *map(json.dumps, (CHOICES, SOME)), tmp_path, str(KILLS)],
        env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= KILLS
    # Some came within a training, some after a run.
    for end in (".partial.npz", ".json"):
        assert any(name.endswith(end) for names in found for name in names)
    expected = tables(tmp_path / "undisturbed")
    assert set(expected) == {f"{each.id}.json" for each in experiments}
    for folder in tmp_path.glob("killed*"):
        assert tables(folder) == expected, folder.name


# ---- what a kill leaves where no run follows ----


def test_a_kill_right_after_the_last_result_leaves_nothing_behind(tmp_path, experiments):
    before = run(experiments[-1:], tmp_path)
    (name,) = before
    kept = tmp_path / "runs" / name
    kept.with_suffix(".partial.npz").write_bytes(b"of a run that is finished")
    other = kept.with_name("another-run.partial.npz")
    other.write_bytes(b"of one that is not")
    for temporary in (f".{name}.a8s_x2bc", f".{kept.stem}.partial.npz.a8s_x2bc"):
        kept.with_name(temporary).write_bytes(b"half")
    assert run(experiments[-1:], tmp_path) == before | {other.name: b"of one that is not"}


# ---- a full disk ----


@pytest.fixture(scope="module")
def undisturbed(experiments, tmp_path_factory):
    """What two runs write, one after the other: to the byte, and how many times."""
    folder, writes = tmp_path_factory.mktemp("undisturbed"), []
    with pytest.MonkeyPatch.context() as patch:
        fsync = os.fsync
        patch.setattr(os, "fsync", lambda handle: (writes.append(handle), fsync(handle)))
        return run(experiments[:2], folder), len(writes)


@pytest.mark.parametrize(
    ("count", "step"),
    [
        (1, (tempfile, "mkstemp")),
        (2, (os, "fsync")),
        (3, (os, "replace")),
        (4, (os, "replace")),
        (5, (os, "fsync")),
        (6, (tempfile, "mkstemp")),
    ],
    ids=lambda value: str(value if isinstance(value, int) else value[1]),
)
def test_a_full_disk_is_an_error_that_costs_no_finished_run(
    tmp_path, monkeypatch, experiments, undisturbed, count, step
):
    """From one of the writes on; then there is room again."""
    expected, writes = undisturbed
    assert writes == 6  # two checkpoints and a result, twice
    counter, function = itertools.count(1), getattr(*step)

    def limited(*arguments, **options):
        if next(counter) >= count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(*step, limited)
        with pytest.raises(OSError, match="No space left"):
            run(experiments[:2], tmp_path)
    left = tables(tmp_path)
    assert not any(name.startswith(".") for name in left)
    finished = {name: content for name, content in left.items() if name.endswith(".json")}
    assert len(finished) == (count - 1) // 3
    assert finished.items() <= expected.items()
    assert len(left) - len(finished) == ((count - 1) % 3 > 0)  # the checkpoint before stays
    assert run(experiments[:2], tmp_path) == expected
