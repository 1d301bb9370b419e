"""A model file that Keras 2 wrote: loaded, measured, swapped."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, DATA

import deformstab as ds
from deformstab.presentation.measure_files import measure_files
from deformstab.presentation.model_files import load_model

MODEL = DATA / "keras2_model.h5"


@pytest.fixture(scope="module")
def recorded():
    """What Keras 2.15 computed with this model: tests/data/make_keras2_model.py."""
    with np.load(DATA / "keras2_outputs.npz") as file:
        return dict(file)


def test_it_computes_what_it_computed(recorded):
    outputs = load_model(MODEL).predict(recorded["images"].astype("float32"), verbose=0)
    # On PyTorch, Keras pads for average pooling with the border itself: pool2 has padding "same".
    rtol = 0.02 if BACKEND == "torch" else 1e-4
    np.testing.assert_allclose(outputs, recorded["outputs"], rtol=rtol)
    assert np.ptp(recorded["outputs"], axis=0).max() > 0


def test_every_layer_is_measured(recorded):
    model = load_model(MODEL)
    table = ds.measure_sensitivity(model, recorded["images"])
    names = [layer.name for layer in model.layers if layer.name != "photo"]
    assert table["layer"].tolist() == ["input", *names]
    assert table["sensitivity"].notna().all()
    kinds = dict(zip(table["layer"], table["layer_type"]))
    assert kinds["depthwise"] == "DepthwiseConv2D"
    assert kinds["separable"] == "SeparableConv2D"
    assert kinds["transposed"] == "Conv2DTranspose"


def test_from_a_file(recorded, tmp_path):
    np.savez(tmp_path / "images.npz", images=recorded["images"])
    found = measure_files(MODEL, tmp_path / "images.npz", value_range=(0, 255))
    expected = ds.measure_sensitivity(load_model(MODEL), recorded["images"])
    assert found["layer"].tolist() == expected["layer"].tolist()
    np.testing.assert_allclose(found["sensitivity"], expected["sensitivity"], rtol=1e-4)


def test_its_pooling_is_swapped_and_the_result_saved(recorded, tmp_path):
    model = load_model(MODEL)
    blurred = ds.swap_downsampling(model, "blur")
    for old, new in zip(model.layers, blurred.layers, strict=True):
        assert old.name == new.name
        assert old.output.shape == new.output.shape
        assert (type(old) is type(new)) == (not old.name.startswith("pool"))
        for before, after in zip(old.get_weights(), new.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
    blurred.save(tmp_path / "blurred.keras")
    again = keras.models.load_model(tmp_path / "blurred.keras")
    images = recorded["images"].astype("float32")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), blurred.predict(images, verbose=0)
    )
