"""Models by name or file, and how images are prepared for them."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from deformstab.presentation.applications import applications, load_application
from deformstab.presentation.measure_files import load_files
from deformstab.presentation.model_sources import ModelSource
from deformstab.presentation.preparation import (
    preparation,
    preparation_of_application,
    scaled_to,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3)).astype("uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images, of the size that the models here take."""
    path = tmp_path_factory.mktemp("images")
    for number, image in enumerate(PIXELS):
        Image.fromarray(image).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    inputs = keras.Input((20, 24, 3))
    outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
    keras.Model(inputs, outputs).save(path)
    return path


# ---- preparation ----


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_a_file_is_prepared_exactly_as_keras_does_it(mode, folder, model_file):
    said = []
    source = ModelSource(model_file, preprocessing=mode)
    files = load_files(source, folder, report=said.append)
    expected = keras.applications.imagenet_utils.preprocess_input(
        PIXELS.astype("float32"), data_format="channels_last", mode=mode
    )
    np.testing.assert_array_equal(files.images, expected)
    assert f"({mode})" in said[1]


def test_caffe_is_blue_first_without_imagenets_means():
    """By hand: a plain loop over the pixels."""
    found = preparation("caffe")(PIXELS / np.float32(255))
    for index in np.ndindex(PIXELS.shape[:3]):
        red, green, blue = (float(each) for each in PIXELS[index])
        expected = [blue - 103.939, green - 116.779, red - 123.68]
        np.testing.assert_allclose(found[index], expected, atol=1e-4)


@pytest.mark.parametrize("text", ["caffe", "torch", "tf", "0,255", "-1,1", "0,1", (0.5, 2)])
def test_what_is_prepared_can_be_undone(text):
    images = PIXELS / np.float32(255)
    np.testing.assert_allclose(
        preparation(text).undone(preparation(text)(images)), images, atol=1e-6
    )


@pytest.mark.parametrize(
    "text", ["BGR", "", "1", "0,1,2", "1,0", "nan,1", "0,inf", "a,b", ("1",), []]
)
def test_a_preparation_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"caffe, torch, tf or two numbers LOW,HIGH.*0,1"):
        preparation(text)


def test_colours_are_not_prepared_for_a_grey_model():
    with pytest.raises(ValueError, match=r"three channels, and the model takes 1.*LOW,HIGH"):
        preparation("caffe")(np.zeros((2, 4, 4, 1), "float32"))
    assert preparation("tf")(np.zeros((2, 4, 4, 1), "float32")).max() == -1


@pytest.mark.parametrize("name", applications())
def test_every_network_of_keras_is_prepared_as_the_module_it_is_defined_in_says(name):
    """Whether a network scales images itself: the documentation of each says so."""
    family = {
        "caffe": ("VGG", "ResNet50", "ResNet101", "ResNet152"),
        "torch": ("DenseNet",),
        "0…255": ("EfficientNet", "ConvNeXt", "MobileNetV3"),
        "tf": ("ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "Inception", "NASNet"),
    }
    family["tf"] += ("Xception",)
    longest = {
        prefix: mode for mode, some in family.items() for prefix in some if name.startswith(prefix)
    }
    mode = longest[max(longest, key=len)]
    found = preparation_of_application(name)
    assert f"({mode})" in found.words or found.words.startswith(mode)
    assert found.words.endswith(f"for {name}")
    expected = scaled_to(0, 255) if mode == "0…255" else preparation(mode)
    images = PIXELS / np.float32(255)
    np.testing.assert_allclose(found(images), expected(images), rtol=1e-6)


def test_preparations_are_told_apart():
    assert preparation("tf").same_as(scaled_to(-1, 1), 3)
    assert not preparation("torch").same_as(scaled_to(-2, 2), 3)
    assert not preparation("caffe").same_as(scaled_to(-128, 127), 3)
    assert not scaled_to(0, 1).same_as(scaled_to(0, 255), 1)


# ---- networks by name ----


def small(weights="imagenet", include_top=True, input_shape=None, name="small"):
    """What stands for a constructor: any size, with a rescaling that only ImageNet's has."""
    if weights == "imagenet" and include_top and input_shape not in (None, (8, 8, 3)):
        raise ValueError("`input_shape` should be (8, 8, 3)")
    inputs = keras.Input(input_shape or (8, 8, 3))
    tensor = layers.Rescaling(2.0)(inputs) if weights == "imagenet" else inputs
    tensor = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(tensor))
    return keras.Model(inputs, layers.Dense(3)(tensor) if include_top else tensor, name=name)


small.__module__ = keras.applications.MobileNet.__module__


@pytest.fixture
def named(monkeypatch):
    """VGG16 is `small`: nothing is built, or downloaded, for long."""
    monkeypatch.setattr(keras.applications, "VGG16", small)


def weights_of(model):
    return [np.asarray(each) for each in model.get_weights()]


def test_random_weights_are_those_of_their_seed(named):
    first, again, other = (load_application("VGG16", "none", seed=seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, weights_of(first), weights_of(again)))
    assert not np.array_equal(weights_of(first)[0], weights_of(other)[0])


@pytest.mark.parametrize("suffix", ["weights.h5", "keras", "h5"])
def test_weights_come_from_a_file(named, tmp_path, suffix):
    model = small(None)
    file = tmp_path / f"any.{suffix}"
    (model.save_weights if suffix == "weights.h5" else model.save)(file)
    found = load_application("VGG16", str(file), seed=3)
    assert all(map(np.array_equal, weights_of(found), weights_of(model)))


def test_a_network_takes_another_size(named, tmp_path):
    assert load_application("VGG16", "none", 12).input_shape == (None, 12, 12, 3)
    small(None).save_weights(tmp_path / "a.weights.h5")
    found = load_application("VGG16", str(tmp_path / "a.weights.h5"), 12)
    assert found.input_shape == (None, 12, 12, 3)
    assert load_application("VGG16", "imagenet", 8).output_shape == (None, 3)
    headless = load_application("VGG16", "imagenet", 12)  # as Keras gives them
    assert (headless.input_shape, headless.output_shape) == ((None, 12, 12, 3), (None, 2))


def test_weights_of_another_network_are_refused(named, tmp_path, monkeypatch):
    small("imagenet").save_weights(tmp_path / "more.weights.h5")  # with a layer that has no weights
    with pytest.raises(ValueError, match=r"with 5 layers; VGG16 has 4.*model\.save.*--model"):
        load_application("VGG16", str(tmp_path / "more.weights.h5"))
    inputs = keras.Input((8, 8, 3))
    tensor = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3)(inputs))
    keras.Model(inputs, layers.Dense(3)(tensor)).save_weights(tmp_path / "wide.weights.h5")
    with pytest.raises(ValueError, match=r"wide\.weights\.h5 does not hold weights of VGG16"):
        load_application("VGG16", str(tmp_path / "wide.weights.h5"))
    (tmp_path / "text.weights.h5").write_text("text")
    with pytest.raises(ValueError, match=r"text\.weights\.h5 is no \.h5 file"):
        load_application("VGG16", str(tmp_path / "text.weights.h5"))
    monkeypatch.setattr(small, "__module__", "keras.src.applications.efficientnet")
    small("imagenet").save(tmp_path / "old.h5")  # which does not tell
    with pytest.raises(ValueError, match=r"old\.h5.*one layer more.*--weights=imagenet"):
        load_application("VGG16", str(tmp_path / "old.h5"))


def test_a_failed_download_says_what_needs_none(monkeypatch):
    def fail(weights):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(OSError, match=r"VGG16 could not be downloaded: URL.*--weights=FILE.*none"):
        load_application("VGG16")


def test_a_network_by_name_is_measured_on_its_own_range_and_size(monkeypatch, folder):
    def any_size(weights, input_shape=None):
        inputs = keras.Input((None, None, 3))
        return keras.Model(inputs, layers.Conv2D(1, 1)(inputs))

    any_size.__module__ = keras.applications.VGG16.__module__
    monkeypatch.setattr(keras.applications, "VGG19", any_size)
    said = []
    files = load_files(ModelSource("VGG19", "none"), folder, report=said.append)
    assert files.images.shape == (2, 224, 224, 3)
    assert files.images.min() < -100
    assert "caffe" in said[1]
    files = load_files(ModelSource("VGG19", "none", preprocessing="0,1", image_size=32), folder)
    assert files.images.shape == (2, 32, 32, 3)
    assert 0 <= files.images.min() <= files.images.max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "vgg16"}, r"vgg16 does not exist; of keras.applications, did you mean VGG16"),
        ({"model": "VGG16", "weights": "nowhere.h5"}, r"nowhere\.h5 does not exist$"),
        ({"model": None, "weights": "none"}, r"--weights=none is for a network of keras"),
        ({"model": None, "image_size": 64}, r"--image_size=64.*takes images of 20 × 24"),
        ({"model": None, "preprocessing": "bgr"}, r"caffe, torch, tf"),
    ],
)
def test_a_source_that_is_none_is_refused(options, words, folder, model_file):
    options["model"] = options["model"] or model_file
    with pytest.raises((ValueError, OSError), match=words):
        load_files(ModelSource(**options), folder)


def test_the_name_of_a_model_in_titles_is_short(model_file):
    assert ModelSource(model_file).name == "model.keras"
    assert ModelSource("VGG16").name == "VGG16, ImageNet"
    assert ModelSource("VGG16", "none").name == "VGG16, random weights"
    assert ModelSource("VGG16", "some/where/mine.weights.h5").name == "VGG16, mine.weights.h5"
