"""Figure 3: tasks whose classes are one deformed image each, and the filters they lead to."""

import warnings

import numpy as np
import seaborn as sns

from deformstab.paper.data import datasets, tasks
from deformstab.paper.figures import style

STUDIES = ("tasks",)
TABLES = ("smoothness", "training")
CLAIMS = ("stronger-task-smoother",)
_EXAMPLES = 3  # of each class and strength

TITLE = "Synthetic tasks of deformed classes, and the smoothness of the filters they lead to"


def plot(results):
    preset = results.preset
    strengths = preset.class_displacements
    fig, axes = style.figure(7.2, 2.7, ncols=2, width_ratios=[1.15, 1])
    with style.context():
        left, right = axes
        style.panel(left, "a", "two classes, deformed up to C pixels")
        try:
            _examples(left, preset, strengths)
            left.set_axis_off()
        except OSError as error:  # a download, maybe after hours of runs that did not need it
            warnings.warn(f"panel 3a is not drawn: {error}", stacklevel=2)
            style.not_run(left)
        style.panel(right, "b", "smoothness of the trained filters")
        trained = results.smoothness("tasks", "trained", "deformed_classes")
        if trained.empty:
            style.not_run(right)
        else:
            colours = dict(zip(strengths, sns.color_palette("flare", len(strengths))))
            labels = {strength: f"C = {strength:g}" for strength in strengths}
            style.lines(right, trained, "smoothness", "class_displacement", colours, labels)
            initial = results.smoothness("tasks", "initial", "deformed_classes")
            style.initial_line(right, initial, "smoothness")
            style.legend(fig, [right])
            right.set_ylabel("TV(W) / ‖W‖₁   (lower is smoother)")
            style.smoothness_limits(right, trained, initial)
    return fig


def _examples(axis, preset, strengths):
    """Rows: C; columns: an original and its deformed examples, for two classes."""
    data = datasets.load(
        preset.tasks_dataset, preset.tasks_data_dir, preset.image_size, preset.train_images
    )
    labels = np.unique(data.y_train)
    shown = (2, 5) if len(labels) > 5 else (0, 1)  # numbers of classes, which tasks count from 0
    rows = []
    for strength in strengths:
        task = tasks.deformed_classes(data, preset.control_points, strength, seed=0)
        cells = []
        for number in shown:
            original = data.x_train[data.y_train == labels[number]][0]
            cells += [original, *task.x_train[task.y_train == number][:_EXAMPLES]]
        rows.append(np.concatenate(cells, axis=1))
    grid = np.concatenate(rows, axis=0)
    style.show(axis, grid)
    height, width = data.image_shape[:2]
    for number, strength in enumerate(strengths):
        axis.text(
            -0.15 * width, (number + 0.5) * height, f"C = {strength:g}", ha="right", va="center"
        )
    for column in (1, _EXAMPLES + 1, _EXAMPLES + 2):
        axis.axvline(column * width - 0.5, color="white" if column != _EXAMPLES + 1 else "C3", lw=1)


def _images(preset):
    if preset.tasks_dataset == "digits":
        return "scikit-learn's 8×8 digits, resized,"
    return f"images of {datasets.title(preset.tasks_dataset, preset.tasks_data_dir)}"


def caption(results):
    preset = results.preset
    points = preset.control_points
    return (
        "Figure 3. (a) Each class is one image (left of the line), its examples that image under "
        f"deformations of strength C on a {points}×{points} grid, here for two of the classes. (b) "
        "Normalized "
        "total variation of the 3×3 filters after training on each task; lines and bands: mean and "
        "±2 standard deviations over seeds (not intervals; those of early layers, with few weights, "
        "reach over the panel); dotted: initialization. "
        f"{style.KIND_LABELS[preset.tasks_downsampling].capitalize()}; {results.describe('tasks')}. "
        f"{style.shifts((points, preset.image_size))} "
        "Differs from the paper: "
        + ("" if preset.tasks_dataset == "mnist" else f"{_images(preset)} in place of MNIST, and ")
        + "the paper does not name the kind of downsampling."
    )
