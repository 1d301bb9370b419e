#!/usr/bin/env python3
"""How time and memory grow with images, resolution, control points, layers and draws."""

import contextlib
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from absl import app, flags
from figure import save
from matplotlib.ticker import LogLocator, NullFormatter
from processes import HERE, Worker
from tqdm import tqdm

from deformstab.tables import write_csv

FLAGS = flags.FLAGS

_DEFORM = ("deformations:compiled", {"images": 64, "side": 64, "points": 4, "reach": 2.0})
_MEASURE = ("measurements:sensitivity_of_stack", {"images": 128, "side": 32, "depth": 8})
_EPOCHS = ("measurements:callback_epochs", {"images": 64, "side": 32})
_SIDES = (32, 64, 128, 256, 512, 1024)
SERIES = [  # title, what is varied, (function, arguments), values
    ("deformation, images", "images", _DEFORM, (16, 32, 64, 128, 256, 512, 1024)),
    ("deformation, side of 16 images", "side", (_DEFORM[0], _DEFORM[1] | {"images": 16}), _SIDES),
    ("deformation, control points a side", "points", _DEFORM, (2, 4, 8, 16, 24)),
    ("measurement, images (pairs: squared)", "images", _MEASURE, (32, 64, 128, 256, 512, 1024)),
    ("measurement, side", "side", _MEASURE, (16, 32, 64, 128)),
    ("measurement, layers", "depth", _MEASURE, (2, 4, 8, 16, 32, 64)),
    ("measurement, draws an image", "deformations", _MEASURE, (1, 2, 4, 8, 16)),
    ("callback, epochs", "epochs", _EPOCHS, (10, 20, 50, 100)),
]


def measure(calls: int) -> pd.DataFrame:
    """A row a point: series, value, seconds, first_call_seconds, peak_gib."""
    points = [(*each[:3], value) for each in SERIES for value in each[3]]
    rows = []
    for title, what, (function, arguments), value in tqdm(points, unit="point"):
        arguments = arguments | {what: value}
        with contextlib.closing(Worker(f"{title} = {value}", function, arguments)) as worker:
            seconds = np.median(worker.seconds(calls)["seconds"])
            first, peak = worker.ready["first"], worker.ready["peak_gib"]
        rows.append((title, value, seconds, first, peak))
    columns = ["series", "value", "seconds", "first_call_seconds", "peak_gib"]
    return pd.DataFrame(rows, columns=columns)


def exponents(table) -> pd.DataFrame:
    """The slopes of log time and log memory over log value, over the upper half of each series."""
    rows = []
    for title, group in table.groupby("series", sort=False):
        upper = group[len(group) // 2 :]
        slopes = [
            np.polyfit(np.log(upper["value"]), np.log(upper[column].clip(lower=1e-3)), 1)[0]
            for column in ("seconds", "peak_gib")
        ]
        rows.append((title, *slopes))
    return pd.DataFrame(rows, columns=["series", "exponent_seconds", "exponent_peak_gib"])


def draw(table, slopes, path) -> None:
    """Two rows of panels, a column a series: seconds and memory, on logarithmic axes."""
    titles = list(slopes["series"])
    figure, axes = plt.subplots(
        2,
        len(titles),
        figsize=(2.3 * len(titles), 5),
        sharex="col",
        layout="constrained",
        squeeze=False,
    )
    units = {"seconds": "seconds a call", "peak_gib": "memory of the first call, GiB"}
    for column, title in enumerate(titles):
        group = table[table["series"] == title]
        for axis, (what, label) in zip(axes[:, column], units.items()):
            slope = slopes.set_index("series").loc[title, f"exponent_{what}"]
            axis.plot(group["value"], group[what], "o-", color="#0072b2", markersize=4)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            values = group[what].clip(lower=1e-3)  # of memory, a page or none at all
            middle = np.sqrt(values.min() * values.max())  # what is constant looks so
            axis.set_ylim(min(values.min() / 1.3, middle / 3), max(values.max() * 1.3, middle * 3))
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(f"exponent {slope:.2f}", fontsize=9)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axis.set_ylabel(label, fontsize=9)
        axes[1, column].set_xlabel(title.replace(", ", ",\n").replace(" (", "\n("), fontsize=9)
    save(figure, path)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; flags begin with --")
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table = measure(FLAGS.calls)
    slopes = exponents(table)
    write_csv(table, folder / "growth.csv")
    write_csv(slopes, folder / "exponents.csv")
    draw(table, slopes, folder / "growth.png")
    print(slopes.to_string(index=False))


if __name__ == "__main__":
    flags.DEFINE_string("output_dir", str(HERE.parent / "results/benchmarks"), "Where tables go.")
    flags.DEFINE_integer("calls", 5, "Calls a point; the median counts.", lower_bound=1)
    app.run(main)
