"""Makes saved_by_flat_modules.{keras,npy} with the package as it was before it had rooms.

Run it with commit 3bbd172 of this repository on PYTHONPATH: `deformstab.downsampling` was a module then.
"""

import pathlib

import keras
import numpy as np
from deformstab.downsampling import BlurPooling2D, MaxBlurPooling2D, Subsample2D
from deformstab.strided import AverageKernel, StridedConvolution2D, StridedConvolutionReLU2D
from keras import layers

import deformstab as ds

keras.utils.set_random_seed(0)
smoothed = ds.SmoothedInitializer(1.0, seed=2)
inputs = keras.Input((32, 32, 3), name="images")
x = ds.RandomDeformation(3, 2.0, seed=1, name="deform")(inputs)
x = layers.Conv2D(4, 3, padding="same", name="conv1", kernel_initializer=smoothed)(x)
x = Subsample2D(name="subsample")(x)
x = BlurPooling2D(3, 1, "same", blur_size=5, name="blur")(x)
x = MaxBlurPooling2D(name="max_blur")(x)
x = StridedConvolution2D(name="strided", kernel_initializer=AverageKernel())(x)
x = StridedConvolutionReLU2D(name="strided_relu")(x)
x = layers.GlobalAveragePooling2D(name="average")(x)
model = keras.Model(inputs, layers.Dense(5, name="logits")(x))
folder = pathlib.Path(__file__).parent
model.save(folder / "saved_by_flat_modules.keras")
images = np.random.default_rng(0).random((4, 32, 32, 3)).astype("float32")
np.save(folder / "saved_by_flat_modules.npy", model.predict(images, verbose=0))
