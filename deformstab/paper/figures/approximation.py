"""Figures A1 to A3: a deformation that approximates a change of pose, a translation, a rotation."""

import numpy as np
from keras import ops

from deformstab.deformations.splines import control_grid
from deformstab.deformations.warp import warp
from deformstab.paper.data.bundled import photograph
from deformstab.paper.figures import style
from deformstab.paper.verdicts import approximations

STUDIES = ()
TABLES = ("approximations",)
CLAIMS = ()
TITLES = {
    "pose": "A deformation that approximates a change of pose",
    "translation": "A deformation that approximates a translation",
    "rotation": "A deformation that approximates a rotation",
}


def plot(results, target: str):
    side = approximations.SIDE
    photo = photograph("coffee", side)[:side, 40 : 40 + side]
    _, displacements, exact, spline = approximations.approximation(target)
    images = {"original": photo, target: _warp(photo, exact), "deformation": _warp(photo, spline)}
    fig, axes = style.figure(7.2, 2.3, ncols=4)
    with style.context():
        for axis, (title, image) in zip(axes, images.items()):
            style.show(axis, image)
            axis.set_title(title)
        axis = axes[-1]
        error = np.linalg.norm(spline - exact, axis=-1)
        # One scale for the three figures, in pixels, so that they can be compared.
        shown = axis.imshow(error, cmap="rocket_r", vmin=0, vmax=0.45)
        control = control_grid(approximations.CONTROL_POINTS, side, side)
        (y, x), (dy, dx) = control.T, displacements.T
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008, "color": "C0"}
        axis.quiver(x + dx, y + dy, -dx, -dy, **arrows)
        axis.set(xlim=(-12, side + 11), ylim=(side + 11, -12), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_title("control points; error (px)")
        fig.colorbar(shown, ax=axis, shrink=0.8)
    return fig


def caption(results, target: str):
    row = approximations.approximations().set_index("target").loc[target]
    number = {"pose": "A1", "translation": "A2", "rotation": "A3"}[target]
    what = {
        "pose": f"a turn of the image plane by {row.strength:.1f}° around its vertical axis",
        "translation": f"a translation by {row.strength:.0f} px in y and in x",
        "rotation": f"a rotation by {row.strength:.1f}°",
    }[target]
    return (
        f"Figure {number}. The displacements that {what} has at the 5×5 control points (arrows, all "
        "within the 10 px of the paper's ImageNet deformations) and the thin plate spline through "
        f"them. The target moves pixels by {row.rms_flow:.2f} px (root mean square), the spline is "
        f"off by {row.rms_error:.2g} px (at most {row.max_error:.2g}): a spline reproduces affine "
        "maps exactly. Differs from the paper, which shows examples: here the error is computed."
    )


def _warp(photo, flow):
    return ops.convert_to_numpy(warp(photo[None], flow[None].astype("float32")))[0]
