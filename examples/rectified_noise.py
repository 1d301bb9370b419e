#!/usr/bin/env python3
"""Question 1 asked in another way: the same untrained networks with ReLU and without.

examples/rectified_noise.py [--data_dir=cifar10.npz] [--seeds=5] [--train_images=4000] [--output=FILE]

R is the sensitivity to deformations over that to Gaussian noise of the same length. Noise that
averaging would cancel is rectified by ReLU, has a mean then, and piles up (Tomasini et al. 2023). If
that is why R of networks with average pooling falls below 1, it must rise again where each ReLU is
replaced by the identity. The networks are otherwise those of `--preset=questions` at initialization.
"""

import argparse
import itertools
import pathlib

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

import deformstab as ds
from deformstab.networks.vgg import CIFAR10_BLOCKS
from deformstab.paper.data import datasets
from deformstab.paper.questions.noise import DRAWS
from deformstab.paper.runs.question_measurements import AVERAGES, REESTIMATED
from deformstab.tables import write_csv


def without_relu(model):
    """The same network, the same weights, with every ReLU the identity."""

    def linear(layer):
        slope = {"negative_slope": 1.0} if isinstance(layer, keras.layers.ReLU) else {}
        return type(layer).from_config(layer.get_config() | slope)

    copy = keras.models.clone_model(model, clone_function=linear)
    copy.set_weights(model.get_weights())
    return copy


def measure(model, images, train_images, batch_size=64):
    """R of the layers, batch normalization by Keras' initial averages and re-estimated.

    Args:
        model: of `ds.vgg`, not trained.
        images: that measure it.
        train_images: that batch normalization is estimated over.
        batch_size: of the estimation.

    Returns:
        The rows of `ds.measure_stability` for the paper's layers, with `statistics`.
    """
    tables = []
    for statistics in (AVERAGES, REESTIMATED):
        if statistics == REESTIMATED:
            ds.reestimate_batch_normalization(model, train_images, batch_size)
        options = {"deformations": DRAWS, "intervals": False, "progress": False}
        table = ds.measure_stability(model, images, layers=ds.paper_layers(model), **options)
        tables.append(table.assign(statistics=statistics))
    return pd.concat(tables, ignore_index=True)


def main(dataset, data_dir, seeds, train_images, output, blocks=CIFAR10_BLOCKS, measured=128):
    """Writes a row for each kind, seed, nonlinearity, statistics and metric: log-mean R over layers."""
    data = datasets.load(dataset, data_dir, 32, train_images, 512)
    images, rows = data.x_test[:measured], []
    every = list(itertools.product(range(seeds), ds.PAPER_KINDS, (True, False)))
    for seed, kind, relu in tqdm(every, disable=None):
        model = ds.vgg(data.image_shape, data.classes, blocks, kind, seed=seed)
        table = measure(model if relu else without_relu(model), images, data.x_train)
        table = table[table["layer"] != "input"]
        logs = np.log(table["relative_stability"])
        means = np.exp(logs.groupby([table["statistics"], table["metric"]]).mean())
        which = {"downsampling": kind, "seed": seed, "relu": relu}
        rows += [
            {**which, "statistics": statistics, "metric": metric, "relative_stability": value}
            for (statistics, metric), value in means.items()
        ]
    table = pd.DataFrame(rows)
    write_csv(table, output, digits=9)
    keys = ["metric", "statistics", "relu"]
    shown = np.log(table["relative_stability"]).groupby([table[k] for k in [*keys, "downsampling"]])
    print(np.exp(shown.mean()).unstack("downsampling").round(2).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="CIFAR-10 as an .npz file; without it, photographs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train_images", type=int, default=4000)
    parser.add_argument("--output", default="results/questions/rectified_noise.csv")
    given = parser.parse_args()
    main(
        *("cifar10" if given.data_dir else "photos", given.data_dir),
        *(given.seeds, given.train_images, pathlib.Path(given.output)),
    )
