"""Images that come with scikit-image and scikit-learn: nothing to download."""

import functools

import numpy as np

from deformstab.extras import needing

PHOTOS = {  # ten colour photographs that come with scikit-image and scikit-learn
    "astronaut": "skimage",
    "chelsea": "skimage",
    "coffee": "skimage",
    "rocket": "skimage",
    "hubble_deep_field": "skimage",
    "retina": "skimage",
    "immunohistochemistry": "skimage",
    "stereo_motorcycle": "skimage",
    "china": "sklearn",
    "flower": "sklearn",
}
_TRAIN_SHARE = 0.7  # of a photograph's longer side; test crops come from the rest
PHOTO_SIDES = 5  # a photograph's shorter side, in crops


@functools.lru_cache(maxsize=4)
def photos(size: int, train_images: int, test_images: int) -> list[np.ndarray]:
    """[images, labels] to train on, then to test on: random crops, a class a photograph."""
    parts = []
    for part, count in enumerate((train_images, test_images)):
        rng = np.random.default_rng([0, 5, part])
        labels = rng.permutation(count) % len(PHOTOS)
        crops = np.empty((count, size, size, 3), "float32")
        for label, name in enumerate(PHOTOS):
            area = _halves(photograph(name, PHOTO_SIDES * size))[part]
            for index in np.flatnonzero(labels == label):
                y, x = (rng.integers(side - size + 1) for side in area.shape[:2])
                crops[index] = area[y : y + size, x : x + size]
        parts += [crops, labels]
    return parts


@functools.lru_cache(maxsize=32)
def photograph(name: str, shorter_side: int) -> np.ndarray:
    """A bundled photograph, its shorter side scaled to so many pixels: float32 in [-1, 1]."""
    from PIL import Image

    if PHOTOS[name] == "sklearn":
        with needing("reproduce", "the bundled photographs"):
            from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    else:
        with needing("reproduce", "the bundled photographs"):
            import skimage.data

        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    scale = shorter_side / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    return np.asarray(image, "float32") / 127.5 - 1


def _halves(photo):
    """The parts of a photograph for training and for test: they share no pixel."""
    axis = int(np.argmax(photo.shape[:2]))
    return np.split(photo, [round(_TRAIN_SHARE * photo.shape[axis])], axis=axis)


def digits(size: int) -> tuple:
    """scikit-learn's digits at a size, in [0, 1]: (images, labels) to train on, then to test on."""
    from PIL import Image

    with needing("reproduce", "scikit-learn's digits"):
        from sklearn.datasets import load_digits

    found = load_digits()
    # A margin as MNIST's digits have, so that deformations do not push them over the edge.
    padded = np.pad(found.images / 16, ((0, 0), (2, 2), (2, 2))).astype("float32")
    images = [
        Image.fromarray(image).resize([size] * 2, Image.Resampling.BICUBIC) for image in padded
    ]
    images = np.clip(np.stack(images), 0, 1)
    test = np.arange(len(images)) % 4 == 3  # writers come in blocks: every fourth image
    return images[~test], found.target[~test], images[test], found.target[test]
