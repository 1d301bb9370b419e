"""Figure 4: smoothness of the trained filters of each layer by kind of downsampling."""

from deformstab.paper.figures import style

STUDIES = ("large", "main")
TABLES = ("smoothness", "training")
CLAIMS = (
    "training-smooths",
    "smoothness-converges",
    "depth-trend",
    "labels-decide-smoothness",
    "init-smoothness-constant",
)
TITLE = "Smoothness of the filters of each layer by kind of downsampling, trained"

_PANELS = (
    ("a", "large", "true_labels", "larger images"),
    ("b", "main", "true_labels", "all five kinds"),
    ("c", "main", "random_labels", "random labels"),
)


def plot(results):
    fig, axes = style.figure(7.2, 3.0, ncols=3, sharey=True)
    with style.context():
        for axis, (letter, study, task, title) in zip(axes, _PANELS):
            style.panel(axis, letter, title)
            trained = results.smoothness(study, "trained", task)
            if trained.empty:
                style.not_run(axis)
                continue
            style.kind_lines(axis, trained, "smoothness")
            style.initial_line(axis, results.smoothness(study, "initial", task), "smoothness")
        shown = [results.smoothness(study, "trained", task) for _, study, task, _ in _PANELS]
        style.smoothness_limits(axes[0], *shown)
        axes[0].set_ylabel("TV(W) / ‖W‖₁   (lower is smoother)")
        style.legend(fig, axes, rows=2)
    return fig


def caption(results):
    preset = results.preset
    return (
        "Figure 4. Normalized total variation of the 3×3 filters of each layer after training; "
        "lines and bands: mean and ±2 standard deviations over seeds (not intervals; those of early "
        "layers, with few weights, reach over the panel); dotted: mean at initialization. (a) "
        f"{style.in_place_of('ImageNet', preset.large_dataset)}{results.describe('large')}. (b) "
        f"{style.in_place_of('CIFAR-10', preset.dataset)}{results.describe('main')}. (c) The same "
        f"with labels drawn at random once, {_accuracy(results)}. The 2×2 filters of "
        "strided convolutions are not comparable and left out."
    )


def _accuracy(results):
    training = results.training("main", "random_labels")
    if training.empty:
        return "not run"
    low, high = training["accuracy_train"].min(), training["accuracy_train"].max()
    chance = 1 / training["classes"].iloc[0]
    return f"of which the networks have learned {low:.0%} to {high:.0%} (chance {chance:.0%})"
