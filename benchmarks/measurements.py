"""measure_sensitivity, the callback and training, beside the passes through the network they need.

As in `deformations`: each function makes its inputs, and returns a function of a number.
"""

import numpy as np


def _images(count, side, channels=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, count, side, side, channels)).astype("float32")


def _network(name, side=None):
    import keras

    import deformstab as ds

    keras.utils.set_random_seed(0)
    if name == "cifar":
        model = ds.vgg((32, 32, 3), 10, ds.CIFAR10_BLOCKS, "max", seed=0)
        return model, ds.paper_layers(model)
    return keras.applications.VGG16(weights=None), None


def sensitivity(name, images, side, intervals=True):
    """`measure_sensitivity` of the paper's layers, or of all."""
    import deformstab as ds

    model, layers = _network(name)
    given = _images(images, side)
    options = {"layers": layers, "intervals": intervals, "progress": False}
    return lambda number: ds.measure_sensitivity(model, given[number % 4], **options)


def measure(what, name, images, side, **options):
    """Another measure of `ds`, of the paper's layers, without intervals."""
    import deformstab as ds

    model, layers = _network(name)
    given = _images(images, side)
    options |= {"layers": layers, "intervals": False, "progress": False}
    return lambda number: getattr(ds, what)(model, given[number % 4], **options)


def sensitivity_of_stack(images, side, depth, deformations=1):
    """The same of every layer of a stack of equal convolutions."""
    import keras

    import deformstab as ds

    inputs = keras.Input((side, side, 3))
    tensor = inputs
    for _ in range(depth):
        tensor = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(tensor)
    model = keras.Model(inputs, tensor)
    given = _images(images, side)
    options = {"deformations": deformations, "intervals": False, "progress": False}
    return lambda number: ds.measure_sensitivity(model, given[number % 4], **options)


def predict(name, images, side):
    """`model.predict` of twice the images: themselves and their deformed selves."""
    model, _ = _network(name)
    given = np.concatenate([_images(images, side)] * 2, axis=1)
    return lambda number: model.predict(given[number % 4], verbose=0)


def forward(name, images, side):
    """The network alone, in a tf.function, the images in memory: batches of 64 of twice as many."""
    import tensorflow as tf

    model, _ = _network(name)
    given = np.concatenate([_images(images, side)] * 2, axis=1)
    batches = [[tf.constant(x[i : i + 64]) for i in range(0, len(x), 64)] for x in given]
    step = tf.function(lambda x: model(x, training=False), autograph=False)
    return lambda number: [step(x).numpy() for x in batches[number % 4]]


def by_hand(name, images, side):
    """The same number as a user would write it: Keras' `predict`, and scikit-learn's distances."""
    import keras
    from sklearn.metrics.pairwise import cosine_distances, paired_cosine_distances

    import deformstab as ds

    model, layers = _network(name)
    outputs = [model.input if each == "input" else model.get_layer(each).output for each in layers]
    extractor = keras.Model(model.input, outputs)
    deformation = ds.RandomDeformation(seed=0)
    upper, given = np.triu_indices(images, 1), _images(images, side)

    def call(number):
        both = given[number % 4], deformation(given[number % 4])
        clean, moved = (extractor.predict(x, verbose=0) for x in both)
        found = []
        for x, y in zip(clean, moved):
            x, y = x.reshape(images, -1), y.reshape(images, -1)
            apart = paired_cosine_distances(x, y).mean()
            found.append(apart / np.median(cosine_distances(x)[upper]))
        return found

    return call


def pairs(name, images, side, exact=True):
    """Distances between all pairs of images alone, layer by layer; their representations are known.

    exact: as they are measured; or the products of matrices alone.
    """
    import keras
    import tensorflow as tf

    from deformstab.measurement.pairs import pair_squares

    model, layers = _network(name)
    outputs = [model.input if each == "input" else model.get_layer(each).output for each in layers]
    known = keras.Model(model.input, outputs)
    given = [known.predict(x, verbose=0) for x in _images(images, side)]
    given = [[tf.constant(x.reshape(images, -1)) for x in each] for each in given]
    lengths = [[np.linalg.norm(x, axis=1) for x in each] for each in given]
    product = tf.function(lambda x: tf.linalg.matmul(x, x, transpose_b=True), reduce_retracing=True)

    def call(number):
        chosen = zip(given[number % 4], lengths[number % 4])
        if exact:
            return [pair_squares([x], length, 1e8) for x, length in chosen]
        return [product(x).numpy() for x, _ in chosen]

    return call


def callback(name, images, side):
    """An epoch's end: one measurement by `SensitivityCallback`, its smoothness included."""
    import deformstab as ds

    model, layers = _network(name)
    model.compile("sgd", "mse")
    measured = ds.SensitivityCallback(_images(images, side)[0], layers=layers, progress=False)
    measured.set_model(model)
    model.optimizer.build(model.trainable_variables)
    measured.on_train_begin()

    def epoch(number):
        measured.on_epoch_begin(number)
        model.optimizer.iterations.assign(number + 1)
        measured.on_epoch_end(number, {})

    return epoch


def callback_epochs(images, side, epochs):
    """A training whose every epoch ends in a measurement by a `SensitivityCallback` of its own."""
    import keras

    import deformstab as ds

    model, layers = _network("cifar")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    given = _images(images, side)[0]
    labels = np.arange(images) % 10

    def train(number):
        measured = ds.SensitivityCallback(given, layers=layers, progress=False)
        model.fit(given, labels, batch_size=images, epochs=epochs, verbose=0, callbacks=[measured])
        assert len(measured.table) == (epochs + 1) * len(layers)

    return train


_BATCH, _NARROW = 64, ((2, 16), (2, 32), (2, 64))


def _training(images, blocks=_NARROW, precision="float32"):
    """The reproduction's own training of random images."""
    from deformstab.paper.data.datasets import Dataset
    from deformstab.paper.runs.experiments import Experiment
    from deformstab.paper.runs.training import Training

    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, images)
    blocks = tuple(map(tuple, blocks))  # the worker has them as JSON
    choices = {"blocks": blocks, "batch_size": _BATCH, "epochs": 10**6, "precision": precision}
    experiment = Experiment("main", "random", "max", 0, **choices)
    return Training(experiment, Dataset("random", x, y, x[:1], y[:1], 10))


def reproduction(images, **network):
    """An epoch as the reproduction trains it."""
    training = _training(images, **network)
    return lambda number: training.run_epoch()


def keras_fit(images, steps=1, **network):
    """An epoch of `model.fit`, as Keras' users write it, so many batches a compiled call."""
    training = _training(images, **network)
    model, x, y = training.model, training.data.x_train, training.data.y_train
    model.compile(model.optimizer, model.loss, metrics=["accuracy"], steps_per_execution=steps)
    return lambda number: model.fit(x, y, batch_size=_BATCH, verbose=0)


def bare_loop(images, xla=False, **network):
    """An epoch of a loop of one's own: a compiled step, arrays in memory."""
    import keras
    import tensorflow as tf

    training = _training(images, **network)
    model, x, y = training.model, training.data.x_train, training.data.y_train
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False, jit_compile=xla or None)
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))
        return value

    def epoch(number):
        order = np.random.default_rng(number).permutation(len(x))
        for start in range(0, len(x), _BATCH):
            now = order[start : start + _BATCH]
            step(tf.constant(x[now]), tf.constant(y[now]))

    return epoch


def imports(modules):
    """How long a fresh process takes for `import …` (python's own start included)."""
    import subprocess
    import sys

    command = [sys.executable, "-c", f"import {modules}"]
    return lambda number: subprocess.run(command, check=True, capture_output=True)
