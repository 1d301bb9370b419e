"""Parts of flows: orthogonal projections, against least squares; energy shares in closed form."""

import numpy as np
import pytest
from helpers import BACKEND, numpy

import deformstab as ds
from deformstab.deformations.parts import PARTS, FlowPart, energy_shares, part_of
from deformstab.deformations.splines import spline_matrix

TABLE = [  # control points, side, translation, affine
    ((3, 3), 32, 0.306, 0.568),
    ((4, 4), 32, 0.137, 0.343),
    ((5, 5), 32, 0.081, 0.212),
    ((2, 2), 32, 0.533, 0.911),
    ((5, 5), 224, 0.087, 0.227),
]


@pytest.mark.parametrize(("grid", "side", "translation", "affine"), TABLE)
def test_energy_shares(grid, side, translation, affine):
    found = energy_shares(grid, side, side)
    assert found["translation"] == pytest.approx(translation, abs=6e-4)
    assert found["affine"] == pytest.approx(affine, abs=6e-4)
    assert found["translation"] + found["beyond_translation"] == pytest.approx(1)
    assert found["affine"] + found["beyond_affine"] == pytest.approx(1)


def test_energy_shares_are_those_of_many_draws():
    layer = ds.RandomDeformation((3, 5), 1.5)
    flows = numpy(layer.flow(layer.draw(20_000, seed=0), 12, 17))
    total = np.square(flows, dtype="float64").sum()
    for part, share in energy_shares((3, 5), 12, 17).items():
        found = np.square(numpy(part_of(flows, part)), dtype="float64").sum() / total
        assert found == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize(("grid", "equal"), [((3, 3), True), ((3, 5), False)])
def test_rotation_scale_and_shears_have_a_quarter_each_on_a_square_only(grid, equal):
    matrix = spline_matrix(grid, 32, 32)
    y, x = (each.ravel() - 15.5 for each in np.indices((32, 32)))
    y, x = y / np.linalg.norm(y), x / np.linalg.norm(x)
    # Variances of the four coefficients: of y by y, y by x, x by y, x by x, independent axes.
    by_y, by_x = (np.square(each @ matrix).sum() for each in (y, x))
    assert (abs(by_y / by_x - 1) < 1e-12) == equal


def test_parts_by_least_squares():
    flow = np.random.default_rng(0).standard_normal((3, 7, 10, 2))
    # JAX has no float64 unless it is told to, and Keras' sums on PyTorch are of float32.
    tolerance = 1e-12
    if BACKEND != "tensorflow":
        flow, tolerance = flow.astype("float32"), 2e-6
    y, x = (each.ravel() for each in np.indices((7, 10)))
    ones = np.ones(70)
    for span, name in (([ones], "translation"), ([ones, y, x], "affine")):
        design = np.stack(span, axis=1)
        for number in range(3):
            values = flow[number].reshape(70, 2)
            fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
            found = numpy(part_of(flow, name))[number].reshape(70, 2)
            np.testing.assert_allclose(found, fitted, atol=tolerance)
            beyond = numpy(part_of(flow, f"beyond_{name}"))[number].reshape(70, 2)
            np.testing.assert_allclose(found + beyond, values, atol=tolerance)
            assert np.abs(beyond.mean(axis=0)).max() < tolerance


def test_a_part_deforms_as_its_flow_does():
    images = np.random.default_rng(0).random((2, 12, 12, 1)).astype("float32")
    layer = ds.RandomDeformation(3, 1.5)
    draws = layer.draw(2, seed=0)
    full = FlowPart(layer, "full")
    np.testing.assert_allclose(
        numpy(full.deform(images, draws)), numpy(layer.deform(images, draws)), atol=1e-6
    )
    shift = FlowPart(layer, "translation")
    means = numpy(layer.flow(draws, 12, 12)).mean(axis=(1, 2))
    expected = ds.RandomTranslation().deform(images, means)
    np.testing.assert_allclose(numpy(shift.deform(images, draws)), numpy(expected), atol=1e-5)
    np.testing.assert_array_equal(numpy(shift.draw(2, seed=0)), numpy(draws))


def test_unknown_parts():
    with pytest.raises(ValueError, match="unknown part 'linear'; the parts are full, translation"):
        FlowPart(ds.RandomDeformation(), "linear")
    assert PARTS[0] == "full"
