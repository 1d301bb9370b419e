"""Which layers are measured: names, patterns, layers, classes, functions; and that the others cost
nothing after the last of them."""

import fnmatch

import keras
import numpy as np
import pytest
from helpers import natural_images, randomize
from keras import layers

import deformstab as ds

NAMES = [
    "input",
    "stem",
    "inner/conv1",
    "inner/pool",
    "inner",
    "shared",
    "shared#2",
    "conv-2",
    "flat",
    "Logits",
]


@pytest.fixture(scope="module")
def images():
    return natural_images(6, 8, 8)


@pytest.fixture(scope="module")
def model():
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(3, 3, padding="same", name="conv1"),
            layers.AveragePooling2D(2, name="pool"),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    tensor = inner(layers.Rescaling(2.0, offset=0.1, name="stem")(inputs))
    shared = layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    tensor = layers.Conv2D(2, 3, name="conv-2")(shared(shared(tensor)))
    tensor = layers.Dense(3, name="Logits")(layers.Flatten(name="flat")(tensor))
    model = keras.Model(inputs, tensor)
    randomize(model)
    return model


@pytest.fixture(scope="module")
def whole(model, images):
    table = ds.measure_sensitivity(model, images)
    assert table["layer"].tolist() == NAMES
    return table.set_index("layer")


def layer(model, *path):
    for name in path:
        model = model.get_layer(name)
    return model


CHOICES = {
    "a name": lambda m: ("inner/pool", ["inner/pool"]),
    "the input": lambda m: ("input", ["input"]),
    "a second call": lambda m: ("shared#2", ["shared#2"]),
    "a name with a dash": lambda m: ("conv-2", ["conv-2"]),
    "a pattern": lambda m: ("shared*", ["shared", "shared#2"]),
    "one character": lambda m: ("inner/conv?", ["inner/conv1"]),
    "any path": lambda m: ("*conv*", ["inner/conv1", "conv-2"]),
    "a choice of characters": lambda m: ("[Ll]ogits", ["Logits"]),
    "everything": lambda m: ("*", NAMES),
    "nothing said": lambda m: (None, NAMES),
    "a class": lambda m: (layers.Conv2D, ["inner/conv1", "shared", "shared#2", "conv-2"]),
    "a base class": lambda m: (layers.Layer, NAMES[1:]),
    "the input's class": lambda m: (layers.InputLayer, ["input"]),
    "a model's class": lambda m: (keras.Sequential, ["inner"]),
    "a layer": lambda m: (layer(m, "shared"), ["shared", "shared#2"]),
    "a layer within": lambda m: (layer(m, "inner", "pool"), ["inner/pool"]),
    "a model": lambda m: (layer(m, "inner"), ["inner"]),
    "a function": lambda m: (
        lambda each: getattr(each, "filters", 0) == 3,
        ["inner/conv1", "shared", "shared#2"],
    ),
    "a function that gives no bool": lambda m: (
        lambda each: each.name.count("l"),
        ["inner/pool", "flat"],
    ),
    "a mixture, in another order": lambda m: (
        [
            "Logits",
            layers.AveragePooling2D,
            "in?ut",
            layer(m, "flat"),
            lambda each: each.name == "stem",
        ],
        ["input", "stem", "inner/pool", "flat", "Logits"],
    ),
    "overlaps": lambda m: (["shared", "shared*", layer(m, "shared")], ["shared", "shared#2"]),
    "a tuple": lambda m: (("flat", "stem"), ["stem", "flat"]),
    "a set": lambda m: ({"flat", "stem"}, ["stem", "flat"]),
    "an array": lambda m: (np.array(["flat", "stem"]), ["stem", "flat"]),
    "a generator": lambda m: ((name for name in ("flat", "stem")), ["stem", "flat"]),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_asked_for_in_the_order_of_the_model(model, images, whole, choice):
    chosen, names = CHOICES[choice](model)
    table = ds.measure_sensitivity(model, images, layers=chosen)
    assert table["layer"].tolist() == names
    assert table["layer_index"].tolist() == list(range(len(names)))
    numbers = ["distance", "baseline", "sensitivity", "sensitivity_low", "sensitivity_high"]
    np.testing.assert_allclose(table[numbers], whole.loc[names, numbers], rtol=1e-5)
    assert table["layer_type"].tolist() == whole.loc[names, "layer_type"].tolist()


def test_a_function_sees_layers_only(model, images):
    seen = []
    ds.measure_sensitivity(model, images, layers=lambda each: seen.append(each) or True)
    assert all(isinstance(each, keras.layers.Layer) for each in seen)
    assert [each.name for each in seen] == [name.split("/")[-1].split("#")[0] for name in NAMES[1:]]


@pytest.mark.parametrize(
    ("chosen", "unknown"),
    [
        ("convolution", "convolution"),
        ("INPUT", "INPUT"),
        ("conv1", "conv1"),  # that is inner/conv1
        ("shared#3", "shared#3"),
        ("", ""),
        (["flat", "nothing", "neither*", "stem"], "'nothing', 'neither[*]'"),
        (layers.LSTM, "LSTM"),
        ([layers.Conv2D, layers.Conv3D], "Conv3D"),
        (lambda each: False, "lambda"),
        (layers.Dense(3, name="stranger"), "stranger"),
    ],
)
def test_unknown_ones_are_named_beside_the_known(model, images, chosen, unknown):
    known = ", ".join(NAMES)
    with pytest.raises(ValueError, match=rf"unknown layers \[.*{unknown}.*\]; .* has {known}"):
        ds.measure_sensitivity(model, images, layers=chosen)


@pytest.mark.parametrize("chosen", [[], (), {}, set(), iter([])])
def test_none_at_all(model, images, chosen):
    with pytest.raises(ValueError, match="layers is empty; pass None for all"):
        ds.measure_sensitivity(model, images, layers=chosen)


@pytest.mark.parametrize(
    "chosen", [5, 2.5, b"flat", [None], [b"flat"], ["flat", 3], [["flat"]], True]
)
def test_what_selects_nothing(model, images, chosen):
    with pytest.raises(ValueError, match="layers takes names, patterns, layers, layer classes or"):
        ds.measure_sensitivity(model, images, layers=chosen)


def test_patterns_are_those_of_the_shell(model, images):
    for pattern in ("s*", "*#2", "*/*", "?????", "[!i]*", "conv[-]2"):
        table = ds.measure_sensitivity(model, images, layers=pattern, intervals=False)
        assert table["layer"].tolist() == [n for n in NAMES if fnmatch.fnmatchcase(n, pattern)]


# ---- a pass ends with the last layer that is wanted ----


class Seen(layers.Layer):
    """Notes the size of each batch it is called with: traced, or computed on PyTorch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.sizes, self.broken = [], False

    def call(self, x):
        self.sizes.append(x.shape[0])
        if self.broken and x.shape[0] != 5:  # 5 images list the layers
            raise RuntimeError("called after the last layer that was asked for")
        return x


def with_marks(*marks):
    """conv1 (large), the first mark, conv2, the second mark, and so on."""
    inputs = keras.Input((8, 8, 3))
    tensor = inputs
    for number, mark in enumerate(marks, 1):
        tensor = mark(layers.Conv2D(3, 3, padding="same", name=f"conv{number}")(tensor))
        tensor = layers.MaxPooling2D(2)(tensor)
    model = keras.Model(inputs, layers.Flatten(name="end")(tensor))
    for mark in marks:
        mark.sizes.clear()
    return model


def test_what_comes_after_is_not_computed(images):
    marks = [Seen(name=f"mark{number}") for number in (1, 2, 3)]
    model = with_marks(*marks)
    marks[1].broken = marks[2].broken = True
    chosen = ["conv1", "mark1", "conv2"]
    for deformations in (1, 3):
        table = ds.measure_sensitivity(
            model, images, layers=chosen, batch_size=3, deformations=deformations
        )
        assert table["layer"].tolist() == chosen
        assert table["sensitivity"].notna().all()
    assert set(marks[0].sizes) >= {5, 6}
    assert marks[1].sizes == marks[2].sizes == [5]
    with pytest.raises(RuntimeError, match="called after the last"):
        ds.measure_sensitivity(model, images, layers=[*chosen, "mark2"], batch_size=3)


def test_the_input_alone_runs_no_model(images):
    mark = Seen(name="mark")
    model = keras.Sequential([keras.Input((8, 8, 3)), mark])
    mark.sizes.clear()
    mark.broken = True
    table = ds.measure_sensitivity(model, images, layers="input", batch_size=3)
    assert table["sensitivity"].notna().all()
    assert mark.sizes == [5]


def test_passes_for_large_layers_end_with_them(images):
    """What does not fit beside the other layers is computed once more, and nothing after it."""
    first, second = Seen(name="mark1"), Seen(name="mark2")
    model = with_marks(first, second)
    chosen = ["mark1", "conv2", "end"]
    expected = ds.measure_sensitivity(model, images, layers=chosen, batch_size=3)
    # Of 768, 192 and 48 bytes an image, 60 % of this hold the last two.
    first.sizes.clear()
    second.sizes.clear()
    table = ds.measure_sensitivity(
        model, images, layers=chosen, batch_size=3, memory_limit=6 * (192 + 48 + 30) / 0.6
    )
    assert len(first.sizes) > len(second.sizes) > 0  # traces, or calls
    assert table.drop(columns="note").select_dtypes("number").to_numpy() == pytest.approx(
        expected.select_dtypes("number").to_numpy(), rel=1e-5
    )


def test_unknown_names_of_a_large_model():
    """The message is one to read: names that are near, and of hundreds the first and the last."""
    inputs = keras.Input((4, 4, 1))
    tensor = inputs
    for number in range(120):
        tensor = layers.Activation("relu", name=f"step{number:03d}")(tensor)
    model = keras.Model(inputs, layers.Flatten(name="flattened")(tensor))
    with pytest.raises(ValueError, match="unknown layers") as error:
        ds.measure_sensitivity(model, natural_images(3, 4, 4, 1), layers=["flatten", "step007"])
    message = str(error.value)
    assert message.endswith("did you mean flattened?")
    assert "input, step000, step001" in message
    assert "… 92 more …" in message
    assert "step119, flattened;" in message
    assert len(message) < 500
