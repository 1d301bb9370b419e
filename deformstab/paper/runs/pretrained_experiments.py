"""What is run of networks that others trained: one run for their weights, one for each random draw."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field

import keras

from deformstab._version import NUMBERS
from deformstab.paper.pretrained import catalogue

PRETRAINED = "pretrained"  # the study
WEIGHTS = ("trained", "random")
# Of an experiment in every row of its tables.
COLUMNS = ("network", "halved", "seed")
_FORWARD = 60e9  # multiplications a second, of two cores of 2025


@dataclass(frozen=True)
class PretrainedExperiment:
    """One network, with its weights or random ones, to be measured. Equal fields, equal results.

    Attributes:
        network: its name in tables.
        source: what `catalogue.find` knows it by; of a file, where it lies.
        network_fingerprint: of its weights.
        halved: by what it halves the image.
        weights: one of `WEIGHTS`.
        seed: of random weights; 0 otherwise.
        data_dir, data_fingerprint: a folder of photographs, or none for the bundled ones.
        measured_images: that measure it, at most.
        value_range: what black and white are to a network of a file.
        threads, backend: as of `Experiment`.
    """

    network: str
    source: str = field(compare=False)
    network_fingerprint: str
    halved: str
    weights: str
    seed: int = 0
    data_dir: str | None = field(default=None, compare=False)
    data_fingerprint: str = ""
    measured_images: int = 128
    value_range: tuple = (-1.0, 1.0)
    multiplications: float = field(default=4e9, compare=False)
    threads: int = 2
    backend: str = field(default_factory=keras.backend.backend)

    study = PRETRAINED  # what all runs say of themselves
    choice = ""
    columns = COLUMNS

    @property
    def id(self) -> str:
        """A readable name with a hash of `identity` and of the version of the numbers."""
        text = json.dumps([self.identity(), NUMBERS], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        which = f"random{self.seed}" if self.weights == "random" else self.weights
        name = "".join(letter if letter.isalnum() else "_" for letter in self.network)
        return f"{self.study}-{name}-{which}-{digest}"

    def identity(self) -> dict:
        """Every field that decides a result, as JSON holds it; not where files lie."""
        counted = [each.name for each in dataclasses.fields(self) if each.compare]
        found = {name: getattr(self, name) for name in counted}
        return json.loads(json.dumps({"study": self.study, **found}))

    @property
    def cost(self) -> float:
        """Roughly the seconds it takes on two cores: layers that are too large come once more."""
        passes = 3 if self.weights == "trained" else 6  # random ones: also normalized
        return 15 + passes * self.measured_images * self.multiplications / _FORWARD

    @property
    def memory(self) -> float:
        """Roughly the bytes it takes."""
        return 4e9


def of_preset(preset, seeds, data_fingerprint: str) -> list[PretrainedExperiment]:
    """The runs of a preset's networks, each with its weights, then with random ones.

    Args:
        preset: with `pretrained`, `pretrained_range`, `pretrained_images`, `measured_images`,
            `threads` and `backend`.
        seeds: of random weights.
        data_fingerprint: of the photographs.

    Raises:
        ImportError: a package is missing.
        ValueError: an unknown network, or two of one name.
    """
    low, high = preset.pretrained_range if len(preset.pretrained_range) == 2 else (1, 0)
    if not low < high:
        raise ValueError(
            "pretrained_range is two numbers low,high, the first below the second, received "
            f"{preset.pretrained_range}"
        )
    found = []
    for source in preset.pretrained:
        network = catalogue.find(source, preset.pretrained_range)
        shared = PretrainedExperiment(
            network.name,
            # A worker that measures it has a working directory of its own.
            os.path.abspath(source) if network.is_file else source,
            network.fingerprint,
            network.halved,
            "trained",
            data_dir=preset.pretrained_images,
            data_fingerprint=data_fingerprint,
            measured_images=preset.measured_images,
            value_range=preset.pretrained_range if network.is_file else (-1.0, 1.0),
            multiplications=network.multiplications,
            threads=preset.threads,
            backend=preset.backend,
        )
        drawn = [dataclasses.replace(shared, weights="random", seed=seed) for seed in seeds]
        found += [shared, *drawn]
    names = [each.network for each in found if each.weights == "trained"]
    if len(set(names)) < len(names):
        raise ValueError(f"two networks have one name, tables could not tell them apart: {names}")
    return found
