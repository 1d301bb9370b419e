"""Where runs run: one after the other here, or on the machines of a Ray cluster.

An executor is called with the experiments, a function that runs one, and one to tell which has been
started; it yields (experiment, what the function gave) as they end, in whatever order. What a run
gives depends on its experiment alone, so all executors give the same tables.
"""

import functools
import importlib
import itertools
import os
import pathlib
import platform
import warnings

import keras

from deformstab.extras import needing
from deformstab.paper.data import datasets
from deformstab.paper.runs.question_experiments import located
from deformstab.provenance import THREAD_VARIABLES, computes_on_gpu

RETRIES = 5  # of a run that lost its worker; not without end, for it may be what kills them


class RunsFailed(RuntimeError):
    """Runs raised an error on their workers, or lost too many of them; the others' tables are kept."""


def serial(experiments, execute, started):
    """One after the other, in this process."""
    for experiment in experiments:
        started(experiment)
        yield experiment, execute(experiment)


def on_ray(workers: int | None = None, address: str | None = None, gpus: float = 0.0):
    """Tasks of Ray: on any machine that has room, and again where a worker or its machine is lost.

    Workers compute with an experiment's threads, this process' backend, and this very package, which
    is sent to them; on processors unless each is to have a GPU, or a share of one. Of a cluster's
    machines they need what the package depends on, in this process' versions, and data from disk at
    the same path; others are refused. Last digits are those of the serial executor where what they
    compute on is of one kind.

    Results are written here, checkpoints by the workers, into the output folder: where machines share
    it, a run goes on after its last epoch on any of them; where they do not, a run that loses its
    machine starts anew, and checkpoints stay on the others.

    A run that raises an error is not run again and does not stop the others. Ray takes runs in the
    order given, and in that order they are told as started, as many at a time as it has room for.

    Args:
        workers: runs at a time on this machine; by default as many as its cores have threads for.
        address: of a running cluster ("auto", "head:6379", "ray://head:10001"), with room for as many
            as it has cores; by default Ray is started on this machine, and stopped at the end.
        gpus: of each run: 1, or a share (0.25: four runs on a GPU at a time); 0 for none.

    Raises:
        ImportError: Ray is missing.
        ValueError: `workers` below 1, or together with `address`; `gpus` not in [0, 1]; from the
            executor, a run with more threads or GPUs than this machine has.
        ConnectionError: from the executor, no cluster at the address.
        RunsFailed: from the executor, at the end, with the names of the runs.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, received {workers}")
    if workers is not None and address is not None:
        raise ValueError(
            f"workers ({workers}) are of this machine, not of the cluster at {address}"
        )
    if not 0 <= gpus <= 1:
        raise ValueError(f"gpus must be 0, 1 or a share between, received {gpus}")
    with needing("ray", "runs on Ray"):
        import ray
    return functools.partial(_on_ray, ray, workers, address, gpus)


def _on_ray(ray, workers, address, gpus, experiments, execute, started):
    if not experiments:
        return
    threads = max(each.threads for each in experiments)
    _connect(ray, address, workers and workers * threads)
    try:
        places = _places(ray, address, threads, gpus)
        # A process keeps the GPU it began with: each run that has one is given a new process.
        task = ray.remote(max_retries=RETRIES, max_calls=1 if gpus else 0)(_run_there)
        running = {_submitted(task, execute, each, gpus): each for each in experiments}
        waiting, failed = iter(experiments), []
        for experiment in itertools.islice(waiting, places):
            started(experiment)
        while running:
            (done, *_), _ = ray.wait(list(running))
            experiment = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayError as error:
                failed.append((experiment, error))
            else:
                yield experiment, result
            for following in itertools.islice(waiting, 1):
                started(following)
    finally:
        ray.shutdown()
    if failed:
        told = [_told(*each) for each in failed[:3]] + ["…"] * (len(failed) > 3)
        message = "\n  ".join([f"{len(failed)} of {len(experiments)} runs failed", *told])
        raise RunsFailed(message) from failed[0][1]


def _connect(ray, address, cores) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # to report what a user does is theirs
    package = pathlib.Path(__file__).parent.parent
    options = {"runtime_env": {"py_modules": [str(package)]}, "logging_level": "warning"}
    if address is None:
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 2**27}
    try:
        ray.init(address or "local", log_to_driver=False, **options)
    except ConnectionError as error:  # also what a missing token looks like
        raise ConnectionError(
            f"{error}; where the cluster has token authentication, set RAY_AUTH_MODE=token and have "
            "its token here, in ~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error


def _places(ray, address, threads, gpus) -> int:
    """How many runs there is room for at a time; one that fits nowhere would wait without a word."""
    places, found = 0, []
    for node in ray.nodes():
        if node["Alive"]:
            has = {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU")}
            room = int(has["CPU"]) // threads
            places += min(room, int(has["GPU"]) * int(1 / gpus)) if gpus else room
            found.append(f"{has['CPU']:g} cores" + f" and {has['GPU']:g} GPUs" * bool(gpus))
    needed = f"{threads} threads" + f" and {gpus:g} GPUs" * bool(gpus)
    if not places and address is None:
        advice = "ask for less with gpus (--gpus_per_run)" if gpus else "choose 1 worker"
        raise ValueError(f"a run takes {needed}, and there are {', '.join(found)}; {advice}")
    if not places:
        message = f"no machine at {address} has room for {needed}: runs wait until one joins"
        warnings.warn(message, stacklevel=2)
    return max(1, places)


def _submitted(task, execute, experiment, gpus):
    """Hands a run to Ray, with all that decides its numbers before its worker imports Keras."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("TF_", "XLA_"))}
    kept |= {name: str(experiment.threads) for name in THREAD_VARIABLES}
    kept |= {"KERAS_BACKEND": keras.backend.backend(), "NVIDIA_TF32_OVERRIDE": "0"}
    if gpus:  # Ray says which; runs that share one must not take all of its memory each
        kept |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    else:
        kept["CUDA_VISIBLE_DEVICES"] = ""
    options = {"num_cpus": experiment.threads, "num_gpus": gpus}
    options["runtime_env"] = {"env_vars": kept}
    if experiment.data_dir is not None:  # a worker has a working directory of its own
        path = os.path.abspath(experiment.data_dir)
        experiment = located(experiment, path)
    return task.options(name=experiment.id, **options).remote(
        execute, experiment, _versions(), gpus
    )


def _run_there(execute, experiment, versions, gpus=0.0):
    """On a worker: refuses to compute what would be other numbers than the serial executor's."""
    machine, path = platform.node(), experiment.data_dir
    if _versions() != versions:
        raise ValueError(
            f"{machine} has {_versions()}, where {versions} are needed; install these versions there"
        )
    if _fingerprint(path) != experiment.data_fingerprint:
        raise ValueError(
            f"{path} on {machine} is not the data that the run is of; copy there what is at that path "
            "on the machine that started it"
        )
    if gpus and not computes_on_gpu():
        raise ValueError(
            f"{keras.backend.backend()} finds no GPU on {machine}, where Ray gave the run number "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES')}: install a build that computes on it there, or "
            "ask for no gpus (--gpus_per_run)"
        )
    return execute(experiment)


_fingerprint = functools.lru_cache(datasets.fingerprint)  # a worker has many runs of the same data


def _versions() -> dict[str, str]:
    names = ("numpy", "scipy", "PIL", "keras", keras.backend.backend())
    return {name: importlib.import_module(name).__version__ for name in names}


def _told(experiment, error) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{experiment.id}: {type(cause).__name__}: {cause}"
