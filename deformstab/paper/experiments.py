"""What is run: one Experiment a network, and the presets that list them."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field

from deformstab._version import __version__
from deformstab.downsampling import DOWNSAMPLING_KINDS, check_downsampling
from deformstab.models import IMAGENET_BLOCKS
from deformstab.paper import datasets

MAIN_TASKS = ("true_labels", "random_labels", "random_images")
# The studies: main is the CIFAR-10 part of Figures 2, 4, 5b; large the ImageNet part of 2 and 4;
# choices shows what the choices move that the paper leaves open, at initialization.
STUDIES = ("main", "large", "tasks", "filters", "choices")
SCALINGS = (
    "symmetric",
    "unit",
    "standardized",
)  # inputs in [-1, 1], in [0, 1], each channel N(0, 1)


@dataclass(frozen=True)
class Experiment:
    """One network: what it learns, how, and what is measured. Equal fields, equal results.

    Attributes:
        study: the question it belongs to, one of `STUDIES`.
        dataset, data_dir, data_fingerprint, image_size, train_images: the data.
        task: one of `MAIN_TASKS`, or "deformed_classes".
        class_displacement: max_displacement within a class, in pixels, for "deformed_classes".
        downsampling, blocks, sigma: the network; σ of the Gaussian over its initial filters.
        seed: of the initialization, the order of the data and what the task draws.
        epochs: 0 for a network that is measured at initialization only.
        batch_size, learning_rate: of the training, by Adam.
        control_points, max_displacement: of the deformations that measure it.
        measured_images: test images that measure it, the same for every network.
        input_scaling: one of `SCALINGS`.
        batch_statistics: whether batch normalization is re-estimated before the first measurement
            too; at initialization it does next to nothing otherwise.
        threads: it runs on, which decide the last digits of trained weights.
    """

    study: str
    dataset: str
    downsampling: str
    seed: int
    data_dir: str | None = None
    data_fingerprint: str = ""
    image_size: int = 32
    train_images: int = 1000
    task: str = "true_labels"
    class_displacement: float = 0.0
    blocks: tuple = ((2, 16), (2, 32), (2, 64), (2, 128))
    sigma: float = 0.0
    epochs: int = 4
    batch_size: int = 64
    learning_rate: float = 1e-3
    control_points: int = 3
    max_displacement: float = 2.0
    measured_images: int = 128
    input_scaling: str = "symmetric"
    batch_statistics: bool = False
    threads: int = 2

    def __post_init__(self):
        for name in ("class_displacement", "sigma", "learning_rate", "max_displacement"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one id

    @property
    def id(self) -> str:
        """A readable name with a hash of every field and of the package's version."""
        text = json.dumps([dataclasses.asdict(self), __version__], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        detail = {
            "tasks": f"C{self.class_displacement:g}",
            "filters": f"sigma{self.sigma:g}",
            "choices": self.input_scaling + "-batch_statistics" * self.batch_statistics,
        }.get(self.study, self.task)
        parts = (self.study, self.dataset, self.downsampling, detail, f"seed{self.seed}", digest)
        return "-".join(parts)

    @property
    def cost(self) -> float:
        """Roughly the seconds it takes on two cores: only ratios matter, to the progress bar."""
        pixels = [self.image_size**2 / 4**block for block in range(len(self.blocks))]
        convolved = sum(size * n * width for size, (n, width) in zip(pixels, self.blocks)) / 2**16
        return 1.0 + 1e-3 * convolved * (self.epochs * self.train_images + self.measured_images)


@dataclass(frozen=True)
class Preset:
    """All choices of one reproduction; its experiments follow from them.

    The flags of `bin/reproduce_figures` are these fields; see there for what each is.
    """

    name: str
    dataset: str = "photos"
    data_dir: str | None = None
    image_size: int = 32
    downsampling: tuple = DOWNSAMPLING_KINDS
    seeds: int = 3
    seed: int = 0
    epochs: int = 4
    train_images: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    threads: int = 2
    measured_images: int = 128
    blocks: tuple = ((2, 16), (2, 32), (2, 64), (2, 128))
    max_displacement: float = 2.0
    main_tasks: tuple = ("true_labels", "random_labels")
    tasks_dataset: str = "digits"
    tasks_data_dir: str | None = None
    tasks_downsampling: str = "max"
    class_displacements: tuple = (1.0, 2.0, 3.0, 4.0)
    filters_downsampling: str = "subsample"
    sigmas: tuple = (0.0, 0.5, 0.75, 1.0, 2.0)
    large_dataset: str = "photos"
    large_data_dir: str | None = None
    large_image_size: int = 64
    large_downsampling: tuple = ("max", "strided_relu")
    large_train_images: int = 500
    large_epochs: int = 4
    large_blocks: tuple = ((2, 8), (2, 16), (3, 32), (3, 64), (3, 64))
    demonstration: str = field(default="", compare=False)

    def __post_init__(self):
        positive = ("seeds", "epochs", "train_images", "batch_size", "learning_rate", "threads")
        for name in (*positive, "large_train_images", "large_epochs", "max_displacement"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, received {getattr(self, name)}")
        at_least = {
            "seed": 0,
            "measured_images": 2,
            "train_images": 20,
            "large_train_images": 20,
            # Every block halves the image.
            "image_size": 2 ** len(self.blocks),
            "large_image_size": 2 ** len(self.large_blocks),
        }
        for name, bound in at_least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, received {getattr(self, name)}")
        choices = {
            "downsampling": DOWNSAMPLING_KINDS,
            "large_downsampling": DOWNSAMPLING_KINDS,
            "main_tasks": MAIN_TASKS,
            "sigmas": None,
            "class_displacements": None,
        }
        for name, known in choices.items():
            _check_list(name, getattr(self, name), known)
        check_downsampling(self.tasks_downsampling)
        check_downsampling(self.filters_downsampling)
        datasets.check_source(self.dataset, self.data_dir)
        datasets.check_source(self.tasks_dataset, self.tasks_data_dir)
        datasets.check_source(self.large_dataset, self.large_data_dir)

    def configuration(self) -> dict:
        """Every choice, as JSON holds it: what identifies the results of a folder."""
        fields = dataclasses.asdict(self)
        del fields["demonstration"]
        return json.loads(json.dumps(fields))

    def experiments(self, studies=STUDIES) -> list[Experiment]:
        """The networks of the given studies, those of one architecture next to each other."""
        training = {
            "epochs": self.epochs,
            "train_images": self.train_images,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "measured_images": self.measured_images,
            "blocks": self.blocks,
            "max_displacement": self.max_displacement,
            "image_size": self.image_size,
            "threads": self.threads,
        }
        main = {**training, **_source(self.dataset, self.data_dir)}
        tasks = {**training, **_source(self.tasks_dataset, self.tasks_data_dir)}
        large = {
            **training,
            **_source(self.large_dataset, self.large_data_dir),
            "epochs": self.large_epochs,
            "train_images": self.large_train_images,
            "image_size": self.large_image_size,
            "blocks": self.large_blocks,
            # The paper's 5×5 grid and 10 px of 224.
            "control_points": 5,
            "max_displacement": self.large_image_size * 10 / 224,
        }
        seeds = [self.seed + number for number in range(self.seeds)]
        found = {
            "main": [
                Experiment("main", downsampling=kind, seed=seed, task=task, **main)
                for kind in self.downsampling
                for task in self.main_tasks
                for seed in seeds
            ],
            "large": [
                Experiment("large", downsampling=kind, seed=seed, **large)
                for kind in self.large_downsampling
                for seed in seeds
            ],
            "tasks": [
                Experiment(
                    "tasks",
                    downsampling=self.tasks_downsampling,
                    seed=seed,
                    task="deformed_classes",
                    class_displacement=float(displacement),
                    **tasks,
                )
                for displacement in self.class_displacements
                for seed in seeds
            ],
            "filters": [
                Experiment(
                    "filters",
                    downsampling=self.filters_downsampling,
                    seed=seed,
                    sigma=float(sigma),
                    **{**main, "epochs": 0},
                )
                for sigma in self.sigmas
                for seed in seeds
            ],
            "choices": [  # of one seed: its networks have the weights of the main study's
                Experiment(
                    "choices",
                    downsampling=kind,
                    seed=self.seed,
                    input_scaling=scaling,
                    batch_statistics=batch_statistics,
                    **{**main, "epochs": 0},
                )
                for kind in self.downsampling
                for scaling in SCALINGS
                for batch_statistics in (False, True)
            ],
        }
        return [experiment for study in STUDIES if study in studies for experiment in found[study]]


def _check_list(name, values, known):
    """Refuses an empty list, a value that comes twice, is unknown or, a number, below zero."""
    if not values:
        raise ValueError(
            f"{name} is empty; give " + (f"some of {', '.join(known)}" if known else "numbers")
        )
    if len(set(values)) < len(values):
        raise ValueError(f"{name} names something twice: {values}")
    for value in values:
        if known and value not in known:
            raise ValueError(f"unknown {name} {value!r}; the known ones are {', '.join(known)}")
        if not known and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0, received {value}")


def _source(dataset, data_dir) -> dict:
    fingerprint = datasets.fingerprint(data_dir)
    return {"dataset": dataset, "data_dir": data_dir, "data_fingerprint": fingerprint}


PRESETS = {
    "quick": Preset(
        "quick",
        demonstration=(
            "This is a demonstration, not evidence: narrow networks, trained briefly on little "
            "data. It shows that everything works and what the figures look like; whether a claim "
            "of the paper holds, it cannot say."
        ),
    ),
}
assert len(IMAGENET_BLOCKS) == len(PRESETS["quick"].large_blocks)
