"""The families beside the paper's: their flows by plain loops, RMS displacement in closed form."""

import math

import keras
import numpy as np
import pytest
from helpers import BACKEND, numpy

import deformstab as ds
from deformstab.deformations.motions import modes

FAMILIES = {
    "spline": lambda **kwargs: ds.RandomDeformation(3, 2.0, **kwargs),
    "diffeomorphism": lambda **kwargs: ds.RandomDiffeomorphism(3, 0.5, **kwargs),
    "translation": lambda **kwargs: ds.RandomTranslation(1.25, **kwargs),
    "integer": lambda **kwargs: ds.RandomTranslation(1.25, integer=True, **kwargs),
    "rotation": lambda **kwargs: ds.RandomRotation(1.25, **kwargs),
    "scaling": lambda **kwargs: ds.RandomScaling(1.25, **kwargs),
}
SIZES = [(32, 32), (20, 31)]


@pytest.fixture(params=FAMILIES)
def make(request):
    return FAMILIES[request.param]


def rms(flows):
    return math.sqrt(np.square(flows, dtype="float64").sum(axis=-1).mean())


@pytest.mark.parametrize("size", SIZES)
def test_many_draws_have_the_expected_rms(make, size):
    layer = make()
    flows = numpy(layer.flow(layer.draw(20_000, seed=1), *size))
    squares = np.square(flows, dtype="float64").sum(axis=-1).mean(axis=(1, 2))
    # To four standard errors of these draws: of families of one length that is rounding.
    error = squares.std(ddof=1) / math.sqrt(len(squares))
    assert abs(squares.mean() - layer.expected_rms(*size) ** 2) < 4 * error + 1e-6


@pytest.mark.parametrize(
    ("control_points", "side", "reach", "expected"),
    [
        (3, 32, 2.0, 1.2497),
        (4, 32, 2.0, 1.2813),
        (5, 32, 2.0, 1.2925),
        (2, 32, 2.0, 1.1186),
        (5, 224, 10.0, 6.4126),
    ],
)
def test_the_closed_form_of_splines(control_points, side, reach, expected):
    found = ds.RandomDeformation(control_points, reach).expected_rms(side, side)
    assert found == pytest.approx(expected, abs=6e-5)


def test_the_closed_form_of_a_fine_grid_is_that_of_its_matrix():
    layer = ds.RandomDeformation((24, 20), (1.0, 3.0))
    flows = numpy(layer.flow(layer.draw(300, seed=0), 120, 200))
    assert rms(flows) == pytest.approx(layer.expected_rms(120, 200), rel=0.01)


def test_diffeomorphisms_by_plain_loops():
    layer, (height, width) = ds.RandomDiffeomorphism(3, 1.7), (9, 14)
    coefficients = numpy(layer.draw(2, seed=0)).astype("float64")
    found = numpy(layer.flow(coefficients, height, width))
    # (j, i) along y and x with i² + j² ≤ 3.5²
    pairs = [(j, i) for j in range(1, 9) for i in range(1, 9) if i * i + j * j <= 3.5**2]
    assert [tuple(pair) for pair in modes(3)] == pairs
    strength = sum(1 / (i * i + j * j) for j, i in pairs)
    assert strength == pytest.approx(1.225)
    scale = 1.7 / math.sqrt(2 * strength * (height - 1) / (2 * height) * (width - 1) / (2 * width))
    expected = np.zeros((2, height, width, 2))
    for image in range(2):
        for row in range(height):
            for column in range(width):
                for number, (j, i) in enumerate(pairs):
                    y, x = row / (height - 1), column / (width - 1)
                    sines = math.sin(i * math.pi * x) * math.sin(j * math.pi * y)
                    expected[image, row, column] += scale * coefficients[image, number] * sines
    np.testing.assert_allclose(found, expected, atol=2e-6)
    edges = [found[:, [0, -1]], found[:, :, [0, -1]]]
    assert not any(each.any() for each in edges)  # nothing moves at the border


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless it is told to")
def test_the_mean_square_of_a_diffeomorphism_given_its_coefficients():
    layer = ds.RandomDiffeomorphism(5, 2.0, dtype="float64")
    coefficients = numpy(layer.draw(4, seed=3))
    assert coefficients.dtype == np.float64
    flows = numpy(layer.flow(coefficients, 32, 32))
    amplitude = layer.field.amplitude(32, 32)
    expected = (amplitude * 31 / 32 / 2) ** 2 * (coefficients**2).sum(axis=(1, 2))
    np.testing.assert_allclose((flows**2).sum(axis=-1).mean(axis=(1, 2)), expected, rtol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_rotations_and_scalings_by_plain_loops(size):
    height, width = size
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    radius = math.sqrt(((height**2 - 1) + (width**2 - 1)) / 12)
    angle, scale = 2 * math.asin(1.25 / (2 * radius)), 1.25 / radius
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    for layer, up, down in (
        (ds.RandomRotation(1.25), turn, turn.T),
        (ds.RandomScaling(1.25), (1 + scale) * np.eye(2), (1 - scale) * np.eye(2)),
    ):
        signs = numpy(layer.draw(50, seed=0))
        assert set(signs.ravel()) == {-1.0, 1.0}
        flows = numpy(layer.flow(np.array([[1.0], [-1.0]]), height, width))
        for flow, matrix in zip(flows, (up, down)):
            for place in np.ndindex(height, width):
                expected = matrix @ (place - middle) - (place - middle)
                np.testing.assert_allclose(flow[place], expected, atol=1e-5)


def test_degrees_and_percents_of_the_paper_of_measures():
    radius = math.sqrt(2 * (32**2 - 1) / 12)
    assert radius == pytest.approx(13.058, abs=1e-3)
    _, odd = ds.RandomRotation(1.25).field.matrices(32, 32)
    assert math.degrees(math.asin(odd[0, 1])) == pytest.approx(5.49, abs=0.01)
    assert ds.RandomScaling(1.25).field.matrices(32, 32)[1][0, 0] == pytest.approx(0.0957, abs=1e-4)


def test_translations_go_in_all_directions_by_one_length():
    shifts = numpy(ds.RandomTranslation(1.25).draw(4000, seed=0))
    np.testing.assert_allclose(np.hypot(*shifts.T), 1.25, rtol=1e-6)
    assert np.abs(shifts.mean(axis=0)).max() < 0.05
    quarters, _ = np.histogram(np.arctan2(*shifts.T), bins=8, range=(-np.pi, np.pi))
    assert quarters.min() > 400


@pytest.mark.parametrize(
    ("strength", "lengths"), [(1.0, {1}), (2.0, {2}), (1.25, {1, 2}), (0.5, {0, 1})]
)
def test_whole_translations_are_whole_along_an_axis(strength, lengths):
    shifts = numpy(ds.RandomTranslation(strength, integer=True).draw(4000, seed=0))
    assert set(np.abs(shifts).max(axis=1)) == lengths
    assert (np.abs(shifts).min(axis=1) == 0).all()
    moved = shifts[np.abs(shifts).max(axis=1) > 0]
    _, counts = np.unique(np.sign(moved), axis=0, return_counts=True)
    assert len(counts) == 4
    assert counts.min() > len(moved) / 5
    assert math.sqrt((shifts**2).sum(axis=1).mean()) == pytest.approx(strength, rel=0.03)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_a_whole_circular_translation_is_a_roll(dtype):
    images = np.random.default_rng(0).integers(0, 99, (8, 9, 12, 2)).astype(dtype)
    kind = {"interpolation": "nearest"} if dtype == "int32" else {}
    layer = ds.RandomTranslation(3.0, integer=True, padding="circular", **kind)
    shifts = numpy(layer.draw(8, seed=0)).astype(int)
    found = numpy(layer.deform(images, shifts))
    for image, shift, shifted in zip(images, shifts, found):
        np.testing.assert_array_equal(shifted, np.roll(image, tuple(-shift), (0, 1)))


def test_a_circular_half_pixel_is_a_mean_of_rolls():
    images = np.random.default_rng(0).random((1, 6, 7, 2)).astype("float32")
    layer = ds.RandomTranslation(padding="circular")
    found = numpy(layer.deform(images, [[0.5, -1.0]]))
    rolled = np.roll(images, 1, axis=2)
    np.testing.assert_allclose(found, (rolled + np.roll(rolled, -1, axis=1)) / 2, atol=1e-6)
    labels = ds.RandomTranslation(padding="circular", interpolation="nearest")
    found = numpy(labels.deform(images, [[5.5, 6.6]]))  # to 6 and 7, which are 0
    np.testing.assert_array_equal(found, images)


def test_zero_strength_is_the_identity():
    images = np.random.default_rng(0).random((3, 8, 9, 2)).astype("float32")
    zero = [
        ds.RandomDiffeomorphism(2, 0.0),
        *(ds.RandomTranslation(0.0, integer=whole) for whole in (False, True)),
        *(ds.RandomRotation(0.0), ds.RandomScaling(0.0)),
    ]
    for layer in zero:
        np.testing.assert_array_equal(numpy(layer(images)), images)
        moved = layer.deform(images, layer.draw(3, seed=0))
        np.testing.assert_array_equal(numpy(moved), images)


def test_flows_at_pixels_and_their_derivatives(make):
    layer, size = make(), (16, 21)
    parameters = numpy(layer.draw(2, seed=4)).astype("float64")
    places = np.stack(np.indices(size), axis=-1).reshape(-1, 2).astype("float64")
    flows = numpy(layer.flow(parameters, *size)).reshape(2, -1, 2)
    for own, flow in zip(parameters, flows):
        found, by_y, by_x = layer.field.at(own, places, *size)
        np.testing.assert_allclose(found, flow, atol=2e-5)
        for step, slope in (([1e-5, 0], by_y), ([0, 1e-5], by_x)):
            after, before = (
                layer.field.at(own, places + s, *size)[0] for s in (step, np.negative(step))
            )
            np.testing.assert_allclose((after - before) / 2e-5, slope, atol=1e-6)


def test_points_move_to_where_they_are_found(make):
    layer = make()
    landmarks = np.random.default_rng(0).uniform(8, 24, (4, 6, 2))
    parameters = layer.draw(4, seed=0)
    moved = numpy(layer.move_points(landmarks, parameters, 32, 32))
    assert np.isfinite(moved).all()
    for own, points, targets in zip(numpy(parameters).astype("float64"), moved, landmarks):
        flow = layer.field.at(own, points.astype("float64"), 32, 32)[0]
        np.testing.assert_allclose(points + flow, targets, atol=1e-3)


def test_masks_move_with_their_images_by_nearest(make):
    masks = (np.random.default_rng(0).integers(0, 2, (4, 16, 16)) * 7).astype("int32")
    images = masks[..., None].astype("float32")
    layer, again = make(seed=1), make(seed=1)
    found = layer({"images": images, "segmentation_masks": masks})
    assert set(np.unique(numpy(found["segmentation_masks"]))) <= {0, 7}
    nearest = again.deform(images, again.draw(4), "nearest")
    np.testing.assert_array_equal(numpy(found["segmentation_masks"]), numpy(nearest)[..., 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ds.RandomTranslation(-1.0), "rms_displacement must be a finite number"),
        (lambda: ds.RandomRotation(np.nan), "rms_displacement must be a finite number"),
        (lambda: ds.RandomScaling(True), "rms_displacement must be a finite number"),
        (lambda: ds.RandomDiffeomorphism(0), "cutoff must be an int of at least 1"),
        (lambda: ds.RandomTranslation(padding="mirror"), "padding must be one of edge, circular"),
        (lambda: ds.RandomDiffeomorphism(7)(np.zeros((1, 8, 8, 1))), "at least 9 pixels a side"),
        (lambda: ds.RandomRotation(30.0).expected_rms(32, 32), "at most 26.12 px"),
        (lambda: ds.RandomScaling(14.0)(np.zeros((1, 32, 32, 1))), "at most 13.06 px"),
    ],
)
def test_impossible_families(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_strength_that_folds_warns():
    with pytest.warns(
        UserWarning, match=r"% of the deformations with rms_displacement=6.0 and cut"
    ):
        ds.RandomDiffeomorphism(3, 6.0)(np.zeros((1, 32, 32, 1), "float32"))


def test_models_with_families_are_saved_and_seeded(make, tmp_path):
    images = np.random.default_rng(0).random((4, 16, 16, 1)).astype("float32")
    model = keras.Sequential([keras.Input((16, 16, 1)), make(seed=3)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        numpy(loaded(images, training=True)), numpy(model(images, training=True))
    )
