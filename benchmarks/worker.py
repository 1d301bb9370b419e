"""A process that times one candidate when it is told to: python worker.py module:function '{…}'.

The function is called with the JSON object's entries and returns a function of a number: one call,
finished when it returns, on inputs that differ from number to number. The process prints a line of
JSON when it is warm, then for each line "COUNT" that it reads the seconds of so many calls. It runs
in any environment that has NumPy and what the candidate needs.
"""

import gc
import importlib
import importlib.metadata
import json
import os
import pathlib
import resource
import sys
import threading
import time

THREADS = 2
os.environ.update(TF_NUM_INTRAOP_THREADS=str(THREADS), OMP_NUM_THREADS=str(THREADS))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
PACKAGES = "tensorflow tensorflow-cpu keras torch jax kornia albumentations numpy".split()
PACKAGES += ["opencv-python-headless", "tensorflow-addons", "deformstab"]


def main(candidate: str, arguments: str) -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    answers = os.fdopen(os.dup(1), "w")  # libraries print to stdout as well
    os.dup2(2, 1)
    module, function = candidate.split(":")
    start = time.perf_counter()
    module = importlib.import_module(module)
    imported = time.perf_counter() - start
    call = getattr(module, function)(**json.loads(arguments))
    before = _resident()
    with _Peak() as peak:
        start = time.perf_counter()
        call(0)
        first = time.perf_counter() - start
    for number in range(1, 3):
        if first < 10:
            call(number)
    ready = {"imported": imported, "first": first, "peak_gib": (peak.bytes - before) / 2**30}
    _say(answers, {**ready, "versions": versions()})
    number = 3
    for line in sys.stdin:
        gc.collect()
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            call(number)
            seconds.append(time.perf_counter() - start)
            number += 1
        _say(answers, {"seconds": seconds, "resident_gib": _resident() / 2**30})


def versions() -> dict:
    """The versions of what is installed here, of the packages that matter."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Peak:
    """The largest resident size while it is open, sampled; the kernel's own is of all time."""

    def __enter__(self):
        self.bytes, self._open = _resident(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while self._open:
            self.bytes = max(self.bytes, _resident())
            time.sleep(0.005)

    def __exit__(self, *_):
        self._open = False
        self._thread.join()
        self.bytes = max(self.bytes, _resident())


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _say(answers, what) -> None:
    print(json.dumps(what), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
