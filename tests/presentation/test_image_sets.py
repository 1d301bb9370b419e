"""Which images are taken of a folder or an .npz file, and how little of the rest is read."""

import collections
import os
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from deformstab.presentation import image_sets
from deformstab.presentation.image_sets import read_images, sampled

SHAPE = (None, 4, 4, 3)


def save(folder, count, value):
    """So many images of one value each, by which they are known again: value, value + 1, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((4, 4, 3), value + number, "uint8")
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def values(images):
    """Which images these are, by their value; each must be of one."""
    assert images.dtype == np.float32
    assert (images == images[:, :1, :1, :1]).all()
    return np.rint(images[:, 0, 0, 0] * 255).astype(int).tolist()


# ---- a folder ----


def test_a_folder_by_class_gives_equally_many_of_each(tmp_path):
    for label, name in enumerate(("ant", "bee", "cat", "dog")):
        save(tmp_path / name, 30, 50 * label)
    images, told = read_images(tmp_path, SHAPE, 12)
    classes = collections.Counter(value // 50 for value in values(images))
    assert classes == {0: 3, 1: 3, 2: 3, 3: 3}
    assert values(images) == sorted(values(images))  # in the order of paths
    for words in ("12 of 120 files", "evenly over its folders", "image seed 0"):
        assert words in told
    again, _ = read_images(tmp_path, SHAPE, 12)
    np.testing.assert_array_equal(again, images)
    others = {tuple(values(read_images(tmp_path, SHAPE, 12, seed=seed)[0])) for seed in range(8)}
    assert len(others) == 8


def test_a_class_with_few_images_gives_all_it_has_and_the_others_the_rest(tmp_path):
    for label, (name, count) in enumerate({"a": 2, "b": 20, "c": 20}.items()):
        save(tmp_path / name, count, 50 * label)
    images, _ = read_images(tmp_path, SHAPE, 10)
    assert collections.Counter(value // 50 for value in values(images)) == {0: 2, 1: 4, 2: 4}


def test_a_flat_folder_is_sampled_too(tmp_path):
    save(tmp_path, 40, 0)
    images, told = read_images(tmp_path, SHAPE, 10, seed=3)
    assert values(images) != list(range(10))
    assert len(set(values(images))) == 10
    assert "10 of 40 files" in told
    assert "sampled by image seed 3" in told
    assert "folders" not in told


def test_where_there_are_not_more_all_are_taken_in_order(tmp_path):
    save(tmp_path / "b", 3, 10)
    save(tmp_path / "a", 3, 0)
    images, told = read_images(tmp_path, SHAPE, 6)
    assert values(images) == [0, 1, 2, 10, 11, 12]
    assert "6 of 6 files" in told
    assert "seed" not in told


def test_every_member_has_the_same_chance_and_groups_the_same_share():
    groups = ["a"] * 6 + ["b"] * 4 + ["c"] * 10
    times = np.zeros(20)
    for seed in range(3000):
        chosen = sampled(groups, 5, seed)
        shares = collections.Counter(groups[place] for place in chosen)
        assert sorted(shares.values()) == [1, 2, 2]
        times[chosen] += 1
    # Five in three groups of equal chances, and within a group of equal ones.
    expected = [5 / 3 / groups.count(group) for group in groups]
    np.testing.assert_allclose(times / 3000, expected, atol=0.04)


def test_more_classes_than_images_give_that_many_classes():
    chosen = sampled([number // 3 for number in range(3000)], 128, 0)
    assert len({place // 3 for place in chosen}) == 128


def test_files_of_every_kind_are_found(tmp_path):
    save(tmp_path, 2, 0)
    for number, suffix in enumerate(("tif", "bmp", "webp", "GIF", "TIFF", "jpeg")):
        Image.new("RGB", (4, 4), (9 + number,) * 3).save(
            tmp_path / f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {})
        )
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert len(read_images(tmp_path, SHAPE, 50)[0]) == 8


def test_a_pipe_in_a_folder_is_named(tmp_path):
    save(tmp_path, 3, 0)
    os.mkfifo(tmp_path / "z.png")
    with pytest.raises(ValueError, match=r"z\.png is no regular file"):
        read_images(tmp_path, SHAPE, 2)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_unsafely_large_image_is_one_clear_line(tmp_path, side):
    save(tmp_path, 2, 0)
    Image.new("1", (side, side if side < 20_000 else 4_000)).save(tmp_path / "z.png")
    with pytest.raises(ValueError, match=r"z\.png is too large an image, make it smaller") as found:
        read_images(tmp_path, SHAPE, 10)
    assert "\n" not in str(found.value)


# ---- an .npz file ----


def write(path, array, compressed=True):
    (np.savez_compressed if compressed else np.savez)(path, labels=np.arange(3), images=array)


def numbered(count, dtype="uint8", order="C"):
    """Images of which each has one value, its number."""
    array = np.broadcast_to(np.arange(count)[:, None, None, None], (count, 4, 4, 3))
    if np.dtype(dtype).kind == "f":
        array = array / 255
    return np.array(array, dtype, order=order)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i2", "float16", "float64", ">f4"])
@pytest.mark.parametrize("compressed", [True, False])
def test_rows_are_drawn_evenly_and_are_those_of_the_file(tmp_path, order, dtype, compressed):
    array = numbered(200, dtype, order)
    write(tmp_path / "a.npz", array, compressed)
    images, told = read_images(tmp_path / "a.npz", SHAPE, 20, seed=1)
    found = values(images.round(3) if dtype == "float16" else images)
    assert len(set(found)) == 20
    assert found == sorted(found)
    assert found[-1] > 150  # not the first ones
    assert "20 of 200 images" in told
    assert "image seed 1" in told
    whole, told = read_images(tmp_path / "a.npz", SHAPE, 200)
    scale = 255 if np.dtype(dtype).kind in "iu" else 1
    np.testing.assert_array_equal(whole, array.astype("float32") / np.float32(scale))
    assert "seed" not in told


def test_the_order_of_fortran_is_read_in_pieces(tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3)).astype("uint8")
    write(tmp_path / "a.npz", np.asfortranarray(array))
    monkeypatch.setattr(image_sets, "_CHUNK", 150)
    images, _ = read_images(tmp_path / "a.npz", SHAPE, 50)
    np.testing.assert_array_equal(images, array / np.float32(255))


BOMB = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from deformstab.presentation.image_sets import read_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    images, told = read_images(sys.argv[1], (None, 64, 64, 3), 16)
    print(images.shape)
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("count", "words"),
    [(100_000, "(16, 64, 64, 3)"), (10**12, "has images (1000000000000, 64, 64, 3), ")],
)
def test_a_bomb_is_not_read_whole(tmp_path, count, words):
    """1.2 GB of zeros in 1.2 MB; and a header that says there are far more."""
    path = tmp_path / "bomb.npz"
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 64, 64, 3), }}"
    header = header.ljust(117) + "\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        for _ in range(100 if count == 100_000 else 1):
            file.write(bytes(1000 * 64 * 64 * 3))
    assert path.stat().st_size < 3e6
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOMB), str(path), str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    *told, kilobytes = done.stdout.strip().splitlines()
    assert words in " ".join(told)
    assert int(kilobytes) < 200_000


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{"a": 1}] * 4, object), "object"),
        (np.array(["a", "b"]), "<U1"),
        (np.zeros((4, 4)), r"\(4, 4\)"),
        (np.zeros((0, 4, 4, 3)), r"\(0, 4, 4, 3\)"),
        (np.zeros((4, 5, 4, 3)), r"\(5, 4, 3\).*\(4, 4, 3\)"),
        (np.full((4, 4, 4, 3), np.nan), "nan"),
        (np.full((4, 4, 4, 3), np.inf), "inf"),
        (np.full((4, 4, 4, 3), -1), "-1"),
        (np.full((4, 4, 4, 3), 256), "0…255"),
        (np.zeros((4, 4, 4, 3), "complex64"), "complex64"),
        (np.zeros((4, 4, 4, 3), [("a", "u1")]), r"\[\('a'"),
    ],
)
def test_what_are_no_images_is_refused_without_unpickling(tmp_path, array, words):
    np.savez(tmp_path / "a.npz", images=array)
    with pytest.raises(ValueError, match=rf"a\.npz(?s:.*){words}"):
        read_images(tmp_path / "a.npz", SHAPE, 10)


def test_an_npz_that_ends_early_is_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(tmp_path / "whole.npz", images=numbered(9))
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        content = archive.read("images.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content[:-1])
    with pytest.raises(ValueError, match=r"a\.npz cannot be read.*ends before its array does"):
        read_images(path, SHAPE, 10)
    np.save(tmp_path / "b.npy", numbered(9))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b\.npz cannot be read.*not a zip file"):
        read_images(tmp_path / "b.npz", SHAPE, 10)
