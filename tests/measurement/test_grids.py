"""Layer grids against what changes when single pixels do."""

import keras
import numpy as np
import pytest
from helpers import natural_images, numpy, randomize
from keras import layers, ops

import deformstab as ds
from deformstab.measurement import grids
from deformstab.measurement.grids import Grid, layer_grids
from deformstab.measurement.layer_distances import build
from deformstab.measurement.representations import representations, select
from deformstab.measurement.stimuli import deformed_images


def grids_of(model, inputs, chosen=None, deformation=None, **options):
    images = deformed_images(inputs, deformation, **options)
    build(model, images)
    found = representations(model, images)
    return layer_grids(model, images, found if chosen is None else select(found, chosen))


def changed_pixels(image):
    """The image, and it with one pixel changed, to two values: [1 + 2 · height · width, …]."""
    height, width, _ = image.shape
    changed = [image]
    for y in range(height):
        for x in range(width):
            for change in (9, -9):
                changed.append(image.copy())
                changed[-1][y, x] += change
    return np.stack(changed)


def boxes_of(outputs, size):
    """What each unit sees: (first, last) pixel in y and x, [rows, columns, 2, 2], by a plain loop.

    Of the outputs for `changed_pixels`. NaN where a unit sees none.
    """
    seen = (np.abs(outputs[1:] - outputs[0]) > 1e-5).any(axis=-1)
    boxes = np.full((*seen.shape[1:], 2, 2), np.nan)
    for place, sees in enumerate(seen[::2] | seen[1::2]):
        for axis, where in enumerate(divmod(place, size[1])):
            first, last = boxes[sees, axis].T
            boxes[sees, axis] = np.stack([np.fmin(first, where), np.fmax(last, where)], axis=-1)
    return boxes


def assert_sees(grid, function, image):
    """The centre and size of what units see, of all that see no border."""
    boxes = boxes_of(function(changed_pixels(image)), image.shape)
    assert boxes.shape[:2] == grid.size
    for axis, side in enumerate(image.shape[:2]):
        first, last = np.moveaxis(boxes[:, :, axis], -1, 0)
        if axis:
            first, last = first.T, last.T
        # Padding sees nothing: NaN, which is not inside.
        first, last = np.fmin.reduce(first, axis=1), np.fmax.reduce(last, axis=1)
        inside = (first > 1) & (last < side - 2)  # a dilated window may miss the border
        assert inside.sum() >= 2
        units = np.nonzero(inside)[0]
        centres = grid.offset[axis] + grid.stride[axis] * units
        if grid.stride[axis] >= 1:
            np.testing.assert_allclose((first + last)[inside] / 2, centres, atol=1e-12)
            np.testing.assert_array_equal((last - first)[inside] + 1, grid.field[axis])
        else:  # between pixels: to half of one, evenly to both sides
            apart = (first + last)[inside] / 2 - centres
            assert np.abs(apart).max() <= 0.5
            whole = len(apart) // 6 * 6
            np.testing.assert_allclose(apart[:whole].mean(), 0, atol=1e-12)
            assert ((last - first)[inside] + 1).max() == grid.field[axis]


KNOWN = {
    "conv": lambda: layers.Conv2D(2, 3),
    "conv same": lambda: layers.Conv2D(2, 3, padding="same"),
    "even kernel same": lambda: layers.Conv2D(2, (4, 2), padding="same"),
    "strided": lambda: layers.Conv2D(2, 3, strides=2, padding="same"),
    "strided sparse": lambda: layers.Conv2D(2, 1, strides=2, padding="same"),
    "strided differently": lambda: layers.Conv2D(2, (3, 5), strides=(1, 2)),
    "stride 3": lambda: layers.Conv2D(2, 5, strides=3, padding="same"),
    "dilated": lambda: layers.Conv2D(2, 3, dilation_rate=2, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "separable": lambda: layers.SeparableConv2D(2, 3, strides=2),
    "max": lambda: layers.MaxPooling2D(2),
    "max same": lambda: layers.MaxPooling2D(3, 2, padding="same"),
    "average": lambda: layers.AveragePooling2D((2, 3)),
    "average same": lambda: layers.AveragePooling2D(3, 2, padding="same"),
    "zeros": lambda: layers.ZeroPadding2D(((1, 2), (3, 0))),
    "cropping": lambda: layers.Cropping2D(((1, 2), (3, 0))),
}
POOLS = ("Subsample2D", "BlurPooling2D", "MaxBlurPooling2D")
PROBED = {
    "transposed": lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same"),
    "transposed 4": lambda: layers.Conv2DTranspose(2, 4, strides=2),
    "nearest": lambda: layers.UpSampling2D((2, 3)),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "composite": lambda: Residual(),
    "subclass": lambda: Mirrored(2, 3),
    "sequential": lambda: keras.Sequential([layers.Conv2D(2, 3, strides=2), layers.MaxPooling2D()]),
}


class Residual(layers.Layer):
    """Raw operations between layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(3, 3, padding="same")
        self.second = layers.Conv2D(3, 3, padding="same", use_bias=False)
        self.after = layers.ReLU(negative_slope=0.5)

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], 3))

    def call(self, x):
        y = self.second(self.first(x))
        return self.after(x + 0.5 * y)


class Mirrored(layers.Conv2D):
    """A subclass that computes something else than the class: arithmetic would be wrong."""

    def call(self, x):
        return super().call(ops.pad(x, ((0, 0), (2, 0), (0, 0), (0, 0))))


def pool(name, **options):
    from deformstab.networks import downsampling

    return getattr(downsampling, name)(**options)


@pytest.mark.parametrize("size", [(18, 20), (19, 17)], ids=str)
@pytest.mark.parametrize("name", [*KNOWN, *PROBED])
def test_each_layer_against_single_pixels(name, size):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*size, 3))
    layer = {**KNOWN, **PROBED}[name]()
    model = keras.Model(inputs, layer(inputs))
    images = natural_images(3, *size)
    found = grids_of(model, images)
    assert_sees(found[layer.name], lambda x: numpy(model(x)), images[0])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("window", [(2, 2, 3), (3, 2, 4), (3, 3, 3), ((2, 3), (2, 1), 5)], ids=str)
@pytest.mark.parametrize("name", POOLS)
def test_our_own_downsampling_against_single_pixels(name, window, padding):
    pool_size, strides, blur_size = window
    options = {} if name == "Subsample2D" else {"blur_size": blur_size}
    layer = pool(name, pool_size=pool_size, strides=strides, padding=padding, **options)
    for size in ((22, 23), (23, 24)):
        inputs = keras.Input((*size, 3))
        model = keras.Model(inputs, layer(inputs))
        images = natural_images(3, *size)
        found = grids_of(model, images)
        assert_sees(found[layer.name], lambda x, model=model: numpy(model(x)), images[0])


ADAPTIVE = ("aps", "max_aps")


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_what_begins_where_the_image_says_has_no_grid(kind):
    model = ds.vgg((32, 32, 3), 4, ((2, 4), (1, 4)), kind, seed=0)
    found = grids_of(model, natural_images(3, 32, 32), "block*")
    assert found["block1_conv2"].stride == (1, 1)
    for name in ("block1_downsample", "block2_conv1", "block2_downsample"):
        assert isinstance(found[name], str), found[name]


@pytest.mark.parametrize("kind", [each for each in ds.DOWNSAMPLING_KINDS if each not in ADAPTIVE])
def test_a_network_against_single_pixels(kind):
    model = ds.vgg((32, 32, 3), 4, ((2, 4), (1, 4)), kind, seed=0)
    randomize(model)
    images = natural_images(3, 32, 32)
    found = grids_of(model, images, "block*")
    names = ("block1_conv2", "block1_downsample", "block2_conv1", "block2_downsample")
    parts = keras.Model(model.input, [model.get_layer(name).output for name in names])
    outputs = [parts.predict(changed_pixels(x), batch_size=64, verbose=0) for x in images[:2]]
    for number, name in enumerate(names):
        # Behind a ReLU and a maximum single pixels of one image are not seen by all units.
        boxes = [boxes_of(each[number], (32, 32)) for each in outputs]
        low = np.fmin(*(each[..., 0] for each in boxes)).min(axis=(0, 1))
        assert (low >= 0).all()
        centre = (boxes[0][..., 0] + boxes[0][..., 1]) / 2
        grid, units = found[name], np.indices(found[name].size).transpose(1, 2, 0)
        expected = np.array(grid.offset) + np.array(grid.stride) * units
        inside = (boxes[0][..., 0] > 0) & (boxes[0][..., 1] < 31)
        assert inside.sum() >= 8
        # A maximum hides pixels at an edge of the field, never beyond it.
        half = (np.array(grid.field) - 1) / 2
        assert (boxes[0][..., 0] >= expected - half - 1e-9)[inside].all()
        assert (boxes[0][..., 1] <= expected + half + 1e-9)[inside].all()
        assert np.abs(np.median((centre - expected)[inside])) < 1e-9


FIELDS = [3, 5, 6, 10, 14, 16, 24, 32, 36, 52, 68, 76]  # by hand, of 2×2 windows
SUBSAMPLED = [3, 5, 5, 9, 13, 13, 21, 29, 29, 45, 61, 61]


@pytest.mark.parametrize("kind", ds.PAPER_KINDS)
def test_the_papers_network(kind):
    model = ds.vgg((32, 32, 3), 4, [(2, 2)] * 4, kind, seed=0)
    names = ds.paper_layers(model)
    found = grids_of(model, natural_images(2, 32, 32), names)
    maps = [found[name] for name in names[1:]]
    fields = SUBSAMPLED if kind == "subsample" else FIELDS
    assert [each.field for each in maps] == [(field, field) for field in fields]
    for number, each in enumerate(maps):
        downs = (number + 1) // 3
        offset = 0 if kind == "subsample" else (2**downs - 1) / 2
        assert each.stride == (2**downs, 2**downs)
        assert each.offset == (offset, offset)
        assert each.size == (32 // 2**downs, 32 // 2**downs)
    assert found["input"] == Grid((1.0, 1.0), (0.0, 0.0), (1, 1), (32, 32), (1, 2))


class Subclassed(keras.Model):
    """Additions, casts and functions between layers; a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.block = Residual()
        self.shared = layers.Conv2D(3, 3, padding="same")
        self.down = layers.AveragePooling2D(2)
        self.last = layers.Conv2D(3, 3, padding="same")
        self.logits = layers.Dense(4)

    def call(self, images):
        x = self.block(2.0 * images)
        x = self.down(x + self.shared(x))
        x = ops.relu(x + self.shared(x))
        x = self.last(x)
        return self.logits(ops.mean(x, (1, 2)))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_subclassed_model_with_operations_between_its_layers(policy):
    keras.config.set_dtype_policy(policy)
    found = grids_of(Subclassed(), natural_images(2, 32, 32))
    expected = {
        "input": (1, 0, 1),
        "residual/first": (1, 0, 3),
        "residual/second": (1, 0, 5),
        "residual/after": (1, 0, 5),
        "residual": (1, 0, 5),
        "shared": (1, 0, 7),
        "down": (2, 0.5, 8),
        "shared#2": (2, 0.5, 12),
        "last": (2, 0.5, 16),
    }
    names = {"conv2d": "shared", "average_pooling2d": "down", "conv2d_1": "last"}
    for name, grid in found.items():
        if isinstance(grid, str):
            assert grid == grids.NO_MAP
            continue
        assert grid.stride[0] == grid.stride[1]
        known = {(1, 0, 1), *expected.values()}
        assert (grid.stride[0], grid.offset[0], grid.field[0]) in known, (name, names)
    together = [each for each in found.values() if not isinstance(each, str)]
    assert [(x.stride[0], x.offset[0], x.field[0]) for x in together] == list(expected.values())


def branches(inputs):
    a = layers.Conv2D(3, 3, strides=2, padding="same", name="strided")(inputs)
    b = layers.MaxPooling2D(2, name="pooled")(inputs)
    added = layers.Add(name="added")([a, b])
    factor = layers.GlobalAveragePooling2D(keepdims=True, name="squeezed")(b)
    factor = layers.Conv2D(3, 1, name="excited")(factor)
    return [
        added,
        layers.Conv2D(2, 3, name="behind")(added),
        layers.Multiply(name="scaled")([b, factor]),
        layers.Concatenate(name="joined")([b, b]),
        layers.Concatenate(axis=1, name="stacked")([b, b]),
        layers.Permute((3, 1, 2), name="first")(b),
        layers.Permute((2, 1, 3), name="turned")(b),
        layers.Flatten(name="flat")(b),
        layers.Lambda(lambda x: ops.flip(x, 1), name="mirrored")(b),
        layers.Lambda(lambda x: 0.0 * x, name="constant")(b),
        layers.Softmax(axis=(1, 2), name="attention")(b),
        layers.GroupNormalization(3, name="normalized")(b),
        layers.Reshape((16, 48), name="tokens")(b),
        layers.Reshape((16, 16, 3), name="again")(layers.Reshape((256, 3), name="row")(b)),
    ]


def test_maps_and_what_is_none():
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, branches(inputs))
    found = grids_of(model, natural_images(2, 32, 32))
    pooled = Grid((2.0, 2.0), (0.5, 0.5), (2, 2), (16, 16), (1, 2))
    assert found["pooled"] == found["joined"] == found["again"] == pooled
    assert found["strided"] == Grid((2.0, 2.0), (1.0, 1.0), (3, 3), (16, 16), (1, 2))
    assert found["added"] == grids.DIFFERENT
    everywhere = Grid((2.0, 2.0), (0.5, 0.5), None, (16, 16), (1, 2))
    assert found["scaled"] == found["normalized"] == everywhere
    assert everywhere.border is None
    assert found["first"] == Grid((2.0, 2.0), (0.5, 0.5), (2, 2), (16, 16), (2, 3))
    for name in ("flat", "tokens", "row", "squeezed", "excited", "attention", "turned", "mirrored"):
        assert isinstance(found[name], str), name
    assert "does not" in found["constant"] or "no unit" in found["constant"]
    # Behind what lies on no grid nothing does.
    assert isinstance(found["behind"], str)


def test_of_several_inputs_the_deformed_one_counts():
    image, other = keras.Input((16, 16, 3), name="image"), keras.Input((8, 8, 3), name="other")
    of_other = layers.Conv2D(3, 1, name="of_other")(other)
    pooled = layers.MaxPooling2D(name="pooled")(image)
    both = layers.Add(name="both")([of_other, pooled])
    scaled = layers.Multiply(name="scaled")([pooled, pooled])
    model = keras.Model({"image": image, "other": other}, [both, scaled])
    given = {"image": natural_images(3), "other": natural_images(3, 8, 8)}
    found = grids_of(model, given, deformed_input="image")
    expected = Grid((2.0, 2.0), (0.5, 0.5), (2, 2), (8, 8), (1, 2))
    assert found["pooled"] == found["both"] == found["scaled"] == expected
    assert found["of_other"] == grids.UNSEEN
    found = grids_of(model, given, deformed_input="other")
    assert found["both"].stride == (1.0, 1.0)
    assert found["pooled"] == grids.UNSEEN


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    inputs = keras.Input((3, 20, 16))
    x = layers.MaxPooling2D(name="pooled")(inputs)
    x = layers.BatchNormalization(axis=1, name="bn")(x)
    last = layers.Permute((2, 3, 1), name="last")(x)
    model = keras.Model(inputs, [x, last])
    images = natural_images(2, 20, 16).transpose(0, 3, 1, 2)
    deformation = ds.RandomDeformation(3, 1.0, seed=0)
    if keras.backend.backend() == "tensorflow":
        found = grids_of(model, images, ["input", "pooled", "bn"], deformation)
    else:
        found = grids_of(model, images, None, deformation)
        assert found["last"] == Grid((2.0, 2.0), (0.5, 0.5), (2, 2), (10, 8), (1, 2))
    assert found["input"] == Grid((1.0, 1.0), (0.0, 0.0), (1, 1), (20, 16), (2, 3))
    assert found["pooled"] == found["bn"]
    assert found["bn"] == Grid((2.0, 2.0), (0.5, 0.5), (2, 2), (10, 8), (2, 3))


def test_a_large_field_on_a_small_map_is_found_on_a_larger_one():
    inputs = keras.Input((32, 32, 3))
    x = layers.AveragePooling2D(8, name="pooled")(inputs)
    block = Residual(name="block")
    model = keras.Model(inputs, block(x))
    grid = grids_of(model, natural_images(2, 32, 32))["block"]
    assert (grid.stride[0], grid.offset[0], grid.field[0]) == (8, 3.5, 8 + 4 * 8)
    assert grid.border == (3, 3)


def test_measuring_leaves_the_model_as_it_was():
    model = Subclassed()
    images = natural_images(2, 32, 32)
    model(images)
    before = [numpy(each) for each in model.weights]
    first = grids_of(model, images)
    assert grids_of(model, images) == first
    for now, then in zip(model.weights, before):
        np.testing.assert_array_equal(numpy(now), then)
