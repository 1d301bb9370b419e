#!/usr/bin/env python3
"""Question 2 asked in another way: adaptive networks whose choices a deformation cannot change.

examples/held_choices.py [--data_dir=cifar10.npz] [--seeds=5] [--networks=FOLDER] [--output=FILE]

Adaptive sampling keeps, image by image, the grid of pixels of the largest norm. A deformation can
make another grid the largest, and the map then jumps by a pixel. If that is why adaptive networks are
more sensitive to deformations, less the translation in them, they must be as sensitive as the others
once the deformed image has to keep the grids of the original. The networks are those of
`--preset=questions`: before training, and, of the seeds that FOLDER has them of
(`bin/reproduce_figures --keep_networks`), after it.
"""

import argparse
import itertools
import pathlib

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

import deformstab as ds
from deformstab.deformations.parts import FlowPart
from deformstab.networks.adaptive import (
    AdaptivePolyphase2D,
    MaxAdaptivePolyphase2D,
    PolyphaseChoice2D,
)
from deformstab.networks.vgg import CIFAR10_BLOCKS
from deformstab.paper.data import datasets
from deformstab.tables import write_csv

KINDS = ("subsample", "aps", "max", "max_aps")


def choices_of(model):
    """A model of the same images that gives the choice [batch] of each adaptive layer, in a list."""
    outputs = []
    for layer in model.layers:
        if isinstance(layer, AdaptivePolyphase2D):
            maxima = isinstance(layer, MaxAdaptivePolyphase2D)
            options = {**layer.get_config(), "name": f"{layer.name}_choice", "maxima": maxima}
            outputs.append(PolyphaseChoice2D.from_config(options)(layer.input))
    return keras.Model(model.input, outputs)


def with_held_choices(model):
    """The same layers and weights; adaptive layers keep what they keep of another image.

    Args:
        model: of `ds.vgg`, of an adaptive kind: a chain of layers.

    Returns:
        A model of two inputs, the image, and the one whose choices count. Names of layers are those of
        `model`.
    """
    choices = choices_of(model)
    images = tensor = keras.Input(model.input.shape[1:], name="input")
    other = keras.Input(model.input.shape[1:], name="original")
    held = iter(choices(other))
    for layer in model.layers[1:]:
        copy = type(layer).from_config(layer.get_config())
        adaptive = isinstance(layer, AdaptivePolyphase2D)
        tensor = copy(tensor, next(held)) if adaptive else copy(tensor)
        copy.set_weights(layer.get_weights())
    return keras.Model([images, other], tensor)


def changed(model, images, moved):
    """The share of images of which a deformation changes a choice.

    Returns:
        By the names of the adaptive layers, of a network whose earlier choices may have changed as
        well; and as "logits", where any of them did.
    """
    deformed = moved.deform(images, moved.draw(len(images), seed=0))
    choices = choices_of(model)
    before, after = (
        np.stack(choices.predict(keras.ops.convert_to_numpy(each), verbose=0))
        for each in (images, deformed)
    )
    names = [each.name for each in model.layers if isinstance(each, AdaptivePolyphase2D)]
    differ = before != after
    return {**dict(zip(names, differ.mean(axis=1))), "logits": differ.any(axis=0).mean()}


def measure(model, images, moved):
    """Sensitivities of a network, of an adaptive one with its choices held too.

    Args:
        model: of `ds.vgg`.
        images: that measure it.
        moved: the deformation.

    Returns:
        The columns `layer_index`, `layer` and `sensitivity` of `ds.measure_sensitivity`, for the
        paper's layers behind the image and the logits, for each state of the `choices`, "free" and
        "held"; with `changed`, of layers that choose and of the logits.
    """
    ways = {"free": (model, images, None)}
    shares = {}
    if any(isinstance(layer, AdaptivePolyphase2D) for layer in model.layers):
        ways["held"] = with_held_choices(model), [images, images], 0
        shares = changed(model, images, moved)
    tables, names = [], [*ds.paper_layers(model)[1:], "logits"]
    for choices, (network, given, which) in ways.items():
        options = {"intervals": False, "progress": False, "deformed_input": which}
        table = ds.measure_sensitivity(network, given, moved, names, **options)
        table = table[["layer_index", "layer", "sensitivity"]].assign(choices=choices)
        table["changed"] = table["layer"].map(shares if choices == "free" else {})
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def trained(folder, dataset):
    """The trained networks of the questions in a folder: (kind, seed) → file of weights.

    Raises:
        ValueError: there are none, or several of a kind and seed, whose recipes differ.
    """
    found = {}
    for path in sorted(folder.glob(f"questions-circular-{dataset}-*/trained.weights.h5")):
        kind, seed = path.parent.name.split("-")[3:5]
        if (kind, int(seed.removeprefix("seed"))) in found:
            raise ValueError(f"{folder} has several networks of {kind}, {seed}: leave one of them")
        found[kind, int(seed.removeprefix("seed"))] = path
    if not found:
        raise ValueError(
            f"{folder} has no circular networks of {dataset}; `bin/reproduce_figures "
            "--preset=questions --keep_networks=FOLDER` keeps them as it trains"
        )
    return found


def main(
    dataset, data_dir, seeds, train_images, folder, output, blocks=CIFAR10_BLOCKS, measured=128
):
    """Writes a row for each network, state of its choices and layer; prints means over layers."""
    weights = trained(folder, dataset) if folder else {}
    data = datasets.load(dataset, data_dir, 32, train_images, 512)
    images, tables = data.x_test[:measured], []
    moved = FlowPart(ds.RandomDeformation(seed=0), "beyond_translation")
    for seed, kind in tqdm(list(itertools.product(range(seeds), KINDS)), disable=None):
        options = {"seed": seed, "padding": "circular"}
        model = ds.vgg(data.image_shape, data.classes, blocks, kind, **options)
        for phase in ("initial", "trained"):
            if phase == "initial":
                ds.reestimate_batch_normalization(model, data.x_train, 64)
            elif (kind, seed) in weights:
                model.load_weights(weights[kind, seed])
            else:
                continue
            which = {"phase": phase, "downsampling": kind, "seed": seed}
            tables.append(measure(model, images, moved).assign(**which))
    table = pd.concat(tables, ignore_index=True)
    first = ["phase", "downsampling", "seed", "choices"]
    table = table[[*first, *(name for name in table if name not in first)]]
    write_csv(table, output, digits=6)
    logits = table["layer"].eq("logits").map({True: "logits", False: "layers"}).rename("of")
    keys = [table["phase"], logits, table["downsampling"], table["choices"]]
    shown = np.log(table["sensitivity"]).groupby(keys).mean()
    print(np.exp(shown).unstack(["downsampling", "choices"]).round(3).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="CIFAR-10 as an .npz file; without it, photographs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train_images", type=int, default=4000)
    parser.add_argument("--networks", type=pathlib.Path, help="what --keep_networks wrote")
    parser.add_argument("--output", default="results/questions/held_choices.csv")
    given = parser.parse_args()
    main(
        *("cifar10" if given.data_dir else "photos", given.data_dir),
        *(given.seeds, given.train_images, given.networks, pathlib.Path(given.output)),
    )
