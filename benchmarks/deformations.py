"""Random deformations of a batch of images, by this package and by what a user would pick instead.

Each function takes a case, makes four batches of random images, and returns a function of a number
that deforms one of them. All draw new deformations at every call, except `opencv_remap`, which
knows its flow. Every package is imported inside, since no environment has them all.
"""

import numpy as np
from worker import THREADS


def batches(images, side):
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 1, (images, side, side, 3)).astype("float32") for _ in range(4)]


def _on_tensorflow(images, side, function):
    import tensorflow as tf

    given = [tf.constant(batch) for batch in batches(images, side)]
    return lambda number: function(given[number % 4]).numpy()


def _layer(points, reach):
    import deformstab as ds

    return ds.RandomDeformation(points, reach, seed=0)


def compiled(images, side, points, reach):
    import tensorflow as tf

    return _on_tensorflow(images, side, tf.function(_layer(points, reach)))


def family(images, side, points, reach, name):
    """Another family, compiled, of the RMS displacement that the spline has."""
    import tensorflow as tf

    import deformstab as ds

    rms = _layer(points, reach).expected_rms(side, side)
    layer = getattr(ds, name)(rms_displacement=rms, seed=0)
    return _on_tensorflow(images, side, tf.function(layer))


def eager(images, side, points, reach):
    return _on_tensorflow(images, side, _layer(points, reach))


def in_tf_data(images, side, points, reach):
    """The step from one batch to the next, of a data set that was batched before.

    One after the other: what tf.data prepares while other candidates run would look like speed.
    """
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(np.stack(batches(images, side))).repeat()
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    deformed = iter(dataset.map(_layer(points, reach)).with_options(options))
    return lambda number: next(deformed).numpy()


def gradient(images, side, points, reach, by=("images", "displacements"), xla=False, derived=False):
    """The gradient of a loss, its forward pass included.

    by: with respect to what. xla: for all of it, not for the layer alone. derived: of the same
    deformation written out, by TensorFlow's automatic differentiation.
    """
    import tensorflow as tf

    from deformstab.deformations.warp import warp

    layer = _layer(points, reach)

    @tf.function(jit_compile=xla or None)
    def gradient(images):
        given = {"images": images, "displacements": layer.draw(images.shape[0])}
        with tf.GradientTape() as tape:
            tape.watch([given[name] for name in by])
            if derived:
                deformed = warp(images, layer.flow(given["displacements"], side, side))
            else:
                deformed = layer.deform(**given)
            loss = tf.reduce_sum(tf.square(deformed))
        found = tape.gradient(loss, [given[name] for name in by])
        # Of the images' gradient one number is looked at, as of a deformed batch elsewhere nothing.
        return sum(x[0, 0, 0, 0] if x.shape.rank == 4 else tf.reduce_sum(x) for x in found)

    return _on_tensorflow(images, side, gradient)


def loss_alone(images, side, points, reach):
    """What `gradient` takes the gradient of."""
    import tensorflow as tf

    layer = _layer(points, reach)
    loss = tf.function(lambda images: tf.reduce_sum(tf.square(layer(images))))
    return _on_tensorflow(images, side, loss)


def scaled(images, side, points, reach):
    """No deformation: each image is read once and written once, on as many threads."""
    import tensorflow as tf

    return _on_tensorflow(images, side, tf.function(lambda x: 0.5 * x, jit_compile=True))


def keras_elastic(images, side, points, reach):
    """RandomElasticTransform, compiled; its field is Gaussian noise, smoothed."""
    import keras
    import tensorflow as tf

    layer = keras.layers.RandomElasticTransform(factor=1.0, scale=1.0, seed=0)
    deform = tf.function(lambda images: layer(images, training=True))
    return _on_tensorflow(images, side, deform)


def tensorflow_addons(images, side, points, reach):
    """sparse_image_warp (spline and warp) in a tf.function; its control points are in the input."""
    import tensorflow as tf
    import tensorflow_addons as tfa

    ends = np.linspace(0, side - 1, points)
    grid = np.stack(np.meshgrid(ends, ends, indexing="ij"), axis=-1).reshape(1, -1, 2)
    sources = tf.constant(np.repeat(grid, images, axis=0), "float32")

    @tf.function
    def deform(batch):
        targets = sources + tf.random.uniform(sources.shape, -reach, reach)
        return tfa.image.sparse_image_warp(batch, sources, targets)[0]

    return _on_tensorflow(images, side, deform)


def kornia(images, side, points, reach):
    """RandomThinPlateSpline; its five control points cannot be chosen."""
    import torch
    from kornia.augmentation import RandomThinPlateSpline

    torch.set_num_threads(THREADS)
    deform = RandomThinPlateSpline(scale=2 * reach / side, p=1.0)
    given = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in batches(images, side)]
    return lambda number: deform(given[number % 4]).numpy()


def albumentations(images, side, points, reach):
    """ThinPlateSpline, image by image, as it is used."""
    import albumentations
    import cv2

    cv2.setNumThreads(THREADS)
    scale = (reach / side, reach / side)
    deform = albumentations.ThinPlateSpline(scale_range=scale, num_control_points=points, p=1.0)
    given = batches(images, side)
    return lambda number: [deform(image=image)["image"] for image in given[number % 4]]


def opencv_remap(images, side, points, reach):
    """OpenCV's bilinear remap alone, with the flow known: no draw, no spline."""
    import cv2

    cv2.setNumThreads(THREADS)
    rng = np.random.default_rng(1)
    small = rng.uniform(-reach, reach, (images, points, points, 2)).astype("float32")
    grid = np.stack(np.indices((side, side))[::-1], axis=-1).astype("float32")
    flows = [grid + cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in small]
    border = {"borderMode": cv2.BORDER_REPLICATE}
    given = batches(images, side)
    return lambda number: [
        cv2.remap(image, flow, None, cv2.INTER_LINEAR, **border)
        for image, flow in zip(given[number % 4], flows)
    ]
