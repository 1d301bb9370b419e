"""EfficientNet-Lite is what was published, and its converted weights compute what PyTorch's do."""

import itertools
import math

import numpy as np
import pytest
from helpers import natural_images

from deformstab.paper.pretrained.efficientnet_lite import (
    SIZES,
    convert,
    efficientnet_lite,
    stages,
)

# Two blocks of the first stage, one of them with a sum; a stage that halves the image.
TABLE = ((2, 3, 1, 1, 4), (2, 5, 2, 3, 6))


def network(classes=5):
    return efficientnet_lite(12, TABLE, stem=4, head=8, classes=classes)


def tensors(seed=0):
    """A checkpoint of `network` as PyTorch would have it, with the names of the published ones."""
    rng = np.random.default_rng(seed)
    found = {}

    def convolution(name, *shape):
        found[f"{name}.weight"] = rng.normal(size=shape) / math.sqrt(math.prod(shape[1:]))

    def normalization(name, filters):
        found[f"{name}.weight"] = rng.uniform(0.5, 2, filters)
        found[f"{name}.bias"] = rng.normal(size=filters)
        found[f"{name}.running_mean"] = 0.3 * rng.normal(size=filters)
        found[f"{name}.running_var"] = rng.uniform(0.1, 2, filters)
        found[f"{name}.num_batches_tracked"] = np.array(7)

    convolution("_conv_stem", 4, 3, 3, 3)
    normalization("_bn0", 4)
    number, before = 0, 4
    for repeats, kernel, _, expansion, filters in TABLE:
        for _ in range(repeats):
            name, wide = f"_blocks.{number}", expansion * before
            if expansion != 1:
                convolution(f"{name}._expand_conv", wide, before, 1, 1)
                normalization(f"{name}._bn0", wide)
            convolution(f"{name}._depthwise_conv", wide, 1, kernel, kernel)
            normalization(f"{name}._bn1", wide)
            convolution(f"{name}._project_conv", filters, wide, 1, 1)
            normalization(f"{name}._bn2", filters)
            number, before = number + 1, filters
    convolution("_conv_head", 8, 6, 1, 1)
    normalization("_bn1", 8)
    convolution("_fc", 5, 8)
    found["_fc.bias"] = rng.normal(size=5)
    return {name: np.asarray(value, "float32") for name, value in found.items()}


def plain_convolution(x, weight, stride, depthwise=False):
    """[channels, height, width] by loops, padded as TensorFlow does: more behind than before."""
    out, _, kernel, _ = weight.shape
    side = math.ceil(x.shape[1] / stride)
    total = max((side - 1) * stride + kernel - x.shape[1], 0)
    x = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2)))
    result = np.zeros((out, side, side))
    for o, i, j in itertools.product(range(out), range(side), range(side)):
        seen = x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        seen = seen[o : o + 1] if depthwise else seen
        result[o, i, j] = (seen * weight[o]).sum()
    return result


def plain_forward(found, image):
    """The network in NumPy, from the published description, with PyTorch's names and axes."""

    def normalized(x, name):
        mean, variance = found[f"{name}.running_mean"], found[f"{name}.running_var"]
        scale = found[f"{name}.weight"] / np.sqrt(variance + 1e-3)
        return (x - mean[:, None, None]) * scale[:, None, None] + found[f"{name}.bias"][
            :, None, None
        ]

    def relu6(x):
        return np.minimum(np.maximum(x, 0), 6)

    x = image.transpose(2, 0, 1)
    x = relu6(normalized(plain_convolution(x, found["_conv_stem.weight"], 2), "_bn0"))
    number = 0
    for repeats, _, first, expansion, _ in TABLE:
        for repeat in range(repeats):
            name, before = f"_blocks.{number}", x
            stride = first if repeat == 0 else 1
            if expansion != 1:
                x = plain_convolution(x, found[f"{name}._expand_conv.weight"], 1)
                x = relu6(normalized(x, f"{name}._bn0"))
            x = plain_convolution(x, found[f"{name}._depthwise_conv.weight"], stride, True)
            x = relu6(normalized(x, f"{name}._bn1"))
            x = plain_convolution(x, found[f"{name}._project_conv.weight"], 1)
            x = normalized(x, f"{name}._bn2")
            x = x + before if x.shape == before.shape else x
            number += 1
    x = relu6(normalized(plain_convolution(x, found["_conv_head.weight"], 1), "_bn1"))
    return found["_fc.weight"] @ x.mean(axis=(1, 2)) + found["_fc.bias"]


def test_converted_weights_compute_what_the_checkpoint_describes():
    model, found = network(), tensors()
    convert(model, found)
    images = natural_images(3, 12, 12)
    expected = [plain_forward(found, image) for image in images]
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-4)
    adds = [layer.name for layer in model.layers if layer.name.endswith("_add")]
    assert adds == ["block0_add", "block1_add", "block3_add"]


def test_a_checkpoint_that_does_not_fit_is_refused():
    found = tensors()
    less = {name: value for name, value in found.items() if name != "_blocks.2._bn0.running_var"}
    with pytest.raises(ValueError, match=r"has no _blocks\.2\._bn0\.running_var, which block2_exp"):
        convert(network(), less)
    with pytest.raises(ValueError, match=r"1 tensors more, _blocks\.4\._bn0\.weight among them"):
        convert(network(), found | {"_blocks.4._bn0.weight": np.ones(3)})
    with pytest.raises(ValueError, match=r"logits has shapes .*\(8, 7\).*_fc in it .*\(8, 5\)"):
        convert(network(classes=7), found)


@pytest.mark.parametrize(
    ("size", "blocks", "millions"),
    # Parameters in millions as published by timm for tf_efficientnet_lite0, 1 and 2.
    [("lite0", 16, 4.65), ("lite1", 21, 5.42), ("lite2", 21, 6.09)],
)
def test_the_architecture_is_the_published_one(size, blocks, millions):
    model = efficientnet_lite(SIZES[size][2], stages(size))
    trained = sum(math.prod(variable.shape) for variable in model.trainable_weights)
    assert round(trained / 1e6, 2) == millions
    depthwise = [layer for layer in model.layers if layer.name.endswith("_depthwise")]
    assert len(depthwise) == blocks
    assert sum(layer.strides == (2, 2) for layer in depthwise) == 4
    assert [model.get_layer(name).filters for name in ("stem", "head")] == [32, 1280]
    assert model.output_shape == (None, 1000)
