"""Executors: other machines and lost workers change no table; what fails is named, the rest kept."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import types
import uuid

import numpy as np
import pytest
import test_bin
from helpers import ROOT

from deformstab.paper import reproduce as reproduction
from deformstab.paper.data import datasets
from deformstab.paper.runs import executors, runs
from deformstab.paper.runs.experiments import Experiment
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.verdicts.result_tables import Results
from deformstab.provenance import THREAD_VARIABLES

call = test_bin.call  # a fixture
CHOICES = {
    "study": "main",
    "dataset": "photos",
    "downsampling": "max",
    "image_size": 16,
    "train_images": 40,
    "blocks": ((1, 4),),
    "epochs": 2,
    "batch_size": 16,
    "measured_images": 8,
    "max_displacement": 1.0,
    "learning_rate": 0.01,
    "threads": 1,
}
TOKEN = uuid.uuid4().hex  # one: a process reads it once
SOME = [
    {"seed": 0, "track": True, "variants": True},
    {"seed": 1, "task": "random_labels", "stop_accuracy": 0.5},
    {"seed": 0, "study": "filters", "epochs": 0, "sigma": 1.0},
]
SERIAL = """
import json, sys
from deformstab.paper.runs import runs
from deformstab.paper.runs.experiments import Experiment

choices, some = map(json.loads, sys.argv[1:3])
choices["blocks"] = tuple(map(tuple, choices["blocks"]))
runs.run_all([Experiment(**choices | each) for each in some], sys.argv[3], lambda *_: None)
"""


@pytest.fixture
def some():
    return [Experiment(**CHOICES | changes) for changes in SOME]


@pytest.fixture(scope="module")
def imported_ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")  # which an import reads
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)  # else Ray writes one into the home folder
        # Ray's workers give way to all others (15), and tests beside these would hold them up: one of
        # these took 171 s beside two processes, and 27 s so.
        patch.setenv("RAY_worker_niceness", "0")
        yield pytest.importorskip("ray")


@pytest.fixture
def ray(imported_ray):
    """Ray, from which an executor has disconnected when a test is over."""
    yield imported_ray
    assert not imported_ray.is_initialized()


def tables(folder):
    """Every file of runs, hidden ones too, to the byte, but for the time a run took."""
    return {
        file.name: re.sub(rb'"seconds": [\d.]+,', b"", file.read_bytes())
        for file in (folder / "runs").iterdir()
    }


def silent(*_):
    pass


# ---- the same tables, whatever happens to workers ----


def test_ray_gives_the_bytes_of_the_serial_executor_though_a_worker_is_killed(
    tmp_path, monkeypatch, some, ray
):
    log = tmp_path / "log"  # a line a start, of all workers
    monkeypatch.setattr(runs, "execute", dying_once(log, some[0].id))
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", SERIAL, *map(json.dumps, (CHOICES, SOME)), "serial"]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONPATH": str(ROOT)}
    heard = []
    with subprocess.Popen(command, env=environment) as serial:
        runs.run_all(some, "ray", lambda *what: heard.append(what), executors.on_ray(workers=2))
    assert serial.returncode == 0
    assert tables(tmp_path / "ray") == tables(tmp_path / "serial")
    assert set(tables(tmp_path / "ray")) == {f"{each.id}.json" for each in some}

    starts = [line.split() for line in log.read_text().splitlines()]
    assert sorted(name for name, *_ in starts) == sorted([some[0].id, *(each.id for each in some)])
    assert len({process for name, process, _ in starts if name == some[0].id}) == 2
    assert str(os.getpid()) not in {process for _, process, _ in starts}
    assert {threads for *_, threads in starts} == {"1"}
    # Told as started in their order: two, and one more as one ends.
    assert [this for this, *seconds in heard if not seconds] == some
    assert [len(what) for what in heard] == [1, 1, 2, 1, 2, 2]


def dying_once(log, victim):
    """What `runs.execute` does, but a kill after the victim's first checkpoint, amid the next."""

    # It goes to the workers as it is, for it is in no module of theirs.
    def execute(experiment, folder, commit):
        from deformstab.paper.runs import runs, training

        with open(log, "a") as file:
            file.write(f"{experiment.id} {os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
        if experiment.id == victim and log.read_text().count(victim) == 1:
            save = training.Training.save

            def save_and_die(*arguments):
                save(*arguments)
                (folder / "runs" / f".{victim}.partial.npz.h_a1f2xy").write_bytes(b"of the next")
                os.kill(os.getpid(), signal.SIGKILL)

            training.Training.save = save_and_die
        return runs.execute(experiment, folder, commit)

    return execute


def test_a_run_that_loses_its_machine_is_run_on_another(tmp_path, some, ray):
    from ray.cluster_utils import Cluster

    began = tmp_path / "began"

    def execute(experiment):
        first = not began.exists()
        began.write_text("")
        time.sleep(600 * first)
        return experiment.seed + 7

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        machine = cluster.add_node(num_cpus=1)

        def lose_the_machine(_):
            while not began.exists():
                time.sleep(0.1)
            cluster.remove_node(machine, allow_graceful=False)
            cluster.add_node(num_cpus=1)

        executor = executors.on_ray(address=cluster.address)
        assert list(executor(some[:1], execute, lose_the_machine)) == [(some[0], 7)]
    finally:
        cluster.shutdown()


# ---- GPUs ----


@pytest.fixture(scope="module")
def machine_with_gpus(imported_ray):
    """The address of a machine that says it has two GPUs: Ray does not ask whether it is true."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2})
    yield cluster.address
    cluster.shutdown()


@pytest.mark.parametrize(("gpus", "expected"), [(0.0, {""}), (1.0, {"0", "1"}), (0.25, {"0"})])
def test_each_run_sees_the_gpu_it_was_dealt_and_no_other(
    monkeypatch, ray, machine_with_gpus, gpus, expected
):
    # All that a run is asked for when it is dealt its place; a real one would import TensorFlow there.
    some = [types.SimpleNamespace(id=f"run{n}", threads=1, data_dir=None) for n in range(3)]

    def there(*_):
        time.sleep(1)  # so that the next run starts on the other one
        return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["NVIDIA_TF32_OVERRIDE"], os.getpid()

    monkeypatch.setattr(executors, "_run_there", there)  # which refuses GPUs that are none
    found = list(executors.on_ray(None, machine_with_gpus, gpus)(some, len, silent))
    places, tf32, processes = zip(*(given for _, given in found))
    assert len(found) == len(some)
    assert set(places) == expected
    assert set(tf32) == {"0"}
    if gpus:  # a process would keep the GPU it began with
        assert len(set(processes)) == len(some)


def test_a_run_that_was_dealt_a_gpu_does_not_compute_on_processors(monkeypatch):
    this, versions = Experiment(**CHOICES, seed=0), executors._versions()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ValueError, match=r"finds no GPU .* number 3.*--gpus_per_run"):
        executors._run_there(pytest.fail, this, versions, 0.5)
    monkeypatch.setattr(executors, "computes_on_gpu", lambda: True)
    assert executors._run_there(lambda given: given.id, this, versions, 0.5) == this.id


# ---- runs that fail ----


def test_runs_that_fail_are_named_at_the_end_and_all_others_kept(tmp_path, monkeypatch, some, ray):
    log = tmp_path / "log"
    bad, deadly, good = some
    names = bad.id, deadly.id

    def execute(experiment, folder, commit):
        with open(log, "a") as file:
            file.write(f"{experiment.id}\n")
        if experiment.id == names[0]:
            raise ValueError("no such photograph")
        if experiment.id == names[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"experiment": experiment.identity(), "seconds": 0.5, "tables": {}}

    monkeypatch.setattr(executors, "RETRIES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "execute", execute)
        with pytest.raises(executors.RunsFailed) as caught:
            runs.run_all(some, tmp_path, silent, executors.on_ray(workers=1))
    message = str(caught.value)
    assert "2 of 3 runs failed" in message
    assert f"{bad.id}: ValueError: no such photograph" in message
    assert re.search(rf"{deadly.id}: \w*(Crashed|Died)\w*", message)
    assert good.id not in message
    assert "execute" in str(caught.value.__cause__)  # the traceback on the worker
    starts = log.read_text().splitlines()
    assert [starts.count(each.id) for each in some] == [1, 2, 1]  # an error is not tried again
    assert [runs.finished(each, tmp_path) for each in some] == [False, False, True]


def test_a_worker_with_other_versions_or_data_refuses_the_run(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.zeros(3))
    known = datasets.fingerprint(path)
    this = Experiment(**CHOICES, seed=0, data_dir=str(path), data_fingerprint=known)
    assert executors._run_there(lambda given: given.id, this, executors._versions()) == this.id
    with pytest.raises(ValueError, match=r"keras.*where \{'keras': '0'\} are needed"):
        executors._run_there(pytest.fail, this, {"keras": "0"})
    other = Experiment(**CHOICES, seed=0, data_dir=str(path), data_fingerprint="of another file")
    with pytest.raises(ValueError, match=r"data\.npz on .* is not the data"):
        executors._run_there(pytest.fail, other, executors._versions())


# ---- what is refused before anything runs ----


def test_arguments_of_ray_that_cannot_be_meant_are_refused(ray):
    with pytest.raises(ValueError, match="workers must be at least 1, received 0"):
        executors.on_ray(workers=0)
    with pytest.raises(ValueError, match=r"workers \(2\).*cluster at auto"):
        executors.on_ray(workers=2, address="auto")


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "deformstab\[ray\]"'):
        executors.on_ray()


def test_without_runs_ray_is_not_started(ray):
    assert list(executors.on_ray(workers=2)([], pytest.fail, pytest.fail)) == []


def machines(*cores, gpus=()):
    """As much of Ray as tells its machines."""
    nodes = [{"Alive": True, "Resources": {"CPU": float(each)}} for each in cores]
    for node, count in zip(nodes, gpus):
        node["Resources"]["GPU"] = float(count)
    dead = {"Alive": False, "Resources": {"CPU": 64.0}}
    return types.SimpleNamespace(nodes=lambda: [*nodes, {"Alive": True, "Resources": {}}, dead])


def test_runs_that_fit_on_no_machine_do_not_wait_in_silence():
    assert executors._places(machines(2), None, 2, 0) == 1
    assert executors._places(machines(3, 8, 1), "auto", 2, 0) == 1 + 4
    with pytest.raises(ValueError, match=r"4 threads, and there are 3 cores.*; choose 1 worker"):
        executors._places(machines(3), None, 4, 0)
    with pytest.warns(UserWarning, match="no machine at auto has room for 4 threads"):
        assert executors._places(machines(3, 3), "auto", 4, 0) == 1


@pytest.mark.parametrize(
    ("gpus", "places"), [(0.0, 2 + 4 + 1), (1, 2 + 2), (0.25, 2 + 4), (0.6, 2 + 2), (0.4, 2 + 4)]
)
def test_where_runs_have_gpus_both_must_have_room(gpus, places):
    assert executors._places(machines(4, 8, 2, gpus=(2, 2)), "auto", 2, gpus) == places


def test_without_gpus_runs_that_need_them_are_refused(ray):
    with pytest.raises(ValueError, match=r"1 GPUs, and there are 8 cores and 0 GPUs.*gpus"):
        executors._places(machines(8), None, 2, 1.0)
    with pytest.warns(UserWarning, match=r"no machine at auto .* 2 threads and 0\.5 GPUs"):
        executors._places(machines(8), "auto", 2, 0.5)
    for gpus in (-1, 1.5, 2, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"gpus must be .*{gpus}"):
            executors.on_ray(gpus=gpus)


# ---- flags ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers=2"], ["--workers", "--executor=ray"]),
        (["--gpus_per_run=1"], ["--gpus_per_run", "--executor=ray"]),
        (["--executor=ray", "--gpus_per_run=1.5"], ["gpus", "1.5"]),
        (["--ray_address=auto"], ["--ray_address", "--executor=ray"]),
        (["--executor=serial", "--workers=2"], ["--workers", "--executor=ray"]),
        (["--executor=ray", "--workers=0"], ["workers", "0"]),
        (["--executor=ray", "--workers=2", "--ray_address=auto"], ["workers (2)", "auto"]),
        (["--executor=slurm"], ["slurm", "serial", "ray"]),
    ],
)
def test_flags_that_do_not_go_together_are_refused(call, tmp_path, arguments, words):
    status, _ = call("reproduce_figures", *arguments)
    for word in words:
        assert word in str(status)
    assert not list(tmp_path.iterdir())


def test_without_ray_the_script_says_what_to_install_and_nothing_else(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _ = call("reproduce_figures", "--executor=ray")
    assert status.endswith('pip install "deformstab[ray]"')


def test_where_runs_run_is_no_part_of_what_is_run(call, monkeypatch):
    seen, given = [], []
    nothing = Results(PRESETS["quick"], {})
    monkeypatch.setattr(reproduction, "reproduce", lambda *passed: seen.append(passed) or nothing)
    monkeypatch.setattr(executors, "on_ray", lambda *arguments: given.append(arguments) or "ray")
    assert not call("reproduce_figures", "--seeds=2")[0]
    assert not call("reproduce_figures", "--seeds=2", "--executor=ray", "--workers=3")[0]
    cluster = ["--executor=ray", "--ray_address=auto", "--gpus_per_run=0.5"]
    assert not call("reproduce_figures", "--seeds=2", *cluster)[0]
    first, *others = seen
    assert first[-3:] == (executors.serial, None, False)
    assert given == [(3, None, 0.0), (None, "auto", 0.5)]
    for each in others:
        assert each[-3:] == ("ray", None, False)
        assert each[:-3] == first[:-3]  # the preset, the folder, and the command in the index
    assert first[0].configuration() == others[0][0].configuration()


def test_a_run_that_fails_on_a_worker_is_a_message_of_the_script(call, monkeypatch):
    def fail(*_):
        raise executors.RunsFailed("1 of 2 runs failed\n  main-photos: ValueError: no")

    monkeypatch.setattr(reproduction, "reproduce", fail)
    status, _ = call("reproduce_figures")
    assert "1 of 2 runs failed" in status
    assert "finished runs are kept" in status
