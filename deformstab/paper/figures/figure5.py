"""Figure 5: what decides sensitivity: smooth initial filters, and random labels."""

import seaborn as sns

from deformstab.networks.vgg import CIFAR10_BLOCKS
from deformstab.paper.figures import style

STUDIES = ("filters", "main")
TABLES = ("sensitivity", "training")
CLAIMS = ("smooth-filters-stabilize", "labels-decide-stability")
TITLE = "Sensitivity with smoothed initial filters, and after training on random labels"


def plot(results):
    fig, axes = style.figure(7.2, 3.3, ncols=2, sharey=False)
    with style.context():
        left, right = axes
        style.panel(left, "a", "initial filters smoothed by a Gaussian")
        smoothed = results.sensitivity("filters", "initial")
        if smoothed.empty:
            style.not_run(left)
        else:
            sigmas = results.preset.sigmas
            colours = dict(zip(sigmas, sns.color_palette("crest", len(sigmas))))
            labels = {sigma: f"σ = {sigma:g}" for sigma in sigmas}
            style.lines(left, smoothed, "sensitivity", "sigma", colours, labels)
            left.set_ylim(bottom=0)
            left.legend(loc="upper left")
        left.set_ylabel("normalized sensitivity")
        style.panel(right, "b", "trained on random labels")
        trained = results.sensitivity("main", "trained", "random_labels")
        if trained.empty:
            style.not_run(right)
        else:
            style.kind_lines(right, trained, "sensitivity")
            right.set_ylim(bottom=0)
            right.legend(loc="upper left")
    return fig


def caption(results):
    preset = results.preset
    kind = style.KIND_LABELS[preset.filters_downsampling]
    points = preset.control_points
    others = {"data": preset.dataset != "cifar10", "width": preset.blocks != CIFAR10_BLOCKS}
    others = " and ".join(name for name, differs in others.items() if differs)
    differs = f"Differs from the paper: {others}; " if others else "Choices of ours: "
    return (
        "Figure 5. Deformation sensitivity of each layer; lines and bands: mean and ±2 standard "
        f"deviations over seeds (not intervals). (a) At initialization, {kind}, the random filters "
        "first convolved with a Gaussian of standard deviation σ and scaled back to their norm. (b) "
        "After training "
        f"on random labels, by kind of downsampling. Data and network: {results.describe('main')}; "
        f"{results.measured_images('main')} test images, {points}×{points} control points, up "
        f"to {preset.max_displacement:g} px. {style.shifts((points, preset.image_size))} "
        f"{differs}the paper names neither the length of training nor the kind of downsampling of "
        "(a)."
    )
