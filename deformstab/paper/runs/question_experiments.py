"""What is run of the open questions: one run a network, which several questions are asked."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from deformstab._version import NUMBERS
from deformstab.paper.runs.experiments import Experiment

QUESTIONS = "questions"  # the study
# Networks of the paper, for questions 1 and 3; circular ones with adaptive sampling, for question 2;
# those that are followed while they train, for 4, 5 and 6; and of other numbers of images, for 6.
NETWORK, CIRCULAR, FOLLOWED, SIZED = "network", "circular", "followed", "sized"
PARTS = (NETWORK, CIRCULAR, FOLLOWED, SIZED)
# What measurements take for each image that measures, in the time that it takes to train on one;
# and how much slower than others circular networks with adaptive sampling are.
_PASSES = {NETWORK: 110.0, CIRCULAR: 120.0, FOLLOWED: 20.0, SIZED: 10.0}
_SLOWER = {NETWORK: 1.0, CIRCULAR: 1.6, FOLLOWED: 1.0, SIZED: 1.0}
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
    def id(self) -> str:
        """A readable name with a hash of `identity` and of the version of the numbers."""
        text = json.dumps([self.identity(), NUMBERS], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        size = f"{self.part}{self.network.train_images}" if self.part == SIZED else self.part
        names = (self.study, size, self.network.dataset, self.downsampling)
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
        return asked.cost * _SLOWER[self.part]

    @property
    def memory(self) -> float:
        """Roughly the bytes it takes; a search holds an image's maps of all steps of a point."""
        return self.network.memory + (0.6e9 if self.part == FOLLOWED else 0.0)


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
