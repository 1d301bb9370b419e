"""Families of deformations beside the paper's, as Keras layers, each of a given RMS displacement.

What they have in common with `RandomDeformation` is in `flow_layer`; here is what flows they make.
"""

import functools
import math
from typing import Any, Literal

import keras
import numpy as np

from deformstab.checks import check_whole
from deformstab.deformations.flow_layer import FlowLayer
from deformstab.deformations.flow_statistics import statistics_of_flows, warn_of_folding
from deformstab.deformations.motions import (
    DiffeomorphismField,
    Directions,
    NormalCoefficients,
    RotationField,
    ScalingField,
    Signs,
    TranslationField,
    WholeSteps,
    modes,
)

_SAMPLE = 256  # draws that tell what share folds


@functools.lru_cache(maxsize=64)
def _fold_rate(field, height, width) -> float:
    """The share of `_SAMPLE` draws that fold; NumPy's draws, since a layer may be built in a graph."""
    deviations = (modes(field.cutoff) ** 2).sum(axis=1)[:, None] ** -0.5
    draws = np.random.default_rng(0).normal(size=(_SAMPLE, *field.shape)) * deviations
    places = np.stack(np.indices((height, width)), axis=-1).reshape(-1, 2)
    flows = [field.at(draw, places, height, width)[0] for draw in draws]
    _, folded = statistics_of_flows(np.reshape(flows, (_SAMPLE, height, width, 2)))
    return float(folded.mean())


class _RandomFamily(FlowLayer):
    """A family whose strength is the RMS displacement of its flows, whatever the image."""

    def __init__(
        self,
        rms_displacement: float = 1.25,
        seed: int | None = None,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        data_format: Literal["channels_last", "channels_first"] | None = None,
        **kwargs: Any,
    ):
        super().__init__(interpolation, seed, data_format, **kwargs)
        number = isinstance(rms_displacement, (int, float, np.number)) and not isinstance(
            rms_displacement, (bool, np.bool_)
        )
        if not number or not math.isfinite(rms_displacement) or rms_displacement < 0:
            raise ValueError(
                "rms_displacement must be a finite number of pixels of at least 0, received "
                f"{rms_displacement!r}"
            )
        self.rms_displacement = float(rms_displacement)

    @property
    def is_identity(self) -> bool:
        return self.rms_displacement == 0

    def expected_rms(self, height: int, width: int) -> float:
        """The root mean square length of the flow, over draws and pixels, in closed form.

        Args:
            height, width: of the images, in pixels.

        Returns:
            In pixels: `rms_displacement`, which the family is scaled to on images of any size.
        """
        self.field.check(height, width)
        return self.rms_displacement

    def get_config(self):
        return {**super().get_config(), "rms_displacement": self.rms_displacement}


@keras.saving.register_keras_serializable(package="deformstab")
class RandomDiffeomorphism(_RandomFamily):
    """Deforms images by random diffeomorphisms of maximal entropy (Petrini et al. 2021).

    Displacements in y and in x are sums of sines, Σ c_ij sin(iπx) sin(jπy) over i² + j² ≤
    (cutoff + ½)², with c_ij normal of variance T/(i² + j²); they vanish at the border. T is set so
    that the RMS displacement over draws and pixels is `rms_displacement`, exactly. (The δ of the
    paper is larger; measured displacements are comparable, nominal ones are not.)

    Draws are coefficients [batch, modes, 2] for (y, x), of variance 1/(i² + j²), in the order of
    (j, i) along y and x. In models, compiled, in `tf.data`, with masks, seeds and points as
    `ds.RandomDeformation`.

    Args:
        cutoff: the highest frequency, an int of at least 1.
        rms_displacement: in pixels, over draws and pixels, at least 0. So large that deformations
            fold the image, it warns and says how many do.
        seed, interpolation, data_format: as for `ds.RandomDeformation`.
        **kwargs: of `keras.layers.Layer`, as there.

    Input, output: as of `ds.RandomDeformation`; more pixels on a side than `cutoff` + 1.

    Raises:
        ValueError: an argument or input is none of these.

    Example:

    ```python
    layer = ds.RandomDiffeomorphism(cutoff=3, rms_displacement=1.25, seed=0)
    deformed = layer(images)
    ```
    """

    def __init__(
        self,
        cutoff: int = 3,
        rms_displacement: float = 1.25,
        seed: int | None = None,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        data_format: Literal["channels_last", "channels_first"] | None = None,
        **kwargs: Any,
    ):
        super().__init__(rms_displacement, seed, interpolation, data_format, **kwargs)
        self.cutoff = check_whole("cutoff", cutoff)

    @property
    def field(self) -> DiffeomorphismField:
        return DiffeomorphismField(self.cutoff, self.rms_displacement)

    @property
    def draws(self) -> NormalCoefficients:
        return NormalCoefficients(self.cutoff)

    def warn_if_folding(self, height: int, width: int) -> None:
        super().warn_if_folding(height, width)
        # Folding depends on displacement relative to the image: a small one will do.
        scale = min(1.0, max(64, 8 * self.cutoff) / max(height, width))
        size = tuple(max(self.cutoff + 2, round(scale * side)) for side in (height, width))
        warn_of_folding(
            _fold_rate(DiffeomorphismField(self.cutoff, scale * self.rms_displacement), *size),
            f"rms_displacement={self.rms_displacement} and cutoff={self.cutoff}",
            (height, width),
            "a smaller rms_displacement or cutoff",
        )

    def get_config(self):
        return {**super().get_config(), "cutoff": self.cutoff}


@keras.saving.register_keras_serializable(package="deformstab")
class RandomTranslation(_RandomFamily):
    """Shifts each image in a random direction.

    By any fraction of a pixel, `rms_displacement` px in a direction that is uniform on the circle;
    or, `integer=True`, by whole pixels along one of the four axes, copied and not interpolated. A
    bilinear shift by half a pixel also blurs; a whole one does not, and is the control.

    Whole shifts are of `rms_displacement` px where that is whole; else of the two whole numbers
    around it, as often as its square needs: 1.25 px are 81 % shifts of 1 px and 19 % of 2 px.

    Draws are shifts [batch, 2], pixels, (y, x). In models, compiled, in `tf.data`, with masks, seeds
    and points as `ds.RandomDeformation`.

    Args:
        rms_displacement: in pixels, over draws, at least 0.
        integer: whether shifts are whole pixels.
        seed, interpolation, data_format: as for `ds.RandomDeformation`.
        **kwargs: of `keras.layers.Layer`, as there.
        padding: what comes in from outside the image: "edge", its nearest edge pixel, or
            "circular", what went out at the other side (then a whole shift is `np.roll`).

    Input, output: as of `ds.RandomDeformation`.

    Raises:
        ValueError: an argument or input is none of these.

    Example:

    ```python
    layer = ds.RandomTranslation(1.0, integer=True, padding="circular", seed=0)
    shifted = layer(images)
    ```
    """

    def __init__(
        self,
        rms_displacement: float = 1.25,
        integer: bool = False,
        seed: int | None = None,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        data_format: Literal["channels_last", "channels_first"] | None = None,
        padding: Literal["edge", "circular"] = "edge",
        **kwargs: Any,
    ):
        super().__init__(
            rms_displacement, seed, interpolation, data_format, padding=padding, **kwargs
        )
        self.integer = bool(integer)

    @property
    def field(self) -> TranslationField:
        return TranslationField(self.integer)

    @property
    def draws(self) -> Any:
        steps = WholeSteps if self.integer else Directions
        return steps(self.rms_displacement)

    def get_config(self):
        return {**super().get_config(), "integer": self.integer, "padding": self.padding}


@keras.saving.register_keras_serializable(package="deformstab")
class RandomRotation(_RandomFamily):
    """Rotates each image about its centre, one way or the other, by one angle.

    The angle θ is the one whose RMS displacement over pixels is `rms_displacement`: 2 |sin(θ/2)| g
    with g² = ((height² - 1) + (width² - 1)) / 12. At 32×32 pixels 1.25 px are 5.5°.

    Draws are signs [batch, 1], 1 or -1. In models, compiled, in `tf.data`, with masks, seeds and
    points as `ds.RandomDeformation`.

    Args:
        rms_displacement: in pixels, over pixels, at least 0, at most 2 g (half a turn).
        seed, interpolation, data_format: as for `ds.RandomDeformation`.
        **kwargs: of `keras.layers.Layer`, as there.

    Input, output: as of `ds.RandomDeformation`.

    Raises:
        ValueError: an argument or input is none of these.

    Example:

    ```python
    layer = ds.RandomRotation(rms_displacement=1.25, seed=0)
    rotated = layer(images)
    ```
    """

    @property
    def field(self) -> RotationField:
        return RotationField(self.rms_displacement)

    @property
    def draws(self) -> Signs:
        return Signs()


@keras.saving.register_keras_serializable(package="deformstab")
class RandomScaling(_RandomFamily):
    """Scales each image about its centre, up or down, by one factor.

    The map p → centre + (1 ± s)(p - centre) takes pixels from there, so +s makes things smaller.
    s = `rms_displacement` / g with g² = ((height² - 1) + (width² - 1)) / 12. At 32×32 pixels 1.25 px
    are 9.6 %.

    Draws are signs [batch, 1], 1 or -1. In models, compiled, in `tf.data`, with masks, seeds and
    points as `ds.RandomDeformation`.

    Args:
        rms_displacement: in pixels, over pixels, at least 0, less than g (where 1 - s is zero).
        seed, interpolation, data_format: as for `ds.RandomDeformation`.
        **kwargs: of `keras.layers.Layer`, as there.

    Input, output: as of `ds.RandomDeformation`.

    Raises:
        ValueError: an argument or input is none of these.

    Example:

    ```python
    layer = ds.RandomScaling(rms_displacement=1.25, seed=0)
    scaled = layer(images)
    ```
    """

    @property
    def field(self) -> ScalingField:
        return ScalingField(self.rms_displacement)

    @property
    def draws(self) -> Signs:
        return Signs()
