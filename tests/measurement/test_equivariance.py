"""Whether layers move with the image: exact cases, and plain loops with scipy's spline."""

import keras
import numpy as np
import pytest
from helpers import natural_images, numpy
from keras import layers
from scipy import interpolate, ndimage

import deformstab as ds
from deformstab.deformations.splines import control_grid
from deformstab.measurement.moving_maps import _between_pixels


@pytest.fixture(scope="module")
def images():
    return natural_images(10, 24, 24)


def circular(x, amount=1):
    x = keras.ops.concatenate([x[:, -amount:], x, x[:, :amount]], axis=1)
    return keras.ops.concatenate([x[:, :, -amount:], x, x[:, :, :amount]], axis=2)


@keras.saving.register_keras_serializable(package="tests")
class CircularConv(layers.Conv2D):
    """A 3×3 convolution on a torus: not a layer that the package knows."""

    def call(self, x):
        return super().call(circular(x))

    def compute_output_shape(self, shape):
        return (*shape[:3], self.filters)


def rows(table, metric="euclidean"):
    return table[table.metric == metric].set_index("layer")


def test_the_input_moves_with_itself(images):
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, layers.Conv2D(5, 1, name="conv")(inputs))
    table = ds.measure_equivariance(model, images, deformations=2, border=False)
    sensitivity = ds.measure_sensitivity(model, images, deformations=2)
    for metric in ("cosine", "euclidean"):
        found = rows(table, metric)
        assert found.moves_with["input"] < 1e-12
        assert found.moves_with["conv"] < 1e-10  # interpolation is linear, and by channel
        assert (found.stays > 1e-3).all()
    assert rows(table, "cosine").stays["input"] == pytest.approx(
        sensitivity.sensitivity[0], rel=1e-4
    )


def circular_network(pooling):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((24, 24, 3))
    x = CircularConv(6, 3, padding="valid", activation="relu", name="conv")(inputs)
    x = pooling(x)
    outputs = CircularConv(6, 3, padding="valid", activation="relu", name="last")(x)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("pooling", [layers.MaxPooling2D, layers.AveragePooling2D])
def test_whole_circular_shifts(images, pooling):
    model = circular_network(pooling(2, name="pool"))
    for shift, multiple in ((1.0, False), (2.0, True)):
        deformation = ds.RandomTranslation(shift, integer=True, padding="circular")
        found = rows(ds.measure_equivariance(model, images, deformation, border=False))
        assert found.ratio["conv"] < 1e-9
        assert (found.ratio["pool"] < 1e-9) == multiple
        assert (found.ratio["last"] < 1e-9) == multiple
        assert (found.stride["conv"], found.offset["conv"]) == (1, 0)
        assert (found.stride["pool"], found.offset["pool"]) == (2, 0.5)


def test_a_fractional_circular_shift_of_a_linear_layer(images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24, 24, 3))
    linear = CircularConv(4, 3, padding="valid", name="linear")(inputs)
    model = keras.Model(inputs, layers.ReLU(name="relu")(linear))
    deformation = ds.RandomTranslation(1.25, padding="circular")
    found = rows(ds.measure_equivariance(model, images, deformation, border=False))
    assert found.ratio["linear"] < 1e-8
    assert 1e-4 < found.ratio["relu"] < 1  # rectifying makes frequencies that alias


def test_the_floor_of_half_pixel_shifts_in_closed_form(images):
    """There and back by half a pixel in x is the blur (1, 2, 1) / 4: what it takes away is known."""
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, CircularConv(4, 3, padding="valid", name="conv")(inputs))

    class Half:
        padding = "circular"

        def draw(self, number, seed=None):
            return np.zeros((number, 1), "float32")

        def flow(self, parameters, height, width):
            return np.broadcast_to(
                np.array([0.0, 0.5], "float32"), (len(parameters), height, width, 2)
            )

        def deform(self, images, parameters):
            return 0.5 * images + 0.5 * keras.ops.roll(images, -1, axis=2)

    found = rows(ds.measure_equivariance(model, images, Half(), border=False))
    maps = {"input": images, "conv": numpy(model(images))}
    first, second = np.triu_indices(10, 1)
    for name, each in maps.items():
        each = each.astype("float64")
        lost = 0.5 * each - 0.25 * (np.roll(each, 1, axis=2) + np.roll(each, -1, axis=2))
        flat = each.reshape(10, -1)
        median = np.median(np.square(flat[first] - flat[second]).sum(axis=1))
        expected = np.square(lost).sum(axis=(1, 2, 3)).mean() / median
        assert found.floor[name] == pytest.approx(expected, rel=1e-4)
        assert found.moves_with[name] < 1e-8


def test_the_floor_of_whole_shifts_and_of_ramps_is_zero(images):
    model = circular_network(layers.MaxPooling2D(2, name="pool"))
    whole = ds.RandomTranslation(2.0, integer=True, padding="circular")
    assert (rows(ds.measure_equivariance(model, images, whole, border=False)).floor < 1e-10).all()
    # A ramp survives any interpolation, but for the edge: what is left is the error of the inverse.
    y, x = np.indices((24, 24)) / 24
    slopes = np.random.default_rng(0).normal(size=(6, 2, 3))
    ramps = np.einsum("nac,ahw->nhwc", slopes, np.stack([y, x])).astype("float32")
    inputs = keras.Input((24, 24, 3))
    keras.utils.set_random_seed(0)
    wide = keras.Model(inputs, layers.Conv2D(3, 9, padding="same", name="wide")(inputs))
    inner = rows(ds.measure_equivariance(wide, ramps, deformations=3))  # 5 units are left out
    assert inner.border["wide"] == 5
    assert inner.floor["wide"] < 1e-2 * inner.stays["wide"]


def spline_at(displacements, positions):
    control = control_grid(3, 24, 24)
    return interpolate.RBFInterpolator(control, displacements, kernel="thin_plate_spline")(
        positions
    )


@pytest.mark.parametrize("border", [False, True])
def test_a_pooled_map_by_plain_loops(images, border):
    keras.utils.set_random_seed(0)
    conv, pool = layers.Conv2D(3, 3, padding="same"), layers.AveragePooling2D(2, name="pool")
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, pool(conv(inputs)))
    layer = ds.RandomDeformation(3, 1.5)
    table = ds.measure_equivariance(model, images, layer, layers="pool", border=border, seed=2)
    row = rows(table).loc["pool"]
    draws = numpy(layer.draw(10, seed=2)).astype("float64")
    maps, moved = (numpy(pool(conv(x))) for x in (images, numpy(layer.deform(images, draws))))
    cut = slice(1, -1) if border else slice(None)  # a unit sees 4 pixels: ⌈4 / (2 · 2)⌉ = 1
    units = np.stack(np.indices((12, 12)), axis=-1).astype("float64")

    def moves(offset):
        squares = []
        for image in range(10):
            flow = spline_at(draws[image], (2 * units + offset).reshape(-1, 2)).reshape(12, 12, 2)
            places = np.moveaxis(units + flow / 2, -1, 0)
            expected = np.stack(
                [
                    ndimage.map_coordinates(maps[image, ..., c], places, order=1, mode="nearest")
                    for c in range(3)
                ],
                axis=-1,
            )
            squares.append(np.square(expected - moved[image])[cut, cut].sum())
        return np.mean(squares)

    stays = np.square(maps - moved)[:, cut, cut].sum(axis=(1, 2, 3)).mean()
    flat = maps[:, cut, cut].reshape(10, -1).astype("float64")
    first, second = np.triu_indices(10, 1)
    median = np.median(np.square(flat[first] - flat[second]).sum(axis=1))
    assert row.border == (1 if border else 0)
    assert row.moves_with == pytest.approx(moves(0.5) / median, rel=1e-3)
    assert row.stays == pytest.approx(stays / median, rel=1e-3)
    assert row.ratio == pytest.approx(moves(0.5) / stays, rel=1e-3)
    assert row.ratio_low < row.ratio < row.ratio_high
    assert moves(0.5) < moves(0.0)  # units sit between pixels: another place is a worse one


def test_white_images_and_random_filters_under_a_quarter_turn():
    """The relative error is 2 (1 - 1/9) = 16/9 of the energy, and 0 for shifts: by hand."""
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).standard_normal((12, 15, 15, 1)).astype("float32")
    inputs = keras.Input((15, 15, 1))
    normal = keras.initializers.RandomNormal(seed=1)
    conv = CircularConv(400, 3, padding="valid", kernel_initializer=normal, name="conv")
    model = keras.Model(inputs, conv(inputs))
    radius = np.sqrt(2 * (15**2 - 1) / 12)
    turn = ds.RandomRotation(np.sqrt(2) * radius)  # 2 sin(45°) · radius
    moved = numpy(turn.deform(images, np.ones((12, 1))))
    np.testing.assert_allclose(moved, np.rot90(images, 1, axes=(1, 2)), atol=1e-4)
    energy = np.square(numpy(conv(images))).sum(axis=(1, 2, 3)).mean()
    flat = numpy(conv(images)).reshape(12, -1)
    first, second = np.triu_indices(12, 1)
    median = np.median(np.square(flat[first] - flat[second]).sum(axis=1))

    def error(deformation):
        table = ds.measure_equivariance(model, images, deformation, border=False, layers="conv")
        return rows(table).moves_with["conv"] * median / energy

    assert error(turn) == pytest.approx(16 / 9, rel=0.03)
    assert error(ds.RandomTranslation(2.0, integer=True, padding="circular")) < 1e-9
    (kernel, bias) = conv.get_weights()
    turned = sum(np.rot90(kernel, n) for n in range(4))
    conv.set_weights([turned, bias])  # filters that a quarter turn leaves as they are
    assert error(turn) < 1e-8


def test_channels_first(images):
    inputs, first = keras.Input((24, 24, 3)), keras.Input((3, 24, 24))
    deformation = {"control_points": 3, "max_displacement": 1.5}
    last = ds.measure_equivariance(
        keras.Model(inputs, layers.ReLU(name="relu")(inputs)),
        images,
        ds.RandomDeformation(**deformation),
    )
    found = ds.measure_equivariance(
        keras.Model(first, layers.ReLU(name="relu")(first)),
        images.transpose(0, 3, 1, 2),
        ds.RandomDeformation(**deformation, data_format="channels_first"),
    )
    np.testing.assert_allclose(found.ratio, last.ratio, rtol=1e-4, atol=1e-9)
    assert (rows(found).stride == 1).all()


def test_vectors_and_whole_borders_have_notes(images):
    model = ds.vgg((24, 24, 3), 4, ((2, 4), (2, 4), (1, 4)), "average", seed=0)
    found = rows(ds.measure_equivariance(model, images))
    assert np.isnan(found.ratio["logits"])
    assert "no map of the image" in found.note["logits"]
    assert "the border covers the map" in found.note["block3_downsample"]
    assert found.ratio["block3_downsample"] == found.ratio_with_border["block3_downsample"]
    deep, early = found.border["block2_conv2_relu"], found.border["block1_conv1_relu"]
    assert (deep, early) == (4, 2)


def test_strides_that_differ_have_a_note(images):
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3, strides=(1, 2), name="conv")(inputs))
    found = rows(ds.measure_equivariance(model, images))
    assert np.isnan(found.stride["conv"])
    assert "differ between y and x" in found.note["conv"]
    assert 0 < found.ratio["conv"] < 1


@pytest.mark.parametrize("family", ["translation", "object"])
def test_other_families(images, family):
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, layers.AveragePooling2D(2, name="pool")(inputs))
    layer = ds.RandomDeformation(3, 1.5, seed=0)

    class Wrapped:  # an object whose flow is known at pixels only
        draw, deform = layer.draw, layer.deform

        def flow(self, parameters, height, width):
            return layer.flow(parameters, height, width)

    given = Wrapped() if family == "object" else ds.RandomTranslation(1.5)
    found = rows(ds.measure_equivariance(model, images, given))
    assert 0 < found.ratio["pool"] < 0.5
    if family == "object":
        exact = rows(ds.measure_equivariance(model, images, layer))
        assert found.ratio["pool"] == pytest.approx(exact.ratio["pool"], rel=0.02)
    with pytest.raises(ValueError, match="a function has none"):
        ds.measure_equivariance(model, images, lambda x, seed: x)


def test_flows_between_pixels():
    flows = np.random.default_rng(0).standard_normal((2, 5, 6, 2))
    places = np.array([[0.0, 0.0], [1.5, 2.25], [4.0, 5.0], [-1.0, 7.0]])
    found = _between_pixels(flows, places)
    for image in range(2):
        for axis in range(2):
            expected = ndimage.map_coordinates(
                flows[image, ..., axis], places.T, order=1, mode="nearest"
            )
            np.testing.assert_allclose(found[image, :, axis], expected, atol=1e-12)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_the_result_does_not_depend_on_the_batch(images, batch_size):
    model = ds.vgg((24, 24, 3), 4, ((1, 4), (1, 4)), "max", seed=0)
    found = ds.measure_equivariance(model, images, deformations=2, batch_size=batch_size)
    expected = ds.measure_equivariance(model, images, deformations=2, batch_size=7)
    for name in ("moves_with", "stays", "ratio", "ratio_with_border"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-9)


def test_no_strength_has_no_ratio(images):
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, layers.ReLU(name="relu")(inputs))
    table = ds.measure_equivariance(model, images, ds.RandomDeformation(3, 0.0))
    assert (table.moves_with == 0).all()
    assert table.note.str.contains("there is no ratio").all()
