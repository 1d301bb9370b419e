"""examples/exchange_strides.py: a strided network as it is, and exchanged."""

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, module_at, natural_images, randomize
from keras import layers

import deformstab as ds

LINES = [("strides", "of training"), ("blur", "of training"), ("blur", "anew")]


@pytest.fixture(scope="module")
def example():
    return module_at(ROOT / "examples" / "exchange_strides.py")


def test_each_row_is_what_the_library_measures(example):
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="strided")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.Dense(4, name="logits")(layers.GlobalMaxPooling2D()(x)))
    randomize(model)
    images, others = np.split(natural_images(20, 24, 24), [12])
    labels = np.arange(12) % 4
    before = [weight.copy() for weight in model.get_weights()]
    table = example.exchanged(model, images, labels, others, ["blur"])
    assert list(zip(table["downsampling"], table["statistics"])) == LINES
    for one, two in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, two)
    swapped = ds.swap_downsampling(model, "blur", strided_convolutions=True)
    anew = ds.swap_downsampling(model, "blur", strided_convolutions=True)
    ds.reestimate_batch_normalization(anew, others)
    expected = [
        ds.measure_sensitivity(each, images, layers="logits").sensitivity.item()
        for each in (model, swapped, anew)
    ]
    np.testing.assert_allclose(table["sensitivity"], expected, rtol=1e-4)
    np.testing.assert_allclose(table["ratio"], table["sensitivity"] / expected[0], rtol=1e-4)
    shifts = [ds.shift_consistency(each, images, labels) for each in (model, swapped, anew)]
    for column in ("consistency", "accuracy"):
        np.testing.assert_allclose(table[column], [each[column].item() for each in shifts])
    assert table["sensitivity"].nunique() == 3  # each line is a network of its own


def test_the_page_shows_the_committed_table():
    page = (ROOT / "docs/how_to/exchange_downsampling.md").read_text(encoding="utf-8")
    table = pd.read_csv(ROOT / "docs/exchange_strides.csv")
    shown = [line for line in page.splitlines() if "| of training |" in line or "| anew |" in line]
    assert len(shown) == len(table) == 5
    for line, row in zip(shown, table.itertuples()):
        numbers = f"| {row.accuracy:.3f} | {row.consistency:.3f} | {row.sensitivity:.3f} |"
        assert line.endswith(numbers)
        assert row.downsampling in line
        assert f"| {row.statistics} |" in line
