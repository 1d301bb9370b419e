"""What several test modules share: images, a small network, plain oracles, the backend at hand."""

import importlib.util
import math
import pathlib
import tarfile

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.interpolate import RBFInterpolator

TESTS = pathlib.Path(__file__).resolve().parent
ROOT, DATA = TESTS.parent, TESTS / "data"
BACKEND = keras.backend.backend()
# Without x64, JAX computes in float32 whatever comes in.
DOUBLE = keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype) == "float64"
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own ways")
needs_double = pytest.mark.skipif(not DOUBLE, reason="needs float64")


def module_at(path):
    """A Python file that stands in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def natural_images(count, height=16, width=16, channels=3, seed=0):
    """float32 images in [-1, 1] with the spectrum of photographs: amplitude ∝ 1 / frequency."""
    noise = np.random.default_rng(seed).normal(size=(count, height, width, channels))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))
    spectrum = np.fft.rfft2(noise, axes=(1, 2)) * amplitude[..., None]
    images = np.fft.irfft2(spectrum, s=(height, width), axes=(1, 2))
    return (images / np.abs(images).max()).astype("float32")


def small_network(size=16, seed=0):
    """A functional network whose weights and moving averages are random, biases included."""
    inputs = keras.Input((size, size, 3), name="input")
    tensor = layers.Conv2D(4, 3, padding="same", name="conv1")(inputs)
    tensor = layers.BatchNormalization(name="bn1")(tensor)
    tensor = layers.ReLU(name="relu1")(tensor)
    tensor = layers.AveragePooling2D(2, name="pool1")(tensor)
    tensor = layers.Conv2D(6, 3, name="conv2", activation="relu")(tensor)
    tensor = layers.MaxPooling2D(name="pool2")(tensor)
    tensor = layers.GlobalAveragePooling2D(name="average")(tensor)
    model = keras.Model(inputs, layers.Dense(5, name="logits")(tensor))
    randomize(model, seed)
    return model


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = 0.3 * rng.normal(size=variable.shape)
        if variable.path.endswith(("moving_variance", "gamma")):
            values = rng.uniform(0.5, 2, variable.shape)
        variable.assign(values.astype("float32"))


def grid_points(rows, columns, height, width):
    """Control points by a plain loop: [rows · columns, 2], pixels, (y, x)."""
    points = []
    for row in range(rows):
        for column in range(columns):
            points.append((row * (height - 1) / (rows - 1), column * (width - 1) / (columns - 1)))
    return np.array(points)


def scipy_flow(displacements, rows, columns, height, width):
    """One deformation's thin plate spline by scipy, float64: [height, width, 2]."""
    points = grid_points(rows, columns, height, width)
    spline = RBFInterpolator(points, displacements, kernel="thin_plate_spline", degree=1)
    pixels = np.stack(np.indices((height, width)), axis=-1).reshape(-1, 2)
    return spline(pixels.astype("float64")).reshape(height, width, 2)


def loop_warp(images, flow, interpolation="bilinear"):
    """out(p) = image(p + flow(p)), nearest edge pixel outside; plain loops in float64."""
    batch, height, width, _ = images.shape
    flow = np.asarray(flow, "float64")
    warped = np.empty(images.shape, images.dtype if interpolation == "nearest" else "float64")
    for index in np.ndindex(batch, height, width):
        image = images[index[0]]
        y = min(max(index[1] + flow[index][0], 0), height - 1)
        x = min(max(index[2] + flow[index][1], 0), width - 1)
        if interpolation == "nearest":
            warped[index] = image[math.floor(y + 0.5), math.floor(x + 0.5)]
            continue
        top, left = math.floor(y), math.floor(x)
        value = 0.0
        for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, weight in ((left, 1 - (x - left)), (left + 1, x - left)):
                pixel = image[min(row, height - 1), min(column, width - 1)].astype("float64")
                value = value + row_weight * weight * pixel
        warped[index] = value
    return warped


def committed_runs(folder="*"):
    """(name, content) of the files of runs in folders of results/, packed ones too."""
    for path in sorted((ROOT / "results").glob(f"{folder}/provenance.json")):
        archive = path.with_name("runs.tar.xz")
        if archive.exists():
            with tarfile.open(archive) as packed:
                for member in packed:
                    if member.isfile():
                        name = pathlib.PurePosixPath(member.name).name
                        yield name, packed.extractfile(member).read().decode()
        elif path.parent.name != "quick":  # whose files stay on the machine that made them
            for file in sorted((path.parent / "runs").glob("*.json")):
                yield file.name, file.read_text(encoding="utf-8")
