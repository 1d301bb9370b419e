"""What is run of the reader's note: one run a statement, and of groups of filters one a network."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

import keras

from deformstab._version import NUMBERS

NOTE = "note"  # the study
# What does not depend on training, and of filters in groups: how they came to be.
STATEMENTS = ("sparse", "sharing", "symmetries", "maxima", "units")
STATES = ("initial", "trained", "trained on turned", "made of turns")
_SECONDS = dict(zip(STATEMENTS, (25, 10, 5, 5, 5))) | dict(zip(STATES, (20, 60, 60, 20)))


@dataclass(frozen=True)
class NoteExperiment:
    """One statement, or one network whose first layer groups filters. Equal fields, equal results.

    Attributes:
        part: one of `STATEMENTS`, or of `STATES`.
        seed: of all that is drawn.
        measured_images: digits that measure groups of filters.
        epochs: that these networks are trained.
        threads, backend: as of `Experiment`.
    """

    part: str
    seed: int
    measured_images: int = 128
    epochs: int = 30
    threads: int = 2
    backend: str = field(default_factory=keras.backend.backend)

    study = NOTE  # what all runs say of themselves
    choice = ""
    columns = ("seed",)
    data_dir, data_fingerprint = None, ""  # what it needs is bundled

    @property
    def id(self) -> str:
        """A readable name with a hash of `identity` and of the version of the numbers."""
        text = json.dumps([self.identity(), NUMBERS], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.study}-{self.part.replace(' ', '_')}-seed{self.seed}-{digest}"

    def identity(self) -> dict:
        """Every field, as JSON holds it: all decide results."""
        return {"study": self.study, **dataclasses.asdict(self)}

    @property
    def cost(self) -> float:
        """Roughly the seconds it takes on two cores."""
        return _SECONDS[self.part]

    @property
    def memory(self) -> float:
        """Roughly the bytes it takes."""
        return 1.5e9


def of_preset(preset, seeds) -> list[NoteExperiment]:
    """The runs of a preset: each statement once, of its first seed, each state of every seed.

    Args:
        preset: with `measured_images`, `threads` and `backend`.
        seeds: of networks.
    """
    parts = [(part, seeds[0]) for part in STATEMENTS]
    parts += [(state, seed) for state in STATES for seed in seeds]
    shared = {name: getattr(preset, name) for name in ("measured_images", "threads", "backend")}
    return [NoteExperiment(part, seed, **shared) for part, seed in parts]
