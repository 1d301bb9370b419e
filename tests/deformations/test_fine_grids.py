"""Fine control grids: right to 0.01 px, in little memory, and with nothing large in a graph."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import BACKEND, ROOT, grid_points, natural_images, needs_tensorflow, numpy
from scipy.interpolate import RBFInterpolator

import deformstab as ds
from deformstab.deformations import splines

FINE = [
    ((24, 24), 1024, 1024),
    ((16, 16), 512, 512),
    ((32, 32), 300, 420),  # so fine that each pixel is a node
    ((3, 32), 900, 2048),
    ((40, 5), 1500, 700),
]


def exact_flow(displacements, grid, height, width, pixels):
    """scipy's thin plate splines of several draws at some pixels: [draws, pixels, 2]."""
    points = grid_points(*grid, height, width)
    values = np.moveaxis(displacements, 0, 1).reshape(len(points), -1)
    spline = RBFInterpolator(points, values, kernel="thin_plate_spline", degree=1)
    return np.moveaxis(spline(pixels.astype("float64")).reshape(len(pixels), -1, 2), 1, 0)


def chosen_pixels(grid, height, width, rng):
    """Around control points, where a spline is least smooth, on the edges, and anywhere."""
    points = grid_points(*grid, height, width)
    near = points[rng.integers(0, len(points), 200), None] + rng.integers(-4, 5, (200, 6, 2))
    anywhere = rng.uniform(-0.02, 1.02, (2000, 2)) * (height, width)
    pixels = np.concatenate([near.reshape(-1, 2), anywhere])
    return np.clip(pixels.round(), 0, (height - 1, width - 1)).astype(int)


@pytest.mark.parametrize(("grid", "height", "width"), FINE)
def test_flow_of_scipy(grid, height, width):
    """Draws of a quarter of a cell, and a chessboard of them, the least smooth there is."""
    assert splines.is_fine(grid, height, width)
    reach = min((height - 1) / (grid[0] - 1), (width - 1) / (grid[1] - 1)) / 4
    rng = np.random.default_rng(0)
    draw = rng.uniform(-reach, reach, (1, grid[0] * grid[1], 2))
    chessboard = (-1.0) ** np.indices(grid).sum(axis=0).reshape(1, -1, 1) * (reach, -reach)
    displacements = np.concatenate([draw, chessboard]).astype("float32")
    pixels = chosen_pixels(grid, height, width, rng)
    flow = numpy(ds.RandomDeformation(grid, reach).flow(displacements, height, width))
    assert flow.shape == (2, height, width, 2)
    exact = exact_flow(displacements, grid, height, width, pixels)
    assert np.abs(flow[:, pixels[:, 0], pixels[:, 1]] - exact).max() < 0.01


def test_translations_are_exact():
    grid, height, width = (20, 30), 300, 400
    assert splines.is_fine(grid, height, width)
    displacements = np.full((1, 600, 2), (30.0, -40.0), "float32")
    flow = numpy(ds.RandomDeformation(grid, 4.0).flow(displacements, height, width))
    assert np.abs(flow - (30, -40)).max() < 1e-4


def test_an_image_is_warped_along_the_flow():
    grid, height, width = (20, 20), 260, 300
    layer = ds.RandomDeformation(grid, 3.0, "nearest")
    displacements = layer.draw(2, seed=1)
    positions = np.stack(np.indices((height, width)), axis=-1)[None].astype("float32")
    flow = numpy(layer.flow(displacements, height, width))
    found = numpy(layer.deform(np.repeat(positions, 2, axis=0), displacements))
    sources = np.clip(positions + flow, 0, (height - 1, width - 1))
    assert np.abs(found - sources).max() < 0.51


@pytest.mark.parametrize(
    ("grid", "height", "width", "fine"),
    [
        ((3, 3), 32, 32, False),
        ((5, 5), 224, 224, False),
        ((8, 8), 256, 256, False),
        ((5, 5), 2048, 2048, False),
        ((16, 16), 64, 64, False),
        ((10, 10), 1024, 1024, True),
        ((32, 32), 2048, 2048, True),
    ],
)
def test_only_what_has_too_large_a_matrix_goes_the_other_way(grid, height, width, fine):
    """The others decide results that are committed: their numbers stay."""
    assert splines.is_fine(grid, height, width) == fine


@pytest.mark.parametrize(("grid", "height", "width"), [((20, 20), 256, 300), ((12, 7), 900, 500)])
def test_statistics_are_those_of_scipys_flow(grid, height, width):
    assert splines.is_fine(grid, height, width)
    reach = min((height - 1) / (grid[0] - 1), (width - 1) / (grid[1] - 1))
    rng = np.random.default_rng(0)
    draws = (
        rng.uniform(-1, 1, (3, grid[0] * grid[1], 2)) * reach * np.array([[[0.1]], [[0.2]], [[1]]])
    )
    mean_square, folded = splines.flow_statistics(draws, grid, height, width)
    pixels = np.stack([rng.integers(0, side, 20_000) for side in (height, width)], axis=1)
    flows = exact_flow(draws, grid, height, width, pixels)
    np.testing.assert_allclose(mean_square, (flows**2).sum(-1).mean(-1), rtol=0.03)
    assert folded.tolist() == [False, False, True]


def test_the_fold_rate_of_a_fine_grid_is_that_of_many_draws():
    """At 64 pixels to the image, as coarse grids are looked at, a cell would be two pixels."""
    grid, side, reach = (24, 24), 185, 2.85  # cells of 8 pixels
    draws = np.random.default_rng(6).uniform(-1, 1, (64, 576, 2)) * reach
    rate = splines.flow_statistics(draws, grid, side, side)[1].mean()
    scaled = splines.fold_rate(grid, (reach * 4,) * 2, 4 * (side - 1) + 1, 4 * (side - 1) + 1)
    assert 0.05 < rate < 0.95
    assert abs(scaled - rate) < 4 * np.sqrt(rate * (1 - rate) * 2 / 64) + 0.05


MEMORY = """
import sys
import warnings
import numpy as np
import keras
import deformstab as ds

warnings.simplefilter("ignore")
points, side, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
small = ds.RandomDeformation(3, 1.0, seed=0)
small(np.zeros((1, 32, 32, 3), "float32"))  # what the backend takes once
image = np.random.default_rng(0).random((1, side, side, 3), "float32")
layer = ds.RandomDeformation(points, (side - 1) / (points - 1) / 4, seed=0)
status = lambda name: int([x for x in open("/proc/self/status") if x.startswith(name)][0].split()[1])
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = status("VmRSS")
keras.ops.convert_to_numpy(layer(image))
print((status("VmHWM") - before) * 1024 - 2 * image.nbytes)  # the image, and what it becomes
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="takes its time; the arrays are the same")
@pytest.mark.parametrize(("points", "side"), [(24, 1024), (32, 2048)])
def test_memory_of_one_image(points, side):
    import os

    command = [sys.executable, "-c", MEMORY, str(points), str(side), "call"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 0.5e9


@needs_tensorflow
def test_nothing_large_becomes_a_constant_of_a_graph():
    import tensorflow as tf

    layer = ds.RandomDeformation((24, 24), 2.0)
    images = natural_images(1, 256, 256, 1)

    def loss(images, displacements):
        return tf.reduce_sum(layer.deform(images, displacements) ** 2)

    def all_of_it(images, displacements):
        with tf.GradientTape() as tape:
            tape.watch([images, displacements])
            value = loss(images, displacements)
        return tape.gradient(value, [images, displacements])

    signature = [tf.TensorSpec(images.shape), tf.TensorSpec((1, 576, 2))]
    graph = tf.function(all_of_it, signature).get_concrete_function().graph
    assert graph.as_graph_def().ByteSize() < 2e6


@needs_tensorflow
@pytest.mark.parametrize("jit", [None, True])
def test_gradients_are_those_of_a_plain_matrix(jit):
    """The flow is linear in the displacements: its gradient is the matrix, here scipy's spline."""
    import tensorflow as tf

    grid, height, width = (22, 20), 110, 120
    assert splines.is_fine(grid, height, width)
    layer = ds.RandomDeformation(grid, 1.0)
    displacements = layer.draw(1, seed=0)
    weights = np.random.default_rng(0).normal(size=(1, height, width, 2)).astype("float32")

    def gradient(displacements):
        with tf.GradientTape() as tape:
            tape.watch(displacements)
            total = tf.reduce_sum(weights * layer.flow(displacements, height, width))
        return tape.gradient(total, displacements)

    found = numpy(tf.function(gradient, jit_compile=jit)(displacements))
    pixels = np.stack(np.indices((height, width)), axis=-1).reshape(-1, 2)
    matrix = exact_flow(np.eye(440)[:, :, None] * np.ones(2), grid, height, width, pixels)[
        ..., 0
    ]  # [points, pixels]
    expected = matrix @ weights[0].reshape(-1, 2)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@needs_tensorflow
def test_inside_tf_data_and_compiled_it_is_the_eager_one():
    import tensorflow as tf

    layer = ds.RandomDeformation((22, 20), 1.0)
    images = natural_images(2, 110, 120, 1)
    eager = numpy(layer(images, seed=3))
    data = tf.data.Dataset.from_tensors(images).map(lambda x: layer(x, seed=3))
    np.testing.assert_allclose(next(data.as_numpy_iterator()), eager, rtol=0, atol=1e-4)
    displacements = layer.draw(2, seed=3)
    compiled = tf.function(layer.deform, jit_compile=True)(tf.constant(images), displacements)
    np.testing.assert_allclose(numpy(compiled), eager, rtol=0, atol=1e-4)


@needs_tensorflow
def test_a_model_with_a_fine_grid_can_be_exported(tmp_path):
    import keras
    import tensorflow as tf

    images = natural_images(2, 110, 120, 1)
    model = keras.Sequential(
        [keras.Input((110, 120, 1)), ds.RandomDeformation((22, 20), 1, seed=1)]
    )
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    expected = numpy(ds.RandomDeformation((22, 20), 1, seed=1)(images))
    np.testing.assert_allclose(numpy(loaded.serve(images)), expected, rtol=0, atol=1e-4)
