"""What is run of the open questions: one run a network, which several questions are asked."""

import dataclasses
import hashlib
import json
import pathlib
import re
from dataclasses import dataclass

from deformstab._version import NUMBERS
from deformstab.paper.runs.experiments import Experiment

QUESTIONS = "questions"  # the study
# Networks of the paper, for questions 1 and 3; circular ones with adaptive sampling, for question 2;
# those that are followed while they train, for 4, 5 and 6; and of other numbers of images, for 6.
NETWORK, CIRCULAR, FOLLOWED, SIZED = "network", "circular", "followed", "sized"
PARTS = (NETWORK, CIRCULAR, FOLLOWED, SIZED)
# What measurements take for each image that measures, in the time that it takes to train on one.
_PASSES = {NETWORK: 110.0, CIRCULAR: 120.0, FOLLOWED: 20.0, SIZED: 10.0}
# The epochs that circular networks of 4,000 images took (max_aps: as aps), and how much longer one
# took than with the padding that convolutions have of their own.
_CIRCULAR_EPOCHS = {"subsample": 10, "max": 13, "average": 27, "blur": 29, "aps": 58, "max_aps": 58}
_SLOWER = {"blur": 2.6, "aps": 3.2, "max_aps": 3.2}
_SEARCHED = 130.0  # the same of the two searches for worst deformations, a layer
# Test images that tell the error, where that is what is asked: to within half a percent.
_TESTED = 10_000


@dataclass(frozen=True)
class QuestionExperiment:
    """One network that is trained and asked. Equal fields, equal results.

    Attributes:
        part: one of `PARTS`, which says what it is asked.
        network: how it is trained, an `Experiment`; of the part "followed" with `track`.
        shuffles: permutations of each kind, of each convolution (part "network").
        searched_images: whose worst deformations are sought (part "followed").
    """

    part: str
    network: Experiment
    shuffles: int = 2
    searched_images: int = 64

    study = QUESTIONS  # what all runs say of themselves
    choice = ""
    columns = ("part", "downsampling", "seed")

    @property
    def downsampling(self) -> str:
        """The kind, of the network."""
        return self.network.downsampling

    @property
    def seed(self) -> int:
        """Of the network."""
        return self.network.seed

    @property
    def threads(self) -> int:
        """Of the network, as where its data lie, and what they are."""
        return self.network.threads

    @property
    def data_dir(self) -> str | None:
        return self.network.data_dir

    @property
    def data_fingerprint(self) -> str:
        return self.network.data_fingerprint

    @property
    def size(self) -> int | None:
        """The number of training images, where that is what the run is about."""
        return self.network.train_images if self.part == SIZED else None

    @property
    def id(self) -> str:
        """A readable name with a hash of `identity` and of the version of the numbers."""
        text = json.dumps([self.identity(), NUMBERS], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        part = f"{self.part}{self.size or ''}"
        names = (self.study, part, self.network.dataset, self.downsampling)
        return f"{'-'.join(names)}-seed{self.seed}-{digest}"

    def identity(self) -> dict:
        """Every field that decides a result, as JSON holds it."""
        found = {"study": self.study, "part": self.part, "network": self.network.identity()}
        own = {NETWORK: "shuffles", FOLLOWED: "searched_images"}.get(self.part)
        return found | ({own: getattr(self, own)} if own else {})

    @property
    def representations(self) -> list[str]:
        """What is measured of it: the paper's layers and the logits."""
        return [*self.network.representations, "logits"]

    @property
    def convolutions(self) -> list[str]:
        """Its 3×3 convolutions, each of which is shuffled alone."""
        names = self.network.representations
        return [name.removesuffix("_relu") for name in names if name.endswith("_relu")]

    @property
    def cost(self) -> float:
        """Roughly the seconds it takes on two cores."""
        passes = _PASSES[self.part] * self.network.measured_images
        if self.part == NETWORK:  # half a pass forward over the training images each, on average
            shuffled = len(self.convolutions) * (1 + 2 * self.shuffles)
            passes += shuffled * self.network.train_images / 3.3
        if self.part == FOLLOWED:
            passes += 2 * len(self.representations) * _SEARCHED * self.searched_images
        images = self.network.measured_images
        asked = dataclasses.replace(self.network, measured_images=images + round(passes / 3))
        if self.part != CIRCULAR:
            return asked.cost
        epochs = (
            _CIRCULAR_EPOCHS.get(self.downsampling, 29) if asked.stop_accuracy else asked.epochs
        )
        asked = dataclasses.replace(asked, stop_accuracy=0.0, epochs=min(asked.epochs, epochs))
        return asked.cost * _SLOWER.get(self.downsampling, 1.6)

    @property
    def memory(self) -> float:
        """Roughly the bytes it takes; a search holds an image's maps of all steps of a point."""
        return self.network.memory + (0.6e9 if self.part == FOLLOWED else 0.0)


def sizes_in(folder) -> list[int]:
    """The numbers of training images of the networks whose runs are in a folder of runs."""
    names = (path.name for path in pathlib.Path(folder).glob(f"{QUESTIONS}-{SIZED}*.json"))
    found = (re.match(rf"{QUESTIONS}-{SIZED}(\d+)-", name) for name in names)
    return sorted({int(each[1]) for each in found if each})


def refuse_too_few(experiment, images: int) -> None:
    """Refuses data that have fewer training images than a run is about."""
    if experiment.size is not None and images < experiment.size:
        raise ValueError(  # it would pass for a network of more images
            f"a network of {experiment.size} images is asked for (--sizes), and the data have "
            f"{images}: give smaller ones"
        )


def located(experiment, path: str):
    """An experiment of any study whose data lie at another path: the same, where it is run."""
    if isinstance(experiment, QuestionExperiment):
        return dataclasses.replace(experiment, network=located(experiment.network, path))
    return dataclasses.replace(experiment, data_dir=path)


def of_preset(preset, network) -> list[QuestionExperiment]:
    """The runs of a preset, part by part.

    Args:
        preset: with `downsampling`, `seed`, `seeds`, `circular_downsampling`, `circular_seeds`,
            `shuffles`, `searched_images`, `sizes` and `test_images`.
        network: (kind, seed, **changes) → `Experiment`.

    Raises:
        ValueError: images that a circular network cannot halve.
    """
    halved = 2 ** len(preset.blocks)
    if preset.image_size % halved:
        raise ValueError(
            f"the study {QUESTIONS} has circular networks of {len(preset.blocks)} blocks, so "
            f"image_size must be a multiple of {halved}, received {preset.image_size}"
        )

    def asked(part, kinds=preset.downsampling, seeds=preset.seeds, **changes):
        options = preset.shuffles, min(preset.searched_images, preset.measured_images)
        return [
            QuestionExperiment(part, network(kind, preset.seed + seed, **changes), *options)
            for kind in kinds
            for seed in range(seeds)
        ]

    circular = min(preset.circular_seeds, preset.seeds)
    tested = {"test_images": max(preset.test_images, _TESTED)}
    followed = {"track": True, "more_measures": ("equivariance",), **tested}
    sizes = [size for size in preset.sizes if size != preset.train_images]
    return [
        *asked(NETWORK),
        *asked(CIRCULAR, preset.circular_downsampling, circular, padding="circular"),
        *asked(FOLLOWED, **followed),
        *(each for size in sizes for each in asked(SIZED, train_images=size, **tested)),
    ]
