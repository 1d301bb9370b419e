"""The check of question 2's answer: adaptive networks whose choices are another image's."""

import keras
import numpy as np
import pytest
from helpers import ROOT, module_at, natural_images

import deformstab as ds
from deformstab.tables import read_csv

example = module_at(ROOT / "examples" / "held_choices.py")
BLOCKS = ((1, 4), (1, 6))


def network(kind):
    return ds.vgg((16, 16, 3), 4, BLOCKS, kind, padding="circular", seed=2)


def largest_grid(image):
    """The number of the grid of every second pixel with the largest norm, by a plain loop."""
    return int(np.argmax([(image[i::2, j::2] ** 2).sum() for i in (0, 1) for j in (0, 1)]))


def test_choices_are_those_of_the_largest_norm():
    images, model = natural_images(12), network("aps")
    maps = keras.Model(model.input, model.get_layer("block1_downsample").input)
    expected = [largest_grid(image) for image in maps.predict(images, verbose=0)]
    first, second = example.choices_of(model).predict(images, verbose=0)
    np.testing.assert_array_equal(first, expected)
    assert len(set(expected)) > 1
    assert len(set(second)) > 1


@pytest.mark.parametrize("kind", ["aps", "max_aps"])
def test_held_to_itself_a_network_is_the_same(kind):
    images, model = natural_images(12), network(kind)
    held = example.with_held_choices(model)
    expected = model.predict(images, verbose=0)
    np.testing.assert_array_equal(held.predict([images, images], verbose=0), expected)
    # By a rolled image's choices it keeps other pixels; moved with it, the same ones.
    rolled = np.roll(images, 1, axis=2)
    assert np.abs(held.predict([rolled, images], verbose=0) - expected).max() > 1e-3
    both = held.predict([rolled, rolled], verbose=0)
    np.testing.assert_allclose(both, expected, atol=1e-5)


def test_held_to_the_first_grid_it_is_the_kind_without_choices():
    """An image whose norms are equal keeps the first grid everywhere, as subsampling does."""
    images, flat = natural_images(6), np.full((6, 16, 16, 3), 0.5, "float32")
    for adaptive, plain in (("aps", "subsample"), ("max_aps", "max")):
        held = example.with_held_choices(network(adaptive))
        expected = network(plain).predict(images, verbose=0)
        np.testing.assert_allclose(held.predict([images, flat], verbose=0), expected, atol=1e-6)


def test_changed_choices():
    images, model = natural_images(12), network("aps")
    names = ["block1_downsample", "block2_downsample", "logits"]
    still = ds.RandomDeformation(max_displacement=1e-6)
    assert example.changed(model, images, still) == dict.fromkeys(names, 0)
    first, second, either = example.changed(model, images, ds.RandomDeformation()).values()
    assert 0 < max(first, second) <= either <= first + second


def test_the_script_in_small(tmp_path, capsys):
    path, folder = tmp_path / "held_choices.csv", tmp_path / "networks"
    data = example.datasets.load("photos", None, 32, 64, 512)
    model = ds.vgg(data.image_shape, data.classes, BLOCKS, "max_aps", padding="circular", seed=7)
    kept = folder / "questions-circular-photos-max_aps-seed0-0123456789" / "trained.weights.h5"
    kept.parent.mkdir(parents=True)
    model.save_weights(kept)
    example.main("photos", None, 1, 64, folder, path, blocks=BLOCKS, measured=8)
    table = read_csv(path)
    assert len(table) == (2 + 2 * 2 + 2) * 5
    assert set(table.loc[table["phase"] == "trained", "downsampling"]) == {"max_aps"}
    chosen = table["downsampling"].str.endswith("aps") & (table["choices"] == "free")
    assert table["changed"].notna().equals(chosen & ~table["layer"].str.endswith("relu"))
    assert "held" in capsys.readouterr().out
    found = ds.sensitivity_by_part(model, data.x_test[:8], layers=list(set(table["layer"])))
    found = found[found["part"] == "beyond_translation"].set_index("layer")["sensitivity"]
    trained = table[table["phase"] == "trained"].set_index(["choices", "layer"])["sensitivity"]
    np.testing.assert_allclose(trained["free"], found[trained["free"].index], rtol=1e-5)
    # In front of the first choice nothing can be held; behind it a choice or another changes.
    assert trained["held", "block1_conv1_relu"] == trained["free", "block1_conv1_relu"]
    assert trained["held", "block2_downsample"] != trained["free", "block2_downsample"]


def test_networks_that_are_not_there_or_there_twice(tmp_path):
    arguments = "photos", None, 1, 64
    with pytest.raises(ValueError, match="has no circular networks of photos"):
        example.main(*arguments, tmp_path, tmp_path / "table.csv")
    for recipe in ("0123456789", "9876543210"):
        kept = tmp_path / f"questions-circular-photos-max_aps-seed0-{recipe}"
        kept.mkdir()
        (kept / "trained.weights.h5").touch()
    with pytest.raises(ValueError, match="several networks of max_aps, seed0"):
        example.main(*arguments, tmp_path, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()
