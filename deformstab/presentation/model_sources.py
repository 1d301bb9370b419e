"""Where a model comes from, a file or keras.applications, and how images are prepared for it."""

import difflib
import pathlib
from dataclasses import dataclass
from typing import Any

import keras

from deformstab.presentation.applications import SIDE, applications, load_application
from deformstab.presentation.model_files import imported, load_model
from deformstab.presentation.preparation import (
    Preparation,
    preparation,
    preparation_of_application,
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        model: a `.keras` or `.h5` file, or the name of a network of keras.applications.
        weights: of such a name: "imagenet" (by default), "none" or a file; see `load_application`.
        weights_seed: of random weights.
        image_size: pixels a side; by default what the model takes, 224 if it takes any size and
            is one of keras.applications, else the first image's.
        preprocessing: "caffe", "torch", "tf" or "LOW,HIGH" (see `preparation`); by default what a
            network of keras.applications was trained on, and -1…1 for a file.
        allow_unsafe_model: whether code in the file (a Lambda layer) may run.
        import_modules: Python files, or names of modules, with classes that the model needs.
    """

    model: Any
    weights: str | None = None
    weights_seed: int = 0
    image_size: int | None = None
    preprocessing: Any = None
    allow_unsafe_model: bool = False
    import_modules: Any = ()

    @property
    def is_application(self) -> bool:
        return str(self.model) in applications()

    @property
    def name(self) -> str:
        """For titles: the file's, or the network's with its weights."""
        if not self.is_application:
            return pathlib.Path(self.model).name
        weights = self.weights or "imagenet"
        said = {"imagenet": "ImageNet", "none": "random weights"}
        return f"{self.model}, {said.get(weights, pathlib.Path(weights).name)}"

    @property
    def files(self) -> list:
        """What is read, which no output may replace."""
        own = [] if self.is_application else [self.model]
        return own + ([] if self.weights in (None, "none", "imagenet") else [self.weights])

    @property
    def preparation(self) -> Preparation:
        """How images are prepared for it."""
        if self.preprocessing is None and self.is_application:
            return preparation_of_application(str(self.model))
        return preparation((-1, 1) if self.preprocessing is None else self.preprocessing)

    def check(self) -> None:
        """Refuses what is not there, or does not go together, before anything is loaded.

        Raises:
            ValueError, OSError: with what to do about it.
        """
        _ = self.preparation
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, received {self.image_size}")
        for path in self.files:
            if not pathlib.Path(path).exists():
                raise FileNotFoundError(f"{path} does not exist{_meant(path, self.model)}")
        if not self.is_application and self.weights is not None:
            raise ValueError(
                f"--weights={self.weights} is for a network of keras.applications, --model=VGG16 for "
                f"example; {self.model} is a file, which holds its own weights"
            )

    def load(self) -> keras.Model:
        """The model.

        Raises:
            ValueError, OSError: it cannot be loaded, or takes no images.
        """
        known = {
            name: value
            for module in self.import_modules
            for name, value in imported(module).items()
        }
        if self.is_application:
            options = self.weights or "imagenet", self.image_size, self.weights_seed
            return load_application(str(self.model), *options)
        model = load_model(pathlib.Path(self.model), self.allow_unsafe_model, known)
        shape = getattr(model, "input_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 4:
            raise ValueError(f"{self.model} does not take one input of images, but {shape}")
        return model

    def input_shape(self, model) -> tuple:
        """[batch, height, width, channels] that images are to have, `None` where any will do."""
        batch, height, width, channels = model.input_shape
        wanted = self.image_size or (SIDE if self.is_application else None)
        if self.image_size is not None and {height, width} - {None, wanted}:
            raise ValueError(
                f"--image_size={wanted}: {self.model} takes images of {height} × {width} pixels "
                "only; leave the flag out"
            )
        return batch, height or wanted, width or wanted, channels


def _meant(path, model) -> str:
    """Which network of keras.applications may have been meant."""
    if path is not model:
        return ""
    names = {name.lower(): name for name in applications()}
    near = difflib.get_close_matches(str(path).lower(), names, n=3)
    hint = f"; of keras.applications, did you mean {', '.join(map(names.get, near))}?"
    return hint if near else ""
