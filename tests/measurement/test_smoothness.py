"""Normalized total variation: kernels by hand, and the numbers of the paper at initialization."""

import keras
import numpy as np
import pytest
from helpers import needs_tensorflow
from keras import layers, ops

import deformstab as ds
from deformstab.networks.initializers import paper_initializer
from deformstab.tables import SMOOTHNESS_COLUMNS

DELTA_CENTRE = [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
DELTA_CORNER = [[1, 0, 0], [0, 0, 0], [0, 0, 0]]

BY_HAND = [  # kernel, TV, norm
    ([[1, 2], [3, 5]], (2 + 3) + (1 + 2), 11),
    ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 6 * 3 + 6 * 1, 45),
    ([[1, -1], [-1, 1]], 4 * 2, 4),
    (DELTA_CENTRE, 4, 1),
    (DELTA_CORNER, 2, 1),
    ([[1, 0, -2]], 1 + 2, 3),
    ([[1], [0], [-2]], 1 + 2, 3),
    (np.full((3, 3), -0.7), 0, 6.3),
]


@pytest.mark.parametrize(("kernel", "variation", "norm"), BY_HAND)
def test_kernels_by_hand(kernel, variation, norm):
    found = ds.normalized_total_variation(np.array(kernel, "float32"))
    assert type(found) is float
    assert found == pytest.approx(variation / norm, rel=1e-6)


def loop_smoothness(kernel):
    """The paper's formula, term by term."""
    variation = norm = 0.0
    height, width = kernel.shape[:2]
    for i in range(height):
        for j in range(width):
            norm += np.abs(kernel[i, j]).sum()
            if i + 1 < height:
                variation += np.abs(kernel[i, j] - kernel[i + 1, j]).sum()
            if j + 1 < width:
                variation += np.abs(kernel[i, j] - kernel[i, j + 1]).sum()
    return variation, norm


@pytest.mark.parametrize(
    "shape", [(3, 3, 4, 5), (5, 2, 3, 1), (1, 3, 2, 2), (3, 3), (3, 3, 2, 2, 2)]
)
def test_the_formula_by_loops(shape):
    kernel = np.random.default_rng(0).normal(size=shape)
    variation, norm = loop_smoothness(kernel)
    for given in (kernel, ops.convert_to_tensor(kernel.astype("float32"))):
        assert ds.normalized_total_variation(given) == pytest.approx(variation / norm, rel=1e-6)


def test_scale_orientation_and_order_of_channels_do_not_matter():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    expected = ds.normalized_total_variation(kernel)
    for same in (
        -1e-20 * kernel,
        kernel[::-1],
        kernel[:, ::-1],
        kernel.transpose(1, 0, 2, 3),
        kernel[:, :, ::-1, [3, 1, 4, 0, 2]],
    ):
        assert ds.normalized_total_variation(same) == pytest.approx(expected, rel=1e-12)
    # Neighbours in space are what counts: filters, each its own rough values, shuffled in space.
    assert ds.normalized_total_variation(np.sort(kernel, axis=0)) < expected


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (1, 1)])
def test_kernels_without_neighbours_are_nan(shape):
    assert np.isnan(ds.normalized_total_variation(np.ones(shape)))


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_kernels_without_a_ratio_are_nan(value):
    assert np.isnan(ds.normalized_total_variation(np.full((3, 3, 1, 1), value)))


def test_constants_are_exactly_zero_to_the_last_bit():
    kernel = np.broadcast_to(np.random.default_rng(0).normal(size=(4, 5)), (3, 3, 4, 5))
    assert ds.normalized_total_variation(kernel.astype("float32")) == 0


@pytest.mark.parametrize("shape", [(), (3,)])
def test_what_is_no_kernel(shape):
    with pytest.raises(ValueError, match=r"height and a width.*received shape \("):
        ds.normalized_total_variation(np.ones(shape))


# ---- expectations ----


def test_kernels_of_independent_normal_weights():
    """E|w - w'| / E|w| = √2, times neighbours over weights: paper.md's 12·√2/9 = 1.886."""
    rng = np.random.default_rng(0)
    for side, neighbours in ((3, 12), (2, 4), (5, 40)):
        kernel = rng.normal(size=(side, side, 300, 300))
        expected = neighbours * 2**0.5 / side**2
        assert ds.normalized_total_variation(kernel) == pytest.approx(expected, rel=5e-3)


def test_the_papers_networks_at_initialization():
    """paper.md: 1.856 for every 3×3 layer, of a normal truncated at two deviations."""
    rows = []
    for seed in range(20):
        table = ds.filter_smoothness(ds.vgg((32, 32, 3), 10, downsampling="strided", seed=seed))
        assert len(table) == 8 + 4
        rows.append(table[table["kernel_height"] == 3]["smoothness"].to_numpy())
        twos = table[table["kernel_height"] == 2]["smoothness"]
        assert twos.to_numpy() == pytest.approx(1.39, abs=0.05)
    rows = np.array(rows)
    assert rows.shape == (20, 8)
    assert rows.mean() == pytest.approx(1.856, abs=0.003)
    # Each layer too, within four standard errors of 20 networks: deviations as in paper.md.
    deviations = np.array([0.035] + [0.011] * 7)
    assert (np.abs(rows.mean(axis=0) - 1.856) < 4 * deviations / np.sqrt(20)).all()


@pytest.mark.parametrize(("shape", "deviation"), [((3, 3, 3, 32), 0.035), ((3, 3, 32, 32), 0.011)])
def test_the_deviation_between_networks(shape, deviation):
    """paper.md; a deviation from 500 samples is known to one part in √1000: four of them."""
    values = [ds.normalized_total_variation(paper_initializer(seed)(shape)) for seed in range(500)]
    assert np.std(values) == pytest.approx(deviation, rel=4 / np.sqrt(1000))
    assert np.mean(values) == pytest.approx(1.856, abs=0.003 + 4 * deviation / np.sqrt(500))


# ---- models ----


@pytest.fixture
def every_kind():
    inputs = keras.Input((16, 16, 3))
    inner_inputs = keras.Input((None, None, 4))
    inner = keras.Model(
        inner_inputs, layers.Conv2D(4, 2, name="deep")(inner_inputs), name="backbone"
    )
    tensor = layers.Conv2D(4, 3, name="plain")(inputs)
    tensor = layers.Conv2D(4, 1, name="pointwise")(tensor)
    tensor = inner(inner(tensor))  # twice the same kernel: one row
    tensor = layers.DepthwiseConv2D(3, name="depthwise")(tensor)
    tensor = layers.SeparableConv2D(5, 3, name="separable")(tensor)
    tensor = layers.Conv2DTranspose(4, (3, 2), name="transpose")(tensor)
    tensor = layers.Conv2D(2, 3, kernel_initializer="zeros", name="zero")(tensor)
    tensor = layers.Conv1D(2, 3, name="no_image")(layers.Reshape((-1, 2))(tensor))
    return keras.Model(inputs, layers.Dense(2)(tensor))


def test_every_kind_of_convolution(every_kind):
    table = ds.filter_smoothness(every_kind)
    assert list(table.columns) == list(SMOOTHNESS_COLUMNS)
    expected = {
        "plain": ("Conv2D", 3, 3, every_kind.get_layer("plain").kernel),
        "pointwise": ("Conv2D", 1, 1, every_kind.get_layer("pointwise").kernel),
        "backbone/deep": ("Conv2D", 2, 2, every_kind.get_layer("backbone").layers[1].kernel),
        "depthwise": ("DepthwiseConv2D", 3, 3, every_kind.get_layer("depthwise").kernel),
        "separable": (
            "SeparableConv2D",
            3,
            3,
            every_kind.get_layer("separable").depthwise_kernel,
        ),
        "transpose": ("Conv2DTranspose", 3, 2, every_kind.get_layer("transpose").kernel),
        "zero": ("Conv2D", 3, 3, every_kind.get_layer("zero").kernel),
    }
    assert sorted(table["layer"]) == sorted(expected)
    assert table["layer_index"].tolist() == list(range(7)) == table.index.tolist()
    for row in table.itertuples():
        kind, height, width, kernel = expected[row.layer]
        assert (row.layer_type, row.kernel_height, row.kernel_width) == (kind, height, width)
        variation, norm = loop_smoothness(np.asarray(kernel, "float64"))
        assert row.total_variation == pytest.approx(variation, rel=1e-12)
        assert row.norm == pytest.approx(norm, rel=1e-12)
        if row.layer in ("pointwise", "zero"):
            assert np.isnan(row.smoothness)
            assert ("1×1" if row.layer == "pointwise" else "zero") in row.note
        else:
            assert row.smoothness == pytest.approx(variation / norm, rel=1e-12)
            assert row.note == ""


def test_convolutions_stand_in_the_order_of_the_model():
    model = ds.vgg((16, 16, 3), 4, ((2, 4), (1, 4)), "strided_relu")
    assert ds.filter_smoothness(model)["layer"].tolist() == [
        "block1_conv1",
        "block1_conv2",
        "block1_downsample_conv",
        "block2_conv1",
        "block2_downsample_conv",
    ]


def test_broken_kernels_keep_their_row(every_kind):
    kernel = every_kind.get_layer("plain").kernel
    kernel.assign(np.full(kernel.shape, np.nan, "float32"))
    table = ds.filter_smoothness(every_kind).set_index("layer")
    assert np.isnan(table.loc["plain", "smoothness"])
    assert table.loc["plain", "note"] == "non-finite kernel"
    assert table.loc["depthwise", "smoothness"] > 0


def test_wrapped_and_subclassed_convolutions():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.frames = layers.TimeDistributed(layers.Conv2D(2, 3, name="inner"), name="frames")
            self.several = [layers.Conv2D(2, 3, name="first"), layers.Conv2D(2, 3, name="second")]

        def call(self, images):
            frames = self.frames(images)[:, 0]
            return self.several[1](self.several[0](frames))

    model = Model()
    model(np.zeros((1, 2, 9, 9, 1), "float32"))
    assert sorted(ds.filter_smoothness(model)["layer"]) == ["first", "frames/inner", "second"]


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match=r"layer mine has no kernel yet: build the model"):
        ds.filter_smoothness(keras.Sequential([layers.Conv2D(2, 3, name="mine")]))


@pytest.mark.filterwarnings("ignore:`build:UserWarning")  # Keras', of what is not used
@pytest.mark.parametrize(
    "unused",
    [
        layers.Conv2D(2, (3, 2), name="unused"),
        layers.SeparableConv2D(2, (3, 2), name="unused"),
        layers.DepthwiseConv2D((3, 2), name="unused"),
        layers.Conv2DTranspose(2, (3, 2), name="unused"),
    ],
)
def test_a_convolution_that_the_model_does_not_use_keeps_its_row(unused):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.never = layers.Conv2D(2, 3, name="first"), unused
            self.last = layers.Conv2D(2, 3, name="last")

        def call(self, images):
            return self.last(self.first(images))

    model = Model()
    with pytest.raises(ValueError, match=r"layer first has no kernel yet: build the model"):
        ds.filter_smoothness(model)
    model(np.zeros((1, 9, 9, 1), "float32"))
    table = ds.filter_smoothness(model).set_index("layer")
    assert sorted(table.index) == ["first", "last", "unused"]
    row = table.loc["unused"]
    assert (row["kernel_height"], row["kernel_width"]) == (3, 2)
    assert np.isnan([row["total_variation"], row["norm"], row["smoothness"]]).all()
    assert row["note"] == "it has no kernel: no call of the model has used it"
    for name in ("first", "last"):
        variation, norm = loop_smoothness(np.asarray(getattr(model, name).kernel, "float64"))
        assert table.loc[name, "smoothness"] == pytest.approx(variation / norm, rel=1e-12)


def test_a_model_without_convolutions():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="dense_only")
    with pytest.raises(ValueError, match="'dense_only' has no 2-D convolution"):
        ds.filter_smoothness(model)


@needs_tensorflow
def test_kernels_of_sixteen_bits():
    keras.config.set_dtype_policy("bfloat16")
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(16, 3, name="half")])
    found = ds.filter_smoothness(model)["smoothness"][0]
    kernel = np.asarray(ops.cast(model.layers[0].kernel, "float32"), "float64")
    assert found == pytest.approx(np.divide(*loop_smoothness(kernel)), rel=1e-12)
