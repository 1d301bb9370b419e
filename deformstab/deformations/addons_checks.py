"""What `deformstab.addons` asks of the shapes that it is given."""

import numpy as np


def require(valid, expected, **received):
    """Raises a `ValueError` that names what was received, by name, unless the condition holds."""
    if not valid:
        shown = (
            f"{k} {v!r}" if np.ndim(v) == 0 else f"{k} {tuple(v)}" for k, v in received.items()
        )
        raise ValueError(f"{expected}; received {', '.join(shown)}")


def _equal(size, other):
    return None in (size, other) or size == other


def _same_batch(*shapes):
    return len({shape[0] for shape in shapes} - {1, None}) <= 1


def check_spline(points, values, queries):
    """Refuses what is no spline's points [b, n, d], values [b, n, v] and queries [b, q, d]."""
    p, v, q = points.shape, values.shape, queries.shape
    received = {"points": p, "values": v, "queries": q}
    require(
        len(p) == len(v) == len(q) == 3
        and (_equal(p[1], v[1]) and _equal(p[2], q[2]) and _same_batch(p, v, q)),
        "expected points [batch, points, dimensions], values [batch, points, values] and queries "
        "[batch, queries, dimensions], batches equal or one",
        **received,
    )
    known = "the numbers of dimensions and of values must be known: use `set_shape`"
    require(None not in (p[2], v[2]), known, **received)
    enough = "a spline needs more points than dimensions: add some"
    require(p[1] is None or p[1] > p[2], enough, **received)


def check_flow(image, flow):
    """Refuses tensors that are no image [b, height, width, c] and its flow [b, height, width, 2]."""
    require(
        len(image.shape) == len(flow.shape) == 4
        and all(map(_equal, (*image.shape[:3], 2), flow.shape))
        and all(size is None or size >= 2 for size in image.shape[1:3]),
        "expected image [batch, height, width, channels] with height and width at least 2, and "
        "flow [batch, height, width, 2] of the same sizes",
        image=image.shape,
        flow=flow.shape,
    )


def check_control_points(images, source, dest):
    """Refuses tensors that are no [b, n, 2] each for images [batch, height, width, channels]."""
    i, s, d = images.shape, source.shape, dest.shape
    require(
        len(s) == len(d) == 3
        and (_equal(s[1], d[1]) and _equal(s[2], 2) and _equal(d[2], 2) and _same_batch(s, d))
        and (i[0] is None or {s[0], d[0]} <= {i[0], 1, None}),
        "expected source and destination [batch, points, 2], equally many points, and a batch as "
        "large as the images' or of one",
        images=i,
        source=s,
        destination=d,
    )
