"""Image files of every kind: the values are those that were written, worked out from the formats."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deformstab.paper.data.image_files import ImageFiles, image_folder
from deformstab.presentation.image_reader import as_array, open_image, resized

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 2**16, (6, 8)).astype("uint16")
DEEP[0, :2] = 0, 65535
COLOUR = RNG.integers(0, 256, (6, 8, 3)).astype("uint8")
WITH_ALPHA = RNG.integers(0, 256, (6, 8, 4)).astype("uint8")


def unit(path, channels=3):
    """What is read, in 0…1."""
    pixels = as_array(open_image(path, channels), channels)
    return pixels / 255 if pixels.dtype == np.uint8 else pixels


def write_tiff(path, pixels, sample_format, photometric=1, order="<", orientation=1, bits=None):
    """A TIFF of one uncompressed strip, by its specification: [height, width]."""
    height, width = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = [(256, width), (257, height), (258, bits or 8 * pixels.itemsize), (259, 1)]
    tags += [(262, photometric), (273, 8), (274, orientation), (277, 1), (278, height)]
    tags += [(279, len(data)), (339, sample_format)]
    content = (
        (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data)) + data
    )
    content += struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        content += struct.pack(f"{order}HHII", tag, 4, 1, value)
    path.write_bytes(content + struct.pack(f"{order}I", 0))


def write_png(path, pixels, width=None, height=None):
    """A PNG by its specification, of 8 or 16 bits; the header may say another size."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    bits, big_endian = 8 * pixels.itemsize, pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    size = width or pixels.shape[1], height or pixels.shape[0]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        content += struct.pack(">I", len(body)) + name + body
        content += struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(content)


# ---- more than 8 bits ----


def test_a_png_of_16_bits_keeps_them(tmp_path):
    write_png(tmp_path / "a.png", DEEP[..., None])
    found = unit(tmp_path / "a.png")
    np.testing.assert_allclose(found, np.repeat(DEEP[..., None] / 65535, 3, axis=2), atol=1e-7)
    assert len(np.unique(found)) == len(np.unique(DEEP))
    assert unit(tmp_path / "a.png", 1).shape == (6, 8, 1)


@pytest.mark.parametrize(
    ("dtype", "sample_format", "options", "value"),
    [
        ("uint16", 1, {}, lambda x: x / (2**16 - 1)),
        ("uint16", 1, {"order": ">"}, lambda x: x / (2**16 - 1)),
        ("uint16", 1, {"photometric": 0}, lambda x: 1 - x / (2**16 - 1)),
        ("uint8", 1, {"photometric": 0}, lambda x: 1 - x / 255),
        ("uint32", 1, {}, lambda x: x / (2**32 - 1)),
        ("int16", 2, {}, lambda x: x / (2**15 - 1)),
        ("int32", 2, {}, lambda x: x / (2**31 - 1)),
        ("int32", 2, {"order": ">"}, lambda x: x / (2**31 - 1)),
        ("float32", 3, {}, lambda x: x),
        ("float32", 3, {"order": ">"}, lambda x: x),
    ],
)
def test_a_tiff_is_scaled_by_the_bits_it_has(tmp_path, dtype, sample_format, options, value):
    if dtype == "float32":
        pixels = RNG.random((6, 8)).astype("float32")
    else:
        pixels = RNG.integers(0, np.iinfo(dtype).max, (6, 8), endpoint=True, dtype=dtype)
    write_tiff(tmp_path / "a.tif", pixels, sample_format, **options)
    expected = value(pixels.astype("float64"))
    np.testing.assert_allclose(unit(tmp_path / "a.tif", 1)[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "sample_format", "words"),
    [
        (np.linspace(0, 255, 48, dtype="float32"), 3, r"floats must be in 0…1.* 0 to 255"),
        (np.linspace(-1, 1, 48, dtype="float32"), 3, r"floats must be in 0…1.* -1 to 1"),
        (np.full(48, np.nan, "float32"), 3, r".*nan to nan"),
        (np.arange(-3, 45, dtype="int32"), 2, r"none may be below 0.* -3 to 44"),
    ],
)
def test_numbers_that_no_scale_is_known_of_are_refused(tmp_path, pixels, sample_format, words):
    write_tiff(tmp_path / "a.tif", pixels.reshape(6, 8), sample_format)
    with pytest.raises(ValueError, match=rf"a\.tif cannot be read as an image: {words}"):
        open_image(tmp_path / "a.tif")


def test_of_colour_in_16_bits_the_upper_8_are_read(tmp_path):
    pixels = RNG.integers(0, 2**16, (6, 8, 3)).astype("uint16")
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(as_array(open_image(tmp_path / "a.png")), pixels >> 8)


def test_deep_images_are_resized_with_all_their_bits(tmp_path):
    ramp = np.tile(np.linspace(1000, 1200, 64).astype("uint16"), (32, 1))  # one value in 8 bits
    write_png(tmp_path / "a.png", ramp[..., None])
    found = as_array(resized(open_image(tmp_path / "a.png", 1), 32, 32, "squash"), 1)[..., 0]
    expected = np.interp(np.arange(32) * 2 + 0.5, np.arange(64), ramp[0]) / 65535
    np.testing.assert_allclose(found[:, 2:-2], np.tile(expected, (32, 1))[:, 2:-2], atol=3e-5)


# ---- 8 bits ----


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_the_orientation_of_exif_is_applied(tmp_path, orientation, suffix):
    pixels = np.asarray(Image.fromarray(COLOUR).resize((80, 60), Image.Resampling.NEAREST))
    turned = {  # by the EXIF standard: which side of the picture row 0 and column 0 are
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0)
    found = as_array(open_image(path)).astype(int)
    assert found.shape == turned.shape
    assert np.abs(found - turned).mean() < 3  # JPEG is lossy; another turn is some 80 off


def test_a_turned_tiff_of_16_bits_is_turned_too(tmp_path):
    write_tiff(tmp_path / "a.tif", DEEP, 1, orientation=6)
    expected = DEEP[::-1].T / 65535
    np.testing.assert_allclose(unit(tmp_path / "a.tif", 1)[..., 0], expected, atol=1e-7)


def test_what_is_transparent_lies_over_white(tmp_path):
    write_png(tmp_path / "rgba.png", WITH_ALPHA)
    write_png(tmp_path / "la.png", WITH_ALPHA[..., [0, 3]])
    share = WITH_ALPHA[..., 3:] / 255
    expected = share * WITH_ALPHA[..., :3] / 255 + (1 - share)
    np.testing.assert_allclose(unit(tmp_path / "rgba.png"), expected, atol=1 / 255)
    grey = np.repeat(expected[..., :1], 3, axis=2)
    np.testing.assert_allclose(unit(tmp_path / "la.png"), grey, atol=1 / 255)


def test_a_palette_is_looked_up_and_its_transparent_entry_is_white(tmp_path):
    indices = RNG.integers(0, 3, (6, 8)).astype("uint8")
    image = Image.frombytes("P", (8, 6), indices.tobytes())
    colours = np.array([[10, 20, 30], [200, 100, 50], [7, 8, 9]], "uint8")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "holes.png", transparency=1)
    np.testing.assert_array_equal(as_array(open_image(tmp_path / "plain.png")), colours[indices])
    colours[1] = 255
    np.testing.assert_array_equal(as_array(open_image(tmp_path / "holes.png")), colours[indices])


def test_black_and_white_is_0_and_255(tmp_path):
    bits = DEEP > 30000
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(unit(tmp_path / "a.png", 1)[..., 0], bits)


def test_cmyk_becomes_rgb_without_profiles(tmp_path):
    inks = RNG.integers(0, 256, (6, 8, 4)).astype("uint8")
    Image.frombytes("CMYK", (8, 6), inks.tobytes()).save(tmp_path / "a.tif")
    part = inks / 255
    expected = (1 - part[..., :3]) * (1 - part[..., 3:])
    np.testing.assert_allclose(unit(tmp_path / "a.tif"), expected, atol=2 / 255)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_of_an_animation_the_first_image_counts(tmp_path, suffix):
    frames = [Image.fromarray(np.full((6, 8, 3), value, "uint8")) for value in (0, 255)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert (unit(tmp_path / f"a.{suffix}") == 0).all()


def test_grey_is_three_equal_channels_and_colour_becomes_luma(tmp_path):
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    grey = np.repeat(COLOUR[..., :1], 3, axis=2)
    np.testing.assert_array_equal(as_array(open_image(tmp_path / "grey.png")), grey)
    luma = COLOUR @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(unit(tmp_path / "colour.png", 1)[..., 0], luma, atol=1 / 255)


# ---- resizing ----


def test_the_crop_keeps_proportions_and_the_middle(tmp_path):
    """A wide image: its outer thirds are left out, and a circle in its middle stays one."""
    y, x = np.mgrid[:120, :360]
    disc = (y - 59.5) ** 2 + (x - 179.5) ** 2 < 40**2
    image = Image.fromarray(np.where((x < 110) | (x > 250), 255, 100 * disc).astype("uint8"))
    found = np.asarray(resized(image, 56, 56))
    assert found.max() < 150  # nothing of the sides
    assert np.abs(found.astype(int) - found.T).max() < 5
    # The shorter side of 120 has become 64 = 56 · 256/224 pixels.
    radius = 40 * 64 / 120
    assert (found > 50).sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    squashed = np.asarray(resized(image, 56, 56, "squash"))
    assert squashed.max() > 250
    oval = (squashed[:, 18:38] > 50) & (squashed[:, 18:38] < 150)
    tall, wide = np.ptp(np.flatnonzero(oval.any(1))), np.ptp(np.flatnonzero(oval.any(0)))
    assert tall / wide == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (20, 10)])
@pytest.mark.parametrize("shape", [(40, 30), (7, 90), (3, 3)])
@pytest.mark.parametrize("how", ["crop", "squash"])
def test_an_image_gets_the_size_that_is_asked_for(size, shape, how):
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3)).astype("uint8"))
    assert as_array(resized(image, *size, how)).shape == (*size, 3)


def test_an_image_of_the_size_is_left_as_it_is():
    image = Image.fromarray(COLOUR)
    np.testing.assert_array_equal(as_array(resized(image, 6, 8)), COLOUR)


# ---- the reproduction reads by the same reader ----


def test_the_reproduction_reads_deep_images_as_well(tmp_path):
    for number in range(2):
        write_png(tmp_path / f"{number}.png", np.roll(DEEP, number)[:6, :6, None])
    Image.fromarray(COLOUR[:, :6]).save(tmp_path / "8bits.png")
    paths = sorted(tmp_path.glob("*.png"))
    images = ImageFiles(tuple(paths), 6)[np.arange(3)]
    np.testing.assert_allclose(images[0], DEEP[:, :6, None] / 32767.5 - np.ones(3), atol=1e-6)
    np.testing.assert_allclose(images[2], COLOUR[:, :6] / 127.5 - 1, atol=1e-6)
    arrays = image_folder(tmp_path)
    np.testing.assert_allclose(2 * arrays[0] - 1, images, atol=1e-6)


def test_the_reproductions_bytes_are_those_that_were_always_read(tmp_path):
    """Committed results were computed from these operations of Pillow, in this order."""
    large = Image.fromarray(COLOUR).resize((700, 500), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=90)
    large.save(tmp_path / "b.png")
    for name in ("a.jpg", "b.png"):
        with Image.open(tmp_path / name) as image:
            image.draft("RGB", (74, 74))
            image = image.convert("RGB")
        ratio = 37 / min(image.size)
        size = tuple(max(37, round(side * ratio)) for side in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = ((side - 32) // 2 for side in size)
        image = image.crop((left, top, left + 32, top + 32))
        expected = np.asarray(image, "float32") / np.float32(127.5) - 1
        np.testing.assert_array_equal(ImageFiles((tmp_path / name,), 32)[0], expected)


# ---- hostile files ----


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "z.png")
    with pytest.raises(ValueError, match=r"z\.png is no regular file"):
        open_image(tmp_path / "z.png")


def test_an_image_that_says_it_is_huge_is_refused_in_a_line(tmp_path):
    write_png(tmp_path / "a.png", COLOUR, width=60_000, height=60_000)
    with pytest.raises(
        ValueError, match=r"a\.png is too large an image.*3600000000 pixels"
    ) as found:
        open_image(tmp_path / "a.png")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_damaged_images_are_named(tmp_path, damage):
    path = tmp_path / "a.png"
    write_png(path, np.tile(COLOUR, (40, 40, 1)))
    content = path.read_bytes()
    flipped = content[:60] + bytes(byte ^ 255 for byte in content[60:200]) + content[200:]
    content = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"text",
        "flipped": flipped,
    }[damage]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image") as found:
        open_image(path)
    assert "\n" not in str(found.value)
