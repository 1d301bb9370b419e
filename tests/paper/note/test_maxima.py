"""Maxima under shifts: closed forms by enumeration, pooling by plain loops."""

import fractions
import itertools

import numpy as np
import pytest

from deformstab.paper.note import maxima
from deformstab.paper.verdicts.pooling_shifts import pooling_shifts


@pytest.mark.parametrize("window", [2, 3])
def test_a_bright_pixel_stays_as_often_as_was_counted(window):
    counted = pooling_shifts((window,))
    assert maxima.kept_bright(window, "any") == pytest.approx(counted["kept"].mean() / 8)
    for row in counted.itertuples():
        place = maxima._place(row.row, row.column, window)
        assert maxima.kept_bright(window, place) == row.kept / 8


def test_the_shares_of_the_note():
    assert maxima.kept_bright(2, "any") == 3 / 8
    assert maxima.kept_bright(3, "edge") == 5 / 8
    assert maxima.kept_bright(3, "any") == pytest.approx(5 / 9)
    assert maxima.kept_bright(3, "centre") == 1


@pytest.mark.parametrize(("window", "share"), [(2, (5, 21)), (3, (11, 28))])
def test_in_noise_the_largest_of_both_windows_must_lie_in_both(window, share):
    total = fractions.Fraction(0)
    pixels = set(itertools.product(range(window), repeat=2))
    for y, x in maxima.SHIFTS:
        moved = {(row + y, column + x) for row, column in pixels}
        total += fractions.Fraction(len(pixels & moved), len(pixels | moved))
    assert total / 8 == fractions.Fraction(*share)
    assert maxima.kept_noise(window) == pytest.approx(float(total / 8))


@pytest.mark.parametrize("window", [2, 3])
def test_shares_are_those_of_a_plain_loop(window):
    images = np.random.default_rng(0).integers(0, 4, (3, 6, 6)).astype("float32")
    counted = np.random.default_rng(1).random((3, 6 // window, 6 // window)) < 0.7
    found = maxima.kept_shares(images, window, counted)
    for image, count, share in zip(images, counted, found):
        hits = []
        for shift in maxima.SHIFTS:
            moved = np.roll(image, shift, axis=(0, 1))
            for row, column in zip(*np.nonzero(count)):
                box = np.s_[row * window : (row + 1) * window, column * window :][:1]
                box = (*box, slice(column * window, (column + 1) * window))
                hits.append(image[box].max() == moved[box].max())
        assert share == pytest.approx(np.mean(hits))


def test_what_is_measured_agrees_with_what_follows():
    table = maxima.maxima(5, images=300)
    assert len(table) == 10
    exact = table["place"].isin(["corner", "edge", "centre"])
    assert (table["kept"] == table["expected"])[exact].all()
    for row in table[~exact].dropna(subset="expected").itertuples():
        half = (row.high - row.low) / 2
        assert abs(row.kept - row.expected) <= 1.5 * half  # to three standard errors
        assert half < 0.03
    assert table["expected"].isna().sum() == 2
    assert table["kept"].between(0, 1).all()
