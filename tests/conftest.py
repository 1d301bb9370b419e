"""Warnings are errors, seeds are fixed, figures are closed, and Keras is left as it was found."""

import os
import shutil
import sys

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings and retracing hints

import keras
import pytest
from helpers import natural_images, small_network

# Files that take long, a minute or more each where it was measured. They come first, so that two
# workers end at about the same time.
LONG = """
test_readme test_bin test_reproduce test_kept_networks test_executors test_architectures test_notebooks
test_killed_runs test_callbacks_resume test_callbacks_measures test_runs test_callbacks
test_pretrained_runs test_site test_package test_benchmarks
""".split()
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # Keras converts its own variables and PyTorch's tensors so; nothing of ours is involved.
    keras_on_numpy_2 = "ignore:__array__ implementation:DeprecationWarning:keras"
    config.addinivalue_line("filterwarnings", keras_on_numpy_2)


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


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


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window; it saves files into `browser.folder`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not binary or not driver:
        pytest.fail(
            "reports and the site are tested in Chromium: `make browser` says how to install it and "
            'its driver; without it, pytest -m "not browser"'
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    found.folder = tmp_path_factory.mktemp("downloads")
    saving = {"behavior": "allow", "downloadPath": str(found.folder)}
    found.execute_cdp_cmd("Browser.setDownloadBehavior", saving)
    yield found
    found.quit()
