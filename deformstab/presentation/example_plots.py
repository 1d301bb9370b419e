"""plot_examples: images beside their deformed selves, those a layer is most sensitive to first."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from deformstab.measurement.distances import Metric
from deformstab.measurement.layer_distances import MEMORY_LIMIT
from deformstab.measurement.perturbations import Deformation
from deformstab.measurement.representations import LayerSelector
from deformstab.presentation.drawing import as_text, shortened
from deformstab.presentation.examples import check_count, measured_examples, one_layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ARROWS = 12  # along the longer side
_FLOWS = ("arrows", "grid")


def plot_examples(
    model: keras.Model,
    images: Any,
    layer: LayerSelector,
    deformation: Deformation | None = None,
    count: int = 4,
    least: bool = False,
    flow: Literal["arrows", "grid"] = "arrows",
    title: str | None = None,
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
    axes: Any = None,
) -> "Figure":
    """Draws the images that a layer is most sensitive to: as they are, deformed, and the flow.

    All images are measured, under the deformations that `ds.measure_sensitivity` draws with the
    same arguments. Of several draws of an image the one that moves the layer furthest is shown.

    Args:
        model, images, deformation, metric, deformations, batch_size, seed, deformed_input,
            max_images, memory_limit, progress: as for `ds.measure_sensitivity`.
        layer: one layer, as there.
        count: of images to show.
        least: whether to show those that it is least sensitive to, the least first.
        flow: "arrows", from where a part of the image was to where it is, in pixels of the image; or
            "grid", where the lines of a square grid on the image came to lie.
        title: of the figure, by default the layer's name.
        value_range: what black and white are in the images; by default the first of (0, 1), (-1, 1)
            and (0, 255) that holds all of them, else their smallest and largest value. Or a
            function of an image [height, width, channels] that gives it back in 0…1, as images whose
            channels are in another order need.
        axes: [count, 3] axes to draw on, in place of a figure of its own.

    Returns:
        A `matplotlib.figure.Figure`, as `ds.plot_sensitivity` returns it.

    Raises:
        ValueError: as `ds.measure_sensitivity` does; not one layer, or one that cannot be measured;
            an unknown `flow`; axes of another shape.

    Example:

    ```python
    figure = ds.plot_examples(model, images, "block1_downsample", count=3)
    figure.savefig("examples.png")
    ```
    """
    count = check_count(count)
    if flow not in _FLOWS:
        raise ValueError(f"flow must be one of {', '.join(_FLOWS)}, received {flow!r}")
    examples = measured_examples(
        model,
        images,
        layer,
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
    name = one_layer(examples, layer)
    chosen = examples.chosen(name, count, least)
    rows = _axes(axes, len(chosen), count)
    for example, row in zip(chosen, rows):
        _draw(example, row, flow)
    if title is None:
        title = f"{shortened(name)}: {'least' if least else 'most'} sensitive first"
    else:
        title = as_text(title)
    figure = rows[0, 0].figure
    if axes is None:
        figure.suptitle(title)
    else:
        rows[0, 0].set_title(f"{title}\n{rows[0, 0].get_title()}", fontsize=7)
    return figure


def _axes(axes, found, count):
    if axes is not None:
        rows = np.asarray(axes, dtype=object)
        if rows.shape != (count, 3):
            raise ValueError(
                f"axes must have shape ({count}, 3), a row an image with the image, its deformed self "
                f"and the flow; received {rows.shape}"
            )
        for ax in rows[found:].ravel():
            ax.set_axis_off()
        return rows
    from deformstab.presentation.pictures import Picture

    figure = Picture(figsize=(6.6, 0.6 + 2.35 * found), layout="constrained")
    return figure.subplots(found, 3, squeeze=False)


def _draw(example, row, flow):
    field = row[2]
    titles = (
        f"image {example.image}",
        f"deformed: distance {example.distance:.3g}\n= {example.sensitivity:.2g} × that between images",
        "flow not known"
        if example.flow is None
        else f"flow: {example.rms_displacement:.3g} px, root mean square",
    )
    for ax, title, picture in zip(row, titles, (example.original, example.deformed, None)):
        ax.set_title(title, fontsize=7)
        ax.set_xticks([])
        ax.set_yticks([])
        if picture is not None:
            ax.imshow(picture, interpolation="nearest")
    if example.flow is None:
        field.set_axis_off()
        return
    field.imshow(0.6 + 0.4 * example.deformed, interpolation="nearest")
    (_draw_arrows if flow == "arrows" else _draw_grid)(field, example.flow)


def arrows(flow: np.ndarray, along: int = _ARROWS) -> np.ndarray:
    """Where parts of an image were and where they are: [n, 4], from (y, x) to (y, x), pixels.

    A flow is a backward map: what is at p was at p + flow(p), or at the edge nearest to that.
    """
    height, width = flow.shape[:2]
    step = max(1, -(-max(height, width) // along))
    y, x = np.meshgrid(
        *(np.arange(step // 2, side, step) for side in (height, width)), indexing="ij"
    )
    here = np.stack([y, x], axis=-1).reshape(-1, 2)
    there = here + flow[here[:, 0], here[:, 1]]
    there = np.clip(there, 0, (height - 1, width - 1))
    return np.concatenate([there, here], axis=1)


def _draw_arrows(ax, flow):
    y0, x0, y1, x1 = arrows(flow).T
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.007, "color": "#0072B2"}
    ax.quiver(x0, y0, x1 - x0, y1 - y0, **style)


def _draw_grid(ax, flow):
    """Lines on which what was on one line of the image lies now."""
    height, width = flow.shape[:2]
    source = np.moveaxis(np.stack(np.indices((height, width)), axis=-1) + flow, -1, 0)
    step = max(height, width) / 8
    for place, side in zip(source, (height, width)):
        levels = np.arange(step / 2, side, step)
        if place.min() < levels[-1] and place.max() > levels[0]:
            ax.contour(place, levels=levels, colors="#0072B2", linewidths=0.8)
