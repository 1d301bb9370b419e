"""What is measured of networks that others trained, and how the tables of such a run are checked."""

import numpy as np
import pandas as pd

from deformstab.measurement.sensitivity import measure_sensitivity
from deformstab.measurement.smoothness import filter_smoothness
from deformstab.networks.normalization import reestimate_batch_normalization
from deformstab.paper.data import photographs
from deformstab.paper.pretrained import catalogue
from deformstab.paper.pretrained.random_weights import (
    has_normalization,
    is_shown,
    side,
    with_random_weights,
)

TABLES = ("pretrained_sensitivity", "pretrained_smoothness", "pretrained_networks")
# What weights are measured as: random ones also with batch normalization by the statistics of the
# measured images, as its initial averages make it do next to nothing.
STATES = ("trained", "random", "random_normalized")
TYPES = {"state": "str", "side": "float64", "top1": "float64"}
_KEYS = {
    "pretrained_sensitivity": ("state", "layer_index", "layer"),
    "pretrained_smoothness": ("state", "layer_index", "layer"),
    "pretrained_networks": ("state",),
}
_NUMBERS = {
    "pretrained_sensitivity": ("distance", "baseline", "sensitivity", "images", "side"),
    "pretrained_smoothness": ("kernel_height", "kernel_width", "smoothness"),
    "pretrained_networks": ("layers", "kernels", "answers", "top1"),
}
_BATCH = 32


def measure(experiment) -> dict[str, pd.DataFrame]:
    """Measures one network.

    Args:
        experiment: `PretrainedExperiment`.

    Returns:
        pretrained_sensitivity: the rows of `ds.measure_sensitivity` (cosine), and `side`, the
        height of the layer's output in pixels; pretrained_smoothness: those of
        `ds.filter_smoothness` whose kernels are larger than 1×1; pretrained_networks: how many
        `layers` and `kernels` these are, and of how many photographs of known class (`answers`) the
        network names it first (`top1`, a share). All with `state`, one of `STATES`.

    Raises:
        ValueError: the network takes no images, or has no layer to look at; its weights are not
            those that the run is of.
    """
    network = catalogue.find(experiment.source, experiment.value_range)
    if network.fingerprint != experiment.network_fingerprint:  # on a worker, of another version
        raise ValueError(
            f"{experiment.source} on this machine is not the network that the run is of (its weights "
            "differ): bring the same file or version of the package here"
        )
    model = network.load()
    size = _size(model, network)
    if experiment.weights == "random":
        model = with_random_weights(model, experiment.seed)
    images = photographs.photographs(experiment.data_dir, size, experiment.measured_images)
    images = network.prepare(images).astype("float32")
    found = {}
    _measure(model, images, experiment.weights, found)
    if experiment.weights == "random" and has_normalization(model):
        reestimate_batch_normalization(model, images, _BATCH)
        _measure(model, images, "random_normalized", found)
    answers = (0, np.nan)
    if experiment.weights == "trained" and tuple(model.output_shape)[1:] == (1000,):
        answers = _answers(model, network, experiment.data_dir, size)
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}
    counts = tables["pretrained_sensitivity"].groupby("state", sort=False).size()
    kernels = len(tables["pretrained_smoothness"])
    tables["pretrained_networks"] = pd.DataFrame(
        {"state": counts.index, "layers": counts.to_numpy(), "kernels": kernels}
    ).assign(answers=answers[0], top1=answers[1])
    return tables


def _measure(model, images, state, found) -> None:
    layers = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
    if not any(is_shown(layer) for layer in layers.values()):
        raise ValueError(f"{model.name} has no layer to look at: no ReLU, pooling or sum of maps")
    shown = ["input", is_shown]
    table = measure_sensitivity(model, images, layers=shown, batch_size=_BATCH, progress=False)
    sides = [side(layers[name]) if name in layers else np.nan for name in table["layer"]]
    sides[0] = float(images.shape[1])
    found.setdefault("pretrained_sensitivity", []).append(table.assign(side=sides, state=state))
    if "pretrained_smoothness" not in found:  # which statistics of normalization do not change
        smoothness = filter_smoothness(model).query("kernel_height > 1 or kernel_width > 1")
        smoothness = smoothness.assign(layer_index=range(len(smoothness)), state=state)
        found["pretrained_smoothness"] = [smoothness]


def _answers(model, network, data_dir, size) -> tuple[int, float]:
    """(photographs of known class, the share of which the network names first)."""
    images, labels = photographs.of_known_class(data_dir, size)
    if not len(labels):
        return 0, np.nan
    parts = (network.prepare(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH))
    named = np.concatenate([model.predict(part, verbose=0).argmax(axis=-1) for part in parts])
    return len(labels), float((named == labels).mean())


def _size(model, network) -> tuple[int, int, int]:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(f"{network.name} does not take one input of images, but {shape}")
    height, width, channels = shape[1:]
    return height or network.side, width or network.side, channels or 3


def check(tables, experiment) -> None:
    """Refuses tables of a run that are cut, or are not those of a network.

    Raises:
        ValueError: with what is wrong.
    """
    for name in TABLES:
        frame = tables.get(name, pd.DataFrame())
        missing = [c for c in (*_KEYS[name], *_NUMBERS[name]) if c not in frame]
        if missing:
            raise ValueError(f"its table {name} has no column {', '.join(missing)}")
        if not len(frame) or frame.duplicated(list(_KEYS[name])).any():
            raise ValueError(f"its table {name} has no rows, or one twice")
        trained = experiment.weights == "trained"
        if not set(frame["state"]) <= set(STATES[:1] if trained else STATES[1:]):
            raise ValueError(f"its table {name} has the states {sorted(set(frame['state']))}")
    counts = tables["pretrained_networks"].set_index("state")
    rows = tables["pretrained_sensitivity"].groupby("state").size()
    kernels = len(tables["pretrained_smoothness"])
    if not rows.equals(counts["layers"].sort_index().rename(None)) or kernels != max(
        counts["kernels"]
    ):
        raise ValueError(
            f"its tables have {rows.to_dict()} layers and {kernels} kernels, where there were "
            f"{counts['layers'].to_dict()} and {max(counts['kernels'])}"
        )
