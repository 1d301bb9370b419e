"""measure_sensitivity refuses what it cannot do before any work, and says how to mend it."""

import keras
import numpy as np
import pytest
from helpers import natural_images

import deformstab as ds


@pytest.fixture(autouse=True)
def _no_work(monkeypatch, request):
    """Refusals come before anything is drawn, warped or computed."""
    if "before_any_work" in request.node.name:

        def refuse(*args, **kwargs):
            raise AssertionError("work was done before the input was checked")

        monkeypatch.setattr(ds.RandomDeformation, "draw", refuse)
        monkeypatch.setattr(ds.RandomDeformation, "deform", refuse)


@pytest.mark.parametrize("metric", ["cos", "l2", None, "Cosine"])
def test_unknown_metrics_before_any_work(images, network, metric):
    with pytest.raises(ValueError, match=r"unknown metric .*cosine, euclidean"):
        ds.measure_sensitivity(network, images, metric=metric)


@pytest.mark.parametrize("name", ["deformations", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None])
def test_impossible_numbers_before_any_work(images, network, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be an int of at least 1, received"):
        ds.measure_sensitivity(network, images, **{name: value})


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_before_any_work(images, network, count):
    with pytest.raises(ValueError, match=rf"at least two .* received {count}"):
        ds.measure_sensitivity(network, images[:count])


@pytest.mark.parametrize("shape", [(16, 16, 3), (4, 16, 16), (2, 2, 2, 16, 16, 3)])
def test_what_is_no_batch_of_images_before_any_work(network, shape):
    with pytest.raises(ValueError, match=r"images must be a batch .*received shape \(.*16"):
        ds.measure_sensitivity(network, np.zeros(shape, "float32"))


def test_videos_for_a_network_of_images(network):
    clips = np.zeros((2, 2, 16, 16, 3), "float32")
    for measure in (ds.measure_sensitivity, ds.measure_stability, ds.prediction_consistency):
        with pytest.raises(ValueError, match=r"images must be a batch .*received shape \(2, 2, 16"):
            measure(network, clips)


@pytest.mark.parametrize("deformation", [2.0, "paper", (3, 2)])
def test_what_is_no_deformation_before_any_work(images, network, deformation):
    with pytest.raises((ValueError, TypeError), match="RandomDeformation"):
        ds.measure_sensitivity(network, images, deformation)


@pytest.mark.parametrize("layers", ["conv9", ["conv1", "conv9"], ["block1/conv1", "conv9"]])
def test_unknown_layers_list_the_known_ones(images, network, layers):
    names = "input, conv1, bn1, relu1, pool1, conv2, pool2, average, logits"
    with pytest.raises(ValueError, match=rf"unknown layers .*conv9.*{names}"):
        ds.measure_sensitivity(network, images, layers=layers)


def test_no_layers(images, network):
    with pytest.raises(ValueError, match=r"layers is empty; pass None for all"):
        ds.measure_sensitivity(network, images, layers=[])


def test_layers_come_in_the_order_of_the_model(images, network):
    table = ds.measure_sensitivity(network, images, layers=["logits", "input", "conv2"])
    assert table["layer"].tolist() == ["input", "conv2", "logits"]
    assert table["layer_index"].tolist() == [0, 1, 2]
    whole = ds.measure_sensitivity(network, images).set_index("layer")["sensitivity"]
    expected = whole[["input", "conv2", "logits"]]
    np.testing.assert_allclose(table["sensitivity"], expected, rtol=1e-6)
    one = ds.measure_sensitivity(network, images, layers="conv2")
    assert one["sensitivity"].tolist() == [pytest.approx(whole["conv2"], rel=1e-6)]
    some = (name for name in ("conv1", "conv2"))
    assert ds.measure_sensitivity(network, images, layers=some)["layer"].tolist() == [
        "conv1",
        "conv2",
    ]


def test_a_layer_asked_for_twice_has_one_row(images, network):
    table = ds.measure_sensitivity(network, images, layers=["conv1", "conv1"])
    assert table["layer"].tolist() == ["conv1"]


def test_images_of_a_size_the_model_does_not_take(network):
    with pytest.raises(ValueError, match=r"16, 16, 3"):
        ds.measure_sensitivity(network, natural_images(4, 20, 20))


def test_representations_that_are_not_finite_are_said_to_be_so(images):
    class Broken(keras.layers.Layer):
        """NaN for the one image that is white in a corner, deformed or not."""

        def call(self, images):
            white = images[:, :1, :1, :1] > 0.99
            return keras.ops.where(white, float("nan"), images)

    images = np.clip(images, -0.9, 0.9)
    images[2, :9, :9] = 1.0
    model = keras.Sequential([keras.Input((16, 16, 3)), Broken(name="broken")])
    table = ds.measure_sensitivity(model, images, layers=["input", "broken"]).set_index("layer")
    assert table["sensitivity"].isna().tolist() == [False, True]
    assert table.loc["broken", "note"].startswith("non-finite representation for 2 of 24 images")
