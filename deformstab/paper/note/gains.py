"""Whether groups of filters learned an invariance: their maxima, beside maxima over other groups.

A maximum over more units is less sensitive by itself. So the maxima over the groups that a network
has are compared with those over the same filters in other, random groups.
"""

import functools

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from deformstab.deformations.families import RandomRotation, RandomScaling, RandomTranslation
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.distances import METRICS
from deformstab.measurement.sensitivity import sensitivity_table
from deformstab.measurement.stimuli import deformed_images
from deformstab.paper.note.maxout import GroupMaximum

REGROUPINGS = 20
SPLINE = (3, 2.0)  # control points a side, max_displacement: its RMS is that of all deformations
OUTPUTS = ("map", "maximum of the map")


def deformations(side: int) -> dict:
    """The deformations that gains are measured with, by name, all of one RMS displacement.

    But for the quarter turn, which is a control: groups made of turns do not see it.
    """
    spline = RandomDeformation(*SPLINE)
    rms = spline.expected_rms(side, side)
    families = {
        "rotation": RandomRotation,
        "scaling": RandomScaling,
        "translation": RandomTranslation,
    }
    found = {name: family(rms) for name, family in families.items()} | {"spline": spline}
    quarter = 2 * np.sin(np.pi / 4) * np.sqrt((side**2 - 1) / 6)
    return found | {"quarter turn": RandomRotation(float(quarter))}


def gains(kernels: np.ndarray, members: int, images: np.ndarray, seed: int) -> pd.DataFrame:
    """Sensitivities of maxima over groups of filters, as they are and in random groups.

    Gain = S(maxima over the groups) / the geometric mean of S(maxima over random groups), S of
    `ds.measure_sensitivity`, all of the same images and draws. Of filters that are drawn alike and
    independently all groupings are alike, and log Gain has mean 0.

    Args:
        kernels: [height, width, 1, filters], the filters of a group one after the other.
        members: of a group.
        images: [images, side, side, 1].
        seed: of the deformations. Regroupings are the same in every call.

    Returns:
        A row a `deformation`, `metric` and `output` ("map", or its maximum over all places, which a
        shift of the map does not change): `gain` = `gain_distance` / `gain_baseline`, which are the
        same of the distance to deformed images and of that between images; `sensitivity`; `below`,
        how many of `REGROUPINGS` random groupings are less sensitive; and `rms_displacement`.
    """
    model, names = _maxima(kernels.shape, members, images.shape[1:])
    model.get_layer("filters").set_weights([kernels])
    rows = []
    for name, deformation in deformations(images.shape[1]).items():
        given = deformed_images(images, deformation, seed=seed)
        options = {"intervals": False, "progress": False}
        measured = sensitivity_table(model, given, names, METRICS, **options)
        for metric, table in measured.groupby("metric", sort=False):
            table = table.set_index("layer")
            for output, prefix in zip(OUTPUTS, ("map", "maximum")):
                found = table.loc[[f"{prefix}{k}" for k in range(1 + REGROUPINGS)]]
                rows.append({"deformation": name, "metric": metric, "output": output})
                rows[-1] |= _gain(found)
                rows[-1]["rms_displacement"] = found["rms_displacement"].iloc[0]
    return pd.DataFrame(rows)


@functools.lru_cache(maxsize=4)
def _maxima(shape, members, image_shape) -> tuple[keras.Model, list[str]]:
    """A model of all groupings, the given one first, and its layers; once, as it takes a while."""
    rng = np.random.default_rng(0)
    orders = [None, *(rng.permutation(shape[-1]) for _ in range(REGROUPINGS))]
    images = keras.Input(image_shape, name="input")
    options = {"padding": "same", "use_bias": False, "name": "filters"}
    maps = layers.Conv2D(shape[-1], shape[:2], **options)(images)
    outputs, names = [], []
    for number, order in enumerate(orders):
        names += [f"map{number}", f"maximum{number}"]
        outputs.append(GroupMaximum(members, order, name=names[-2])(maps))
        outputs.append(layers.GlobalMaxPooling2D(name=names[-1])(outputs[-1]))
    return keras.Model(images, outputs), names


def _gain(found) -> dict:
    """Of the sensitivities of all groupings, the own first; and of their parts."""
    factors = {}
    for name in ("sensitivity", "distance", "baseline"):
        own, *others = found[name]
        factors[name] = own / float(np.exp(np.log(others).mean()))
    own, *others = found["sensitivity"]
    row = {"gain": factors["sensitivity"], "gain_distance": factors["distance"]}
    row |= {"gain_baseline": factors["baseline"], "sensitivity": own}
    return row | {"below": int((np.array(others) < own).sum())}


def entropy(kernels: np.ndarray, members: int, images: np.ndarray) -> float:
    """How evenly the members of a group take turns in being the largest: bits, mean over groups.

    0: one filter is always the largest, and the maximum is no pooling. log2(members): all alike.
    Places where all members are equal, as on an empty background, do not count.

    Args:
        kernels, members, images: as for `gains`.
    """
    maps = ops.convert_to_numpy(ops.conv(images, kernels, padding="same"))
    maps = maps.reshape(-1, kernels.shape[-1] // members, members)
    found = []
    for group in np.moveaxis(maps, 1, 0):
        group = group[group.max(axis=-1) > group.min(axis=-1)]
        shares = np.bincount(group.argmax(axis=-1), minlength=members) / len(group)
        shares = shares[shares > 0]
        found.append(-(shares * np.log2(shares)).sum())
    return float(np.mean(found))
