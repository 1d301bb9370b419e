"""Errors of random convolutions against plain loops and 16/9."""

import numpy as np
import pytest

from deformstab.paper.note import symmetries


def convolved(images, kernel):
    """Circular correlation by rolls, float64: [images, height, width]."""
    found = np.zeros(images.shape[:3])
    for y in range(3):
        for x in range(3):
            found += kernel[y, x] * np.roll(images, (1 - y, 1 - x), axis=(1, 2))
    return found


@pytest.mark.parametrize("name", ["translation", "rotation", "scale"])
def test_errors_are_those_of_a_plain_loop(name):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(3, 8, 8, 4)).astype("float32")
    kernels = rng.normal(size=(3, 3, 4)).astype("float32")
    transform = symmetries.TRANSFORMS[name]
    found = symmetries.relative_errors(transform, images, kernels)
    for place, error in enumerate(found):
        kernel, its = kernels[:, :, place], images[..., place]
        moved = convolved(transform(its), kernel)
        expected = transform(convolved(its, kernel))
        np.testing.assert_allclose(
            error, ((moved - expected) ** 2).sum() / (expected**2).sum(), rtol=1e-4, atol=1e-10
        )


def test_intervals_hold_sixteen_ninths_as_often_as_they_say():
    """Errors of different kernels are independent: chance in the images is in the interval too."""
    hits = []
    for seed in range(40):
        table = symmetries.symmetries(seed, kernels=40, images=1)
        rows = table[(table["expected"] == 16 / 9)]
        hits.append((rows["low"] < 16 / 9) & (rows["high"] > 16 / 9))
    # 95 % of 80; 4 are expected to miss, and more than 10 with a probability of 0.002.
    assert np.sum(hits) >= 70


def test_random_convolutions_move_and_do_not_turn_or_shrink():
    table = symmetries.symmetries(3)
    assert len(table) == 12
    of = table.set_index(["image", "filters", "transform"])
    for image in ("white", "photograph"):
        for filters in ("any", "turned alike"):
            assert of.loc[(image, filters, "translation"), "error"] == 0
        assert of.loc[(image, "turned alike", "rotation"), "error"] == 0
        assert of.loc[(image, "any", "rotation"), "error"] > 0.1
    for name in ("rotation", "scale"):
        row = of.loc[("white", "any", name)]
        assert row["expected"] == 16 / 9
        assert row["low"] < 16 / 9 < row["high"]
        assert row["high"] - row["low"] < 0.15
        assert row["count"] == 400


def test_sixteen_ninths_is_what_the_taps_say():
    """The mean over kernels of Σ (w - moved w)² over all taps that either meets."""
    rng = np.random.default_rng(0)
    turned, shrunk = [], []
    for w in rng.normal(size=(20_000, 3, 3)):
        turned.append(((w - np.rot90(w)) ** 2).sum() / (w**2).sum())
        wide, near = np.zeros((2, 5, 5))
        wide[::2, ::2], near[1:4, 1:4] = w, w  # of every second pixel, and of neighbours
        shrunk.append(((wide - near) ** 2).sum() / (w**2).sum())
    np.testing.assert_allclose(np.mean(turned), symmetries.EXPECTED["rotation"], atol=0.02)
    np.testing.assert_allclose(np.mean(shrunk), symmetries.EXPECTED["scale"], atol=0.02)


def test_symmetric_kernels_are_as_they_were_after_a_quarter_turn():
    kernels = symmetries.symmetric(np.random.default_rng(0).integers(-8, 9, (3, 3, 5)))
    np.testing.assert_array_equal(np.rot90(kernels), kernels)
    # Corners, edges and the middle: three numbers each.
    assert len(set(kernels[..., 0].ravel())) <= 3


def test_a_maximum_over_turns_turns_with_the_image_and_one_filter_does_not():
    table = symmetries.maximum_over_turns(0, kernels=20, images=4)
    errors = table.set_index(["filters", "output"])["error"]
    assert (errors["maximum over its turns"] == 0).all()
    assert (errors["one filter"] > 1e-3).all()
    assert errors["one filter", "map"] > 1
