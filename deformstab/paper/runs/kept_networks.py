"""The weights of trained networks, kept beside the tables, to be measured again.

A folder holds `<id of the run>/initial.weights.h5`, `step_16.weights.h5`, …, `trained.weights.h5`,
which `keras.Model.load_weights` reads. Each holds the network as it was measured: in float32, with
batch normalization re-estimated.
"""

import json
import pathlib
import re
import tempfile

from deformstab.tables import write_bytes, write_json

# What can be kept of a run: before training, at the steps that are tracked, and at the end.
MOMENTS = ("initial", "tracked", "trained")
TRAINED_ONLY = ("trained",)
_SUFFIX = ".weights.h5"


class KeptNetworks:
    """A folder of networks.

    Args:
        folder: of all runs' networks.
        moments: which of `MOMENTS` to keep.

    Raises:
        ValueError: an unknown moment, or none.
    """

    def __init__(self, folder, moments=TRAINED_ONLY):
        unknown = [moment for moment in moments if moment not in MOMENTS]
        if unknown or not moments:
            raise ValueError(
                f"networks are kept at {', '.join(MOMENTS)}; received {', '.join(unknown) or 'none'}"
            )
        self.folder = pathlib.Path(folder).absolute()  # a worker has a working directory of its own
        self.moments = tuple(moments)

    def keep(self, experiment, model, moment: str, step: int | None = None) -> None:
        """Writes the weights of a run's network, whole or not at all, if the moment is asked for."""
        if moment not in self.moments:
            return
        folder = self.folder / experiment.id
        with tempfile.TemporaryDirectory() as beside:
            file = pathlib.Path(beside) / f"network{_SUFFIX}"
            model.save_weights(file)
            write_bytes(file.read_bytes(), folder / (_name(moment, step) + _SUFFIX))
        if not (folder / "experiment.json").exists():
            write_json(experiment.identity(), folder / "experiment.json")

    def load(self, experiment, model, moment: str, step: int | None = None) -> bool:
        """Loads what `keep` wrote into a model of the run's architecture; whether there was any.

        Raises:
            ValueError: the file is damaged, or of another network; its folder is of another run.
        """
        path = self.folder / experiment.id / (_name(moment, step) + _SUFFIX)
        if not path.exists():
            return False
        self._check_run(experiment, path.parent / "experiment.json")
        try:
            model.load_weights(path)
        except Exception as error:  # h5py raises what it likes: OSError, KeyError, RuntimeError
            raise ValueError(
                f"{path} is damaged or of another network ({error}); remove it, and train the run "
                "again into another --output_dir to have it back"
            ) from error
        return True

    def _check_run(self, experiment, path) -> None:
        """Whose networks are in a folder: weights do not tell, and another seed's would fit."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return  # a kill came between the weights and this
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it") from error
        if found != experiment.identity():
            raise ValueError(
                f"{path.parent} holds the networks of another run than its name says; remove it, and "
                "train the run again into another --output_dir to have them back"
            )

    def has(self, experiment, moment: str) -> bool:
        """Whether a run's network of a moment other than "tracked" is there."""
        return (self.folder / experiment.id / (_name(moment) + _SUFFIX)).exists()

    def has_any(self, experiment) -> bool:
        """Whether a run's network of any moment is there."""
        return any(self.has(experiment, name) for name in ("initial", "trained")) or bool(
            self.steps(experiment)
        )

    def steps(self, experiment) -> list[int]:
        """The tracked steps whose networks are there."""
        names = (path.name for path in (self.folder / experiment.id).glob(f"step_*{_SUFFIX}"))
        found = (re.fullmatch(rf"step_(\d+){re.escape(_SUFFIX)}", name) for name in names)
        return sorted(int(match[1]) for match in found if match)


def _name(moment: str, step: int | None = None) -> str:
    return moment if step is None else f"step_{step}"
