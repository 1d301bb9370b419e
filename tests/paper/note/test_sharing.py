"""One kernel for all places, against plain loops; the book's numbers."""

import numpy as np
import pytest
from helpers import numpy

from deformstab.paper.note import sharing


def test_the_edges_of_the_book():
    (row,) = sharing.edge_counts().to_dict("records")
    assert row["parameters"] == 2
    assert row["outputs"] == 319 * 280
    assert row["operations"] == 267_960
    assert row["matrix_entries"] == 8_003_072_000
    assert row["matrix_operations"] == 2 * 8_003_072_000
    assert round(row["ratio"]) == 59_733


def test_a_matrix_that_does_the_same_has_so_many_entries():
    height, width = 3, 4
    columns = []
    for pixel in np.eye(height * width).reshape(-1, height, width):
        columns.append((pixel[:, 1:] - pixel[:, :-1]).ravel())
    (row,) = sharing.edge_counts(height, width).to_dict("records")
    assert np.transpose(columns).shape == (row["outputs"], height * width)
    assert np.size(columns) == row["matrix_entries"]
    assert np.count_nonzero(columns) == row["parameters"] * row["outputs"]


def test_an_untied_convolution_is_a_loop_over_places():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    layer = sharing.Untied(2)
    layer.build(images.shape)
    kernel = rng.normal(size=layer.kernel.shape).astype("float32")
    layer.set_weights([kernel])
    expected = np.zeros((2, 4, 5, 2))
    for n, y, x, f in np.ndindex(expected.shape):
        for i, j, c in np.ndindex(3, 3, 3):
            down, along = y + i - 1, x + j - 1
            if 0 <= down < 4 and 0 <= along < 5:
                expected[n, y, x, f] += images[n, down, along, c] * kernel[y, x, i, j, c, f]
    np.testing.assert_allclose(numpy(layer(images)), expected, atol=1e-5)
    assert layer.compute_output_shape(images.shape) == expected.shape


@pytest.mark.parametrize("seed", [0, 7])
def test_only_equal_kernels_move_with_the_image(seed):
    table = sharing.sharing(seed).set_index("weights")
    assert list(table.index) == list(sharing.KERNELS)
    assert list(table["parameters"]) == [36] + [36 * sharing.SIDE**2] * 3
    for alike in ("shared", "equal copies"):
        assert (table.loc[alike, ["largest_difference", "moves_with", "ratio"]] == 0).all()
        assert table.loc[alike, "stays"] > 0.1
    one, all_of_them = table.loc["one place differs"], table.loc["one of its own each"]
    assert one["largest_difference"] > 0
    # An image moves a unit's input to its neighbour: 2 of the 144 inner units meet another kernel.
    assert one["moves_with"] == pytest.approx(all_of_them["moves_with"] * 2 / 144, rel=0.6)
    assert all_of_them["moves_with"] > 0.5
