"""Receptive fields by arithmetic, by hand, and by changing pixels."""

import dataclasses

import pytest

import deformstab as ds
from deformstab.paper.note import sparse

BY_HAND = {
    "max": [3, 5, 6, 10, 14, 16, 24, 32, 36, 52, 68, 76],
    "subsample": [3, 5, 5, 9, 13, 13, 21, 29, 29, 45, 61, 61],
}
SMALL = {"side": 24, "blocks": ((1, 4), (2, 4))}


def reached(blocks, window):
    """The pixels that one unit of the last layer depends on, followed back layer by layer."""
    seen = {0}
    for convolutions in reversed(blocks):
        seen = {2 * place + step for place in seen for step in range(window)}
        for _ in range(convolutions):
            seen = {place + step for place in seen for step in (-1, 0, 1)}
    return max(seen) - min(seen) + 1


@pytest.mark.parametrize("kind", ds.PAPER_KINDS)
def test_fields_are_those_computed_by_hand(kind):
    assert sparse.fields(kind) == BY_HAND["subsample" if kind == "subsample" else "max"]


@pytest.mark.parametrize("blocks", [(1,), (2, 3), (1, 2, 1), (3, 1, 2)])
def test_fields_are_what_a_unit_depends_on(blocks):
    pairs = tuple((count, 1) for count in blocks)
    assert sparse.fields("subsample", pairs)[-1] == reached(blocks, 1)
    assert sparse.fields("average", pairs)[-1] == reached(blocks, 2)


@pytest.mark.parametrize("kind", ["subsample", "max", "strided"])
def test_one_pixel_changes_units_that_see_it_and_no_others(kind):
    table = sparse.one_pixel_changes(kind, 0, **SMALL)
    assert list(table["layer"]) == [
        *("block1_conv1_relu", "block1_downsample"),
        *("block2_conv1_relu", "block2_conv2_relu", "block2_downsample"),
    ]
    assert list(table["field_y"]) == list(table["field_x"]) == list(table["field"])
    assert (table["pairs_outside"] > 0).all()
    assert (table["changed_outside"] == 0).all()
    assert (table["largest_outside"] == 0).all()
    assert (table["share_inside"] == 1).all()


def test_a_unit_that_sees_more_than_is_said_is_found(monkeypatch):
    honest = sparse.layer_grids

    def smaller(*arguments):
        grids = honest(*arguments)
        name = "block2_conv2_relu"
        grids[name] = dataclasses.replace(grids[name], field=(5, 5))
        return grids

    monkeypatch.setattr(sparse, "layer_grids", smaller)
    table = sparse.one_pixel_changes("max", 0, **SMALL).set_index("layer")
    assert table.loc["block2_conv2_relu", "changed_outside"] > 0
    assert table.loc["block2_conv2_relu", "largest_outside"] > 1
    assert (table.drop("block2_conv2_relu")["changed_outside"] == 0).all()
