"""A file has one writer: what another one is told, and what is left behind."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from deformstab.locks import FileLock

HOLDER = """
import multiprocessing, os, sys, time
from deformstab.locks import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
worker.start()
print(worker.pid, flush=True)
time.sleep(600)
"""
# Three processes want one lock at the same moments. One process imports the package and is forked.
RACE = """
import json, multiprocessing, pathlib, sys
from deformstab.locks import FileLock

def train(name):
    lock = FileLock(folder / "table.csv")
    for _ in range(200):
        barrier.wait()
        try:
            lock.acquire()
        except ValueError:
            results.put(None)
        else:
            marker = folder / "marker"
            with open(marker, "x"):  # fails if there are two
                pass
            marker.unlink()
            results.put(name)
            lock.release()

folder = pathlib.Path(sys.argv[1])
context = multiprocessing.get_context("fork")
barrier, results = context.Barrier(3, timeout=60), context.SimpleQueue()
processes = [context.Process(target=train, args=(name,)) for name in range(3)]
for process in processes:
    process.start()
for process in processes:  # where one fails, the others wait for it at the barrier, and fail
    process.join()
found = []
while not results.empty():
    found.append(results.get())
json.dump([[process.exitcode for process in processes], found], sys.stdout)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "table.csv"


def names(path):
    return [each.name for each in path.parent.iterdir()]


def test_a_lock_makes_the_folder_and_leaves_nothing(path, tmp_path):
    lock = FileLock(path)
    lock.acquire()
    lock.acquire()
    assert names(path) == [".table.csv.lock"]
    lock.check()
    lock.release()
    lock.release()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="something else in this process has begun to write"):
        lock.check()
    lock.acquire()
    path.touch()
    lock.release()
    assert names(path) == ["table.csv"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_another_process_is_refused_until_it_is_killed(path):
    """Workers that it forked, of a data loader for example, do not hold the lock on."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    worker = int(process.stdout.readline())
    lock = FileLock(path)
    try:
        with pytest.raises(ValueError, match=r"another process is writing .*table\.csv"):
            lock.acquire()
        FileLock(path.with_name("other.csv")).acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert names(path) == [".table.csv.lock"]  # what a kill leaves
        os.kill(worker, 0)  # it is alive
        lock.acquire()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.kill(worker, signal.SIGKILL)
    lock.release()
    assert not path.parent.exists() or not names(path)


def test_the_same_thread_takes_it_over(path):
    """However the path is written."""
    path.parent.mkdir(parents=True)
    first = FileLock(path)
    second = FileLock(path.parent / ".." / path.parent.name / path.name)
    first.acquire()
    second.acquire()
    second.check()
    with pytest.raises(ValueError, match="something else in this process"):
        first.check()
    first.release()  # of no one else's
    second.check()
    second.release()
    assert not names(path)


def test_another_thread_is_refused_until_the_first_one_ends(path):
    errors, first, second = [], FileLock(path), FileLock(path)

    def other():
        with pytest.raises(ValueError, match="another thread is writing") as error:
            second.acquire()
        errors.append(error)

    first.acquire()
    for run in (other, first.release, second.acquire):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(errors) == 1
    first.acquire()  # that thread is no more
    first.release()


def test_a_lock_ends_with_its_object(path):
    lock = FileLock(path)
    lock.acquire()
    del lock
    gc.collect()
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    lock = FileLock(tmp_path / "file" / "table.csv")
    for _ in range(2):
        with pytest.raises(OSError, match="file"):
            lock.acquire()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_there_are_never_two(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    codes, found = json.loads(done.stdout)
    assert codes == [0, 0, 0]
    assert len(found) == 600
    assert sum(name is not None for name in found) >= 200
