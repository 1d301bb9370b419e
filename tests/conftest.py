"""Warnings are errors, seeds are fixed, figures are closed, and Keras is left as it was found."""

import os
import sys

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings and retracing hints

import keras
import pytest
from helpers import natural_images, small_network


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # Keras converts its own variables and PyTorch's tensors so; nothing of ours is involved.
    keras_on_numpy_2 = "ignore:__array__ implementation:DeprecationWarning:keras"
    config.addinivalue_line("filterwarnings", keras_on_numpy_2)


@pytest.fixture(autouse=True)
def _same_start_and_clean_end():
    keras.utils.set_random_seed(0)
    policy, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(data_format)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def images():
    """12 images [12, 16, 16, 3] in [-1, 1], like photographs in their spectrum."""
    return natural_images(12)


@pytest.fixture
def network():
    """A small functional network for `images`, every weight of it random."""
    return small_network()
