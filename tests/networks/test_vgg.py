"""The paper's networks: names, shapes, weights, and the five kinds against NumPy."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, numpy, randomize

import deformstab as ds
from deformstab.networks.downsampling import Subsample2D

BLOCKS = ((1, 4), (2, 4))
LEARNED = ("strided", "strided_relu")


def tiny(kind="max", shape=(9, 14, 3), **kwargs):
    return ds.vgg(shape, 5, BLOCKS, kind, **kwargs)


def output_of(model, name, images):
    return numpy(keras.Model(model.input, model.get_layer(name).output)(images, training=False))


def weights_of(model):
    return {variable.path: np.asarray(variable) for variable in model.weights}


# ---- names and shapes ----


@pytest.mark.parametrize("kind", ds.DOWNSAMPLING_KINDS)
def test_the_thirteen_representations_of_the_cifar10_network(kind):
    model = ds.vgg((32, 32, 3), 10, downsampling=kind)
    names, shapes = ["input"], [(32, 32, 3)]
    for block, (filters, side) in enumerate([(32, 32), (64, 16), (128, 8), (256, 4)], start=1):
        names += [f"block{block}_conv{number}_relu" for number in (1, 2)]
        names += [f"block{block}_downsample"]
        shapes += [(side, side, filters)] * 2 + [(side // 2, side // 2, filters)]
    assert len(names) == 13
    assert ds.paper_layers(model) == names
    assert [model.get_layer(name).output.shape[1:] for name in names] == shapes
    assert model.output_shape == (None, 10)
    order = [layer.name for layer in model.layers]
    assert sorted(names, key=order.index) == names


def test_tables_of_blocks_are_those_of_the_paper():
    assert ds.CIFAR10_BLOCKS == ((2, 32), (2, 64), (2, 128), (2, 256))
    assert ds.IMAGENET_BLOCKS == ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    assert set(ds.PAPER_KINDS) == {"subsample", "max", "average", "strided", "strided_relu"}
    assert set(ds.PAPER_KINDS) < set(ds.DOWNSAMPLING_KINDS)


def test_a_block_is_convolution_normalization_relu():
    model = tiny()
    for name in ("block1_conv1", "block2_conv1", "block2_conv2"):
        convolution = model.get_layer(name)
        assert isinstance(convolution, keras.layers.Conv2D)
        assert convolution.kernel_size == (3, 3)
        assert not convolution.use_bias
        following = [f"{name}_bn", f"{name}_relu"]
        order = [layer.name for layer in model.layers]
        assert order[order.index(name) + 1 :][:2] == following
        assert isinstance(model.get_layer(following[0]), keras.layers.BatchNormalization)
        assert isinstance(model.get_layer(following[1]), keras.layers.ReLU)
    assert [layer.name for layer in model.layers][-2:] == ["global_average", "logits"]


def test_names_are_equal_across_kinds():
    plain = {kind: [layer.name for layer in tiny(kind).layers] for kind in ds.DOWNSAMPLING_KINDS}
    for kind, names in plain.items():
        if kind == "strided_relu":
            names = [n for n in names if not n.endswith(("_downsample_conv", "_downsample_bn"))]
        assert names == plain["max"], kind


# ---- the kinds ----


def downsampled(kind, before, model):
    """A kind of downsampling in NumPy."""
    height, width = (side // 2 * 2 for side in before.shape[1:3])
    cut = before[:, :height, :width].astype("float64")
    blocks = np.stack([cut[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])  # top left first
    if kind == "subsample":
        return blocks[0]
    if kind == "max":
        return blocks.max(axis=0)
    if kind == "average":
        return blocks.mean(axis=0)
    weights = weights_of(model)
    name = "block1_downsample" if kind == "strided" else "block1_downsample_conv"
    kernel = weights[f"{name}/kernel"].reshape(4, *weights[f"{name}/kernel"].shape[2:])
    convolved = np.einsum("pbyxi,pio->byxo", blocks, kernel)
    if kind == "strided":
        return convolved
    mean, variance, gamma, beta = (
        weights[f"block1_downsample_bn/{part}"]
        for part in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    return np.maximum(gamma * (convolved - mean) / np.sqrt(variance + 1e-3) + beta, 0)


@pytest.mark.parametrize("kind", sorted(set(ds.DOWNSAMPLING_KINDS) - set(ds.PAPER_KINDS)))
def test_other_kinds_are_those_of_a_swap(kind):
    model = tiny("max", shape=(9, 15, 3), seed=0)
    randomize(model)
    swapped, direct = ds.swap_downsampling(model, kind), tiny(kind, shape=(9, 15, 3), seed=0)
    direct.set_weights(model.get_weights())
    images = natural_images(3, 9, 15)
    np.testing.assert_array_equal(numpy(direct(images)), numpy(swapped(images)))
    assert [layer.name for layer in direct.layers] == [layer.name for layer in swapped.layers]


@pytest.mark.parametrize("kind", ds.PAPER_KINDS)
def test_kinds_of_numpy_on_odd_sizes(kind):
    model = tiny(kind, shape=(9, 15, 3))
    randomize(model)
    images = natural_images(3, 9, 15)
    before = output_of(model, "block1_conv1_relu", images)
    found = output_of(model, "block1_downsample", images)
    assert found.shape == (3, 4, 7, 4)
    np.testing.assert_allclose(found, downsampled(kind, before, model), rtol=0, atol=1e-5)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 8), (8, 9), (7, 11), (2, 2), (3, 2)])
def test_subsample_keeps_the_top_left_of_each_block(height, width):
    images = np.arange(2 * height * width * 3).reshape(2, height, width, 3).astype("float32")
    expected = np.empty((2, height // 2, width // 2, 3), "float32")
    for y in range(height // 2):
        for x in range(width // 2):
            expected[:, y, x] = images[:, 2 * y, 2 * x]
    np.testing.assert_array_equal(numpy(Subsample2D()(images)), expected)
    first = Subsample2D(data_format="channels_first")(images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(numpy(first), expected.transpose(0, 3, 1, 2))
    symbolic = Subsample2D()(keras.Input((None, None, 3)))
    assert symbolic.shape == (None, None, None, 3)


# ---- weights ----


def test_layers_two_kinds_have_in_common_start_equal():
    reference = weights_of(tiny("max", seed=3))
    for kind in ds.DOWNSAMPLING_KINDS:
        found = weights_of(tiny(kind, seed=3))
        assert set(reference) <= set(found)
        for path in reference:
            np.testing.assert_array_equal(found[path], reference[path], err_msg=path)


@pytest.mark.parametrize("kind", ["max", *LEARNED])
def test_layers_of_one_shape_start_different(kind):
    blocks = ((3, 4), (3, 4))
    kernels = [w for w in ds.vgg((8, 8, 4), 4, blocks, kind, seed=0).weights if "kernel" in w.path]
    for shape in {tuple(kernel.shape) for kernel in kernels}:
        alike = [np.asarray(kernel).ravel() for kernel in kernels if tuple(kernel.shape) == shape]
        together = np.concatenate(alike)
        assert len(np.unique(together)) == len(together)


def test_seeds_repeat_and_differ():
    def kernel(seed):
        return weights_of(tiny(seed=seed))["block2_conv2/kernel"]

    np.testing.assert_array_equal(kernel(1), kernel(1))
    for other in (kernel(2), kernel(None)):
        assert (kernel(1) != other).mean() > 0.99
    assert (kernel(None) != kernel(None)).mean() > 0.99
    keras.utils.set_random_seed(5)
    first = kernel(None)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(kernel(None), first)


@pytest.mark.parametrize("seed", [-1, True, 1.5, "a"])
def test_what_is_no_seed_is_refused(seed):
    message = r"seed must be an int of at least 0, received"
    with pytest.raises(ValueError, match=message):
        tiny(seed=seed)
    with pytest.raises(ValueError, match=message):
        ds.swap_downsampling(tiny(), "strided", seed=seed)


def test_initial_weights_are_a_truncated_normal_of_one_over_root_inputs():
    model = ds.vgg((32, 32, 3), 10, downsampling="strided", seed=0)
    checked = 0
    for path, kernel in weights_of(model).items():
        if not path.endswith("kernel"):
            continue
        checked += 1
        inputs, count = np.prod(kernel.shape[:-1]), kernel.size
        expected = 1 / np.sqrt(inputs)
        # Standard errors: of a deviation at most 1/√(2n) of it (a truncated normal has thin tails).
        assert kernel.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * count)), path
        assert abs(kernel.mean()) < 5 * expected / np.sqrt(count), path
        # Cut at two deviations of the normal, whose own deviation is then 0.8796 of it
        # (scipy.stats.truncnorm(-2, 2).std() = 0.87963).
        bound = 2 * expected / 0.879626
        if BACKEND != "torch":  # on PyTorch Keras lets 1 of 230,000 weights pass
            assert np.abs(kernel).max() <= bound * (1 + 1e-6), path
        if count > 5000:
            assert np.abs(kernel).max() > 0.99 * bound, path
    assert checked == 8 + 4 + 1


@pytest.mark.parametrize("seed", [None, 0])
def test_initializers_of_every_form(seed):
    for initializer in (
        "he_normal",
        keras.initializers.Orthogonal(),
        "ones",
        {"class_name": "Zeros"},
    ):
        weights = weights_of(tiny(kernel_initializer=initializer, seed=seed))
        kernel = weights["block2_conv2/kernel"]
        if initializer == "ones":
            assert (kernel == 1).all()
        elif isinstance(initializer, keras.initializers.Orthogonal):
            flat = kernel.reshape(-1, 4)
            np.testing.assert_allclose(flat.T @ flat, np.eye(4), atol=1e-5)
        elif isinstance(initializer, dict):
            assert not kernel.any()
        assert (weights["block2_conv1/kernel"] == kernel).all() == (
            initializer == "ones" or isinstance(initializer, dict)
        )


def test_a_plain_function_is_an_initializer_as_in_keras():
    def halves(shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)

    weights = weights_of(tiny(kernel_initializer=halves, seed=0))
    assert (weights["block1_conv1/kernel"] == 0.5).all()


def test_the_seed_of_the_initializer_counts_where_none_is_given():
    first, second, other = (
        weights_of(tiny(kernel_initializer=keras.initializers.HeNormal(seed=seed)))
        for seed in (1, 1, 2)
    )
    for path in first:
        np.testing.assert_array_equal(first[path], second[path])
    assert (first["block2_conv2/kernel"] != other["block2_conv2/kernel"]).all()
    assert (first["block2_conv2/kernel"] != first["block2_conv1/kernel"]).all()


@pytest.mark.parametrize("kind", ds.DOWNSAMPLING_KINDS)
def test_every_kind_is_saved_and_loaded(kind, tmp_path):
    model = tiny(kind, shape=(9, 15, 3), seed=0)
    randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = natural_images(3, 9, 15)
    np.testing.assert_array_equal(numpy(loaded(images)), numpy(model(images)))
    assert ds.paper_layers(loaded) == ds.paper_layers(model)


def test_channels_first_has_the_same_weights():
    last = {kind: tiny(kind, seed=0) for kind in ds.DOWNSAMPLING_KINDS}
    keras.config.set_image_data_format("channels_first")
    for kind, model in last.items():
        first = tiny(kind, shape=(3, 9, 14), seed=0)
        assert first.get_layer("block1_downsample").output.shape == (None, 4, 4, 7)
        for path, value in weights_of(model).items():
            np.testing.assert_array_equal(weights_of(first)[path], value)


# ---- bad input ----


@pytest.mark.parametrize("kind", ["maxpool", "Max", None, 2])
def test_unknown_kinds_list_the_known_ones(kind):
    with pytest.raises(
        ValueError, match=r"subsample, max, average, strided, strided_relu"
    ) as error:
        tiny(kind)
    assert repr(kind) in str(error.value)


@pytest.mark.parametrize("shape", [(32, 32), (32,), (3, 14, 3), (14, 3, 3), (1, 8, 8, 3)])
def test_impossible_shapes(shape):
    with pytest.raises(ValueError, match=r"height, width, channels.*at least 4 pixels a side"):
        tiny(shape=shape)


@pytest.mark.parametrize(
    ("classes", "blocks"),
    [(0, BLOCKS), (-1, BLOCKS), (5, ((0, 4),)), (5, ((1, 0),)), (5, ((1,),)), (5, 5)],
)
def test_impossible_numbers(classes, blocks):
    with pytest.raises(ValueError, match=r"at least 1.*received"):
        ds.vgg((16, 16, 3), classes, blocks)


def test_paper_layers_of_other_models():
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="mine")])
    with pytest.raises(ValueError, match=r"ds\.vgg.*mine"):
        ds.paper_layers(other)
