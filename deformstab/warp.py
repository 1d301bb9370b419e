"""Sampling images along a flow. Pure `keras.ops`: differentiable, and the same on every backend.

Convention: out(p) = image(p + flow(p)), pixels, (y, x); outside the image, the nearest edge pixel.
"""

from keras import ops

INTERPOLATIONS = ("bilinear", "nearest")


def warp(images, flow, interpolation: str = "bilinear"):
    """Moves images along backward flows.

    Args:
        images: [batch, height, width, channels]; any float dtype for "bilinear" (16-bit floats are
            the caller's to cast: blending happens in the dtype given), any dtype for "nearest".
        flow: [batch, height, width, 2], pixels, (y, x), float32 or better.
        interpolation: "bilinear", or "nearest" (exactly half way goes to the higher coordinate).

    Returns:
        The warped images, of the shape and dtype of `images`. A zero flow is the identity (where
        the images are finite: a NaN spreads to the pixels left of it and above).
    """
    batch, height, width, channels = ops.shape(images)
    y = _clip(_range(height, flow.dtype)[:, None] + flow[..., 0], height)
    x = _clip(_range(width, flow.dtype) + flow[..., 1], width)
    # One flat axis of pixels, one index a pixel: a single gather dimension is what compilers fuse.
    pixels = ops.reshape(images, (-1, channels))
    first = ops.reshape(_range(batch, "int32") * (height * width), (-1, 1, 1))

    def pixel(row, column):
        return ops.take(pixels, first + row * width + column, axis=0)

    if interpolation == "nearest":
        return pixel(_index(y + 0.5, height), _index(x + 0.5, width))
    top, left = _index(y, height), _index(x, width)
    bottom, right = ops.minimum(top + 1, height - 1), ops.minimum(left + 1, width - 1)
    down = ops.cast(y - ops.cast(top, y.dtype), images.dtype)[..., None]
    along = ops.cast(x - ops.cast(left, x.dtype), images.dtype)[..., None]
    # a + w (b - a): exact where w = 0, and a constant image stays constant to the last bit.
    upper = pixel(top, left)
    upper = upper + along * (pixel(top, right) - upper)
    lower = pixel(bottom, left)
    lower = lower + along * (pixel(bottom, right) - lower)
    return upper + down * (lower - upper)


def _range(size, dtype):
    return ops.cast(ops.arange(size, dtype="int32"), dtype)


def _clip(coordinate, size):
    return ops.clip(coordinate, 0, ops.cast(size - 1, coordinate.dtype))


def _index(coordinate, size):
    # The second bound is for NaN only, whose cast is undefined: it must not read foreign memory.
    return ops.clip(ops.cast(ops.floor(coordinate), "int32"), 0, size - 1)
