"""Records what tensorflow-addons 0.23.0 computes where `tfa_reference.npz` has no case.

tensorflow-addons cannot be imported beside Keras 3, so its answers are recorded once, in an
environment of their own:

    python3.11 -m venv tfa && tfa/bin/pip install tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0
    tfa/bin/python make_tfa_boundary_reference.py record tfa_boundary_reference.npz

`reduce` needs NumPy only; it cuts the large archive of `make_tfa_reference.py` (seed 0) down to
what the tests use:

    python make_tfa_boundary_reference.py reduce large.npz tfa_reference.npz

Keys of the recorded archive, points and flows in pixels, (y, x), batches of 2:
    {height}x{width}/image         float32 [2, height, width, 1]
    {height}x{width}/source, dest  float32 [2, 5, 2], control points, none on the border
    {height}x{width}/{n}_{order}_{weight}_{dtype}/warped, flow
        `tfa.image.sparse_image_warp(image, source, dest, order, weight, num_boundary_points=n)`
        of the three cast to dtype
    spline{d}/points, values, queries                float64 [2, 15, d], [2, 15, 3], [2, 20, d]
    spline{d}/{order}_{weight}_{dtype}
        `tfa.image.interpolate_spline(points, values, queries, order, weight)`, cast likewise
"""

import argparse

import numpy as np

# height × width → (num_boundary_points, order, regularization_weight, dtype)
WARPS = {
    (17, 23): [(n, order, 0.0, "float32") for n in (1, 2, 3) for order in (1, 2, 3)]
    + [(2, 2, 0.1, "float32"), (2, 2, 0.0, "float64")],
    (32, 32): [(1, 2, 0.0, "float32"), (3, 2, 0.1, "float32")],
}
# Above order 3 tensorflow-addons' float32 is rounding; its float64 is not.
SPLINES = {
    1: [(1, 0.0, "float64"), (3, 0.0, "float64")],
    2: [(order, weight, "float64") for order in range(1, 7) for weight in (0.0, 0.1)]
    + [(4, 0.0, "float32")],
    3: [(2, 0.0, "float64"), (3, 0.1, "float64")],
}


def record() -> dict:
    """The answers of tensorflow-addons, by key."""
    import tensorflow_addons as tfa

    rng = np.random.default_rng(0)
    arrays = {}
    for (height, width), calls in WARPS.items():
        size = f"{height}x{width}"
        inputs = {
            "image": rng.random((2, height, width, 1)),
            "dest": rng.uniform(1, (height - 2, width - 2), (2, 5, 2)),
        }
        inputs["source"] = inputs["dest"] + rng.uniform(-3, 3, (2, 5, 2))
        inputs = {key: value.astype("float32") for key, value in inputs.items()}
        arrays |= {f"{size}/{key}": value for key, value in inputs.items()}
        for n, order, weight, dtype in calls:
            cast = (inputs[key].astype(dtype) for key in ("image", "source", "dest"))
            warped, flow = tfa.image.sparse_image_warp(*cast, order, weight, n)
            key = f"{size}/{n}_{order}_{weight}_{dtype}"
            arrays |= {f"{key}/warped": warped.numpy(), f"{key}/flow": flow.numpy()}
    for dimensions, calls in SPLINES.items():
        inputs = {
            "points": rng.uniform(0, 4, (2, 15, dimensions)),
            "values": rng.normal(0, 1, (2, 15, 3)),
            "queries": rng.uniform(-1, 5, (2, 20, dimensions)),
        }
        arrays |= {f"spline{dimensions}/{key}": value for key, value in inputs.items()}
        for order, weight, dtype in calls:
            cast = (inputs[key].astype(dtype) for key in ("points", "values", "queries"))
            key = f"spline{dimensions}/{order}_{weight}_{dtype}"
            arrays[key] = tfa.image.interpolate_spline(*cast, order, weight).numpy()
    return arrays


def reduce(path) -> dict:
    """The arrays the tests use of a large archive: random images do not compress."""
    arrays = {}
    with np.load(path) as archive:
        for key in archive.files:
            case, name = key.split("/")
            value = archive[key]
            if case == "1" and "dense" in name:
                continue
            if case in "13" and name in {
                "displacement", "image", "warped", "flow", "dense", "dense_flow"
            }:  # fmt: skip
                value = value[:1]  # the first image of the batch
            if case == "1" and name in {"image", "warped"}:
                value = value[..., :1]  # and its first channel
            arrays[key] = value
    return arrays


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["record", "reduce"])
    parser.add_argument("paths", nargs="+", help="the archive to write, after the one to reduce")
    args = parser.parse_args()
    *sources, target = args.paths
    np.savez_compressed(target, **(record() if args.what == "record" else reduce(*sources)))
