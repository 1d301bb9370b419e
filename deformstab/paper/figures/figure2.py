"""Figure 2: sensitivity of each layer by kind of downsampling, before and after training."""

from deformstab.paper.figures import style

STUDIES = ("large", "main")
TABLES = ("sensitivity", "training")
CLAIMS = (
    "pooling-stabilizes-init",
    "training-changes-stability",
    "kinds-converge",
    "euclidean-agrees",
)
TITLE = "Sensitivity of each layer by kind of downsampling, at initialization and trained"

_PANELS = (
    ("a", "large", "initial", "larger images, initialization"),
    ("b", "large", "trained", "larger images, trained"),
    ("c", "main", "initial", "all five kinds, initialization"),
    ("d", "main", "trained", "all five kinds, trained"),
)


def plot(results, letters="abcd"):
    """The figure, or one with some of its rows: "ab" or "cd"."""
    rows = len(letters) // 2
    fig, axes = style.figure(7.2, 2.6 * rows, nrows=rows, ncols=2, sharey="row", squeeze=False)
    panels = [panel for panel in _PANELS if panel[0] in letters]
    with style.context():
        for axis, (letter, study, phase, title) in zip(axes.flat, panels):
            style.panel(axis, letter, title)
            table = results.sensitivity(study, phase)
            if table.empty:
                style.not_run(axis)
            else:
                style.kind_lines(axis, table, "sensitivity")
        for axis in axes[:, 0]:
            axis.set_ylabel("normalized sensitivity")
            axis.set_ylim(bottom=0)
        style.legend(fig, axes.flat)
    return fig


def caption(results):
    preset = results.preset
    main, large = preset.control_points, preset.large_control_points
    return (
        "Figure 2. Deformation sensitivity of the input (in), every convolution (block.number) and "
        "every downsampling layer (↓): mean cosine distance of an image to its deformed self, over "
        f"the median of all pairs of {results.measured_images('main')} test images, one draw an "
        "image. Lines: mean over seeds; bands: ±2 standard deviations over seeds (not intervals). "
        f"(a, b) {style.in_place_of('ImageNet', preset.large_dataset)}"
        f"{results.describe('large')}; {large}×{large} control points, "
        f"up to {preset.reach_of_large:.2f} px. (c, d) "
        f"{style.in_place_of('CIFAR-10', preset.dataset)}{results.describe('main')}; "
        f"{main}×{main} control points, up to {preset.max_displacement:g} px. "
        f"Inputs {style.SCALING_LABELS[preset.input_scaling]}; "
        "inference mode, batch normalization re-estimated after training. "
        + style.shifts((large, preset.large_image_size), (main, preset.image_size))
    )
