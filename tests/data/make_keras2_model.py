"""Makes keras2_model.h5 with Keras 2: `pip install tensorflow==2.15.1` (Python 3.11 or earlier)."""

import pathlib

import numpy as np
import tensorflow as tf

layers = tf.keras.layers
tf.keras.utils.set_random_seed(0)
inputs = tf.keras.Input((32, 32, 3), name="photo")
x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs)
x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(x)
x = layers.BatchNormalization(name="bn1")(x)
x = layers.ReLU(name="relu1")(x)
x = layers.MaxPooling2D(2, name="pool1")(x)
skip = x
x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
x = layers.Conv2D(8, 1, activation="relu", name="pointwise")(x)
x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
x = layers.Add(name="add")([x, skip])
x = layers.Conv2DTranspose(8, 3, padding="same", name="transposed")(x)
x = layers.AveragePooling2D(3, strides=2, padding="same", name="pool2")(x)
# No nested model: Keras 3.15 loads none from a Keras 2 file.
x = layers.Conv2D(12, 3, activation="relu", name="conv2")(x)
x = layers.MaxPooling2D(2, name="pool3")(x)
x = layers.GlobalAveragePooling2D(name="average")(x)
x = layers.Dropout(0.5, name="dropout")(x)
model = tf.keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x))
folder = pathlib.Path(__file__).parent
model.save(folder / "keras2_model.h5")
images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
np.savez_compressed(
    folder / "keras2_outputs.npz",
    images=images.astype("uint8"),
    outputs=model.predict(images, verbose=0),
    version=tf.__version__,
)
