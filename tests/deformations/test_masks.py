"""Dicts of images, masks and labels, as Keras' own preprocessing layers take them."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, natural_images, needs_tensorflow, numpy
from keras import layers

import deformstab as ds

MASKS = ["uint8", "int32", "bool", "float32", "uint16"]
if BACKEND == "torch":
    MASKS.remove("uint16")  # it has no gather for these


def example(count=3, height=16, width=20, dtype="int32"):
    images = natural_images(count, height, width)
    return {
        "images": images,
        "segmentation_masks": ((images[..., :1] > 0) * (1 if dtype == "bool" else 2)).astype(dtype),
        "labels": np.arange(count),
    }


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


@pytest.mark.parametrize("dtype", MASKS)
@pytest.mark.parametrize("channels", [True, False])
def test_masks_move_by_nearest_with_the_draw_of_their_images(dtype, channels):
    data = example(dtype=dtype)
    masks = data["segmentation_masks"]
    layer = ds.RandomDeformation(3, 2.0)
    found = layer({**data, "segmentation_masks": masks if channels else masks[..., 0]}, seed=4)
    np.testing.assert_array_equal(numpy(found["images"]), numpy(layer(data["images"], seed=4)))
    nearest = ds.RandomDeformation(3, 2.0, "nearest")
    expected = numpy(nearest(masks, seed=4))
    assert (expected != masks).any()
    moved = found["segmentation_masks"]
    assert dtype_of(moved) == dtype
    np.testing.assert_array_equal(numpy(moved), expected if channels else expected[..., 0])
    assert set(np.unique(numpy(moved))) <= set(np.unique(masks))  # no invented labels


def test_the_generator_moves_on_once_for_images_and_masks():
    data = example()
    layer, alone = (ds.RandomDeformation(3, 2.0, seed=2) for _ in range(2))
    for _ in range(2):
        found = layer(data)
        displacements = alone.draw(3)
        expected = numpy(alone.deform(data["images"], displacements))
        np.testing.assert_array_equal(numpy(found["images"]), expected)
        masks = alone.deform(data["segmentation_masks"], displacements, interpolation="nearest")
        np.testing.assert_array_equal(numpy(found["segmentation_masks"]), numpy(masks))


def test_what_has_no_place_in_the_image_passes_as_it_is():
    labels = np.array(["cat", "dog", "cow"])
    rest = {"labels": labels, "weights": np.ones(3), "name": "text", "none": None}
    data = {**example(), **rest}
    before = dict(data)
    found = ds.RandomDeformation()(data)
    assert list(found) == list(data)
    assert all(found[key] is rest[key] for key in rest)
    assert all(data[key] is before[key] for key in before)  # the caller's dict is left alone


def test_a_dict_of_images_only():
    images = natural_images(2)
    layer = ds.RandomDeformation(seed=1)
    found = layer({"images": images}, seed=3)
    assert list(found) == ["images"]
    np.testing.assert_array_equal(numpy(found["images"]), numpy(layer(images, seed=3)))


@pytest.mark.parametrize("channels", [True, False])
def test_a_single_image_with_its_mask(channels):
    data = example(1)
    layer = ds.RandomDeformation(3, 2.0)
    expected = layer(data, seed=1)
    mask = data["segmentation_masks"][0]
    single = {
        "images": data["images"][0],
        "segmentation_masks": mask if channels else mask[..., 0],
        "labels": 3,
    }
    found = layer(single, seed=1)
    assert found["labels"] == 3
    np.testing.assert_array_equal(numpy(found["images"]), numpy(expected["images"])[0])
    masks = numpy(expected["segmentation_masks"])[0]
    np.testing.assert_array_equal(
        numpy(found["segmentation_masks"]), masks if channels else masks[..., 0]
    )


@pytest.mark.parametrize("channels", [True, False])
def test_channels_first(channels):
    data = example()
    last = ds.RandomDeformation(3, 2.0)(data, seed=1)
    images, masks = (data[key].transpose(0, 3, 1, 2) for key in ("images", "segmentation_masks"))
    first = ds.RandomDeformation(3, 2.0, data_format="channels_first")
    found = first(
        {"images": images, "segmentation_masks": masks if channels else masks[:, 0]}, seed=1
    )
    np.testing.assert_array_equal(
        numpy(found["images"]), numpy(last["images"]).transpose(0, 3, 1, 2)
    )
    expected = numpy(last["segmentation_masks"]).transpose(0, 3, 1, 2)
    found = numpy(found["segmentation_masks"])
    np.testing.assert_array_equal(found, expected if channels else expected[:, 0])


@pytest.mark.parametrize("how", [{"training": False}, {"strength": 0}])
@pytest.mark.parametrize("single", [False, True])
def test_inference_and_strength_zero_are_the_identity(how, single):
    data = example()
    if single:
        data = {key: value[0] for key, value in data.items()}
    layer = ds.RandomDeformation(3, how.pop("strength", 2.0))
    found = layer(data, **how)
    for key, value in data.items():
        np.testing.assert_array_equal(numpy(found[key]), value)
        assert found[key].shape == value.shape
    assert dtype_of(found["segmentation_masks"]) == "int32"
    how.setdefault("strength", 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "float32"])
def test_mixed_precision_leaves_labels_alone(policy):
    data = example()
    data["segmentation_masks"] = data["segmentation_masks"] * 35_001
    found = ds.RandomDeformation(dtype=policy)(data)
    assert dtype_of(found["images"]) == policy.removeprefix("mixed_")
    assert set(np.unique(numpy(found["segmentation_masks"]))) <= {0, 70_002}


def test_inside_a_pipeline():
    """Beside Keras' own layers, whose flips move masks too."""
    data = example()
    layer, alone = (ds.RandomDeformation(3, 2.0, seed=5) for _ in range(2))
    pipeline = layers.Pipeline([layers.RandomFlip("horizontal", seed=1), layer])
    found = pipeline(dict(data))
    flipped = layers.RandomFlip("horizontal", seed=1)(dict(data))
    expected = alone(flipped)
    for key in ("images", "segmentation_masks"):
        np.testing.assert_array_equal(numpy(found[key]), numpy(expected[key]))
    unmoved = layers.Pipeline([ds.RandomDeformation()])(dict(data), training=False)
    np.testing.assert_array_equal(numpy(unmoved["images"]), data["images"])


@needs_tensorflow
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("pipeline", [False, True])
def test_inside_tf_data(pipeline, batched):
    import tensorflow as tf

    data = example(5, dtype="uint16")
    layer = ds.RandomDeformation(3, 2.0, seed=3)
    dataset = tf.data.Dataset.from_tensor_slices(data)
    dataset = dataset.batch(2) if batched else dataset
    dataset = dataset.map(layers.Pipeline([layer]) if pipeline else layer)
    dataset = dataset if batched else dataset.batch(2)
    found = list(dataset.as_numpy_iterator())
    masks = np.concatenate([each["segmentation_masks"] for each in found])
    assert masks.dtype == "uint16"
    assert set(np.unique(masks)) == {0, 2}
    assert np.concatenate([each["labels"] for each in found]).tolist() == list(range(5))
    images = np.concatenate([each["images"] for each in found])
    assert images.shape == (5, 16, 20, 3)
    # Masks are of the images they came with, moved as these: right but for the pixels on the edge.
    assert ((images[..., :1] > 0) == (masks > 0)).mean() > 0.9
    assert (masks != data["segmentation_masks"]).any()


def test_in_a_functional_model():
    inputs = {
        "images": keras.Input((16, 20, 3), name="images"),
        "segmentation_masks": keras.Input((16, 20), dtype="int32", name="segmentation_masks"),
        "labels": keras.Input((), dtype="int32", name="labels"),
    }
    layer, alone = (ds.RandomDeformation(3, 2.0, seed=3) for _ in range(2))
    model = keras.Model(inputs, layer(inputs))
    data = example()
    data["segmentation_masks"] = data["segmentation_masks"][..., 0]
    found, expected = model(data, training=True), alone(data)
    assert set(found) == set(data)
    for key in data:
        np.testing.assert_array_equal(numpy(found[key]), numpy(expected[key]))
    again = keras.Model.from_config(model.get_config())(data, training=False)
    np.testing.assert_array_equal(numpy(again["images"]), data["images"])


# ---- what is refused ----


@pytest.mark.parametrize("key", ["bounding_boxes", "keypoints"])
def test_boxes_and_points_are_refused_with_the_way_to_move_them(key):
    with pytest.raises(ValueError, match=rf"'{key}' would stay .* layer.move_points"):
        ds.RandomDeformation()({**example(), key: np.zeros((3, 2, 4))})


@pytest.mark.parametrize("shape", [(3, 16, 20), (3, 16, 20, 1)])
def test_maps_of_the_image_under_another_key_are_refused(shape):
    with pytest.raises(ValueError, match=r"'depth' has the height and width of the images"):
        ds.RandomDeformation()({**example(), "depth": np.zeros(shape)})
    single = {"images": example()["images"][0], "depth": np.zeros(shape[1:])}
    with pytest.raises(ValueError, match=r"'depth' has the height and width of the images"):
        ds.RandomDeformation()(single)


@pytest.mark.parametrize("shape", [(3, 8, 10, 1), (2, 16, 20, 1), (3, 16), (3, 20, 16)])
@pytest.mark.parametrize("training", [True, False])
def test_masks_of_other_images_are_refused(shape, training):
    data = {**example(), "segmentation_masks": np.zeros(shape, "int32")}
    with pytest.raises(ValueError, match=r"segmentation_masks must be .* received shape"):
        ds.RandomDeformation()(data, training=training)


def test_a_dict_without_images():
    with pytest.raises(ValueError, match='needs the key "images", received the keys image, labels'):
        ds.RandomDeformation()({"image": np.zeros((2, 8, 8, 3)), "labels": [1, 2]})


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "uint32"])
@pytest.mark.parametrize("training", [True, False])
def test_labels_under_bilinear_interpolation_are_refused(dtype, training):
    labels = np.ones((2, 8, 8, 1), dtype)
    layer = ds.RandomDeformation(3, 1.0)
    for call in (
        lambda: layer(labels, training=training),
        lambda: layer.deform(labels, layer.draw(2)),
        lambda: layer(keras.Input((8, 8, 1), dtype=dtype)),
    ):
        with pytest.raises(ValueError, match=r"taken for labels, and bilinear .*nearest"):
            call()


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_photographs_of_integers_become_floats(dtype):
    """As in Keras' own layers: the values of the pixels between are no integers."""
    photographs = np.abs(100 * natural_images(2)).astype(dtype)
    layer = ds.RandomDeformation(3, 2.0)
    found = numpy(layer(photographs, seed=1))
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, numpy(layer(photographs.astype("float32"), seed=1)))
    assert (found % 1 != 0).any()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "bool"])
@pytest.mark.parametrize("shape", [(8, 24, 24), (100, 28, 28), (5, 20, 33)])
def test_a_batch_without_channels_is_not_read_as_one_image(shape, dtype):
    layer = ds.RandomDeformation(3, 1.0, "nearest")
    with pytest.raises(ValueError, match=r"would be read as one image .* images\[\.\.\., None\]"):
        layer(np.zeros(shape, dtype))
    with pytest.raises(ValueError, match=r"would be read as one image"):
        layer(np.zeros(shape, dtype), training=False)
    assert tuple(layer(np.zeros(shape, dtype)[..., None]).shape) == (*shape, 1)
    assert tuple(layer(np.zeros(shape, dtype)[None]).shape) == (1, *shape)


@pytest.mark.parametrize("channels", [1, 3, 4, 12])
def test_one_image_of_few_channels_is_taken(channels):
    image = natural_images(1, 16, 20, channels)[0]
    assert tuple(ds.RandomDeformation()(image).shape) == image.shape
