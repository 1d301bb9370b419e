"""measure_sensitivity on the networks people bring, against plain NumPy from activations that were
extracted by other means: `keras.Model(model.input, layer.output)`, or sublayers called by hand."""

import threading

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_tensorflow, numpy, randomize
from keras import layers, ops

import deformstab as ds

TRACED = "inside traced control flow"


def moved(images, deformations=1, seed=0, deformation=None):
    """(images, each repeated once a draw; the same ones deformed), float32."""
    deformation = deformation or ds.paper_deformation(images.shape)
    copies = np.repeat(images, deformations, axis=0).astype("float32")
    draws = numpy(deformation.draw(len(copies), seed=seed))
    return copies, numpy(deformation.deform(copies, draws)).astype("float32")


def rows(output, count):
    """A layer's output, a structure of tensors perhaps: [count, entries] in float64."""
    flat = [numpy(leaf) for leaf in keras.tree.flatten(output)]
    return np.concatenate([leaf.astype("float64").reshape(count, -1) for leaf in flat], axis=1)


def formula(clean, deformed, deformations=1, metric="cosine"):
    """mean_x d(r(x), r(τ(x))) / median_{x<y} d(r(x), r(y)), from outputs for images and copies."""
    x, y = (rows(each, len(keras.tree.flatten(each)[0])) for each in (clean, deformed))
    assert len(x) == len(y)
    if metric == "cosine":
        x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))
        distance = lambda a, b: 1 - np.sum(a * b, axis=-1)
    else:
        distance = lambda a, b: np.linalg.norm(a - b, axis=-1)
    one = x[::deformations]
    first, second = np.triu_indices(len(one), 1)
    median = np.median(distance(one[first], one[second]))
    # Closer to constant than this, float32 leaves too few digits for anyone to compare.
    assert metric != "cosine" or median > 1e-5
    return distance(x, y).mean() / median


def assert_matches(table, expected, rtol=1e-4):
    """Names in their order, and numbers; `None` for a row without one."""
    assert table["layer"].tolist() == list(expected)
    for row in table.itertuples():
        if expected[row.layer] is None:
            assert np.isnan(row.sensitivity), row.layer
            assert row.note, row.layer
        else:
            assert row.note == "", row.layer
            assert row.sensitivity == pytest.approx(expected[row.layer], rel=rtol), row.layer


def extracted(model, images, names, **options):
    """{layer: formula} of layers of a functional model, by Keras' own means."""
    extractor = keras.Model(model.input, [model.get_layer(name).output for name in names])
    clean, deformed = (extractor.predict(x, verbose=0) for x in moved(images, **options))
    return {
        name: formula(a, b, options.get("deformations", 1))
        for name, a, b in zip(names, keras.tree.flatten(clean), keras.tree.flatten(deformed))
    }


class ByHand(keras.Model):
    """A model whose `call` is a function of it."""

    def __init__(self, function, **sublayers):
        super().__init__()
        self.function = function
        for name, layer in sublayers.items():
            setattr(self, name, layer)

    def call(self, inputs):
        return self.function(self, inputs)


@pytest.fixture
def images():
    return natural_images(7)


# ---- networks of keras.applications ----


@pytest.mark.parametrize(
    ("make", "some"),
    [
        ("ResNet50", ["conv1_*", "conv*_block?_out"]),
        ("MobileNetV2", ["Conv1_relu", "block_*_add", "block_*_pad"]),
        ("EfficientNetB0", ["stem_*", "block*a_se_excite", "block*_add"]),
    ],
)
def test_networks_of_keras_applications(make, some):
    images = 127 + 127 * natural_images(4, 48, 48)
    model = getattr(keras.applications, make)(
        weights=None, include_top=False, input_shape=(48, 48, 3), pooling="avg"
    )
    rng = np.random.default_rng(0)
    for variable in model.weights:  # not the means: biases would make deep layers all but constant
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(rng.uniform(0.5, 2, variable.shape))
    table = ds.measure_sensitivity(
        model, images, layers=[*some, layers.GlobalAveragePooling2D], batch_size=3
    )
    assert len(table) >= 10
    assert table["layer_type"].tolist() == [
        type(model.get_layer(name)).__name__ for name in table["layer"]
    ]
    assert_matches(table, extracted(model, images, table["layer"].tolist()))


# ---- networks of other kinds ----


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal")
        self.places = self.add_weight(
            shape=(1, shape[1] + 1, shape[-1]), initializer="random_normal"
        )

    def call(self, tokens):
        first = ops.broadcast_to(self.token, (ops.shape(tokens)[0], 1, tokens.shape[-1]))
        return ops.concatenate([first, tokens], axis=1) + self.places


def test_a_transformer_of_tokens(images):
    inputs = keras.Input((16, 16, 3))
    tensor = layers.Conv2D(8, 4, strides=4, name="patches")(inputs)
    tensor = ClassToken(name="tokens")(layers.Reshape((16, 8), name="sequence")(tensor))
    for block in ("first", "second"):
        normal = layers.LayerNormalization(name=f"{block}_norm")(tensor)
        attended = layers.MultiHeadAttention(2, 4, dropout=0.5, name=f"{block}_attention")(
            normal, normal
        )
        tensor = layers.Add(name=f"{block}_residual")([tensor, attended])
        hidden = layers.Dense(16, activation="gelu", name=f"{block}_hidden")(tensor)
        tensor = layers.Add(name=f"{block}_out")([tensor, layers.Dense(8)(hidden)])
    token = layers.Lambda(lambda tokens: tokens[:, 0], name="token", output_shape=(8,))(tensor)
    model = keras.Model(inputs, layers.Dense(5, name="logits")(token))
    names = [layer.name for layer in model.layers[1:] if "dense" not in layer.name]
    nested = "second_attention/query"
    table = ds.measure_sensitivity(
        model, images, layers=[*names, nested], deformations=2, seed=3, batch_size=4
    ).set_index("layer")
    expected = extracted(model, images, names, deformations=2, seed=3)
    assert_matches(table.loc[names].reset_index(), expected)
    # What a layer of Keras' own computes inside it, called by hand.
    normal = keras.Model(inputs, model.get_layer("second_norm").output)
    query = model.get_layer("second_attention").query_dense
    clean, deformed = (numpy(query(normal(x))) for x in moved(images, 2, seed=3))
    assert clean.shape == (14, 17, 2, 4)
    value = formula(clean, deformed, 2)
    assert table.loc[nested, "sensitivity"] == pytest.approx(value, rel=1e-4)


def test_a_loop_over_one_layer(images):
    def call(model, x):
        x = model.stem(x)
        for _ in range(3):
            x = x + model.shared(x)
        return {"head": model.head(ops.mean(x, axis=(1, 2)))}

    stem = layers.Conv2D(4, 3, activation="relu", name="stem")
    shared = layers.Conv2D(4, 3, padding="same", activation="tanh", name="shared")
    head = layers.Dense(3, name="head")
    model = ByHand(call, stem=stem, shared=shared, head=head)
    table = ds.measure_sensitivity(model, images)
    outputs = []
    for x in moved(images):
        found = {"input": x, "stem": stem(x)}
        x = found["stem"]
        for number in ("", "#2", "#3"):
            found["shared" + number] = shared(x)
            x = x + found["shared" + number]
        found["head"] = head(ops.mean(x, axis=(1, 2)))
        outputs.append(found)
    assert_matches(table, {name: formula(*(each[name] for each in outputs)) for name in outputs[0]})
    assert table["sensitivity"].nunique() == 6


def test_a_network_that_goes_down_and_up(images):
    inputs = keras.Input((16, 16, 3), name="input")
    first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    tensor = layers.Conv2D(6, 3, padding="same", name="low")(
        layers.MaxPooling2D(name="down")(first)
    )
    tensor = layers.BatchNormalization(name="normal")(tensor)
    tensor = layers.UpSampling2D(name="up")(tensor)
    tensor = layers.Concatenate(name="both")([first, tensor])
    tensor = layers.Conv2DTranspose(3, 2, strides=2, name="wide")(tensor)
    model = keras.Model(
        inputs, {"mask": tensor, "low": layers.GlobalMaxPooling2D(name="max")(first)}
    )
    randomize(model)
    names = ["input", "first", "down", "low", "normal", "up", "both", "wide", "max"]
    for metric in ("cosine", "euclidean"):
        table = ds.measure_sensitivity(model, images, metric=metric).set_index("layer")
        assert set(table.index) == set(names)
        extractor = keras.Model(inputs, [model.get_layer(name).output for name in names])
        clean, deformed = (extractor.predict(x, verbose=0) for x in moved(images))
        expected = {n: formula(a, b, metric=metric) for n, a, b in zip(names, clean, deformed)}
        assert_matches(table.loc[names].reset_index(), expected)


def test_sequences_and_vectors(images):
    lstm = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm")
    inputs = keras.Input((16, 16, 3), name="input")
    sequence, last, state = lstm(layers.Reshape((16, 48), name="lines")(inputs))
    tensor = layers.Conv1D(4, 3, name="conv")(sequence)
    model = keras.Model(inputs, [layers.Flatten(name="flat")(tensor), last, state])
    table = ds.measure_sensitivity(model, images, layers=["lines", "lstm", "conv", "flat"])
    extractor = keras.Model(inputs, [sequence, last, state, tensor])
    clean, deformed = (extractor.predict(x, verbose=0) for x in moved(images))
    assert_matches(
        table,
        {
            "lines": formula(*moved(images)),
            "lstm": formula(clean[:3], deformed[:3]),
            "conv": formula(clean[3], deformed[3]),
            "flat": formula(clean[3], deformed[3]),
        },
    )


def test_preprocessing_and_dropout_inside():
    images = np.round(127 + 127 * natural_images(6, 20, 18)).astype("uint8")
    inputs = keras.Input((20, 18, 3), name="input")
    tensor = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    tensor = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06], name="normal")(
        tensor
    )
    tensor = layers.RandomFlip(name="flip")(tensor)
    tensor = layers.RandomTranslation(0.3, 0.3, name="shift")(tensor)
    tensor = layers.RandomContrast(0.5, name="contrast")(tensor)
    tensor = layers.GaussianNoise(0.9, name="noise")(layers.CenterCrop(16, 16, name="crop")(tensor))
    tensor = layers.Resizing(9, 9, name="resizing")(layers.Dropout(0.5, name="dropout")(tensor))
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(tensor))
    names = [layer.name for layer in model.layers]
    table = ds.measure_sensitivity(model, images, deformations=2, seed=1)
    assert_matches(table, extracted(model, images, names, deformations=2, seed=1))
    assert table["sensitivity"].nunique() >= 5


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_inside_a_network(images, policy):
    inputs = keras.Input((16, 16, 3), name="input")
    half = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, dtype=policy, name="half"),
            layers.LayerNormalization(dtype=policy, name="normal"),
        ],
        name="inner",
    )
    model = keras.Model(inputs, layers.Dense(3, dtype="float32", name="whole")(half(inputs)))
    table = ds.measure_sensitivity(model, images)
    outputs = []
    for x in moved(images):
        first = half.get_layer("half")(x)
        assert policy.endswith(keras.backend.standardize_dtype(first.dtype))
        second = half.get_layer("normal")(first)
        whole = model.get_layer("whole")(second)
        outputs.append([ops.cast(each, "float32") for each in (x, first, second, second, whole)])
    names = ["input", "inner/half", "inner/normal", "inner", "whole"]
    expected = {name: formula(*pair) for name, *pair in zip(names, *outputs)}
    assert_matches(table, expected, rtol=2e-3 if policy == "mixed_float16" else 2e-2)
    assert table["sensitivity"][0] == pytest.approx(expected["input"], rel=1e-5)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has no such convolution on a CPU")
def test_channels_first(images):
    keras.config.set_image_data_format("channels_first")
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))[:, :, :, :12]
    inputs = keras.Input((3, 16, 12), name="input")
    tensor = layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.AveragePooling2D(2, name="pool")(tensor))
    table = ds.measure_sensitivity(model, images)
    assert_matches(table, extracted(model, images, ["input", "conv", "pool"]))


# ---- several inputs ----


def two_inputs():
    """A model of an image and a vector; its list of inputs is not in alphabetical order."""
    image = keras.Input((16, 16, 3), name="photo")
    vector = keras.Input((4,), name="details")
    features = layers.GlobalAveragePooling2D(name="average")(
        layers.Conv2D(5, 3, name="conv")(image)
    )
    both = layers.Concatenate(name="both")([features, layers.Dense(3, name="dense")(vector)])
    return keras.Model([image, vector], layers.Dense(2, name="out")(both))


def test_an_image_and_a_vector(images):
    model = two_inputs()
    vectors = np.random.default_rng(1).normal(size=(7, 4)).astype("float32")
    names = ["average", "conv", "both", "out"]
    extractor = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    copies, deformed = moved(images, 2)
    beside = np.repeat(vectors, 2, axis=0)
    pair = (extractor.predict([x, beside], verbose=0) for x in (copies, deformed))
    expected = {name: formula(a, b, 2) for name, a, b in zip(names, *pair)}
    inputs = {"list": [images, vectors], "dict": {"details": vectors, "photo": images}}
    for wanted in (None, "0", 0):
        found = ds.measure_sensitivity(
            model, inputs["list"], deformations=2, deformed_input=wanted, batch_size=3
        ).set_index("layer")
        assert found.loc["dense", "distance"] == pytest.approx(0, abs=1e-13)
        assert_matches(found.loc[names].reset_index(), expected)
    for wanted in (None, "photo"):
        named = ds.measure_sensitivity(
            model, inputs["dict"], layers=names, deformations=2, deformed_input=wanted
        ).set_index("layer")
        assert_matches(named.loc[names].reset_index(), expected)


def test_two_images_one_of_which_is_deformed(images):
    """Given as a list and as a dict in turn: what was compiled for one is not for the other."""
    one, other = keras.Input((16, 16, 3), name="b"), keras.Input((16, 16, 3), name="a")
    ends = layers.Conv2D(2, 3, name="of_b")(one), layers.Conv2D(2, 3, name="of_a")(other)
    model = keras.Model([one, other], layers.Subtract(name="apart")(ends))
    others = natural_images(7, seed=5)
    parts = [
        keras.Model(model.inputs, model.get_layer(n).output) for n in ("of_b", "of_a", "apart")
    ]
    for number, name in enumerate("ba"):
        given, expected = [images, others], []
        deformed = list(given)
        deformed[number] = moved(given[number])[1]
        expected = {
            layer: formula(part.predict(given, verbose=0), part.predict(deformed, verbose=0))
            for layer, part in zip(("of_b", "of_a", "apart"), parts)
        }
        forms = ([images, others], number), ({"a": others, "b": images}, name)
        for inputs, wanted in (*forms, forms[0]):
            table = ds.measure_sensitivity(model, inputs, deformed_input=wanted).set_index("layer")
            assert set(table.index) == {"input", "of_a", "of_b", "apart"}
            for layer, value in expected.items():
                assert table.loc[layer, "sensitivity"] == pytest.approx(value, rel=1e-4, abs=1e-9)


def test_inputs_of_integers(images):
    """Class numbers above 2^8 and 2^11, which half precision would round."""
    image = keras.Input((16, 16, 3), name="image")
    number = keras.Input((2,), dtype="int32", name="number")
    words = layers.Embedding(5000, 300, name="words")(number)
    model = keras.Model(
        {"image": image, "number": number},
        layers.Add(name="sum")([layers.Dense(300)(layers.Flatten()(image)), words[:, 0]]),
    )
    numbers = np.random.default_rng(0).integers(2049, 5000, (7, 2))
    table = ds.measure_sensitivity(
        model, {"image": images, "number": numbers}, layers=["words", "sum"]
    ).set_index("layer")
    clean, deformed = (
        model.predict({"image": x, "number": numbers}, verbose=0) for x in moved(images)
    )
    assert table.loc["sum", "sensitivity"] == pytest.approx(formula(clean, deformed), rel=1e-4)
    assert table.loc["words", "distance"] == 0
    assert table.loc["words", "baseline"] > 0.5


@needs_tensorflow
def test_inputs_of_words(images):
    image, word = keras.Input((16, 16, 3), name="image"), keras.Input((1,), dtype="string")
    code = layers.StringLookup(vocabulary=["cat", "dog"], output_mode="one_hot")(word)
    flat = layers.Flatten()(image)
    model = keras.Model([image, word], layers.Concatenate(name="both")([flat, 9 * code]))
    words = np.array([["cat"], ["dog"], ["emu"], ["cat"], ["dog"], ["emu"], ["cat"]])
    table = ds.measure_sensitivity(model, [images, words], layers="both")
    codes = 9 * np.eye(3)[[1, 2, 0, 1, 2, 0, 1]]
    pair = (np.concatenate([x.reshape(7, -1), codes], axis=1) for x in moved(images))
    assert_matches(table, {"both": formula(*pair)})


# ---- what layers return ----


def test_structures_complex_numbers_and_what_is_no_row_for_each_image(images):
    class Structure(layers.Layer):
        def call(self, x):
            return {"left": (x[:, :8], None), "right": [ops.cast(x[:, 8:] > 0, "int32")]}

    class Wave(layers.Layer):
        def call(self, x):
            return ops.cast(x, "complex64") + 2j * ops.cast(ops.flip(x, axis=1) ** 2, "complex64")

    class Scalar(layers.Layer):
        def call(self, x):
            return x, ops.mean(x)

    class Windows(layers.Layer):
        def call(self, x):
            return ops.reshape(x, (-1, 8, 8, 3))

    class Similarities(layers.Layer):  # as in contrastive models: a row as long as the batch
        def call(self, x):
            x = ops.reshape(x, (ops.shape(x)[0], -1))
            return ops.matmul(x, ops.transpose(x))

    def call(model, x):
        model.structure_(x)
        model.wave(x)
        model.similarities(x)
        folded = model.inner(model.windows(x))
        return model.last(model.scalar(x)[0]), folded

    model = ByHand(
        call,
        structure_=Structure(name="structure"),
        wave=Wave(name="wave"),
        similarities=Similarities(name="similarities"),
        windows=Windows(name="windows"),
        inner=layers.Dense(2, name="inner"),
        scalar=Scalar(name="scalar"),
        last=layers.Flatten(name="last"),
    )
    x, y = moved(images)
    parts = [np.concatenate([a[:, :8], a[:, 8:] > 0], axis=1) for a in (x, y)]
    waves = [np.stack([a, 2 * a[:, ::-1] ** 2], axis=-1) for a in (x, y)]
    expected = {
        "input": formula(x, y),
        "structure": formula(*parts),
        "wave": formula(*waves),
        "similarities": None,
        "windows": formula(x, y),  # the same pixels, row by row
        "inner": formula(
            *(numpy(model.inner(model.windows(a))).reshape(len(a), -1) for a in (x, y))
        ),
        "scalar": None,
        "last": formula(x, y),
    }
    for batch_size in (32, 3, 1):
        table = ds.measure_sensitivity(model, images, batch_size=batch_size)
        assert_matches(table, expected)
        notes = table["note"][table["sensitivity"].isna()]
        assert notes.str.contains("no row for each image").all()


# ---- names ----


def test_three_levels_deep_and_called_twice(images):
    conv = layers.Conv2D(3, 3, padding="same", activation="tanh", name="conv")
    inner = keras.Sequential([keras.Input((16, 16, 3)), conv], name="inner")
    middle_input = keras.Input((16, 16, 3))
    middle = keras.Model(middle_input, inner(inner(middle_input)), name="middle")
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Flatten(name="flat")(middle(inputs)))
    steps = []
    for x in moved(images):
        once = numpy(conv(x))
        steps.append([x, once, once, *[numpy(conv(once))] * 4])
    names = [
        "input",
        "middle/inner/conv",
        "middle/inner",
        "middle/inner/conv#2",
        "middle/inner#2",
        "middle",
        "flat",
    ]
    expected = {name: formula(*pair) for name, *pair in zip(names, *steps)}
    assert_matches(ds.measure_sensitivity(model, images), expected)


def test_names_that_are_not_unique(images):
    """Two layers of one name, called in turn, and one that is named as the input is."""
    first, second = (layers.Conv2D(3, 3, padding="same", name="same") for _ in range(2))
    last = layers.Conv2D(3, 3, padding="same", name="input")
    order = [first, second, first, last]

    def call(model, x):
        for layer in order:
            x = layer(x)
        return x

    model = ByHand(call, a=first, b=second, c=last)
    table = ds.measure_sensitivity(model, images)
    steps = [list(moved(images))]
    for layer in order:
        steps.append([numpy(layer(x)) for x in steps[-1]])
    assert table["layer"].is_unique
    assert table["layer"][0] == "input"
    np.testing.assert_allclose(table["sensitivity"], [formula(*each) for each in steps], rtol=1e-4)
    for layer in set(order):  # a row leads back to its layer
        places = [place for place, each in enumerate(order, 1) if each is layer]
        found = ds.measure_sensitivity(model, images, layers=layer)
        assert found["layer"].tolist() == table["layer"][places].tolist()
        np.testing.assert_allclose(found["sensitivity"], table["sensitivity"][places], rtol=1e-5)


# ---- models that are not ready ----


def test_a_model_that_was_never_called_keeps_its_weights_and_its_free_batch(images):
    conv = layers.Conv2D(3, 3, name="conv")
    model = keras.Sequential([conv, layers.Flatten(name="flat")])
    table = ds.measure_sensitivity(model, images)
    outputs = [conv(x) for x in moved(images)]
    value = formula(*outputs)
    assert_matches(table, {"input": formula(*moved(images)), "conv": value, "flat": value})
    assert model.input_shape == (None, 16, 16, 3)
    assert model.output_shape == (None, 14 * 14 * 3)


def test_layers_that_are_not_built_in_a_model_that_is(images):
    conv, unused = layers.Conv2D(3, 3, name="conv"), layers.Dense(2)
    model = ByHand(lambda model, x: model.conv(x), conv=conv, unused=unused)
    model.built = True
    table = ds.measure_sensitivity(model, images)
    assert conv.built
    assert not unused.built
    outputs = [conv(x) for x in moved(images)]
    assert_matches(table, {"input": formula(*moved(images)), "conv": formula(*outputs)})
    assert ds.measure_sensitivity(model, images).equals(table)


def test_models_for_batches_of_one_size(images):
    inputs = keras.Input(batch_shape=(4, 16, 16, 3), name="input")
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    table = ds.measure_sensitivity(model, images)  # nothing in it depends on the size
    expected = [model.get_layer("conv")(x) for x in moved(images)]
    assert table["sensitivity"][1] == pytest.approx(formula(*expected), rel=1e-4)
    lines = layers.Reshape((16, 48))(inputs)
    stateful = keras.Model(inputs, layers.SimpleRNN(3, stateful=True)(lines))
    with pytest.raises(ValueError, match=r"built for batches of 4 \(by batch_shape\)"):
        ds.measure_sensitivity(stateful, images)


def test_models_that_only_run_eagerly(images):
    class Untraceable(layers.Layer):
        def call(self, x):
            return x[:, ::2] if float(ops.max(x)) > -5 else x[:, 1::2]

    model = ByHand(lambda model, x: model.end(model.first(x)), first=Untraceable(name="first"))
    model.end = layers.Conv2D(2, 3, name="end")
    model.compile(run_eagerly=True)
    table = ds.measure_sensitivity(model, images, batch_size=2)
    halves = [x[:, ::2] for x in moved(images)]
    assert_matches(
        table,
        {
            "input": formula(*moved(images)),
            "first": formula(*halves),
            "end": formula(*(model.end(x) for x in halves)),
        },
    )


def test_adapters_and_quantization_are_seen(images):
    dense = layers.Dense(6, name="dense")
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(name="flat"), dense])
    value = lambda: formula(*(dense(x.reshape(7, -1)) for x in moved(images)))
    values = []
    for change in (
        lambda: None,
        lambda: dense.enable_lora(2),
        lambda: dense.lora_kernel_b.assign(np.ones((2, 6))),
        lambda: dense.quantize("int8"),
    ):
        change()
        values.append(value())
        table = ds.measure_sensitivity(model, images, layers="dense")
        assert_matches(table, {"dense": values[-1]}, rtol=1e-3)
    assert len({round(each, 3) for each in values}) >= 3


def test_layers_that_count_and_add_losses_are_left_as_they_were(images):
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.metric = keras.metrics.Mean()

        def call(self, x):
            self.count.assign(self.count + 1)
            self.metric.update_state(ops.mean(x))
            self.add_loss(ops.mean(x**2))
            return x + 2 * ops.cast(self.count, x.dtype)

    counting = Counting(name="counting", activity_regularizer="l2")
    model = ByHand(lambda model, x: model.end(model.counting(x)), counting=counting)
    model.end = layers.BatchNormalization(name="end")
    model(images[:2])
    counting.count.assign(3)
    before = [numpy(each).copy() for each in (counting.count, *counting.metric.variables)]
    table = ds.measure_sensitivity(model, images, batch_size=2)
    after = [numpy(each) for each in (counting.count, *counting.metric.variables)]
    assert [float(each) for each in before] == [float(each) for each in after]
    assert not model.losses  # no tensors of a trace
    value = formula(*(x + 8 for x in moved(images)))  # each call is the fourth
    assert table["sensitivity"][1:].tolist() == pytest.approx([value, value], rel=1e-3)


# ---- control flow ----


def compiled_by_itself(layer):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(layer)
    if BACKEND == "jax":
        import jax

        return jax.jit(lambda x: layer(x))
    return layer


FLOWS = {
    "while_loop": lambda f, x: ops.while_loop(
        lambda i, _: i < 2, lambda i, y: (i + 1, f(y)), (0, x)
    )[1],
    "fori_loop": lambda f, x: ops.fori_loop(0, 2, lambda _, y: f(y), x),
    "scan": lambda f, x: ops.scan(lambda y, _: (f(y), None), x, length=2)[0],
    "cond": lambda f, x: ops.cond(ops.max(x) > -1e9, lambda: f(x), lambda: x),
    "map over images": lambda f, x: ops.map(f, x),
    "vectorized over images": lambda f, x: ops.vectorized_map(f, x),
    "compiled": lambda f, x: compiled_by_itself(f)(x),
    "remat": lambda f, x: keras.remat(f)(x),
    # The batch is inside: an element has a row for each image.
    "vectorized over lines": lambda f, x: ops.transpose(
        ops.vectorized_map(f, ops.transpose(x, (1, 0, 2, 3))), (1, 0, 2, 3)
    ),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_layers_inside_control_flow(images, flow):
    def call(model, x):
        return model.after(FLOWS[flow](model.inside, model.before(x)))

    inside = layers.Dense(4, activation="tanh", name="inside")
    inside.build((None, 16, 16, 4))
    before, after = layers.Dense(4, name="before"), layers.Conv2D(3, 3, name="after")
    model = ByHand(call, before=before, inside=inside, after=after)
    table = ds.measure_sensitivity(model, images, batch_size=3)
    steps = []
    for x in moved(images):
        y = before(x)
        z = inside(y)
        if "loop" in flow or flow == "scan":
            z = inside(z)
        steps.append([x, y, z, after(z)])
    values = [formula(*pair) for pair in zip(*steps)]
    numbers = table.set_index("layer")["sensitivity"]
    assert numbers[["input", "before", "after"]].tolist() == pytest.approx(
        [values[0], values[1], values[3]], rel=1e-4
    )
    rows_inside = table[table["layer"].str.startswith("inside")]
    assert len(rows_inside) >= 1
    assert table["layer"].is_unique
    first = rows_inside.iloc[0]
    # PyTorch's loops are Python's, and what is measured there is measured right.
    unrolled = {"while_loop", "fori_loop", "scan", "cond", "compiled", "remat"}
    measured = BACKEND == "torch" and flow in unrolled
    measured |= BACKEND == "tensorflow" and flow == "remat"
    if measured:
        once = [inside(step[1]) for step in steps]
        assert first["sensitivity"] == pytest.approx(formula(*once), rel=1e-4)
        assert rows_inside["sensitivity"].iloc[-1] == pytest.approx(values[2], rel=1e-4)
    elif BACKEND == "tensorflow" and flow == "vectorized over lines":
        # TensorFlow traces it in the same graph for element 0, which is what is measured.
        once = [inside(step[1][:, 0]) for step in steps]
        assert first["sensitivity"] == pytest.approx(formula(*once), rel=1e-4)
    else:
        assert rows_inside["sensitivity"].isna().all()
        notes = rows_inside["note"]
        assert notes.str.contains(f"{TRACED}|no row for each image").all()
        if "images" not in flow:
            assert notes.str.contains(TRACED).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.SimpleRNN(3, return_sequences=True, name="recurrent"),
        lambda: layers.GRU(3, unroll=True, name="recurrent"),
        lambda: layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)], name="recurrent"),
        lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="recurrent"),
    ],
)
def test_recurrent_layers(images, make):
    inputs = keras.Input((16, 16, 3), name="input")
    recurrent = make()
    tensor = recurrent(layers.Reshape((16, 48), name="lines")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="after")(tensor))
    table = ds.measure_sensitivity(model, images)
    outside = ["input", "lines", "recurrent", "after"]
    found = table[table["layer"].isin(outside)]
    assert_matches(found, extracted(model, images, outside))
    cells = table[table["layer_type"].str.contains("Cell")]
    assert cells["sensitivity"].isna().all()
    assert cells["note"].str.contains(TRACED).all()
    others = table.drop(index=[*found.index, *cells.index])  # the two directions
    assert others["sensitivity"].notna().all()


def test_a_layer_for_each_step(images):
    step = keras.Sequential(
        [keras.Input((8, 3)), layers.Dense(4, name="one"), layers.Flatten(name="two")], name="step"
    )
    inputs = keras.Input((4, 8, 3), name="input")
    model = keras.Model(inputs, layers.TimeDistributed(step, name="each")(inputs))
    images = images[:, :4, :8]
    deformation = ds.RandomDeformation(2, 0.5)
    table = ds.measure_sensitivity(model, images, deformation).set_index("layer")
    assert len(table) == 10
    pair = moved(images, deformation=deformation)
    for number in range(4):
        name = "each/one" + (f"#{number + 1}" if number else "")
        value = formula(*(step.get_layer("one")(x[:, number]) for x in pair))
        assert table.loc[name, "sensitivity"] == pytest.approx(value, rel=1e-4)
    value = formula(*(model.predict(x, verbose=0) for x in pair))
    assert table.loc["each", "sensitivity"] == pytest.approx(value, rel=1e-4)


@needs_tensorflow
@pytest.mark.parametrize("called_before", [False, True])
def test_a_layer_that_is_a_tensorflow_function(images, called_before, caplog):
    """Nobody sees into what was traced before; all else is measured, and nothing is warned of."""
    import tensorflow as tf

    class Own(layers.Layer):
        def __init__(self):
            super().__init__(name="own")
            self.dense = layers.Dense(3, name="dense")

        @tf.function
        def call(self, x):
            return self.dense(x)

    own, end = Own(), layers.Flatten(name="end")
    model = ByHand(lambda model, x: model.end(model.own(x)), own=own, end=end)
    if called_before:
        model(images[:5])
    table = ds.measure_sensitivity(model, images).set_index("layer")
    value = formula(*(own(x) for x in moved(images)))
    assert table.loc[["own", "end"], "sensitivity"].tolist() == pytest.approx([value] * 2, rel=1e-4)
    inside = table.drop(index=["input", "own", "end"])
    assert inside["sensitivity"].isna().all()
    assert called_before or inside["note"].str.contains(TRACED).all()
    assert "AutoGraph" not in caplog.text


@needs_tensorflow
def test_outputs_whose_shape_no_trace_can_tell(images):
    import tensorflow as tf

    class Opaque(layers.Layer):
        def call(self, x):
            y = tf.numpy_function(lambda a: 2 * a, [x], tf.float32)
            return y, tf.ensure_shape(y, x.shape)

    end = layers.Dense(2, name="end")
    opaque = Opaque(name="opaque")
    model = ByHand(lambda model, x: model.end(model.opaque(x)[1]), opaque=opaque, end=end)
    table = ds.measure_sensitivity(model, images)
    value = formula(*(end(2 * x) for x in moved(images)))
    assert_matches(table, {"input": formula(*moved(images)), "opaque": None, "end": value})


# ---- failures and threads ----


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("batch", [5, 6])
def test_what_a_model_raises_comes_through(images, error, batch):
    """While its layers are listed (a batch of 5) and while it is measured (3 images, 3 copies)."""

    class Failing(layers.Layer):
        broken = True

        def call(self, x):
            if self.broken and x.shape[0] == batch:
                raise error("on purpose")
            return x

    failing = Failing(name="failing")
    model = ByHand(lambda model, x: model.failing(x), failing=failing)
    original = keras.layers.Layer.__call__
    with pytest.raises(error, match="on purpose"):
        ds.measure_sensitivity(model, images[:6], batch_size=3)
    assert keras.layers.Layer.__call__ is original
    failing.broken = False
    table = ds.measure_sensitivity(model, images[:6], batch_size=3)
    value = formula(*moved(images[:6]))
    assert_matches(table, {"input": value, "failing": value})


@pytest.mark.parametrize("caught", [Exception, BaseException])
def test_a_layer_that_catches_errors(images, caught):
    """The end of a pass is no error that a layer mends; caught all the same, it does no harm."""
    mended = []

    class Trying(layers.Layer):
        def __init__(self):
            super().__init__(name="trying")
            self.inner = layers.Dense(3, name="inner")

        def call(self, x):
            try:
                return self.inner(x)
            except caught:
                mended.append(caught)
                return x

    trying, end = Trying(), layers.Flatten(name="end")
    model = ByHand(lambda model, x: model.end(model.trying(x)), trying=trying, end=end)
    table = ds.measure_sensitivity(model, images, layers=["input", "trying/inner"])
    value = formula(*(trying.inner(x) for x in moved(images)))
    assert_matches(table, {"input": formula(*moved(images)), "trying/inner": value})
    assert bool(mended) == (caught is BaseException)


def test_threads_do_not_see_each_other(images):
    """Two measurements at a time, while another thread calls layers."""
    models = []
    for number in range(2):
        inputs = keras.Input((16, 16, 3), name="input")
        tensor = inputs
        for layer in range(2):
            tensor = layers.Conv2D(3, 3, name=f"conv{number}_{layer}")(tensor)
        models.append(keras.Model(inputs, tensor))
    other = layers.Dense(3, name="other")
    other.build((None, 3))
    found, stop, failed = [None, None], threading.Event(), []

    def measure(number):
        try:
            found[number] = ds.measure_sensitivity(models[number], images, batch_size=3)
        except Exception as error:
            failed.append(error)

    def disturb():
        while not stop.is_set():
            other(np.ones((2, 3), "float32"))

    threads = [threading.Thread(target=measure, args=(number,)) for number in range(2)]
    disturbing = threading.Thread(target=disturb)
    for thread in (disturbing, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    disturbing.join()
    assert not failed
    assert keras.layers.Layer.__call__.__qualname__ == "Layer.__call__"
    for model, table in zip(models, found):
        names = [layer.name for layer in model.layers]
        assert_matches(table, extracted(model, images, names))
