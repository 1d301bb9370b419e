#!/usr/bin/env python3
"""Measures and swaps every model of keras.applications, and a model file of Keras 2.

    examples/keras_applications.py                  # all of them, about an hour on 2 cores
    examples/keras_applications.py VGG16 ResNet50   # some

Weights are random (there is nothing to download), images are noise with the spectrum of
photographs, at each model's own size. What is shown is that every layer is measured, and that a
swap of pooling keeps shapes, names and all other weights; not how stable these models are.

Finished models are kept: a second call does the others. The table is docs/keras_applications.csv,
and as a page docs/keras_applications.md.
"""

import gc
import inspect
import pathlib
import sys

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

import deformstab as ds
from deformstab.backend import variable_to_numpy
from deformstab.presentation.measure_files import load_model
from deformstab.tables import read_csv, write_csv, write_text

FOLDER = pathlib.Path(__file__).parent.parent
TABLE = FOLDER / "docs" / "keras_applications.csv"
OLD_FILE = FOLDER / "tests" / "data" / "keras2_model.h5"
IMAGES = 4
TEXT = f"""# Every model of keras.applications, measured and swapped

Made by `examples/keras_applications.py`: random weights, {IMAGES} images of noise with the spectrum of
photographs, every layer. *layers*: rows of the table of `ds.measure_sensitivity`, a row a call of a
layer, the input included; *measured*: those with a number; *why not*: the notes of the others.
*pooling*: layers that `ds.swap_downsampling(model, "blur")` replaced; *kept*: whether all layer names,
all shapes, and all other weights were the same afterwards. Models without such pooling downsample by
strided convolutions, and are refused by an error that says so. The last row is a file that Keras 2.15
wrote (`tests/data/keras2_model.h5`).

"""


def main(names):
    every = [name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)]
    every.append(OLD_FILE.name)
    unknown = set(names) - set(every)
    if unknown:
        sys.exit(f"unknown models {', '.join(unknown)}; there are {', '.join(every)}")
    rows = read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    done = {row["model"] for row in rows}
    wanted = [name for name in names or every if name not in done]
    for name in tqdm(wanted, unit="model"):
        keras.backend.clear_session()
        gc.collect()  # models are full of cycles, and large
        keras.utils.set_random_seed(0)
        old = name == OLD_FILE.name
        model = load_model(OLD_FILE) if old else getattr(keras.applications, name)(weights=None)
        rows.append({"model": name, **measured(model), **swapped(model)})
        rows.sort(key=lambda row: every.index(row["model"]))
        table = pd.DataFrame(rows)
        write_csv(table, TABLE)
        write_text(TEXT + markdown(table), TABLE.with_suffix(".md"))


def measured(model) -> dict:
    _, height, width, channels = model.input_shape
    height, width = height or 224, width or 224  # of a model for any size
    noise = np.random.default_rng(0).normal(size=(IMAGES, height, width, channels))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum = np.fft.rfft2(noise, axes=(1, 2)) / np.maximum(frequency, 1 / height)[..., None]
    images = np.fft.irfft2(spectrum, s=(height, width), axes=(1, 2))
    images = 127.5 + 127.5 * images / np.abs(images).max()
    table = ds.measure_sensitivity(model, images, batch_size=IMAGES)
    notes = table["note"][table["sensitivity"].isna()]
    return {
        "pixels": height,
        "million parameters": round(model.count_params() / 1e6, 1),
        "layers": len(table),
        "measured": int(table["sensitivity"].notna().sum()),
        "why not": "; ".join(f"{count} × {note}" for note, count in notes.value_counts().items()),
    }


def swapped(model) -> dict:
    try:
        other = ds.swap_downsampling(model, "blur")
    except ValueError as error:
        if "no 2-D pooling" not in str(error):
            raise
        return {"pooling": 0, "kept": "–"}
    pairs = list(zip(model.layers, other.layers, strict=True))
    exchanged = [old for old, new in pairs if type(old) is not type(new)]
    kept = all(
        old.name == new.name
        and old.output.shape == new.output.shape
        and (old in exchanged or same_weights(old, new))
        for old, new in pairs
    )
    return {"pooling": len(exchanged), "kept": "yes" if kept else "NO"}


def same_weights(old, new) -> bool:
    values = [[variable_to_numpy(variable) for variable in layer.weights] for layer in (old, new)]
    return len(values[0]) == len(values[1]) and all(map(np.array_equal, *values))


def markdown(table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
