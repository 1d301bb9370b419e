#!/usr/bin/env python3
"""Measures and swaps every model of keras.applications, and a model file of Keras 2.

    examples/keras_applications.py                  # all of them, about an hour on 2 cores
    examples/keras_applications.py VGG16 ResNet50   # some

Weights are random (there is nothing to download), images are noise with the spectrum of
photographs, at each model's own size. What is shown is that every layer is measured, and that a
swap of pooling keeps shapes, names and all other weights; not how stable these models are.

What is in the table is kept: a second call does the other models, and columns that a row lacks. The
table is docs/keras_applications.csv, and as a page docs/keras_applications.md.
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
from deformstab.presentation.model_files import load_model
from deformstab.tables import read_csv, write_csv, write_text

FOLDER = pathlib.Path(__file__).parent.parent
TABLE = FOLDER / "docs" / "keras_applications.csv"
OLD_FILE = FOLDER / "tests" / "data" / "keras2_model.h5"
IMAGES = 4
STRIDED = "strided convolutions"
TEXT = f"""# Every model of keras.applications, measured and swapped

Made by `examples/keras_applications.py`: random weights, {IMAGES} images of noise with the spectrum of
photographs, every layer. *layers*: rows of the table of `ds.measure_sensitivity`, a row a call of a
layer, the input included; *measured*: those with a number; *why not*: the notes of the others.
*pooling*: layers that `ds.swap_downsampling(model, "blur")` replaced; *kept*: whether all layer names,
all shapes, and all other weights were the same afterwards. Models without such pooling downsample by
strided convolutions, and are refused by an error that says so. *strided convolutions*: how many layers
more `ds.swap_downsampling(model, "blur", strided_convolutions=True)` replaced, each by the same
convolution without stride and a blur behind it, or why it refused to; *kept with them*: whether all
names, all weights (theirs included) and all shapes (theirs behind the blur) were the same afterwards.
The last row is a file that Keras 2.15 wrote (`tests/data/keras2_model.h5`).

"""


def main(names):
    every = [name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)]
    every.append(OLD_FILE.name)
    unknown = set(names) - set(every)
    if unknown:
        sys.exit(f"unknown models {', '.join(unknown)}; there are {', '.join(every)}")
    parts = {"layers": measured, "kept": swapped, STRIDED: strided_swapped}  # by a column of each
    rows = read_csv(TABLE, {STRIDED: "str"}).to_dict("records") if TABLE.exists() else []
    rows = {row["model"]: row for row in rows}
    missing = {
        name: [make for column, make in parts.items() if rows.get(name, {}).get(column, "") == ""]
        for name in names or every
    }
    for name in tqdm([name for name, lacks in missing.items() if lacks], unit="model"):
        keras.backend.clear_session()
        gc.collect()  # models are full of cycles, and large
        keras.utils.set_random_seed(0)
        old = name == OLD_FILE.name
        model = load_model(OLD_FILE) if old else getattr(keras.applications, name)(weights=None)
        rows.setdefault(name, {"model": name})
        for make in missing[name]:
            rows[name] |= make(model)
        # As they are: beside a row that lacks a number, pandas would make floats of the others.
        ordered = sorted(rows.values(), key=lambda row: every.index(row["model"]))
        table = pd.DataFrame(ordered, dtype="object").fillna("")
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


def strided_swapped(model) -> dict:
    """The columns about strided convolutions; those about pooling are `swapped`'s."""
    try:
        other = ds.swap_downsampling(model, "blur", strided_convolutions=True)
    except ValueError as error:
        return {STRIDED: f"refused: {error}", "kept with them": "–"}
    layers, others = dict(by_path(model)), dict(by_path(other))
    kept, count = True, 0
    for path, old in layers.items():
        new = end = others[path]
        if f"{path}_sampling" in others:
            count += 1
            end = others[f"{path}_sampling"]
            kept = kept and max(old.strides) > 1 == max(new.strides)
        kept = kept and end.output.shape == old.output.shape and same_weights(old, new)
    kept = kept and len(others) == len(layers) + count
    return {STRIDED: str(count), "kept with them": "yes" if kept else "NO"}


def by_path(model, path=""):
    """(path, layer) of a model, and of the models in it."""
    for layer in model.layers:
        yield path + layer.name, layer
        if isinstance(layer, keras.Model):
            yield from by_path(layer, f"{path}{layer.name}/")


def same_weights(old, new) -> bool:
    values = [[variable_to_numpy(variable) for variable in layer.weights] for layer in (old, new)]
    return len(values[0]) == len(values[1]) and all(map(np.array_equal, *values))


def markdown(table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
