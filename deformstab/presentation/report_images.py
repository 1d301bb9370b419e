"""report_examples: for each layer the images it is most and least sensitive to, and the worst found."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from deformstab.checks import check_whole
from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.measurement.distances import Metric
from deformstab.measurement.layer_distances import MEMORY_LIMIT
from deformstab.measurement.perturbations import Deformation
from deformstab.measurement.representations import LayerSelection
from deformstab.measurement.worst_case import worst_deformation
from deformstab.presentation.example_plots import arrows
from deformstab.presentation.examples import Example, check_count, measured_examples

_LONGEST_SIDE = 160  # pixels of a picture in the page
_EXACT_SIDE = 64  # up to here a picture keeps its pixels
_WORST_STEPS, _WORST_STARTS = 8, 2  # to show one, not to measure it


@dataclass(frozen=True)
class ReportExamples:
    """What `ds.report_examples` found, for `ds.write_report`.

    Attributes:
        layers: layer → {"most": …, "least": …, "worst": …}, lists of what the page shows of an image.
        pictures: name → the image as a data URL; an image of several layers is there once.
        settings: what was measured, as text, for the report's provenance.
    """

    layers: dict[str, dict[str, list[dict]]] = field(repr=False)
    pictures: dict[str, str] = field(repr=False)
    settings: dict[str, str]


def report_examples(
    model: keras.Model,
    images: Any,
    layers: LayerSelection = None,
    deformation: Deformation | None = None,
    count: int = 3,
    worst: int | None = None,
    *,
    metric: Metric = "cosine",
    deformations: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    value_range: tuple[float, float] | Callable[[np.ndarray], np.ndarray] | None = None,
    deformed_input: int | str | None = None,
    max_images: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
    progress: bool = True,
) -> ReportExamples:
    """Finds the images to show in a report: those that each layer is most, and least, sensitive to.

    All images are measured, under the deformations that `ds.measure_sensitivity` draws with the
    same arguments. For the images that a layer is most sensitive to, the worst deformation is
    sought as well (`ds.worst_deformation` within the box of the draws, of few steps: to look at).

    Args:
        model, images, layers, deformation, metric, deformations, batch_size, seed, deformed_input,
            max_images, memory_limit, progress: as for `ds.measure_sensitivity`.
        count: of images shown a layer, most and least each.
        worst: for how many images a layer the worst deformation is sought; by default 2 if at most
            four layers can be measured, else none, since it takes as long as hundreds of
            measurements. Other families than `ds.RandomDeformation` have none.
        value_range: what black and white are in the images, as for `ds.plot_examples`.

    Returns:
        What `ds.write_report(…, examples=…)` takes.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; a worst deformation is asked for of a family
            that has none.

    Example:

    ```python
    examples = ds.report_examples(model, images, ["block1_downsample", "logits"], worst=0)
    ds.write_report("report.html", ds.measure_sensitivity(model, images), examples=examples)
    ```
    """
    count = check_count(count)
    worst = None if worst is None else check_whole("worst", worst, least=0)
    if worst and not isinstance(deformation, RandomDeformation | None):
        raise ValueError(
            "a worst deformation is sought among those of a ds.RandomDeformation: pass worst=0 to "
            f"show what {deformation!r} does"
        )
    examples = measured_examples(
        model,
        images,
        layers,
        deformation,
        metric,
        deformations,
        batch_size,
        seed,
        value_range=value_range,
        deformed_input=deformed_input,
        max_images=max_images,
        memory_limit=memory_limit,
        progress=progress,
    )
    measured = examples.table[examples.table["note"] == ""]
    if worst is None:
        few = len(measured) <= 4 and isinstance(examples.images.deformation, RandomDeformation)
        worst = 2 if few else 0
    found, pictures = {}, {}
    for layer, baseline in zip(measured["layer"], measured["baseline"]):
        most = examples.chosen(layer, max(count, worst))
        groups = {"most": most[:count], "least": examples.chosen(layer, count, least=True)}
        if worst:
            options = {"metric": metric, "seed": seed, "batch_size": batch_size}
            options |= {"memory_limit": memory_limit, "progress": progress}
            options["deformed_input"] = deformed_input
            groups["worst"] = _worst(model, examples, layer, baseline, most[:worst], options)
        found[layer] = {
            name: [_shown(each, layer, pictures) for each in group]
            for name, group in groups.items()
        }
    settings = {
        "deformation": _described(examples.images.deformation),
        "images": str(len(examples.images)),
        "metric": metric,
        "draws an image": str(deformations),
        "seed": str(seed),
    }
    return ReportExamples(found, pictures, settings)


def _described(deformation) -> str:
    """A deformation with its settings, as far as it has any."""
    if not isinstance(deformation, keras.layers.Layer):
        return getattr(deformation, "__name__", repr(deformation))
    passed_over = ("name", "dtype", "trainable", "seed")
    config = {k: v for k, v in deformation.get_config().items() if k not in passed_over}
    settings = ", ".join(f"{name}={value!r}" for name, value in config.items())
    return f"{type(deformation).__name__}({settings})"


def _worst(model, examples, layer, baseline, most, options) -> list[Example]:
    """The worst deformation found for each of some images, the worst first."""
    prepared = examples.images
    numbers = np.array([each.image for each in most])
    asked = len(numbers)
    if asked == 1:  # a baseline, which is not used here, takes two images
        numbers = np.array([numbers[0], (numbers[0] + 1) % len(prepared)])
    images = prepared.pack([each[numbers] for each in prepared.inputs])
    table, displacements = worst_deformation(
        model,
        images,
        layer,
        prepared.deformation,
        steps=_WORST_STEPS,
        starts=_WORST_STARTS,
        deformations=1,
        **options,
    )
    array = prepared.inputs[prepared.place][numbers]
    deformed = prepared.deformation.deform(keras.ops.convert_to_tensor(array), displacements)
    deformed = keras.ops.convert_to_numpy(deformed)
    flows = keras.ops.convert_to_numpy(prepared.deformation.flow(displacements, *prepared.size))
    found = [
        Example(
            image=int(numbers[row]),
            draw=-1,
            distance=float(table["worst"][row]),
            sensitivity=float(table["worst"][row] / baseline),
            original=examples.pixels(array[row]),
            deformed=examples.pixels(deformed[row]),
            flow=flows[row],
            rms_displacement=float(table["rms_displacement"][row]),
        )
        for row in range(asked)
        if np.isfinite(table["worst"][row])
    ]
    return sorted(found, key=lambda each: -each.distance)


def _shown(example: Example, layer: str, pictures: dict) -> dict:
    """What the page shows of an image; its pictures go to `pictures`."""
    before = f"image {example.image}"
    after = f"{before}, draw {example.draw}"
    if example.draw < 0:
        after = f"{before}, worst of {layer}"
    for name, picture in ((before, example.original), (after, example.deformed)):
        if name not in pictures:
            pictures[name] = data_url(picture)
    height, width = example.original.shape[:2]
    found = {"image": example.image, "before": before, "after": after, "size": [width, height]}
    found |= {"distance": example.distance, "sensitivity": example.sensitivity}
    if example.flow is not None:
        # (x, y) to (x, y), as SVG has it
        lines = np.round(arrows(example.flow)[:, [1, 0, 3, 2]], 2)
        found |= {"rms": example.rms_displacement, "arrows": lines.tolist()}
    return found


def data_url(picture: np.ndarray) -> str:
    """A picture [height, width, 3] in [0, 1] as a data URL: small ones as they are, others smaller."""
    from PIL import Image  # which matplotlib brings

    image = Image.fromarray(np.round(255 * picture).astype("uint8"))
    kind, options = "png", {"optimize": True}
    if max(image.size) > _EXACT_SIDE:
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        kind, options = "jpeg", {"quality": 85}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
