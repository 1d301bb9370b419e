"""What a process computes with: versions, machine, devices, the git commit."""

import os
import pathlib
import platform
import subprocess
import sys
from importlib import metadata

from deformstab._version import __version__

# What a provenance file names: everything whose version can move a number or a picture.
_PACKAGES = (
    *("numpy", "scipy", "keras", "tensorflow", "tensorflow-cpu", "jax", "torch"),
    *("pandas", "matplotlib", "seaborn", "scikit-image", "scikit-learn", "pillow"),
)
# What fixes the threads of TensorFlow and of OpenMP (PyTorch), set before they are imported.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def provenance() -> dict:
    """What this process computes with: versions, machine, devices, and the git commit if any."""
    import keras

    versions = {"deformstab": __version__}  # of this source, installed or not
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "devices": devices(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
        "git_commit": git_commit(),
    }


def devices() -> list[str]:
    """What Keras computes on here."""
    import keras

    if keras.backend.backend() != "torch":
        return [str(device) for device in keras.distribution.list_devices()]
    import torch  # for which Keras has no list

    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return gpus or ["cpu"]


def computes_on_gpu() -> bool:
    """Whether Keras has anything but processors to compute on."""
    return not all("cpu" in device.lower() for device in devices())


def git_commit() -> str | None:
    """The commit this package's source is at, `None` when it is installed from elsewhere.

    With "+changes" if the source is not what was committed.
    """
    folder = pathlib.Path(__file__).parent

    def git(*arguments):
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, capture_output=True, text=True)
        return found.stdout.strip() if found.returncode == 0 else None

    try:
        if git("ls-files", "--error-unmatch", pathlib.Path(__file__).name) is None:
            return None
        head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    except OSError:  # no git on this machine
        return None
    return f"{head}+changes" if head and changes else head
