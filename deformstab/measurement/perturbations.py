"""What is done to images before a model sees them again: deformations of any kind, and noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import keras
import numpy as np
from keras import ops

from deformstab.checks import check_finite
from deformstab.deformations.flow_layer import FlowLayer
from deformstab.deformations.flow_statistics import statistics_in_blocks

NoiseKind = Literal["gaussian", "grey", "spectrum"]
NOISE_KINDS = get_args(NoiseKind)


@runtime_checkable
class HasFlows(Protocol):
    """An object that deforms: every layer of this package, and whatever has these methods.

    `draw` gives parameters [n, …], an array or a structure of arrays; `flow` makes of them
    [n, height, width, 2], pixels, (y, x), a backward map; `deform` the deformed images.
    """

    def draw(self, batch_size: Any, seed: Any = None) -> Any: ...
    def flow(self, parameters: Any, height: int, width: int, /) -> Any: ...
    def deform(self, images: Any, parameters: Any, /) -> Any: ...


Deformation = HasFlows | Callable[[Any, int], Any]


def checked_deformation(deformation) -> Deformation:
    """The deformation to measure with: what does not deform is refused, and none rounds images."""
    if isinstance(deformation, HasFlows) and not isinstance(deformation, type):
        return _unrounded(deformation)
    if not callable(deformation) or isinstance(deformation, (type, keras.layers.Layer)):
        raise ValueError(
            "deformation must be a layer such as ds.RandomDeformation, an object with the methods "
            "draw, flow and deform, or a function (images, seed) → images; received "
            f"{deformation!r}. A random layer of Keras becomes one in a line: lambda images, seed: "
            "keras.layers.RandomRotation(0.1, seed=seed)(images, training=True)"
        )
    return deformation


def _unrounded(deformation):
    """The deformation; of a layer of 16 bits, as under mixed precision, the same one in float32.

    Deformed images are compared with images that nobody rounds, so rounding would count as motion.
    Parameters and flows are float32 in both, and draws the same.
    """
    if not isinstance(deformation, FlowLayer):
        return deformation
    if deformation.compute_dtype not in ("float16", "bfloat16"):
        return deformation
    # Its attributes, not its configuration: that of a user's own class may not say all.
    same = object.__new__(type(deformation))
    vars(same).update(vars(deformation))
    same.dtype_policy = "float32"
    return same


@dataclass(frozen=True)
class Drawn:
    """A deformation, and the parameters that were drawn for each image.

    Attributes:
        deformation: an object with `draw`, `flow` and `deform`.
        parameters: [images, draws, …], an array or a structure of them.
    """

    deformation: Any
    parameters: Any

    @classmethod
    def of(cls, deformation, images: int, draws: int, seed) -> "Drawn":
        """Draws all at once: image i gets the draws i · draws, …, (i + 1) · draws - 1."""
        drawn = deformation.draw(images * draws, seed=seed)

        def by_image(leaf):
            leaf = ops.convert_to_numpy(leaf)
            if leaf.shape[:1] != (images * draws,):
                raise ValueError(
                    f"deformation.draw({images * draws}) must give {images * draws} rows of "
                    f"parameters, received shape {leaf.shape}"
                )
            return leaf.reshape(images, draws, *leaf.shape[1:])

        return cls(deformation, keras.tree.map_structure(by_image, drawn))

    @property
    def draws(self) -> int:
        return keras.tree.flatten(self.parameters)[0].shape[1]

    @property
    def whole(self) -> bool:
        """Whether pixels only change places, so that integers stay integers."""
        nearest = getattr(self.deformation, "interpolation", None) == "nearest"
        return nearest or bool(getattr(self.deformation, "integer", False))

    def chosen(self, images, draws, frames: int = 1):
        """The parameters of some images and draws, each for so many frames: [b · k · frames, …]."""

        def choose(leaf):
            some = leaf[images][:, draws]
            some = some.reshape(-1, *some.shape[2:])
            return some if frames == 1 else np.repeat(some, frames, axis=0)

        return keras.tree.map_structure(choose, self.parameters)

    def moved(self, part, images, draws):
        """`part`, the images at some indices, under some draws: [images · draws, …], float32."""
        # Eager copies of one each take as long as to deform them.
        copies = part if len(draws) == 1 else ops.repeat(part, len(draws), axis=0)
        shape, frames = copies.shape, 1
        if len(shape) == 5:  # videos: one deformation a clip
            frames = shape[1]
            copies = ops.reshape(copies, (-1, *shape[2:]))
        deformed = self.deformation.deform(copies, self.chosen(images, draws, frames))
        deformed = ops.cast(ops.convert_to_tensor(deformed), "float32")
        if tuple(deformed.shape) != tuple(copies.shape):
            raise ValueError(
                f"deformation.deform must keep the shape of the images, {tuple(copies.shape)}, "
                f"received {tuple(deformed.shape)}"
            )
        return deformed if frames == 1 else ops.reshape(deformed, shape)

    def flow(self, images, draw: int, size):
        """The flows of images at some indices under one draw: [b, height, width, 2]."""
        return self.deformation.flow(self.chosen(images, [draw]), *size)

    def statistics(self, images: int, size) -> list:
        """(mean square length of the flow, px²; whether it folds), each [images, draws]."""
        every = self.chosen(slice(None), slice(None))
        if hasattr(self.deformation, "flow_statistics"):
            found = self.deformation.flow_statistics(every, *size)
        else:
            found = statistics_in_blocks(self.deformation.flow, every, *size)
        return [each.reshape(images, self.draws) for each in found]


@dataclass(frozen=True)
class Given:
    """Images that a function deformed: nobody knows how far it moved them.

    Attributes:
        deformed: [images, draws, …], float32.
    """

    deformed: np.ndarray

    @classmethod
    def of(cls, function, images, draws: int, seed) -> "Given":
        """Calls (images, seed) → images once, each image repeated `draws` times."""
        copies = np.repeat(images, draws, axis=0)
        found = ops.convert_to_numpy(function(copies, seed)).astype("float32", copy=False)
        if found.shape != copies.shape:
            raise ValueError(
                "deformation(images, seed) must give images of the shape that it takes, "
                f"{copies.shape}, received {found.shape}"
            )
        check_finite(found)
        return cls(found.reshape(len(images), draws, *found.shape[1:]))

    @property
    def draws(self) -> int:
        return self.deformed.shape[1]

    @property
    def whole(self) -> bool:
        """Whether what the function gave are integers."""
        return np.array_equal(self.deformed, np.rint(self.deformed))

    def moved(self, part, images, draws):
        some = self.deformed[images][:, draws]
        return ops.convert_to_tensor(some.reshape(-1, *some.shape[2:]))

    def flow(self, images, draw: int, size):
        raise ValueError(
            "a deformation that is a function has no known flow, which is needed here: pass a layer "
            "such as ds.RandomDeformation, or an object with the methods draw, flow and deform"
        )

    def statistics(self, images: int, size) -> list:
        return [np.full((images, self.draws), np.nan), np.zeros((images, self.draws), bool)]


@dataclass(frozen=True)
class Noise:
    """Noise added to images, of each draw as long as what the same draw's deformation changes.

    Attributes:
        source: the perturbation τ whose ‖τx - x‖ is the length, image by image.
        kind: "gaussian", independent in each entry; "grey", the same in all channels of a pixel;
            "spectrum", τx - x with random phases, the same for all channels: its spectrum, and what
            channels have in common, stay.
        seed: of the noise; that of an image and draw depends on nothing else.
        channel_axis: of an image with its batch.
    """

    source: Any
    kind: str
    seed: int
    channel_axis: int

    @property
    def draws(self) -> int:
        return self.source.draws

    def moved(self, part, images, draws):
        original = ops.convert_to_numpy(part).astype("float32", copy=False)
        moved = ops.convert_to_numpy(self.source.moved(part, images, draws))
        change = moved.reshape(len(original), len(draws), *original.shape[1:]) - original[:, None]
        numbers = np.arange(images.stop)[images] if isinstance(images, slice) else images
        noisy = np.empty_like(change)
        for row, image in enumerate(numbers):
            for column, draw in enumerate(draws):
                # NumPy takes no negative seed.
                key = self.seed % (1 << 64), int(image), int(draw)
                generator = np.random.default_rng(key)
                noise = self._noise(change[row, column], generator)
                noisy[row, column] = original[row] + noise
        return ops.convert_to_tensor(noisy.reshape(-1, *original.shape[1:]))

    def _noise(self, change, generator):
        channels = self.channel_axis - 1  # there is no batch here
        one = [1 if axis == channels else side for axis, side in enumerate(change.shape)]
        if self.kind == "spectrum":
            axes = tuple(axis for axis in range(change.ndim) if axis != channels)
            turned = np.fft.rfftn(generator.standard_normal(one), axes=axes)
            spectrum = np.fft.rfftn(change.astype("float64"), axes=axes)
            sizes = [change.shape[axis] for axis in axes]
            noise = np.fft.irfftn(spectrum * turned / np.abs(turned), sizes, axes=axes)
        else:
            shape = one if self.kind == "grey" else change.shape
            noise = np.broadcast_to(generator.standard_normal(shape, "float32"), change.shape)
        # An image that is not changed gets no noise, whatever the noise.
        length, wanted = (np.sqrt(np.square(x, dtype="float64").sum()) for x in (noise, change))
        return noise * (wanted / length if length else 0.0)

    def flow(self, images, draw: int, size):
        raise ValueError("noise has no flow")

    def statistics(self, images: int, size) -> list:
        return [np.full((images, self.draws), np.nan), np.zeros((images, self.draws), bool)]
