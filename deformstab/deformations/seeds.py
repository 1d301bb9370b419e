"""Where draws come from: the seeds that users give, and a generator that gives none twice."""

import operator
import random
import threading

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope

_DRAWING = threading.Lock()
_STEP = 256  # by how much TensorFlow's operation moves the counter on


def checked_seed(seed) -> int:
    """A seed given as an integer of any kind, as an int; refuses what is none.

    Of a draw. Who takes `None` as well asks for it before.
    """
    try:
        # NumPy's booleans, and Python's, would pass for 0 and 1.
        number = None if isinstance(seed, (bool, np.bool_)) else operator.index(seed)
    except TypeError:
        number = None
    known = np.iinfo("uint32" if keras.backend.backend() == "jax" else "int64")
    if number is None or not known.min <= number <= known.max:
        raise ValueError(
            f"seed must be an integer from {known.min} to {known.max} (of a layer, its draw and its "
            "call also None, for other draws each time; of the latter two also a scalar integer "
            f"tensor), received {seed!r}"
        )
    return number


class DrawnSeed(keras.random.SeedGenerator):
    """What `SeedGenerator.next` gave, or a tensor like it, without a state to move on."""

    def __init__(self, seed):
        self._seed = seed

    def next(self, ordered=True):
        return ops.cast(self._seed, "uint32" if keras.backend.backend() == "jax" else "int64")


class DrawingSeeds(keras.random.SeedGenerator):
    """The seeds of `keras.random.SeedGenerator`, [seed, 0], [seed, 1], …, each given once.

    Keras reads its state and then writes it: two threads, or two parallel calls of a `tf.data` map,
    may read the same. Here eager calls wait for each other. In a graph no lock helps; there, on
    TensorFlow, one operation reads and moves the state on. It is made for the state of a Philox
    generator, [low counter, high counter, key]: the counter, a multiple of 256, numbers the seeds.
    """

    def __init__(self, seed=None):
        # Keras' own choice, which `keras.utils.set_random_seed` determines.
        start = random.randint(1, int(1e9)) if seed is None else seed
        super().__init__(start)
        if keras.backend.backend() == "tensorflow":
            self.state = keras.Variable(
                lambda shape, dtype: ops.convert_to_tensor([0, 0, start], dtype=dtype),
                shape=(3,),
                dtype="int64",
                trainable=False,
                aggregation="none",
                name="seed_generator_state",
            )

    def next(self, ordered=True):
        with _DRAWING:
            if keras.backend.backend() != "tensorflow":
                return super().next(ordered)
            import tensorflow as tf

            if in_stateless_scope():  # which keeps what is assigned, and forgets it at its end
                state = tf.identity(self.state.value)
                self.state.assign(state + np.array([_STEP, 0, 0]))
            else:
                state = tf.raw_ops.RngReadAndSkip(
                    resource=self.state.value.handle,
                    alg=tf.random.Algorithm.PHILOX.value,
                    delta=tf.constant(1, "uint64"),
                )
            if tf.executing_eagerly():  # each operation would take longer than to read the state
                low, _, key = np.asarray(state).tolist()
                return tf.constant([key, low // _STEP], "int64")
            return tf.stack([state[2], state[0] // _STEP])
