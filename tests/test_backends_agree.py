"""The same images, displacements and weights give the same table on every backend."""

import keras
import numpy as np
import pandas as pd
from helpers import DATA, natural_images, randomize
from keras import layers

import deformstab as ds
from deformstab.tables import SENSITIVITY_COLUMNS, read_csv

# Recorded on TensorFlow by tests/data/make_backends_table.py; the other backends know nothing of it.
RECORDED = DATA / "backends_table.csv"


class Recorded(ds.RandomDeformation):
    """Draws what NumPy draws: the generators of the backends differ."""

    def draw(self, batch_size, seed=None):
        draws = np.random.default_rng(seed).uniform(-1.5, 1.5, (batch_size, 9, 2))
        return keras.ops.convert_to_tensor(draws.astype("float32"))


def network():
    inputs = keras.Input((16, 16, 3), name="images")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Activation("gelu", name="gelu")(x)
    skip = layers.MaxPooling2D(3, strides=2, padding="same", name="max")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(skip)
    x = layers.Add(name="add")([x, skip])
    x = layers.AveragePooling2D(2, name="average")(x)
    x = layers.Reshape((16, 8), name="tokens")(x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="classes")(x))
    randomize(model, seed=3)
    return model


def measured(metric):
    model, images = network(), natural_images(16, seed=5)
    deformation = Recorded(3, 1.5)
    tables = [
        ds.measure_sensitivity(
            each, images, deformation, metric=metric, deformations=2, batch_size=5, seed=7
        ).assign(model=name)
        for name, each in {
            "network": model,
            "blurred": ds.swap_downsampling(model, "blur", blur_size=4),
        }.items()
    ]
    return pd.concat(tables, ignore_index=True)


def test_the_same_table_on_every_backend():
    recorded = read_csv(RECORDED, SENSITIVITY_COLUMNS)
    for metric, expected in recorded.groupby("metric"):
        found = measured(metric)
        same = ["model", "layer", "layer_index", "layer_type", "note"]
        assert found[same].to_numpy().tolist() == expected[same].to_numpy().tolist()
        numbers = [
            *("distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high"),
            *("rms_displacement", "folded_fraction"),
        ]
        np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-4)
        assert found["sensitivity"].notna().all()
