"""Figures A1 to A3 and the pooling arithmetic: the numbers behind them, computed another way."""

import itertools

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from deformstab.paper.verdicts import approximations
from deformstab.paper.verdicts.pooling_shifts import pooling_shifts

SIDE = 224
CENTRE = (SIDE - 1) / 2


def some_points(count=200):
    return np.random.default_rng(0).uniform(0, SIDE - 1, (count, 2))


# ---- the targets ----


def test_a_translation_moves_every_point_by_as_much():
    np.testing.assert_array_equal(approximations.translation(some_points(), 3.5), 3.5)


def test_a_rotation_keeps_distances_and_the_centre():
    points = some_points(40)
    sources = points + approximations.rotation(points, 17.0)
    distances = lambda p: np.linalg.norm(p[:, None] - p, axis=-1)
    np.testing.assert_allclose(distances(sources), distances(points), atol=1e-10)
    centre = np.full((1, 2), CENTRE)
    np.testing.assert_allclose(approximations.rotation(centre, 17.0), 0, atol=1e-12)
    # It turns by that angle: no reflection, no other angle.
    y, x = (points - CENTRE).T
    y_source, x_source = (sources - CENTRE).T
    turned = np.rad2deg(np.angle((x_source + 1j * y_source) / (x + 1j * y)))
    np.testing.assert_allclose(np.abs(turned), 17, atol=1e-9)
    assert len(set(np.sign(turned))) == 1


def test_a_pose_of_no_degrees_moves_nothing():
    np.testing.assert_allclose(approximations.pose(some_points(), 0.0), 0, atol=1e-12)


@pytest.mark.parametrize("degrees", [5.0, 12.0, -8.0])
def test_a_pose_is_a_pinhole_view_of_a_turned_plane(degrees):
    """Forward, in three dimensions: turn the plane, project it, compare with the backward map."""
    rng = np.random.default_rng(1)
    plane = rng.uniform(-80, 80, (300, 2))  # (v down, u right) of points of the image plane
    points = np.stack([plane[:, 1], plane[:, 0], np.zeros(300)])  # x right, y down, z away
    turn = np.deg2rad(degrees)
    about_vertical = np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
    )
    camera = 2 * SIDE  # two image widths in front of the centre, focal length the same
    x, y, z = about_vertical @ points
    seen = np.stack([camera * y / (camera + z), camera * x / (camera + z)], axis=1)
    flow = approximations.pose(seen + CENTRE, degrees)
    np.testing.assert_allclose(seen + flow, plane, atol=1e-9)


# ---- their splines ----


@pytest.mark.parametrize("target", ["pose", "translation", "rotation"])
def test_the_strongest_target_within_reach_and_its_spline(target):
    strength, displacements, exact, spline = approximations.approximation(target)
    assert strength > 0
    assert displacements.shape == (25, 2)
    assert exact.shape == spline.shape == (SIDE, SIDE, 2)
    assert np.abs(displacements).max() == pytest.approx(10, abs=1e-6)
    # The control points carry the target's own values, at an even grid with corners.
    even = np.linspace(0, SIDE - 1, 5)
    control = np.array(list(itertools.product(even, even)))
    own = getattr(approximations, target)(control, strength)
    np.testing.assert_allclose(displacements, own, atol=1e-12)
    # The spline is scipy's through them, the exact flow the target at every pixel.
    pixels = np.random.default_rng(0).integers(0, SIDE, (50, 2))
    interpolator = RBFInterpolator(control, own, kernel="thin_plate_spline", degree=1)
    at = tuple(pixels.T)
    np.testing.assert_allclose(spline[at], interpolator(pixels.astype(float)), atol=1e-7)
    function = getattr(approximations, target)
    np.testing.assert_allclose(exact[at], function(pixels.astype(float), strength), atol=1e-12)


def test_affine_targets_are_exact_and_the_pose_nearly():
    table = approximations.approximations().set_index("target")
    assert list(table.index) == ["pose", "translation", "rotation"]
    for target in ("translation", "rotation"):
        assert table.loc[target, "max_error"] < 1e-9
    assert table.loc["translation", "strength"] == pytest.approx(10)
    assert 1e-3 < table.loc["pose", "rms_error"] < 0.5  # not affine, and yet within half a pixel
    assert table.loc["pose", "max_error"] < 1
    assert (table["rms_error"] <= table["max_error"]).all()
    np.testing.assert_allclose(table["max_displacement"], 10, atol=1e-6)
    assert list(table["unit"]) == ["degrees", "pixels", "degrees"]
    # A translation by 10 px in y and in x moves every pixel by 10·√2.
    assert table.loc["translation", "rms_flow"] == pytest.approx(10 * 2**0.5)


# ---- pooling ----


def shifts_that_keep(window, row, column):
    """Of the 8 one-pixel shifts, those that leave a maximum inside its window. By counting."""
    kept = 0
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if (dy, dx) != (0, 0):
                kept += 0 <= row + dy < window and 0 <= column + dx < window
    return kept


@pytest.mark.parametrize("windows", [(2, 3), (2, 3, 4, 5)])
def test_pooling_keeps_a_maximum_that_stays_in_its_window(windows):
    table = pooling_shifts(windows)
    assert len(table) == sum(window**2 for window in windows)
    assert not table.duplicated(["window", "row", "column"]).any()
    for row in table.itertuples():
        assert row.kept == shifts_that_keep(row.window, row.row, row.column)


def test_the_numbers_of_the_notes():
    table = pooling_shifts()
    kept = {window: sorted(counts) for window, counts in table.groupby("window")["kept"]}
    assert kept == {2: [3] * 4, 3: [3, 3, 3, 3, 5, 5, 5, 5, 8]}
    assert table[table["window"] == 3]["kept"].mean() / 8 == pytest.approx(5 / 9)
