#!/usr/bin/env python3
"""The warp beside the device's own speed of copying, and a measurement beside its forward pass.

For a GPU, with Keras on JAX or PyTorch; it runs on a CPU too:

    KERAS_BACKEND=torch python benchmarks/device.py --images=256 --side=224

One process, since candidates share the device: in each round all are timed, in random order.
"""

import pathlib
import random
import time

import keras
import numpy as np
import pandas as pd
from absl import app, flags
from keras import ops
from processes import HERE

import deformstab as ds
from deformstab.provenance import devices
from deformstab.tables import write_csv

FLAGS = flags.FLAGS


def compiled(function):
    """`function` as this backend compiles it."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, jit_compile=True)
    return function


def wait(result) -> None:
    """Until the device has computed it."""
    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(result)
    elif keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    elif hasattr(result, "numpy"):
        result[..., :1].numpy()


def warps(images: int, side: int) -> dict:
    """label → function of a number; copying comes first: an image read once and written once."""
    shape = (images, side, side, 3)
    given = [keras.random.uniform(shape, seed=number) for number in range(2)]
    layer = ds.RandomDeformation(5, 10.0, seed=0)
    copy = compiled(lambda x: x + 1)
    candidates = {
        "copy": lambda number: copy(given[number % 2]),
        "deform, displacements given": lambda number: layer.deform(given[number % 2], moves),
        "RandomDeformation": lambda number: layer(given[number % 2]),
    }
    moves = layer.draw(images, seed=1)
    if keras.backend.backend() == "torch":
        candidates |= _of_pytorch(given, layer.flow(moves, side, side), side)
    return candidates


def _of_pytorch(given, flow, side) -> dict:
    import torch

    pixels = torch.stack(torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"), dim=-1)
    grid = 2 * (flow + pixels.to(flow.device)) / (side - 1) - 1
    grid = grid.flip(-1).contiguous()
    planes = [x.permute(0, 3, 1, 2).contiguous() for x in given]
    options = {"padding_mode": "border", "align_corners": True}
    candidates = {
        "torch grid_sample, flow given": lambda number: torch.nn.functional.grid_sample(
            planes[number % 2], grid, **options
        )
    }
    try:
        from kornia.augmentation import RandomThinPlateSpline
    except ImportError:
        return candidates
    spline = RandomThinPlateSpline(scale=20 / side, p=1.0)
    return candidates | {"kornia": lambda number: spline(planes[number % 2])}


def measurements() -> dict:
    """The forward pass of 256 images first, then what measures 128 and their deformed selves."""
    model = ds.vgg((32, 32, 3), 10, ds.CIFAR10_BLOCKS, "max", seed=0)
    rng = np.random.default_rng(0)
    given = rng.normal(size=(2, 256, 32, 32, 3)).astype("float32")
    on_device = [ops.convert_to_tensor(x) for x in given]
    options = {"layers": ds.paper_layers(model), "progress": False, "batch_size": 128}
    if keras.backend.backend() == "torch":
        import torch

        forward = torch.no_grad()(lambda x: model(x, training=False))
    else:
        forward = compiled(lambda x: model(x, training=False))

    def measure(intervals):
        return lambda number: ds.measure_sensitivity(
            model, given[number % 2][:128], intervals=intervals, **options
        )

    return {
        "forward pass": lambda number: forward(on_device[number % 2]),
        "measure_sensitivity, no intervals": measure(False),
        "measure_sensitivity": measure(True),
    }


def timed(candidates: dict, rounds: int) -> pd.DataFrame:
    """Median seconds of each, and its ratio to the first, with quartiles over rounds."""
    seconds = {label: [] for label in candidates}
    for call in candidates.values():
        for number in range(3):
            wait(call(number))
    for number in range(rounds):
        for label in random.sample(list(candidates), len(candidates)):
            start = time.perf_counter()
            wait(candidates[label](number))
            seconds[label].append(time.perf_counter() - start)
    first, rows = np.array(next(iter(seconds.values()))), []
    for label, values in seconds.items():
        low, ratio, high = np.quantile(np.array(values) / first, (0.25, 0.5, 0.75))
        rows.append((label, np.median(values), ratio, low, high))
    columns = ["candidate", "seconds", "ratio", "ratio_low", "ratio_high"]
    return pd.DataFrame(rows, columns=columns)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; flags begin with --")
    tables = [timed(warps(FLAGS.images, FLAGS.side), FLAGS.rounds)]
    tables[0]["images_per_second"] = FLAGS.images / tables[0]["seconds"]
    size = 2 * 4 * 3 * FLAGS.images * FLAGS.side**2  # read once, written once
    tables[0]["gb_per_second"] = size / tables[0]["seconds"] / 1e9
    tables.append(timed(measurements(), FLAGS.rounds))
    table = pd.concat(tables, ignore_index=True)
    backend = keras.backend.backend()
    table.insert(0, "device", ", ".join(devices()))
    table.insert(0, "backend", backend)
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / f"device_{backend}.csv")
    print(table.to_string(index=False))


if __name__ == "__main__":
    flags.DEFINE_integer("images", 256, "Images a call.", lower_bound=1)
    flags.DEFINE_integer("side", 224, "Their height and width, in pixels.", lower_bound=2)
    flags.DEFINE_integer("rounds", 9, "How often each candidate is timed.", lower_bound=1)
    flags.DEFINE_string(
        "output_dir", str(HERE.parent / "results/benchmarks"), "Where the table goes."
    )
    app.run(main)
