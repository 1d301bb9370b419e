"""Units and operations, counted in networks, and by hand."""

import keras
import pytest
from keras import layers

from deformstab.paper.note import units

BLOCKS = ((2, 3), (1, 5))


def by_hand(kind, side, blocks):
    """(units, multiplications) of the convolutions, of what halves, and of the linear layer."""
    channels, total, work = 3, 0, 0
    for convolutions, filters in blocks:
        for _ in range(convolutions):
            total += side * side * filters
            work += side * side * filters * 9 * channels
            channels = filters
        if kind != "none":
            side //= 2
            total += side * side * filters
            work += side * side * filters * 4 * channels * kind.startswith("strided")
    return total + 10, work + channels * 10


@pytest.mark.parametrize("blocks", [BLOCKS, ((2, 32), (2, 64), (2, 128), (2, 256))])
def test_counts_are_those_by_hand(blocks):
    table = units.units(32, blocks)
    assert table["kind"][0] == "none"
    for row in table.itertuples():
        assert (row.units, row.multiplications) == by_hand(row.kind, 32, blocks)
    whole = table["multiplications"][0]
    assert list(table["of_none"]) == [each / whole for each in table["multiplications"]]


def test_the_network_that_halves_nothing_is_one_that_can_be_built():
    images = tensor = keras.Input((8, 8, 3))
    total = 0
    for convolutions, filters in BLOCKS:
        for _ in range(convolutions):
            tensor = layers.Conv2D(filters, 3, padding="same", use_bias=False)(tensor)
            total += tensor.shape[1] * tensor.shape[2] * tensor.shape[3]
            tensor = layers.BatchNormalization()(tensor)
    tensor = layers.Dense(10)(layers.GlobalAveragePooling2D()(tensor))
    whole = units.units(8, BLOCKS).set_index("kind").loc["none"]
    assert whole["parameters"] == keras.Model(images, tensor).count_params()
    assert whole["units"] == total + 10
