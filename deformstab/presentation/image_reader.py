"""One image file → its pixels: the reader of `bin/measure_sensitivity` and of the reproduction.

What becomes of each kind of file:

- 8 bits a channel: as they are. Palettes are looked up, black and white becomes 0 and 255.
- 12, 16 and 32 bits, grey: over the largest number that so many bits hold. Of 16-bit *colour*,
  Pillow reads the upper 8 bits.
- Floats: must be in 0…1, and are taken as they are.
- Transparent: over white. CMYK, YCbCr: to RGB by Pillow, without colour profiles.
- EXIF orientation is applied. Of an animation or several pages, the first.
- Grey to colour by three equal channels, colour to grey by ITU-R 601's luma.

An image is a PIL image of mode "RGB" or "L" (8 bits), or "F" (one channel, in 0…1).
"""

import contextlib
import os

import numpy as np

# ImageNet's usual preparation: the shorter side to 256 pixels, of which the central 224 are kept.
MARGIN = 256 / 224
_BACKGROUND = "white"


def open_image(path, channels: int = 3, enough: int | None = None):
    """An image file as a PIL image of mode "RGB" ("L" of one channel), or "F" if 8 bits are too few.

    Args:
        path: of the file.
        channels: 3 or 1.
        enough: a JPEG is decoded no larger than it need be for a side of so many pixels.

    Raises:
        ValueError: it is no image that can be read, no regular file (a pipe, which would be waited
            for), has values outside of 0…1 (floats), or more pixels than Pillow takes for safe.
    """
    from PIL import Image, UnidentifiedImageError

    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is no regular file: only files are read as images")
    try:
        # Not by its name: Pillow maps such a file into memory, and garbles TIFFs that are turned.
        with open(path, "rb") as file, Image.open(file) as image:
            if enough is not None:
                image.draft("RGB", (enough, enough))
            image.load()
            _turn(image)
            if image.mode.startswith(("I", "F")):
                return Image.fromarray(_deep(image))
            if image.has_transparency_data:
                image = _over_background(image)
            colour = image.convert("RGB")
            return colour if channels == 3 else image.convert("L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is too large an image, make it smaller: {error}") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path} cannot be read as an image: it is damaged, or of a kind that Pillow does not read"
        ) from error
    except Exception as error:  # of Pillow's many decoders: whatever a damaged file provokes
        raise ValueError(f"{path} cannot be read as an image: {_reason(error)}") from error


def resized(image, height: int, width: int, how: str = "crop"):
    """An image of a size; one that has it already is left as it is.

    Args:
        image: of `open_image`.
        height, width: in pixels.
        how: "crop": scaled, its proportions kept, until it covers 256/224 of the size, of which the
            centre is kept, as networks for ImageNet are used; "squash": each side for itself.
    """
    from PIL import Image

    if image.size == (width, height):
        return image
    if how == "squash":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    covered = round(width * MARGIN), round(height * MARGIN)
    ratio = max(side / length for side, length in zip(covered, image.size))
    larger = tuple(max(side, round(length * ratio)) for side, length in zip(covered, image.size))
    image = image.resize(larger, Image.Resampling.BICUBIC)
    left, top = ((length - side) // 2 for length, side in zip(larger, (width, height)))
    return image.crop((left, top, left + width, top + height))


def as_array(image, channels: int = 3) -> np.ndarray:
    """[height, width, channels]: uint8 of 8-bit images, else float32 in 0…1."""
    pixels = np.asarray(image)
    if image.mode != "F":
        return pixels.reshape(*pixels.shape[:2], channels)
    pixels = np.clip(pixels, 0, 1)  # bicubic interpolation goes beyond, where 8 bits cannot
    return np.repeat(pixels[..., None], channels, axis=-1)


def _turn(image) -> None:
    """As its EXIF orientation says; where that is damaged there is none."""
    from PIL import ImageOps

    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _over_background(image):
    from PIL import Image

    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image).convert("RGB")


def _deep(image) -> np.ndarray:
    """float32 in 0…1 of an image of one channel with more than 8 bits."""
    pixels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    through = image.info.get("transparency")
    holes = pixels == through if isinstance(through, int) else None
    if image.mode.startswith("F"):
        scaled = pixels.astype("float32")
    else:
        bits = tags.get(258, (16,))[0]  # BitsPerSample; PNG and PGM come in 16
        signed = tags.get(339, (1,))[0] == 2  # SampleFormat
        if bits == 32 and not signed:
            pixels = pixels.view("uint32")  # Pillow has only signed ones
        scaled = (pixels / (2.0 ** (bits - signed) - 1)).astype("float32")
    low, high = scaled.min(), scaled.max()
    if not (low >= 0 and high <= 1):
        wanted = "floats must be in 0…1" if image.mode.startswith("F") else "none may be below 0"
        raise ValueError(f"{wanted}, and its values go from {pixels.min():g} to {pixels.max():g}")
    if tags.get(262) == 0 and not image.mode.startswith("F"):  # WhiteIsZero, as Pillow leaves it
        scaled = 1 - scaled
    return scaled if holes is None else np.where(holes, np.float32(1), scaled)


def _reason(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
