"""The spline matrix against scipy, and what every thin plate spline must do."""

import numpy as np
import pytest
from helpers import grid_points, scipy_flow
from scipy.interpolate import RBFInterpolator

from deformstab.deformations import splines, thin_plates

CASES = [
    ((3, 3), 32, 32),
    ((2, 2), 32, 32),
    ((5, 5), 224, 224),
    ((4, 6), 48, 80),
    ((7, 2), 31, 20),
    ((3, 3), 2, 2),
]


@pytest.mark.parametrize(("grid", "height", "width"), CASES)
def test_matrix_is_the_spline_of_scipy(grid, height, width):
    displacements = np.random.default_rng(0).uniform(-10, 10, (grid[0] * grid[1], 2))
    found = splines.spline_matrix(grid, height, width) @ displacements
    expected = scipy_flow(displacements, *grid, height, width).reshape(-1, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("grid", "height", "width"), CASES)
def test_control_grid_is_even_and_includes_the_corners(grid, height, width):
    expected = grid_points(*grid, height, width)
    np.testing.assert_allclose(splines.control_grid(grid, height, width), expected, atol=1e-12)


def test_scattered_points_across_blocks_of_queries():
    rng = np.random.default_rng(1)
    control, values = rng.uniform(-3, 9, (11, 2)), rng.normal(size=(11, 2))
    queries = rng.uniform(-5, 12, (thin_plates._BLOCK + 1000, 2))
    spline = RBFInterpolator(control, values, kernel="thin_plate_spline", degree=1)
    found = splines.thin_plate_spline_matrix(control, queries) @ values
    np.testing.assert_allclose(found, spline(queries), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("grid", "height", "width"), CASES)
def test_affine_motion_is_reproduced(grid, height, width):
    matrix = splines.spline_matrix(grid, height, width)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)  # translation
    linear, shift = np.array([[0.3, -0.2], [0.5, 1.1]]), np.array([4.0, -7.0])
    pixels = np.argwhere(np.ones((height, width)))
    found = matrix @ (grid_points(*grid, height, width) @ linear + shift)
    np.testing.assert_allclose(found, pixels @ linear + shift, rtol=0, atol=1e-10)


def test_small_images_have_no_lattice():
    for grid, height, width in CASES:
        lattice = splines.flow_lattice(grid, height, width, "float64")
        assert (lattice.rows, lattice.columns, lattice.step) == (height, width, 1)
        assert lattice.matrix is splines.spline_matrix(grid, height, width, "float64", 1)


@pytest.mark.parametrize(
    ("grid", "height", "width"),
    [((5, 5), 2048, 2048), ((10, 10), 1024, 1024), ((4, 7), 1100, 1301), ((3, 3), 1500, 2211)],
)
def test_the_lattice_of_a_large_image(grid, height, width):
    """Its pixels are rows -step, 0, step, … to the second beyond; it is small, and fine enough."""
    rows, columns, step = splines.flow_lattice(grid, height, width)[1:]
    assert step > 1
    assert step <= min((height - 1) / (grid[0] - 1), (width - 1) / (grid[1] - 1)) / 40
    matrix = splines.flow_lattice(grid, height, width).matrix
    assert matrix.nbytes < 0.3 * 4 * height * width * grid[0] * grid[1]
    ends = [(height, rows), (width, columns)]
    assert all((count - 4) * step < side <= (count - 3) * step for side, count in ends)
    chosen = np.random.default_rng(0).choice(rows * columns, 500, replace=False)
    pixels = (np.stack(np.unravel_index(chosen, (rows, columns)), axis=1) - 1) * step
    displacements = np.random.default_rng(1).uniform(-10, 10, (grid[0] * grid[1], 2))
    points = grid_points(*grid, height, width)
    spline = RBFInterpolator(points, displacements, kernel="thin_plate_spline", degree=1)
    np.testing.assert_allclose(matrix[chosen] @ displacements, spline(pixels), rtol=0, atol=1e-4)


def test_control_points_get_their_own_values():
    matrix = splines.spline_matrix((5, 3), 33, 21).reshape(33, 21, 15)
    at_points = matrix[::8, ::10].reshape(15, 15)  # control points are pixels here
    np.testing.assert_allclose(at_points, np.eye(15), atol=1e-12)


def test_the_unit_of_the_plane_does_not_matter():
    rng = np.random.default_rng(2)
    control, queries = rng.random((9, 2)), rng.random((50, 2))
    expected = splines.thin_plate_spline_matrix(control, queries)
    moved = splines.thin_plate_spline_matrix(1000 * control - 70, 1000 * queries - 70)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-9)


def test_mirrored_grids_have_mirrored_splines():
    matrix = splines.spline_matrix((3, 4), 10, 15).reshape(10, 15, 3, 4)
    np.testing.assert_allclose(matrix, matrix[::-1, :, ::-1], atol=1e-12)
    np.testing.assert_allclose(matrix, matrix[:, ::-1, :, ::-1], atol=1e-12)


def test_float32_is_the_rounded_float64_and_both_are_kept_unchanged():
    exact = splines.spline_matrix((3, 3), 20, 30)
    rounded = splines.spline_matrix((3, 3), 20, 30, "float32")
    assert (exact.dtype, rounded.dtype) == ("float64", "float32")
    np.testing.assert_array_equal(rounded, exact.astype("float32"))
    assert splines.spline_matrix((3, 3), 20, 30) is exact
    with pytest.raises(ValueError, match="read-only"):
        exact[0, 0] = 1


@pytest.mark.parametrize(
    "control_points", [1, 0, -3, (1, 3), (3, 1), 2.0, (2.5, 3), True, "3", None, (3, 3, 3), ()]
)
def test_impossible_grids_are_refused(control_points):
    with pytest.raises(ValueError, match=r"control_points must be an int of at least 2"):
        splines.control_grid(control_points, 32, 32)


@pytest.mark.parametrize("size", [(None, 32), (32, None), (1, 32), (32, 1), (0, 0)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="at least 2 pixels"):
        splines.control_grid(3, *size)


@pytest.mark.parametrize(
    "control",
    [
        [[0, 0], [1, 0], [2, 0], [3, 0]],
        [[0, 0], [1, 1], [2, 2], [3, 3]],
        [[0, 0], [0.1, 0.3], [0.2, 0.6], [0.3, 0.9]],
        [[0, 0], [0, 3], [3, 0], [3, 3], [0, 3]],
        [[5, 5]],
    ],
)
def test_points_that_repeat_or_lie_on_one_line_are_refused(control):
    with pytest.raises(ValueError, match="distinct control points that are not all on one line"):
        splines.thin_plate_spline_matrix(control, [[0, 1]])


# ---- displacement and folding ----


def loop_statistics(displacements, grid, height, width):
    """(mean square, smallest Jacobian determinant) of one deformation, by plain loops."""
    flow = scipy_flow(displacements, *grid, height, width)
    squares, determinants = [], []
    for y in range(height):
        for x in range(width):
            squares.append(flow[y, x, 0] ** 2 + flow[y, x, 1] ** 2)
            if y + 1 < height and x + 1 < width:
                # p → p + flow(p) by forward differences, columns ∂/∂y and ∂/∂x.
                down = np.array([1, 0]) + flow[y + 1, x] - flow[y, x]
                right = np.array([0, 1]) + flow[y, x + 1] - flow[y, x]
                determinants.append(down[0] * right[1] - right[0] * down[1])
    return np.mean(squares), np.min(determinants)


def test_flow_statistics_of_plain_loops():
    grid, height, width = (3, 4), 13, 17
    draws = np.random.default_rng(3).uniform(-1, 1, (40, 12, 2)) * (3.5, 2.0)
    mean_square, folded = splines.flow_statistics(draws, grid, height, width)
    expected = [loop_statistics(draw, grid, height, width) for draw in draws]
    squares, smallest = np.transpose(expected)
    assert np.abs(smallest).min() > 1e-5  # none so close to folding that rounding decides
    assert 3 < (smallest <= 0).sum() < 37  # both kinds are there
    np.testing.assert_allclose(mean_square, squares, rtol=1e-5)
    np.testing.assert_array_equal(folded, smallest <= 0)


def test_flow_statistics_do_not_depend_on_the_block():
    draws = np.random.default_rng(4).uniform(-40, 40, (100, 9, 2))  # several blocks at 224×224
    together = splines.flow_statistics(draws, (3, 3), 224, 224)
    alone = [splines.flow_statistics(draw[None], (3, 3), 224, 224) for draw in draws[75:95]]
    np.testing.assert_allclose(together[0][75:95], np.concatenate([a[0] for a in alone]), rtol=1e-5)
    np.testing.assert_array_equal(together[1][75:95], np.concatenate([a[1] for a in alone]))


def test_translations_and_mirrors():
    grid = splines.control_grid(3, 9, 9)
    shift = np.full((9, 2), (3.0, -4.0))
    mirror = np.array([8, 8]) - 2 * grid  # a rotation by 180°: nothing folds
    flip = mirror * (1, 0)  # upside down: everything does
    mean_square, folded = splines.flow_statistics([shift, mirror, flip], (3, 3), 9, 9)
    assert folded.tolist() == [False, False, True]
    assert mean_square[0] == pytest.approx(25, rel=1e-6)


@pytest.mark.parametrize(("reach", "published"), [(4, 0.0), (6, 0.09), (8, 0.53)])
def test_published_fold_rates(reach, published):
    """paper.md (folding at a 3×3 grid); the numbers are those of 28-pixel images, as in MNIST."""
    count = 4000
    draws = np.random.default_rng(5).uniform(-reach, reach, (count, 9, 2))
    rate = splines.flow_statistics(draws, (3, 3), 28, 28)[1].mean()
    # Four standard errors, and the half percent that published whole percents leave open.
    assert abs(rate - published) < 4 * np.sqrt(published * (1 - published) / count) + 0.005


@pytest.mark.parametrize(
    ("grid", "reach", "height", "width"),
    [((3, 3), (8, 8), 28, 28), ((5, 4), (17, 24), 160, 224), ((3, 3), (9, 3), 32, 24)],
)
def test_fold_rate_is_that_of_many_draws(grid, reach, height, width):
    draws = np.random.default_rng(6).uniform(-1, 1, (600, grid[0] * grid[1], 2)) * reach
    rate = splines.flow_statistics(draws, grid, height, width)[1].mean()
    assert 0.05 < rate < 0.95
    found = splines.fold_rate(grid, reach, height, width)
    error = np.sqrt(rate * (1 - rate) * (1 / 256 + 1 / 600))
    # 0.05 for the coarser differences on which large images are looked at
    assert abs(found - rate) < 4 * error + (0.05 if height > 64 else 0)


def test_folding_is_warned_of_with_its_rate():
    rate = splines.fold_rate((3, 3), (8.0, 8.0), 28, 28)
    with pytest.warns(UserWarning, match=rf"^{rate:.0%} of the deformations .* fold .* 28×28"):
        splines.warn_if_folding((3, 3), (8.0, 8.0), 28, 28)
    splines.warn_if_folding((3, 3), (2.0, 2.0), 32, 32)  # the paper's: silent


def test_statistics_of_a_large_image_are_those_of_a_small_one():
    """Scaled with its displacements, an image folds in the same places."""
    draws = np.random.default_rng(0).uniform(-1, 1, (60, 25, 2))
    small, small_folds = splines.flow_statistics(draws * 7.5, (5, 5), 65, 65)
    large, large_folds = splines.flow_statistics(draws * 7.5 * 1280 / 64, (5, 5), 1281, 1281)
    assert splines.flow_lattice((5, 5), 1281, 1281).step > 1
    np.testing.assert_allclose(large / 400, small, rtol=0.02)
    assert 0.2 < small_folds.mean() < 0.9
    assert abs(large_folds.mean() - small_folds.mean()) <= 0.1


@pytest.mark.parametrize(
    ("grid", "height", "width"), [((5, 5), 1281, 1281), ((4, 7), 700, 901), ((3, 3), 1500, 1211)]
)
def test_statistics_of_a_large_image_are_of_its_own_pixels(grid, height, width):
    """The lattice reaches over the image, where flows are larger; scipy at random pixels."""
    assert splines.flow_lattice(grid, height, width).step > 1
    rng = np.random.default_rng(0)
    draws = rng.uniform(-10, 10, (6, grid[0] * grid[1], 2))
    pixels = np.stack([rng.integers(0, side, 60_000) for side in (height, width)], axis=1)
    points = grid_points(*grid, height, width)
    spline = RBFInterpolator(
        points, draws.transpose(1, 0, 2).reshape(len(points), -1), kernel="thin_plate_spline"
    )
    flows = spline(pixels.astype("float64")).reshape(len(pixels), 6, 2)
    expected = (flows**2).sum(axis=-1).mean(axis=0)  # a standard error of 0.3 %
    found, _ = splines.flow_statistics(draws, grid, height, width)
    np.testing.assert_allclose(found, expected, rtol=0.0125)
    assert abs(np.mean(found / expected) - 1) < 0.01
