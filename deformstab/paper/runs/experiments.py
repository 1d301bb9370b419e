"""What is run: one Experiment a network."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

import keras

from deformstab._version import NUMBERS
from deformstab.networks.initializers import SmoothedInitializer

MAIN_TASKS = ("true_labels", "random_labels", "random_images")
# The studies: main is the CIFAR-10 part of Figures 2, 4, 5b; large the ImageNet part of 2 and 4;
# choices and recipes show what the choices move that the paper leaves open, at initialization and
# after training.
STUDIES = ("main", "large", "tasks", "filters", "choices", "recipes")
SCALINGS = (
    "symmetric",
    "unit",
    "standardized",
)  # inputs in [-1, 1], in [0, 1], each channel N(0, 1)

# What fields that are younger than kept results were before there was a choice: left out of an
# experiment's identity, so that those results keep theirs.
_BEFORE = {
    **{"test_images": 512, "backend": "tensorflow", "class_pairs": False},
    "more_measures": (),
    "padding": "zeros",
}
# What can be measured beside sensitivity and smoothness.
MORE_MEASURES = ("stability", "equivariance")


@dataclass(frozen=True)
class Experiment:
    """One network: what it learns, how, and what is measured. Equal fields, equal results.

    Attributes:
        study: the question it belongs to, one of `STUDIES`.
        dataset, data_dir, data_fingerprint, image_size, train_images: the data.
        task: one of `MAIN_TASKS`, or "deformed_classes".
        class_displacement: max_displacement within a class, in pixels, for "deformed_classes".
        downsampling, blocks, sigma: the network; σ of the Gaussian over its initial filters.
        padding: what its convolutions find outside the image, "zeros" or "circular".
        seed: of the initialization, the order of the data and what the task draws.
        epochs: at most so many; 0 for a network that is measured at initialization only.
        stop_accuracy: training ends after the epoch that brings the accuracy on all training
            images (inference mode) here; 0 for all epochs.
        batch_size, learning_rate: of the training.
        optimizer, weight_decay, schedule: "adam" or "sgd" (Nesterov momentum 0.9); decoupled, of
            kernels only; "constant" or "cosine" (down to zero over `epochs`).
        precision: it trains in, a Keras dtype policy; measured in float32 always.
        control_points, max_displacement: of the deformations that measure it.
        measured_images: test images that measure it, the same for every network.
        test_images: that its accuracy is of, if there are so many; 512 with other tasks than true
            labels.
        input_scaling: one of `SCALINGS`.
        batch_statistics: whether batch normalization is re-estimated before the first measurement
            too; at initialization it does next to nothing otherwise.
        track: whether it is measured during training as well.
        variants: whether it is measured in the other ways of `measures` as well.
        class_pairs: of those, whether over the median of pairs of a class and of different classes.
        more_measures: of `MORE_MEASURES`, what is measured beside sensitivity and smoothness.
        choice: of the study "recipes", what differs from the study that it varies.
        threads: it runs on, which decide the last digits of trained weights.
        backend: of Keras, which decides what a seed draws.
    """

    study: str
    dataset: str
    downsampling: str
    seed: int
    data_dir: str | None = field(default=None, compare=False)  # where, not what
    data_fingerprint: str = ""
    image_size: int = 32
    train_images: int = 1000
    task: str = "true_labels"
    class_displacement: float = 0.0
    blocks: tuple = ((2, 16), (2, 32), (2, 64), (2, 128))
    sigma: float = 0.0
    epochs: int = 4
    stop_accuracy: float = 0.0
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    precision: str = "float32"
    control_points: int = 3
    max_displacement: float = 2.0
    measured_images: int = 128
    test_images: int = 512
    input_scaling: str = "symmetric"
    batch_statistics: bool = False
    track: bool = False
    variants: bool = False
    class_pairs: bool = False
    more_measures: tuple = ()
    choice: str = ""
    padding: str = "zeros"
    threads: int = 2
    backend: str = field(default_factory=keras.backend.backend)

    def __post_init__(self):
        reals = ("class_displacement", "sigma", "learning_rate", "weight_decay", "stop_accuracy")
        for name in (*reals, "max_displacement"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one id
        # A list, as JSON gives it, and a tuple are one id.
        object.__setattr__(self, "more_measures", tuple(self.more_measures))

    @property
    def id(self) -> str:
        """A readable name with a hash of `identity` and of the version of the numbers."""
        text = json.dumps([self.identity(), NUMBERS], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        strength = f"C{self.class_displacement:g}"
        detail = {
            "tasks": strength,
            "filters": f"sigma{self.sigma:g}",
            "choices": self.input_scaling + "-batch_statistics" * self.batch_statistics,
            "recipes": f"{self.choice}-{strength}" if self.class_displacement else self.choice,
        }.get(self.study, self.task)
        parts = (self.study, self.dataset, self.downsampling, detail, f"seed{self.seed}", digest)
        return "-".join(parts)

    def identity(self) -> dict:
        """Every field that decides a result, as JSON holds it; not where the data lies."""
        fields = dataclasses.asdict(self)
        del fields["data_dir"]
        for name, value in _BEFORE.items():
            if fields[name] == value:
                del fields[name]
        return json.loads(json.dumps(fields))

    @property
    def representations(self) -> list[str]:
        """The names that `ds.paper_layers` gives of its network."""
        names = ["input"]
        for block, (convolutions, _) in enumerate(self.blocks, start=1):
            names += [f"block{block}_conv{number}_relu" for number in range(1, convolutions + 1)]
            names.append(f"block{block}_downsample")
        return names

    def kernel_initializer(self):
        """Of the network's convolutions; `None` for the paper's."""
        return SmoothedInitializer(self.sigma) if self.sigma else None

    @property
    def cost(self) -> float:
        """Roughly the seconds it takes on two cores, for the progress bar and `--list`."""
        images = self.train_images * self._expected_epochs()
        seconds = 1.0 + self._multiplications() * (images + 3 * self.measured_images) / _RATE
        return seconds * (1.2 + 0.4 * len(self.more_measures) if self.track else 1.0)

    @property
    def memory(self) -> float:
        """Roughly the bytes it takes: TensorFlow, the images, the network and its training."""
        pixels, channels, activations, weights = self.image_size**2, 3, 0.0, 0.0
        for convolutions, width in self.blocks:
            activations += 3 * convolutions * width * pixels  # before, between and after
            weights += 9 * width * (channels + (convolutions - 1) * width)
            pixels, channels = pixels / 4, width
        derived = self.task in ("random_images", "deformed_classes")
        derived = derived or self.input_scaling != "symmetric"
        copies = 1 + derived
        in_memory = 0 if self.dataset == "imagenet" else copies * self.train_images
        tested = self.test_images if self.epochs and self.task == "true_labels" else 512
        images = (in_memory + tested) * self.image_size**2 * 3
        training = 2 * self.batch_size * activations + 5 * weights if self.epochs else 2 * weights
        return 0.8e9 + 4 * (images + max(training, 64 * activations))

    def _expected_epochs(self) -> int:
        """Where there is a target: what networks of 4,000 CIFAR-10 images took, about."""
        if not self.stop_accuracy:
            return self.epochs
        return min(self.epochs, {"random_labels": 14, "deformed_classes": 2}.get(self.task, 14))

    def _multiplications(self) -> float:
        """Of a forward pass of one image, the downsampling left out."""
        pixels, channels, total = self.image_size**2, 3, 0.0
        for convolutions, width in self.blocks:
            total += 9 * pixels * width * (channels + (convolutions - 1) * width)
            pixels, channels = pixels / 4, width
        return total


_RATE = 28e9  # multiplications of forward passes a second at which two cores of 2025 train
