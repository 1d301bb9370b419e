"""A preset: a list of experiments, and every choice they follow from."""

import dataclasses
import functools
import json
from dataclasses import dataclass, field

import keras

from deformstab.networks.downsampling import PAPER_KINDS
from deformstab.paper.data import datasets
from deformstab.paper.pretrained import catalogue
from deformstab.paper.runs import (
    note_experiments,
    pretrained_experiments,
    question_experiments,
)
from deformstab.paper.runs.experiments import SCALINGS, STUDIES, Experiment
from deformstab.paper.runs.preset_checks import check_preset
from deformstab.paper.runs.recipes import BY_DEFAULT, RECIPES, changes_of, repeated

# Those whose runs are no networks of the paper: their figures stand apart.
APART = (
    pretrained_experiments.PRETRAINED,
    note_experiments.NOTE,
    question_experiments.QUESTIONS,
)
ALL_STUDIES = (*STUDIES, *APART)
# Fields that say which runs there are, not what they are.
NOT_COUNTED = ("demonstration", "studies", "recipes", "recipes_seeds", "sizes")


@dataclass(frozen=True)
class Preset:
    """All choices of one reproduction; its experiments follow from them.

    The flags of `bin/reproduce_figures` are these fields; see there for what each is.
    """

    name: str
    studies: tuple = ("main", "large", "tasks", "filters", "choices")
    dataset: str = "photos"
    data_dir: str | None = None
    image_size: int = 32
    downsampling: tuple = PAPER_KINDS
    seeds: int = 3
    seed: int = 0
    epochs: int = 4
    stop_accuracy: float = 0.0
    random_stop_accuracy: float = 0.0
    train_images: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    precision: str = "float32"
    input_scaling: str = "symmetric"
    track: bool = False
    variants: bool = False
    more_measures: tuple = ()
    threads: int = 2
    measured_images: int = 128
    test_images: int = 512
    blocks: tuple = ((2, 16), (2, 32), (2, 64), (2, 128))
    control_points: int = 3
    max_displacement: float = 2.0
    main_tasks: tuple = ("true_labels", "random_labels")
    tasks_dataset: str = "digits"
    tasks_data_dir: str | None = None
    tasks_downsampling: str = "max"
    class_displacements: tuple = (1.0, 2.0, 3.0, 4.0)
    filters_downsampling: str = "subsample"
    sigmas: tuple = (0.0, 0.5, 0.75, 1.0, 2.0)
    recipes: tuple = BY_DEFAULT
    recipes_seeds: int = 3
    large_dataset: str = "photos"
    large_data_dir: str | None = None
    large_image_size: int = 64
    large_downsampling: tuple = ("max", "strided_relu")
    large_train_images: int = 500
    large_epochs: int = 4
    large_blocks: tuple = ((2, 8), (2, 16), (3, 32), (3, 64), (3, 64))
    large_control_points: int = 5
    large_max_displacement: float | None = None
    pretrained: tuple = catalogue.BY_DEFAULT
    pretrained_images: str | None = None
    pretrained_range: tuple = (-1.0, 1.0)
    circular_downsampling: tuple = ("subsample", "max", "average", "blur", "aps", "max_aps")
    circular_seeds: int = 5
    shuffles: int = 2
    searched_images: int = 64
    sizes: tuple = (500, 2000)
    backend: str = field(default_factory=keras.backend.backend)
    demonstration: str = field(default="", compare=False)

    def __post_init__(self):
        check_preset(self, ALL_STUDIES)

    def configuration(self) -> dict:
        """Every choice, as JSON holds it: what identifies the results of a folder.

        Data on disk count by what is in them: they may lie elsewhere the next time. Studies and
        recipes do not count: a folder may come by them one after the other.
        """
        fields = dataclasses.asdict(self)
        for name in NOT_COUNTED:
            del fields[name]
        for name in ("data_dir", "tasks_data_dir", "large_data_dir", "pretrained_images"):
            if fields[name] is not None:
                fields[name] = datasets.fingerprint(fields[name])
        fields["pretrained"] = catalogue.without_folders(self.pretrained)
        return json.loads(json.dumps(fields))

    @property
    def reach_of_large(self) -> float:
        """`max_displacement` for the larger images, by default the paper's 10 of 224 pixels."""
        if self.large_max_displacement is not None:
            return self.large_max_displacement
        return self.large_image_size * 10 / 224

    def experiments(self, studies=None) -> list[Experiment]:
        """The networks of the given studies (by default the preset's), in the order of tables."""
        wanted = self.studies if studies is None else studies
        fresh = dataclasses.replace(self)  # data are read once a call: they may have changed
        chosen = [name for name in ALL_STUDIES if name in wanted]
        return [each for name in chosen for each in getattr(fresh, f"_{name}")()]

    def every_experiment(self, sizes=()) -> list[Experiment]:
        """Also the networks of studies and recipes that are not asked for, if their data are known.

        Those that a folder has are in its tables and figures, whatever is asked for next.

        Args:
            sizes: of networks that a folder has, beside those that are asked for.
        """
        asked = self.recipes if "recipes" in self.studies else ()
        recipes = [name for name in RECIPES if name in asked or not repeated(name, self)]
        every = dataclasses.replace(
            self,
            recipes=tuple(recipes),
            recipes_seeds=self.seeds,
            sizes=tuple(sorted({*self.sizes, *sizes})),
        )
        found = []
        for name in ALL_STUDIES:
            try:
                found += getattr(every, f"_{name}")()
            except (ValueError, ImportError):
                if name in self.studies:
                    raise
        return found

    def asks_for(self, experiment) -> bool:
        """Whether one of `every_experiment` is of the studies and recipes that are asked for."""
        if experiment.study == "recipes":
            seeds = self._seeds()[: self.recipes_seeds]
            if experiment.choice not in self.recipes or experiment.seed not in seeds:
                return False
        if experiment.study == question_experiments.QUESTIONS and experiment.size not in (
            None,
            *self.sizes,
        ):
            return False
        return experiment.study in self.studies

    def _main(self, labels=None):
        def pairs(task):  # with others than true labels there are no classes to tell apart
            return self.variants and task == "true_labels"

        return [
            self._experiment("main", kind, seed, task=task, class_pairs=pairs(task))
            for kind in self.downsampling
            for task in labels or self.main_tasks
            for seed in self._seeds()
        ]

    def _large(self):
        changes = {
            **self._source(self.large_dataset, self.large_data_dir),
            "epochs": self.large_epochs,
            "train_images": self.large_train_images,
            "image_size": self.large_image_size,
            "blocks": self.large_blocks,
            "control_points": self.large_control_points,
            "max_displacement": self.reach_of_large,
        }
        return [
            self._experiment("large", kind, seed, **changes)
            for kind in self.large_downsampling
            for seed in self._seeds()
        ]

    def _tasks(self):
        changes = {
            **self._source(self.tasks_dataset, self.tasks_data_dir),
            "task": "deformed_classes",
            **_NOT_WATCHED,
        }
        return [
            self._experiment(
                "tasks", self.tasks_downsampling, seed, class_displacement=displacement, **changes
            )
            for displacement in self.class_displacements
            for seed in self._seeds()
        ]

    def _filters(self):
        return [
            self._experiment("filters", self.filters_downsampling, seed, sigma=sigma, **_INITIAL)
            for sigma in self.sigmas
            for seed in self._seeds()
        ]

    def _choices(self):  # of one seed: its networks have the weights of the main study's
        return [
            self._experiment("choices", kind, self.seed, **choice, **_INITIAL)
            for kind in self.downsampling
            for scaling in SCALINGS
            for choice in (
                {"input_scaling": scaling, "batch_statistics": False},
                {"input_scaling": scaling, "batch_statistics": True},
            )
        ]

    def _recipes(self):
        found = []
        for name in self.recipes:
            changes = changes_of(name, self)
            changes |= {"study": "recipes", "choice": name, **_NOT_WATCHED}
            varied = self._tasks() if "task" in changes else self._main(("true_labels",))
            seeds = self._seeds()[: self.recipes_seeds]
            found += [dataclasses.replace(each, **changes) for each in varied if each.seed in seeds]
        return found

    def _pretrained(self):
        if self.pretrained_images is not None:
            datasets.check_source("folder", self.pretrained_images)
        fingerprint = datasets.fingerprint(self.pretrained_images)
        return pretrained_experiments.of_preset(self, self._seeds(), fingerprint)

    def _note(self):
        return note_experiments.of_preset(self, self._seeds())

    def _questions(self):
        def network(kind, seed, **changes):
            asked = question_experiments.QUESTIONS, kind, seed
            return self._experiment(*asked, **_NOT_WATCHED | changes)

        return question_experiments.of_preset(self, network)

    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    @functools.cached_property
    def _sources(self) -> dict:
        return {}

    def _source(self, dataset, data_dir) -> dict:
        """The data of an experiment, identified once for all that have them."""
        if (dataset, data_dir) not in self._sources:
            datasets.check_source(dataset, data_dir)
            fingerprint = datasets.fingerprint(data_dir)
            found = {"dataset": dataset, "data_dir": data_dir, "data_fingerprint": fingerprint}
            self._sources[dataset, data_dir] = found
        return self._sources[dataset, data_dir]

    def _experiment(self, study, downsampling, seed, **changes) -> Experiment:
        """One network: what the preset says, but for the changes."""
        same = [each.name for each in dataclasses.fields(Experiment) if hasattr(self, each.name)]
        fields = {name: getattr(self, name) for name in same} | changes
        if "data_fingerprint" not in fields:
            fields |= self._source(self.dataset, self.data_dir)
        if fields.get("task") == "random_labels":
            fields["stop_accuracy"] = self.random_stop_accuracy
        return Experiment(**fields | {"study": study, "downsampling": downsampling, "seed": seed})


_NOT_WATCHED = {"track": False, "variants": False, "class_pairs": False, "more_measures": ()}
_INITIAL = {"epochs": 0, **_NOT_WATCHED}
