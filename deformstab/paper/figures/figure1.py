"""Figure 1: how a deformation is drawn, and photographs with deformed copies."""

import numpy as np
from keras import ops

from deformstab.deformations.random_deformation import RandomDeformation
from deformstab.deformations.splines import control_grid
from deformstab.paper.data import datasets
from deformstab.paper.data.bundled import photograph
from deformstab.paper.figures import style

STUDIES = ()
TABLES = ()
CLAIMS = ()
TITLE = "How deformations are drawn, and deformed photographs"

_SIDE = 224
_GRID, _REACH = 4, 18.0  # the paper draws its method on a 4×4 grid; the reach is to be seen
_EXAMPLES = ("chelsea", "astronaut", "coffee", "flower")


def plot(results):
    image = _square("chelsea")
    layer = RandomDeformation(_GRID, _REACH, seed=0)
    draw = ops.convert_to_numpy(layer.draw(1, seed=3))
    flow = ops.convert_to_numpy(layer.flow(draw, _SIDE, _SIDE))[0]
    deformed = ops.convert_to_numpy(layer.deform(image[None], draw))[0]
    control = control_grid(_GRID, _SIDE, _SIDE)

    fig, axes = style.figure(7.2, 5.4, nrows=3, ncols=4)
    with style.context():
        steps, (first, second) = axes[0], (axes[1], axes[2])
        _arrows(steps[0], control, draw[0], "")
        steps[0].set_title("(a) control points, sources", loc="left")
        steps[0].plot(control[:, 1], control[:, 0], "o", ms=3, color="0.2")
        pixels = control_grid(12, _SIDE, _SIDE)
        at = pixels.round().astype(int)
        field = flow[at[:, 0], at[:, 1]]
        _arrows(steps[1], pixels, field, "thin plate spline field")
        steps[2].imshow(image / 2 + 0.5)
        _arrows(steps[2], pixels, field, "field over the image")
        steps[3].imshow(deformed / 2 + 0.5)
        steps[3].set_title("deformed image")
        for axis in steps:
            axis.set(xlim=(-12, _SIDE + 11), ylim=(_SIDE + 11, -12), aspect="equal")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)

        points, reach, originals = _examples(results.preset)
        paper = RandomDeformation(points, reach, seed=0)
        copies = ops.convert_to_numpy(paper.deform(originals, paper.draw(len(originals), seed=1)))
        for axis, original in zip(first, originals):
            style.show(axis, original)
        for axis, copy in zip(second, copies):
            style.show(axis, copy)
        first[0].set_title("(b) originals", loc="left")
        second[0].set_title("deformed", loc="left")
    return fig


def caption(results):
    preset = results.preset
    points, reach, originals = _examples(preset)
    what = "Photographs"
    differs = "photographs bundled with scikit-image and scikit-learn in place of ImageNet's."
    if _has_own(preset):
        what = f"Images of {datasets.title(preset.large_dataset, preset.large_data_dir)}"
        differs = "which images are shown."
    return (
        "Figure 1. (a) Each point of a 4×4 control grid in the output image gets a random source "
        f"(arrows run from the source to the point; up to {_REACH:g} px in y and in x, more than the "
        "paper's strength, to be seen); a thin plate spline through them is the field; the deformed "
        f"image takes at an arrow's tip the original's colour at its tail. (b) {what} of "
        f"{originals.shape[1]} px and one deformation of each, {points}×{points} control points and "
        f"up to {reach:g} px, the paper's for ImageNet. {style.shifts((points, originals.shape[1]))} "
        f"Differs from the paper: {differs}"
    )


def _has_own(preset) -> bool:
    """Whether the larger images are read from disk, and large enough to be looked at."""
    return preset.large_data_dir is not None and preset.large_image_size >= 128


def _examples(preset):
    """(control points, reach, images) of panel b."""
    if not _has_own(preset):
        return 5, 10.0, np.stack([_square(name) for name in _EXAMPLES])
    source = (preset.large_dataset, preset.large_data_dir, preset.large_image_size)
    images = datasets.load(*source, train_images=20, test_images=512)
    _, first = np.unique(images.y_test, return_index=True)
    shown = images.x_test[np.sort(first)[: len(_EXAMPLES)]]
    return preset.large_control_points, preset.reach_of_large, shown


def _square(name):
    photo = photograph(name, _SIDE)
    top, left = ((side - _SIDE) // 2 for side in photo.shape[:2])
    return photo[top : top + _SIDE, left : left + _SIDE]


def _arrows(axis, points, displacements, title):
    """Arrows from the sources to the points, as the paper draws them."""
    (y, x), (dy, dx) = points.T, displacements.T
    unit = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "color": "C3"}
    axis.quiver(x + dx, y + dy, -dx, -dy, **unit)
    axis.set_title(title)
