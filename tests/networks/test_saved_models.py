"""A model file that the package wrote before its modules stood in rooms: it loads, and is the same."""

import keras
import numpy as np
from helpers import DATA, numpy

import deformstab as ds

IMAGES = np.random.default_rng(0).random((4, 32, 32, 3)).astype("float32")


def test_a_model_saved_before_the_rooms_loads_and_gives_what_it_gave():
    model = keras.models.load_model(DATA / "saved_by_flat_modules.keras")
    recorded = np.load(DATA / "saved_by_flat_modules.npy")
    assert np.abs(recorded).max() > 0.1
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), recorded, rtol=1e-5, atol=1e-6)
    assert {type(layer).__name__ for layer in model.layers} >= {
        *("RandomDeformation", "Subsample2D", "BlurPooling2D", "MaxBlurPooling2D"),
        *("StridedConvolution2D", "StridedConvolutionReLU2D"),
    }
    layer = model.get_layer("deform")
    assert (layer.control_points, layer.max_displacement, layer.seed) == ((3, 3), (2.0, 2.0), 1)
    initializer = model.get_layer("conv1").kernel_initializer
    assert isinstance(initializer, ds.SmoothedInitializer)
    assert initializer.sigma == 1.0
    assert np.isfinite(numpy(model(IMAGES, training=True))).all()


def test_saved_again_it_names_the_rooms(tmp_path):
    model = keras.models.load_model(DATA / "saved_by_flat_modules.keras")
    model.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(
        again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )
    subsample = keras.saving.serialize_keras_object(again.get_layer("subsample"))
    assert subsample["module"] == "deformstab.networks.downsampling"
