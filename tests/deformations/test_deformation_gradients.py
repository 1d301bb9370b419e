"""Gradients through deformations: with respect to images, to displacements, to both, and of those."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import BACKEND, ROOT, natural_images, needs_double, needs_tensorflow, numpy

import deformstab as ds
from deformstab.deformations.warp import warp


def gradients(function, *tensors):
    """Of a scalar function with respect to its tensors."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(*tensors)
    return tape.gradient(result, tensors)


def cubes(images, displacements, layer):
    import tensorflow as tf

    return tf.reduce_sum(layer.deform(images, displacements) ** 3)


def plain_cubes(images, displacements, layer):
    """The same, all of it differentiated by TensorFlow."""
    import tensorflow as tf

    return tf.reduce_sum(warp(images, layer.flow(displacements, *images.shape[1:3])) ** 3)


def example(layer, seed=0):
    import tensorflow as tf

    images = natural_images(4, 10, 12, 2, seed=seed).astype(layer.geometry_dtype)
    return tf.constant(images), layer.draw(4, seed=seed)


def check(found, expected, rtol=1e-5):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        scale = np.abs(numpy(other)).max()
        assert scale > 0
        np.testing.assert_allclose(numpy(one), numpy(other), rtol=0, atol=rtol * scale)


@needs_double
@needs_tensorflow
def test_finite_differences():
    import tensorflow as tf

    layer = ds.RandomDeformation((2, 3), 1.0, dtype="float64")
    images = natural_images(2, 5, 6, 1).astype("float64")
    displacements = numpy(layer.draw(2, seed=5))
    weights = np.random.default_rng(0).normal(size=images.shape)
    value = lambda *inputs: float(np.sum(weights * numpy(layer.deform(*inputs))))
    inputs = tf.constant(images), tf.constant(displacements)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(weights * layer.deform(*inputs))
    for number, gradient in enumerate(tape.gradient(total, inputs)):
        expected = np.empty(inputs[number].shape)
        for index in np.ndindex(expected.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [images.copy(), displacements.copy()]
                moved[number][index] += step
                ends.append(value(*moved))
            expected[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(numpy(gradient), expected, rtol=1e-6, atol=1e-7)


@needs_tensorflow
@pytest.mark.parametrize("compiled", ["eager", "graph", "jit"])
def test_gradients_are_tensorflows(compiled):
    import tensorflow as tf

    layer = ds.RandomDeformation((3, 4), 4.0)

    def both(images, displacements):
        return gradients(lambda *tensors: cubes(*tensors, layer), images, displacements)

    if compiled != "eager":
        both = tf.function(both, jit_compile=compiled == "jit")
    for seed in (0, 1):  # of the second images as well: the first are no constants of it
        tensors = example(layer, seed)
        expected = gradients(lambda *tensors: plain_cubes(*tensors, layer), *tensors)
        check(both(*tensors), expected)


@needs_tensorflow
def test_each_gradient_alone():
    images, displacements = example(layer := ds.RandomDeformation(3, 2.0))
    expected = gradients(lambda *tensors: plain_cubes(*tensors, layer), images, displacements)
    of_images = gradients(lambda images: cubes(images, displacements, layer), images)
    of_displacements = gradients(lambda moves: cubes(images, moves, layer), displacements)
    check([*of_images, *of_displacements], expected)


@needs_tensorflow
@pytest.mark.parametrize("jit", [None, True])
def test_gradients_of_gradients(jit):
    import tensorflow as tf

    layer = ds.RandomDeformation(3, 3.0)
    tensors = example(layer)

    def second(function, *tensors):
        squares = lambda *tensors: sum(
            tf.reduce_sum(x**2) for x in gradients(lambda *t: function(*t, layer), *tensors)
        )
        return gradients(squares, *tensors)

    expected = second(plain_cubes, *tensors)
    check(second(cubes, *tensors), expected, rtol=1e-4)
    compiled = tf.function(lambda *tensors: second(cubes, *tensors), jit_compile=jit)
    check(compiled(*tensors), expected, rtol=1e-4)


@needs_tensorflow
@pytest.mark.parametrize("jit", [None, True])
def test_images_that_depend_on_the_displacements(jit):
    """Inside a larger graph the two inputs may not be independent."""
    import tensorflow as tf

    layer = ds.RandomDeformation(3, 2.0)
    images, displacements = example(layer)

    def twice(function, displacements):
        brighter = images * (1 + displacements[:, :1, :1, None])
        return function(brighter, displacements, layer)

    expected = gradients(lambda moves: twice(plain_cubes, moves), displacements)
    found = tf.function(
        lambda moves: gradients(lambda moves: twice(cubes, moves), moves), jit_compile=jit
    )
    check(found(displacements), expected)


@needs_tensorflow
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "mixed_bfloat16"])
def test_the_gradient_of_images_is_of_their_dtype_and_format(dtype, data_format):
    import tensorflow as tf

    layer = ds.RandomDeformation(3, 2.0, dtype=dtype, data_format=data_format)
    images, displacements = example(layer)
    expected = gradients(lambda images: plain_cubes(images, displacements, layer), images)[0]
    first = data_format == "channels_first"
    given = tf.transpose(images, (0, 3, 1, 2)) if first else images
    given = tf.cast(given, "float16" if dtype == "float16" else "float32")
    (found,) = gradients(lambda images: cubes(images, displacements, layer), given)
    assert found.dtype == given.dtype
    found = tf.cast(tf.transpose(found, (0, 2, 3, 1)) if first else found, "float32")
    check([found], [expected], rtol=1e-5 if dtype == "float32" else 0.05)


@needs_tensorflow
def test_integer_images_and_labels():
    """Displacements have a gradient, unless the interpolation has none."""
    import tensorflow as tf

    layer, nearest = (
        ds.RandomDeformation(3, 2.0, interpolation=i) for i in ("bilinear", "nearest")
    )
    displacements = layer.draw(4, seed=1)
    images = tf.cast(np.abs(200 * natural_images(4)), "uint8")
    by_moves = lambda images: gradients(
        lambda moves: tf.reduce_sum(layer.deform(images, moves) ** 2), displacements
    )
    check(by_moves(images), by_moves(tf.cast(images, "float32")))
    labels = tf.cast(images, "float32")
    loss = lambda *tensors: tf.reduce_sum(nearest.deform(*tensors) ** 2)
    of_labels, of_displacements = gradients(loss, labels, displacements)
    assert of_displacements is None
    assert np.abs(numpy(of_labels)).max() > 0


@needs_tensorflow
@pytest.mark.parametrize("compiled", ["eager", "graph", "jit"])
@pytest.mark.parametrize("grid", [3, (16, 16)])
def test_an_empty_batch_has_an_empty_gradient(grid, compiled):
    import tensorflow as tf

    layer = ds.RandomDeformation(grid, 0.5)
    images = tf.zeros((0, 40, 40, 2))

    def both(images, displacements):
        return gradients(lambda *tensors: cubes(*tensors, layer), images, displacements)

    if compiled != "eager":
        both = tf.function(both, jit_compile=compiled == "jit")
    of_images, of_displacements = both(images, layer.draw(0))
    assert of_images.shape == (0, 40, 40, 2)
    assert of_displacements.shape == layer.draw(0).shape
    (alone,) = gradients(lambda x: cubes(x, layer.draw(0), layer), images)
    assert alone.shape == (0, 40, 40, 2)


@needs_tensorflow
def test_an_epoch_that_ends_with_an_empty_batch_learns():
    """As where images are filtered after they were put into batches."""
    import keras
    import tensorflow as tf

    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(1, 3, padding="same"),  # so that there is a gradient
            ds.RandomDeformation(3, 1.0, seed=0),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    before = numpy(model.layers[0].kernel)
    for count in (0, 3):
        with tf.GradientTape() as tape:
            outputs = model(natural_images(3, 12, 12, 1)[:count], training=True)
            loss = tf.reduce_sum(outputs**2)
        found = tape.gradient(loss, model.trainable_weights)
        assert all(np.isfinite(numpy(each)).all() for each in found)
    assert np.abs(numpy(found[0])).max() > 0
    assert before.shape == found[0].shape


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own way")
def test_an_empty_batch_has_an_empty_gradient_under_jax():
    import jax

    layer = ds.RandomDeformation(3, 0.5)
    loss = lambda *tensors: (layer.deform(*tensors) ** 2).sum()
    found = jax.grad(loss, argnums=(0, 1))(np.zeros((0, 8, 8, 1), "float32"), layer.draw(0))
    assert [each.shape for each in found] == [(0, 8, 8, 1), (0, 9, 2)]


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own way")
def test_an_empty_batch_has_an_empty_gradient_under_torch():
    import torch

    layer = ds.RandomDeformation(3, 0.5)
    images = torch.zeros((0, 8, 8, 1), requires_grad=True)
    displacements = layer.draw(0).detach().requires_grad_()
    (layer.deform(images, displacements) ** 2).sum().backward()
    assert images.grad.shape == images.shape


SAVED = """
import sys
import numpy as np
import tensorflow as tf

images = tf.reshape(tf.range(2 * 10 * 12 * 1.0), (2, 10, 12, 1))
if sys.argv[2] == "save":
    import deformstab as ds

    layer = ds.RandomDeformation(3, 2.0)
    module = tf.Module()
    module.deform = tf.function(lambda images: layer.deform(images, layer.draw(2, seed=3)),
                                [tf.TensorSpec((2, 10, 12, 1))])
    tf.saved_model.save(module, sys.argv[1])
else:
    module = tf.saved_model.load(sys.argv[1])
with tf.GradientTape() as tape:
    tape.watch(images)
    loss = tf.reduce_sum(module.deform(images) ** 2)
print(float(tf.reduce_sum(tape.gradient(loss, images) * images)))
"""


@needs_tensorflow
def test_a_saved_function_has_its_gradient_in_another_process(tmp_path):
    outputs = []
    for action in ("save", "load"):
        command = [sys.executable, "-c", SAVED, str(tmp_path / "saved"), action]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(float(done.stdout))
    assert outputs[0] == outputs[1] != 0
