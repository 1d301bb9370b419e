"""swap_downsampling: what is replaced, what is kept, what is refused."""

import json

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_tensorflow, numpy, randomize
from keras import layers

import deformstab as ds
from deformstab.networks import finite
from deformstab.networks.downsampling import BlurPooling2D, Subsample2D
from deformstab.networks.exchangeable import SWAPPED_IN

BLOCKS = ((1, 3), (1, 4))
LEARNED = ("strided", "strided_relu")
TYPES = SWAPPED_IN  # the class of each kind


def tiny(kind="max", shape=(9, 14, 3), randomized=True):
    model = ds.vgg(shape, 5, BLOCKS, kind, seed=0)
    if randomized:
        randomize(model)
    return model


def names(model):
    return [layer.name for layer in model.layers]


def states(layer, path=""):
    """{path of layers: its own variables and seeds} of a layer and all within, each once."""
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    own += [generator.state for generator in layer._seed_generators]
    found = {path: [np.array(numpy(variable.value)) for variable in own]}
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        found |= states(inner, f"{path}/{inner.name}")
    return found


def assert_kept(old, new, kind, count):
    """Same paths; `count` layers are of the kind, and all other state is equal."""
    replaced = []
    for layer in new._flatten_layers(include_self=False):
        if type(layer) is TYPES[kind] and max(layer.strides) > 1:
            replaced.append(layer.name)
    assert len(replaced) == count
    before, after = states(old), states(new)
    kept = [path for path in before if not set(path.split("/")) & set(replaced)]
    new_paths = {path for path in after if not path.endswith("/normalization")}
    assert set(before) == new_paths
    for path in kept:
        assert len(before[path]) == len(after[path]), path
        for first, second in zip(before[path], after[path]):
            np.testing.assert_array_equal(first, second, err_msg=path)
    assert_shares_nothing(old, new)


def assert_shares_nothing(old, new):
    layers_of_old = {id(layer) for layer in old._flatten_layers()}
    assert not layers_of_old & {id(layer) for layer in new._flatten_layers()}
    assert not {id(v) for v in old.variables} & {id(v) for v in new.variables}


def predict(model, images):
    return keras.tree.map_structure(numpy, model(images, training=False))


def assert_saved_and_loaded(model, images, tmp_path):
    expected = predict(model, images)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    keras.tree.map_structure(np.testing.assert_array_equal, predict(loaded, images), expected)
    randomize(loaded, seed=9)
    loaded.load_weights(tmp_path / "model.weights.h5")
    keras.tree.map_structure(np.testing.assert_array_equal, predict(loaded, images), expected)


# ---- models of ds.vgg ----


@pytest.mark.parametrize("old_kind", ds.DOWNSAMPLING_KINDS)
def test_swapped_networks_are_those_made_with_the_kind(old_kind):
    images = natural_images(2, 9, 14)
    old = tiny(old_kind)
    weights = {v.path: v for v in old.weights if "downsample" not in v.path}
    for kind in ds.DOWNSAMPLING_KINDS:
        expected = tiny(kind, randomized=False)  # its learned downsampling has the seed 0, too
        for variable in expected.weights:
            if variable.path in weights:
                variable.assign(numpy(weights[variable.path].value))
        new = ds.swap_downsampling(old, kind, seed=0)
        np.testing.assert_array_equal(predict(new, images), predict(expected, images), err_msg=kind)
        assert ds.paper_layers(new) == ds.paper_layers(expected)
        assert {v.path for v in expected.weights if "_bn" not in v.path} == {
            v.path.replace("downsample/", "downsample_conv/") if kind == "strided_relu" else v.path
            for v in new.weights
            if "_bn" not in v.path and "normalization" not in v.path
        }


@pytest.mark.parametrize("old_kind", ds.DOWNSAMPLING_KINDS)
def test_swaps_compose(old_kind):
    """Every kind after every kind: two of the last ones after each pair, all pairs of both."""
    old, kinds = tiny(old_kind), ds.SWAP_KINDS
    direct = {kind: ds.swap_downsampling(old, kind, seed=4) for kind in ds.SWAP_KINDS}
    for kind, model in direct.items():
        assert names(model) == names(tiny("max"))
        assert model.name == old.name
        assert model.count_params() - old.count_params() == (
            {"strided": 100, "strided_relu": 100 + 28}.get(kind, 0)
            - {"strided": 100, "strided_relu": 100 + 28}.get(old_kind, 0)
        )
        assert [model.get_layer(f"block{block}_downsample").output.shape for block in (1, 2)] == [
            (None, 4, 7, 3),
            (None, 2, 3, 4),
        ]
        place = kinds.index(kind) + ds.DOWNSAMPLING_KINDS.index(old_kind)
        for last in (kinds[(place + turn) % len(kinds)] for turn in (0, 4)):
            twice = ds.swap_downsampling(model, last, seed=4)
            assert json.dumps(twice.get_config()) == json.dumps(direct[last].get_config())
            first, second = states(twice), states(direct[last])
            assert first.keys() == second.keys()
            for path in first:
                for ours, theirs in zip(first[path], second[path], strict=True):
                    np.testing.assert_array_equal(ours, theirs, err_msg=path)


@pytest.mark.parametrize("kind", ds.SWAP_KINDS)
@pytest.mark.parametrize("old_kind", ["max", "strided_relu"])
def test_the_old_model_stays_as_it_was(old_kind, kind):
    images = natural_images(8, 9, 14)
    old = tiny(old_kind)
    expected, before, config = predict(old, images), states(old), json.dumps(old.get_config())
    calls = [len(layer._inbound_nodes) for layer in old.layers]
    new = ds.swap_downsampling(old, kind)
    assert_shares_nothing(old, new)
    assert not new.compiled
    new.compile("sgd", "mse")
    new.fit(images, np.ones((8, 5), "float32"), batch_size=4, verbose=0)
    assert json.dumps(old.get_config()) == config
    assert [len(layer._inbound_nodes) for layer in old.layers] == calls
    np.testing.assert_array_equal(predict(old, images), expected)
    after = states(old)
    for path in before:
        for first, second in zip(before[path], after[path], strict=True):
            np.testing.assert_array_equal(first, second)
    moved = states(new)["/logits"][0]
    assert (moved != before["/logits"][0]).any()


@pytest.mark.parametrize("kind", ds.SWAP_KINDS)
def test_swapped_models_are_saved_and_loaded(kind, tmp_path):
    new = ds.swap_downsampling(tiny(shape=(20, 20, 3)), kind, blur_size=4)
    randomize(new)
    assert_saved_and_loaded(new, natural_images(3, 20, 20), tmp_path)


def test_average_to_average_predicts_the_same():
    old, images = tiny("average"), natural_images(3, 9, 14)
    new = ds.swap_downsampling(old, "average")
    np.testing.assert_array_equal(predict(new, images), predict(old, images))


@pytest.mark.parametrize("kind", LEARNED)
def test_convolutions_that_start_as_average_pooling(kind):
    old, images = tiny("average", shape=(16, 16, 3)), natural_images(3)
    new = ds.swap_downsampling(old, kind, start="average")
    # Batch normalization starts as a division by √(1 + ε), ε = 0.001, after each of two blocks.
    scale = 1 if kind == "strided" else 1 / np.sqrt(1.001)
    for block in (1, 2):
        for name in ("conv1", "downsample"):
            layer = f"block{block}_{name}"
            outputs = [
                numpy(keras.Model(m.input, m.get_layer(layer).output)(images)) for m in (old, new)
            ]
            if layer in ("block1_conv1", "block1_downsample"):
                factor = scale if name == "downsample" else 1
                np.testing.assert_allclose(outputs[1], outputs[0] * factor, rtol=1e-4, atol=1e-6)
    tolerance = 1e-5 if kind == "strided" else 0.01
    np.testing.assert_allclose(predict(new, images), predict(old, images), atol=tolerance)


def test_seeds():
    old = tiny()

    def kernel(seed, block=1, model=old):
        new = ds.swap_downsampling(model, "strided", seed=seed)
        return np.asarray(new.get_layer(f"block{block}_downsample").kernel)

    np.testing.assert_array_equal(kernel(1), kernel(1))
    for other in (kernel(2), kernel(None)):
        assert (kernel(1) != other).all()
    assert (kernel(None) != kernel(None)).all()
    keras.utils.set_random_seed(3)
    first = kernel(None)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(kernel(None), first)
    square = ds.vgg((9, 14, 3), 5, ((1, 3), (1, 3)))
    assert (kernel(1, model=square) != kernel(1, block=2, model=square)).all()


@pytest.mark.parametrize("kind", ["max", "strided"])
@pytest.mark.parametrize("seed", [-1, True, 1.0, "1"])
def test_a_wrong_seed_is_refused_whether_or_not_a_kernel_is_made(kind, seed):
    with pytest.raises(ValueError, match=f"seed must be an int of at least 0, received {seed!r}"):
        ds.swap_downsampling(tiny(), kind, seed=seed)


def test_start_of_the_paper_has_deviation_one_over_root_inputs():
    inputs = keras.Input((12, 12, 40))
    model = keras.Model(inputs, layers.MaxPooling2D((3, 2), 2, name="pool")(inputs))
    for kind in LEARNED:
        kernel = np.asarray(ds.swap_downsampling(model, kind, seed=0).get_layer("pool").kernel)
        assert kernel.shape == (3, 2, 40, 40)
        assert kernel.std() == pytest.approx(1 / np.sqrt(3 * 2 * 40), rel=5 / np.sqrt(2 * 9600))


def test_other_outputs_of_what_stands_before_a_downsampling_are_kept():
    full = tiny("strided_relu")
    tapped = ["block1_downsample_conv", "block1_downsample_bn", "block1_downsample", "logits"]
    old = keras.Model(full.input, [full.get_layer(name).output for name in tapped])
    new, images = ds.swap_downsampling(old, "max"), natural_images(2, 9, 14)
    before, after = predict(old, images), predict(new, images)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    features = keras.Model(full.input, full.get_layer("block1_conv1_relu").output)(images)
    np.testing.assert_array_equal(after[2], numpy(layers.MaxPooling2D()(features)))


def test_layers_of_vgg_in_a_sequential_model():
    old = keras.Sequential(tiny("strided_relu").layers)
    new = ds.swap_downsampling(old, "blur")
    assert names(new) == names(tiny("max"))[1:]
    functional = ds.swap_downsampling(tiny("strided_relu"), "blur")
    images = natural_images(2, 9, 14)
    np.testing.assert_array_equal(predict(new, images), predict(functional, images))


def test_convolutions_of_other_models_are_not_pooling():
    inputs = keras.Input((8, 8, 3))
    tensor = layers.MaxPooling2D(name="pool")(inputs)
    options = {"name": "block1_downsample", "use_bias": False}
    for convolution in (
        layers.Conv2D(3, 2, 2, name="block1_downsample"),  # with bias
        layers.Conv2D(3, 3, 2, **options),
        layers.Conv2D(3, 2, 1, **options),
        layers.Conv2D(3, 2, 2, "same", **options),
        layers.Conv2D(3, 2, 2, name="stage1_downsample", use_bias=False),
        layers.ReLU(name="block1_downsample"),
    ):
        new = ds.swap_downsampling(keras.Model(inputs, convolution(tensor)), "subsample")
        assert type(new.layers[-1]) is type(convolution)
        assert isinstance(new.get_layer("pool"), Subsample2D)
    without_bn = layers.Conv2D(3, 2, 2, name="block1_downsample_conv", use_bias=False)(tensor)
    without_bn = layers.ReLU(name="block1_downsample")(without_bn)
    new = ds.swap_downsampling(keras.Model(inputs, without_bn), "subsample")
    assert [type(layer) for layer in new.layers[2:]] == [layers.Conv2D, layers.ReLU]


# ---- other models ----


@pytest.mark.parametrize("kind", ds.SWAP_KINDS)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("window", "strides"),
    [(2, None), (3, 2), (3, 3), (1, 2), (2, 3), ((3, 2), (2, 1)), ((1, 2), None)],
)
def test_shapes_names_and_windows_are_kept(window, strides, padding, kind):
    for pooling in (layers.MaxPooling2D, layers.AveragePooling2D):
        for size in ((7, 8), (6, 9), (None, None)):
            inputs = keras.Input((*size, 2))
            tensor = layers.Conv2D(3, 3, padding="same", name="before")(inputs)
            tensor = pooling(window, strides, padding, name="pool")(tensor)
            old = keras.Model(inputs, layers.Conv2D(2, 1, name="after")(tensor))
            new = ds.swap_downsampling(old, kind)
            pool = new.get_layer("pool")
            assert type(pool) is TYPES[kind]
            assert (pool.pool_size, pool.strides, pool.padding) == tuple(
                getattr(old.get_layer("pool"), name) for name in ("pool_size", "strides", "padding")
            )
            assert [layer.output.shape for layer in new.layers] == [
                layer.output.shape for layer in old.layers
            ]
            images = natural_images(1, 8, 9)[..., :2]
            if size == (None, None):
                assert predict(new, images).shape == predict(old, images).shape
            assert_kept(old, new, kind, 1)


def test_pooling_that_does_not_downsample_stays():
    inputs = keras.Input((8, 8, 2))
    tensor = layers.MaxPooling2D(3, 1, "same", name="dense")(inputs)
    tensor = layers.AveragePooling2D(2, 1, name="dense_average")(tensor)
    tensor = layers.MaxPooling2D(2, name="pool")(tensor)
    tensor = layers.GlobalAveragePooling2D(name="global", keepdims=True)(tensor)
    new = ds.swap_downsampling(keras.Model(inputs, tensor), "blur")
    assert [type(layer).__name__ for layer in new.layers[1:]] == [
        *("MaxPooling2D", "AveragePooling2D", "BlurPooling2D", "GlobalAveragePooling2D")
    ]


@pytest.mark.parametrize("kind", ds.SWAP_KINDS)
def test_a_sequential_model_stays_one(kind, tmp_path):
    old = keras.Sequential(
        [
            keras.Input((10, 10, 3), name="photo"),
            layers.Conv2D(4, 3),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(2),
        ],
        name="mine",
    )
    randomize(old)
    new = ds.swap_downsampling(old, kind)
    assert type(new) is keras.Sequential
    assert new.name == "mine"
    assert names(new) == names(old)
    assert new.get_config()["layers"][0]["config"]["name"] == "photo"
    assert_kept(old, new, kind, 1)
    assert_saved_and_loaded(new, natural_images(2, 10, 10), tmp_path)


def inner_model():
    inputs = keras.Input((None, None, 4))
    tensor = layers.AveragePooling2D(2, padding="same", name="pool")(inputs)
    tensor = layers.Conv2D(4, 3, padding="same", name="conv")(tensor)
    return keras.Model(inputs, layers.BatchNormalization(name="bn")(tensor), name="inner")


def deep_model(across_levels=True):
    """Three levels: functional in Sequential in functional; a submodel and a pool are shared.

    Keras cannot load a model whose submodel is shared between levels (3.15: "expected 2 variables,
    but received 0"); without `across_levels` it is shared on one level only.
    """
    inner = inner_model()
    middle = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, padding="same"),
            inner if across_levels else inner_model(),
        ],
        name="middle",
    )
    pool = layers.MaxPooling2D(name="shared_pool")
    left, right = keras.Input((16, 16, 3), name="left"), keras.Input((16, 16, 3), name="right")
    features = [inner(middle(image)) for image in (left, right)]
    pooled = [pool(each) for each in features]
    difference = pooled[0] - pooled[1]
    total = layers.Add(name="total")([*pooled, difference])
    logits = layers.Dense(2, name="logits")(layers.Flatten(name="flat")(total))
    model = keras.Model(
        {"left": left, "right": right}, {"logits": logits, "maps": [total, pooled[0]]}, name="deep"
    )
    randomize(model)
    return model


@pytest.mark.parametrize("kind", ds.SWAP_KINDS)
@pytest.mark.parametrize("across_levels", [True, False])
def test_nested_and_shared_models_of_several_inputs_and_outputs(kind, across_levels, tmp_path):
    old = deep_model(across_levels)
    new = ds.swap_downsampling(old, kind, seed=0)
    assert_kept(old, new, kind, 2 if across_levels else 3)
    assert new.name == "deep"
    assert names(new) == names(old)
    assert [type(layer).__name__ for layer in new.layers if layer.name != "shared_pool"] == [
        type(layer).__name__ for layer in old.layers if layer.name != "shared_pool"
    ]
    # The model called twice and inside another one is one model still, and so is the pool.
    shared = new.get_layer("inner") is new.get_layer("middle").get_layer("inner")
    assert shared == across_levels
    assert len(new.get_layer("inner")._inbound_nodes) == 2 + across_levels
    assert len(new.get_layer("shared_pool")._inbound_nodes) == 2
    images = {"left": natural_images(2), "right": natural_images(2, seed=1)}
    found = predict(new, images)
    keras.tree.assert_same_structure(found, predict(old, images))
    np.testing.assert_allclose(found["maps"][0], 2 * found["maps"][1], rtol=1e-4, atol=1e-5)
    if not across_levels:
        assert_saved_and_loaded(new, images, tmp_path)


def test_average_again_predicts_the_same_in_nested_models():
    old = deep_model()
    averaged = ds.swap_downsampling(old, "average")
    again = ds.swap_downsampling(averaged, "average")
    images = {"left": natural_images(2), "right": natural_images(2, seed=1)}
    keras.tree.map_structure(
        np.testing.assert_array_equal, predict(again, images), predict(averaged, images)
    )
    assert np.abs(predict(averaged, images)["logits"] - predict(old, images)["logits"]).max() > 0.01


def test_names_of_pools_in_two_submodels_start_different():
    def part(name):
        inputs = keras.Input((8, 8, 3))
        return keras.Model(inputs, layers.MaxPooling2D(name="pool")(inputs), name=name)

    inputs = keras.Input((8, 8, 3))
    outputs = layers.Add()([part("one")(inputs), part("two")(inputs)])
    new = ds.swap_downsampling(keras.Model(inputs, outputs), "strided", seed=0)
    one, two = (np.asarray(new.get_layer(name).get_layer("pool").kernel) for name in ("one", "two"))
    assert (one != two).all()


@pytest.mark.parametrize("structure", ["tensor", "list", "tuple", "dict", "nested"])
def test_structures_of_inputs_and_outputs(structure):
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    pool = layers.MaxPooling2D(name="pool")
    p, q = pool(a), pool(b)
    inputs, outputs = {
        "tensor": (a, p),
        "list": ([a], [p]),
        "tuple": ((a, b), (p, q)),
        "dict": ({"a": a, "b": b}, {"p": p, "q": q}),
        "nested": ([a, {"b": b}], {"p": p, "rest": [q, {"sum": p + q}]}),
    }[structure]
    old = keras.Model(inputs, outputs)
    new = ds.swap_downsampling(old, "average")
    images = keras.tree.map_structure(
        lambda tensor: natural_images(2, 8, 8, seed=ord(tensor.name)), inputs
    )
    keras.tree.assert_same_structure(new.input, old.input)
    keras.tree.assert_same_structure(new.output, old.output)
    keras.tree.assert_same_structure(predict(new, images), predict(old, images))
    flat = keras.tree.flatten(predict(new, images))
    expected = layers.AveragePooling2D(2)(keras.tree.flatten(images)[0])
    np.testing.assert_allclose(flat[0], numpy(expected), rtol=1e-6)


def test_names_of_inputs_that_were_given_none():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    tensor = layers.Rescaling(1 / 255)(inputs)
    old = keras.Model(inputs, layers.MaxPooling2D()(tensor))
    new = ds.swap_downsampling(old, "max")
    assert names(new) == names(old)
    assert new.inputs[0].dtype == "uint8"


@keras.saving.register_keras_serializable(package="swapping_tests")
class Gain(layers.Layer):
    """A custom layer with a weight, a state that is no weight, and a layer inside."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.normalize = layers.BatchNormalization(name="normalize")
        self.seen = 0

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), name="gain")
        self.normalize.build(input_shape)

    def call(self, images, training=None):
        return self.factor * self.normalize(images, training=training) * self.gain

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seen"] = np.array(self.seen)

    def load_own_variables(self, store):
        store = dict(store)
        self.seen = int(np.array(store.pop("seen")))
        super().load_own_variables(store)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_custom_random_and_adapted_layers(tmp_path):
    images = natural_images(6)
    normalization = layers.Normalization(name="adapted")
    normalization.adapt(3 * images + 1)
    inputs = keras.Input((16, 16, 3))
    tensor = normalization(inputs)
    tensor = layers.RandomFlip(name="flip")(tensor)
    tensor = layers.RandomBrightness(0.5, value_range=(-1, 1), name="brightness", seed=3)(tensor)
    tensor = ds.RandomDeformation(name="deformation", seed=5)(tensor)
    tensor = Gain(3.0, name="gain")(tensor)
    tensor = layers.Dropout(0.5, name="dropout", seed=7)(tensor)
    tensor = layers.AveragePooling2D(2, name="pool")(tensor)
    tensor = keras.ops.reshape(tensor[:, ::2, 1:], (-1, 4 * 7 * 3)) / 2
    old = keras.Model(inputs, layers.Dense(2, name="logits")(tensor))
    for variable in (*old.get_layer("gain").weights, *old.get_layer("logits").weights):
        variable.assign(np.random.default_rng(0).uniform(0.5, 2, variable.shape))
    old.get_layer("gain").seen = 7
    old(images, training=True)  # seeds have moved on
    new = ds.swap_downsampling(old, "average")
    assert_kept(old, new, "average", 1)
    assert new.get_layer("gain").seen == 7
    np.testing.assert_array_equal(predict(new, images), predict(old, images))
    for _ in range(2):  # the same draws, one after the other
        drawn, expected = (numpy(model(images, training=True)) for model in (new, old))
        np.testing.assert_array_equal(drawn, expected)
        assert (drawn != predict(old, images)).any()
    assert_saved_and_loaded(ds.swap_downsampling(old, "max_blur"), images, tmp_path)


@needs_tensorflow
def test_vocabularies_are_kept():
    lookup = layers.StringLookup(name="lookup", output_mode="one_hot")
    lookup.adapt(["dog", "cat", "dog"])
    inputs = {"image": keras.Input((8, 8, 3), name="image")}
    inputs["label"] = keras.Input((1,), dtype="string", name="label")
    outputs = [layers.MaxPooling2D()(inputs["image"]), lookup(inputs["label"])]
    new = ds.swap_downsampling(keras.Model(inputs, outputs), "max")
    assert new.get_layer("lookup").get_vocabulary() == ["[UNK]", "dog", "cat"]


def test_lambdas_are_kept():
    offset = 0.25
    inputs = keras.Input((8, 8, 3))
    tensor = layers.Lambda(
        lambda x, scale: keras.ops.abs(x) * scale + offset,
        output_shape=(8, 8, 3),
        arguments={"scale": 2.0},
        name="lambda",
    )(inputs)
    old = keras.Model(inputs, layers.AveragePooling2D(2)(tensor))
    new, images = ds.swap_downsampling(old, "average"), natural_images(2, 8, 8)
    np.testing.assert_array_equal(predict(new, images), predict(old, images))
    assert new.get_layer("lambda") is not old.get_layer("lambda")


def test_frozen_layers_stay_frozen_and_others_do_not():
    old = deep_model()
    middle = old.get_layer("middle")
    middle.trainable = False
    middle.layers[0].trainable = True
    inner = old.get_layer("inner")
    inner.get_layer("conv").trainable = True
    old.get_layer("shared_pool").trainable = False
    expected = {layer.name: layer.trainable for layer in old._flatten_layers()}
    assert set(expected.values()) == {True, False}
    for kind in ("strided_relu", "blur"):
        new = ds.swap_downsampling(old, kind)
        found = {layer.name: layer.trainable for layer in new._flatten_layers()}
        assert found.pop("normalization", False) is False  # it is inside frozen pools only
        assert found == expected
    old.trainable = False
    assert ds.swap_downsampling(old, "strided").trainable_weights == []


def test_frozen_parts_of_custom_layers_stay_frozen():
    inputs = keras.Input((8, 8, 3))
    old = keras.Model(inputs, layers.MaxPooling2D()(Gain(name="gain")(inputs)))
    old.get_layer("gain").normalize.trainable = False
    new = ds.swap_downsampling(old, "max")
    assert [v.path for v in new.trainable_weights] == [v.path for v in old.trainable_weights]
    assert len(new.trainable_weights) == 1


def test_swapping_for_the_same_kind_makes_the_same_configuration():
    """So arguments of calls are kept, orders, dtypes, structures."""
    base = inner_model()
    inputs = keras.Input((8, 8, 4), dtype="float16")
    frozen = base(inputs, training=False)  # as in transfer learning
    frozen = layers.MultiHeadAttention(2, 3)(frozen, frozen, key=frozen, use_causal_mask=True)
    tensor = keras.ops.concatenate([frozen * 2, base(inputs)], axis=1)[:, 1:]
    for old in (
        keras.Model(inputs, {"a": tensor, "b": [layers.AveragePooling2D(2)(tensor)]}),
        ds.swap_downsampling(deep_model(), "average"),
        tiny("average"),
    ):
        new = ds.swap_downsampling(old, "average")
        assert json.dumps(new.get_config()) == json.dumps(old.get_config())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ds.SWAP_KINDS)
def test_mixed_precision(kind, policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((8, 8, 3))
    tensor = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    tensor = layers.MaxPooling2D(name="half")(tensor)
    tensor = layers.MaxPooling2D(name="full", dtype="float32")(tensor)
    old = keras.Model(inputs, layers.Dense(2, dtype="float32")(layers.Flatten()(tensor)))
    keras.config.set_dtype_policy("float32")
    new = ds.swap_downsampling(old, kind)
    for layer in new.layers[1:]:
        assert layer.dtype_policy.name == old.get_layer(layer.name).dtype_policy.name
        assert layer.output.dtype == old.get_layer(layer.name).output.dtype
    assert new.get_layer("half").dtype_policy.name == policy
    assert {v.dtype for v in new.weights} == {"float32"}
    assert np.isfinite(predict(new, natural_images(2, 8, 8))).all()


def test_the_data_format_is_the_pools():
    inputs = keras.Input((3, 8, 9))
    old = keras.Model(inputs, layers.MaxPooling2D(2, data_format="channels_first")(inputs))
    for kind in ds.SWAP_KINDS:
        new = ds.swap_downsampling(old, kind)
        assert new.layers[1].data_format == "channels_first"
        assert new.output_shape == (None, 3, 4, 4)
        assert {tuple(v.shape) for v in new.weights} <= {(2, 2, 3, 3), (3,)}


def test_what_this_processor_cannot_compute_is_no_fault_of_a_swap():
    class UnimplementedError(Exception):  # TensorFlow's, of channels_first on some processors
        pass

    def raising(error):
        def model(*_, **__):
            raise error

        return model

    old = keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D()])
    finite.check_outputs(old, raising(UnimplementedError()), "strided")
    with pytest.raises(ZeroDivisionError):
        finite.check_outputs(old, raising(ZeroDivisionError()), "strided")


@pytest.mark.parametrize("sequential", [True, False])
def test_compiled_models_are_not_compiled_again(sequential):
    """A loss that cannot be saved would be in the way; a nested model may be compiled as well."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D()])
    inner.compile(loss=lambda y, found: keras.ops.mean(found))
    inputs = keras.Input((8, 8, 3))
    model = keras.Sequential([inputs, inner]) if sequential else keras.Model(inputs, inner(inputs))
    model.compile(loss=lambda y, found: keras.ops.mean(found))
    new = ds.swap_downsampling(model, "average")
    assert not new.compiled
    assert not new.layers[-1].compiled
    assert model.compiled


def test_models_that_inherit_from_functional_ones():
    class Trained(keras.Model):  # changes training alone
        def train_step(self, data):
            raise NotImplementedError

    @keras.saving.register_keras_serializable(package="swapping_tests")
    class Backbone(keras.Model):  # as in keras_hub: a constructor of its own
        def __init__(self, filters=2, **kwargs):
            inputs = keras.Input((8, 8, 3))
            tensor = layers.MaxPooling2D(name="pool")(layers.Conv2D(filters, 3, name="c")(inputs))
            super().__init__(inputs, tensor, **kwargs)
            self.filters = filters

        def get_config(self):
            return {"filters": self.filters, "name": self.name}

    images, inputs = natural_images(2, 8, 8), keras.Input((8, 8, 3))
    for old in (
        Trained(inputs, layers.MaxPooling2D(name="pool")(inputs)),
        Backbone(3),
        keras.Model(inputs, Backbone(name="backbone")(inputs)),
    ):
        new = ds.swap_downsampling(old, "max")
        np.testing.assert_array_equal(predict(new, images), predict(old, images))
        assert_kept(old, new, "max", 1)
        assert names(new) == names(old)


@pytest.mark.parametrize("blur_size", range(3, 8))
def test_maps_smaller_than_the_filter(blur_size):
    old = ds.vgg((32, 32, 3), 3, [(1, 2)] * 5, seed=0)  # its last pooling makes 1×1 of 2×2
    images = natural_images(2, 32, 32)
    for kind in ("blur", "max_blur"):
        new = ds.swap_downsampling(old, kind, blur_size=blur_size)
        assert new.get_layer("block5_downsample").blur_size == blur_size
        assert np.isfinite(predict(new, images)).all()
        assert new.get_layer("block5_downsample").output.shape == (None, 1, 1, 2)


def test_a_pool_shared_between_numbers_of_channels():
    inputs, pool = keras.Input((16, 16, 3)), layers.MaxPooling2D(name="everywhere")
    tensor = layers.Conv2D(4, 1)(pool(inputs))
    old = keras.Model(inputs, pool(tensor))
    assert ds.swap_downsampling(old, "blur").output_shape == (None, 4, 4, 4)
    for kind in LEARNED:
        with pytest.raises(ValueError, match="everywhere"):
            ds.swap_downsampling(old, kind)


def test_learned_kinds_of_an_unknown_number_of_channels():
    inputs = keras.Input((8, 8, None))
    old = keras.Model(inputs, layers.MaxPooling2D(name="pool")(inputs))
    assert ds.swap_downsampling(old, "blur").output_shape == (None, 4, 4, None)
    with pytest.raises(ValueError, match=r"'pool'.*number of channels"):
        ds.swap_downsampling(old, "strided")


# ---- what it is for ----


def test_smoothness_sees_the_learned_filters():
    old = tiny("max")
    for kind in LEARNED:
        table = ds.filter_smoothness(ds.swap_downsampling(old, kind, start="average"))
        found = table.set_index("layer")["smoothness"]
        assert found["block1_downsample"] == 0
        assert found["block2_downsample"] == 0
        assert len(found) == 4


def test_sensitivity_has_the_same_rows():
    old = tiny("max", shape=(16, 16, 3))
    expected = ds.measure_sensitivity(old, natural_images(6))
    found = ds.measure_sensitivity(ds.swap_downsampling(old, "blur"), natural_images(6))
    assert found["layer"].tolist() == expected["layer"].tolist()
    same = found["sensitivity"] == expected["sensitivity"]
    first = expected["layer"].tolist().index("block1_downsample")
    assert same[:first].all()
    assert not same[first:].any()


def test_blur_moves_less_under_a_shift_than_subsampling():
    """Zhang's point, on random smooth images: kinds sorted by what one pixel's shift changes."""
    inputs = keras.Input((32, 32, 3))
    old = keras.Model(inputs, layers.MaxPooling2D()(inputs))
    images = natural_images(8, 33, 33)
    change = {}
    for kind, size in [("subsample", 3), ("max", 3), ("max_blur", 3), ("blur", 3), ("blur", 7)]:
        new = ds.swap_downsampling(old, kind, blur_size=size)
        here, there = (predict(new, images[:, :32, d : 32 + d]) for d in (0, 1))
        change[kind, size] = np.mean((here - there) ** 2) / here.var()
    assert change["blur", 7] < change["blur", 3] < change["subsample", 3]
    assert change["max_blur", 3] < change["max", 3]


# ---- keras.applications ----

# (kind, size of the input, pools with a stride above one)
APPLICATIONS = {
    "VGG16": ("strided", 32, 5),
    "ResNet50": ("strided_relu", 32, 1),
    "DenseNet121": ("max_blur", 32, 4),
    "InceptionV3": ("blur", 75, 4),
    "Xception": ("strided_relu", 71, 4),
    "NASNetMobile": ("blur", 32, 20),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_applications(name):
    if name == "NASNetMobile" and BACKEND == "torch":
        pytest.skip("Keras has no NASNet on PyTorch")
    kind, size, count = APPLICATIONS[name]
    old = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    new = ds.swap_downsampling(old, kind)
    assert_kept(old, new, kind, count)
    assert names(new) == names(old)
    assert new.name == old.name
    assert [layer.output.shape for layer in new.layers] == [
        layer.output.shape for layer in old.layers
    ]
    assert np.isfinite(predict(new, natural_images(1, size, size))).all()


def test_mobilenet_has_no_pooling():
    model = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=2)
    with pytest.raises(ValueError, match=r"'mobilenet_.*' has no 2-D pooling with a stride above"):
        ds.swap_downsampling(model, "blur")


# ---- bad input ----


@pytest.mark.parametrize("kind", ["maxpool", "Max", None, 2, ["max"]])
def test_unknown_kinds_list_the_known_ones(kind):
    with pytest.raises(ValueError, match=r"known kinds are subsample, max, .*, blur, max_blur"):
        ds.swap_downsampling(tiny(), kind)


@pytest.mark.parametrize("size", [2, 8, 3.5, None, "3", True])
@pytest.mark.parametrize("kind", ["blur", "max"])
def test_impossible_sizes(kind, size):
    with pytest.raises(ValueError, match="blur_size must be an int from 3 to 7, received"):
        ds.swap_downsampling(tiny(), kind, blur_size=size)


@pytest.mark.parametrize("start", ["zeros", None, 0])
def test_unknown_starts(start):
    with pytest.raises(ValueError, match=r"unknown start .*; the known ones are paper, average"):
        ds.swap_downsampling(tiny(), "max", start=start)


class Subclassed(keras.Model):
    def __init__(self, strides=2, **kwargs):
        super().__init__(**kwargs)
        self.pool = layers.MaxPooling2D(2, strides, name="hidden_pool")

    def call(self, images):
        return self.pool(images)


def test_models_whose_computation_is_not_known():
    class Twice(keras.Model):  # functional, but with a call of its own
        def call(self, images, training=None):
            return 2 * super().call(images)

    inputs = keras.Input((8, 8, 3))
    for model in (
        Subclassed(name="mine"),
        Twice(inputs, layers.MaxPooling2D()(inputs), name="mine"),
        layers.MaxPooling2D(name="mine"),
    ):
        with pytest.raises(ValueError, match=r"functional or Sequential model.*'mine'"):
            ds.swap_downsampling(model, "blur")
    with pytest.raises(ValueError, match=r"functional or Sequential model.*str 'model\.keras'"):
        ds.swap_downsampling("model.keras", "blur")


def test_sequential_models_without_shapes():
    model = keras.Sequential([layers.MaxPooling2D()], name="mine")
    with pytest.raises(ValueError, match=r"'mine' has no layers with shapes yet.*keras\.Input"):
        ds.swap_downsampling(model, "blur")
    model(natural_images(1, 8, 8))
    assert isinstance(ds.swap_downsampling(model, "blur").layers[0], BlurPooling2D)
    with pytest.raises(ValueError, match="'mine' has no"):
        ds.swap_downsampling(keras.Sequential(name="mine"), "blur")


@keras.saving.register_keras_serializable(package="swapping_tests")
class Holder(layers.Layer):
    def __init__(self, kind="max", **kwargs):
        super().__init__(**kwargs)
        self.inner = TYPES[kind](2, name="hidden_pool")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, images):
        return self.inner(images)


def hidden_pools():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D(name="hidden_pool")])
    stand_in = ds.vgg((8, 8, 3), 2, ((1, 3),), "strided")
    yield "hidden_pool inside outer (Subclassed)", Subclassed(name="outer"), (8, 8, 3)
    for kind in TYPES:
        yield "hidden_pool inside outer (Holder)", Holder(kind, name="outer"), (8, 8, 3)
    wrapped = layers.TimeDistributed(layers.MaxPooling2D(name="hidden_pool"), name="outer")
    yield "hidden_pool inside outer (TimeDistributed)", wrapped, (4, 8, 8, 3)
    wrapped = layers.TimeDistributed(inner, name="outer")
    yield "hidden_pool inside outer (TimeDistributed)", wrapped, (4, 8, 8, 3)
    wrapped = layers.TimeDistributed(stand_in, name="outer")
    yield "block1_downsample inside outer (TimeDistributed)", wrapped, (4, 8, 8, 3)


def test_pooling_that_cannot_be_replaced_is_never_left():
    for message, outer, shape in hidden_pools():
        inputs, image = keras.Input(shape), keras.Input((8, 8, 3))
        visible = layers.MaxPooling2D(name="visible")(image)
        nested = keras.Model(inputs, outer(inputs), name="nested")
        for model in (
            keras.Model([inputs, image], [outer(inputs), visible]),
            keras.Model([inputs, image], [nested(inputs), visible]),
        ):
            with pytest.raises(ValueError, match="cannot be replaced") as error:
                ds.swap_downsampling(model, "blur")
            assert message.split(" inside ")[0] in str(error.value)
            assert message.split("outer ")[1] in str(error.value)
            assert ("inside nested/outer" in str(error.value)) == (nested in model.layers)
            assert "visible" not in str(error.value)
        shared = keras.Model([inputs, image], [outer(inputs), nested(inputs), visible])
        with pytest.raises(ValueError, match="cannot be replaced") as error:
            ds.swap_downsampling(shared, "blur")
        assert str(error.value).count(" inside ") == 1  # named once, where it is first


def test_layers_that_hide_pooling_at_stride_one_are_kept():
    inputs = keras.Input((8, 8, 3))
    tensor = layers.MaxPooling2D(name="pool")(Subclassed(1, name="outer")(inputs))
    with keras.saving.custom_object_scope({"Subclassed": Subclassed}):
        new = ds.swap_downsampling(keras.Model(inputs, tensor), "blur")
    assert isinstance(new.get_layer("pool"), BlurPooling2D)


@pytest.mark.parametrize("pooling", [keras.ops.max_pool, keras.ops.average_pool])
def test_operations_that_pool(pooling):
    inputs = keras.Input((8, 8, 3))
    tensor = layers.MaxPooling2D(name="visible")(inputs)
    dense = keras.Model(inputs, pooling(tensor, 2, 1))
    assert ds.swap_downsampling(dense, "blur").output_shape == (None, 3, 3, 3)
    for strides in (None, 2, (1, 2)):
        model = keras.Model(inputs, pooling(tensor, (2, 2), strides))
        with pytest.raises(ValueError, match=r"_pool.*\(an operation: use the layer\)"):
            ds.swap_downsampling(model, "blur")
    line = keras.Input((8, 3))
    both = keras.Model([inputs, line], [tensor, pooling(line, 2)])  # one spatial axis: no image
    assert len(ds.swap_downsampling(both, "blur").outputs) == 2


def test_layers_that_their_configuration_does_not_make():
    class Unknown(layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def call(self, images):
            return self.function(images)

    inputs = keras.Input((8, 8, 3))
    tensor = Unknown(lambda x: 2 * x, name="mine")(inputs)
    model = keras.Model(inputs, layers.MaxPooling2D()(tensor))
    with pytest.raises(ValueError, match=r"layer 'mine' \(Unknown\) is not made again by its"):
        ds.swap_downsampling(model, "blur")
