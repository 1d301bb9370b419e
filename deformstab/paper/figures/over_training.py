"""The claims about trained networks against the length of training."""

import numpy as np

from deformstab.paper.figures import style
from deformstab.paper.verdicts import claims_by_choice, training_paths
from deformstab.paper.verdicts.claims import CLAIMS as ALL_CLAIMS

STUDIES = ("main",)
TABLES = ("trajectory", "claims_over_training")
CLAIMS = (
    "training-changes-stability",
    "kinds-converge",
    "training-smooths",
    "smoothness-converges",
    "depth-trend",
    "labels-decide-smoothness",
    "labels-decide-stability",
)
TITLE = "What the claims would be, had training stopped earlier"
_DASHES = {"true_labels": "-", "random_labels": "--"}


def plot(results):
    table = claims_by_choice.claims_over_training(results)
    fig, axes = style.figure(7.2, 4.4, nrows=2, ncols=4, sharex=True)
    with style.context():
        _accuracy(axes.flat[0], training_paths.full_paths(results))
        for axis, claim, letter in zip(axes.flat[1:], CLAIMS, "bcdefgh"):
            style.panel(axis, letter, claim)
            rows = table[table["claim"] == claim] if len(table) else table
            if rows.empty or rows["value"].isna().all():
                style.not_run(axis)
            else:
                _draw(axis, rows, next(each for each in ALL_CLAIMS if each.id == claim))
        for axis in axes[-1]:
            axis.set_xlabel("step")
        style.legend(fig, [axes.flat[0]])
    return fig


def caption(results):
    return (
        "Claims over training. (a) Accuracy on the training images (mean over seeds, of networks that "
        "have ended as they ended; full: true labels, dashed: random labels). (b–h) Value of each "
        "claim with its 95 % interval had every network stopped at that step, or before, where it "
        "ended; dotted: the claimed bound, shaded on its claimed side; an interval that leaves the "
        "panel is unbounded or too wide to show. One path, not many tests. "
        f"{results.describe('main')}. "
        f"{style.shifts((results.preset.control_points, results.preset.image_size))} "
        "Statistics: claims.md; numbers: tables/claims_over_training.csv. Not in the paper."
    )


def _accuracy(axis, table):
    style.panel(axis, "a", "training accuracy")
    if table.empty:
        style.not_run(axis)
        return
    networks = table[table["study"] == "main"].drop_duplicates(
        ["task", "downsampling", "seed", "step"]
    )
    for (task, kind), rows in networks.groupby(["task", "downsampling"], sort=False):
        by_step = rows.pivot(index="step", columns="seed", values="accuracy_train")
        line = by_step.ffill().mean(axis=1).dropna()  # a network that has ended stays what it is
        label = style.KIND_LABELS[kind] if task == "true_labels" else None
        look = {"color": style.KIND_COLOURS[kind], "lw": 1, "label": label}
        axis.plot(line.index, line, _DASHES.get(task, ":"), **look)
    axis.set(xscale="log", ylim=(0, 1.02))


def _draw(axis, rows, claim):
    steps, low, high = rows["step"], rows["low"], rows["high"]
    axis.plot(steps, rows["value"], "o-", ms=2.5, lw=1, color="0.15")
    finite = rows[["value", "low", "high"]].replace([np.inf, -np.inf], np.nan)
    # Wide intervals of the first steps would flatten what follows: half of them are to fit.
    shown = [*finite["value"].dropna(), finite["low"].median(), finite["high"].median()]
    bottom, top = np.nanmin([*shown, claim.bound]), np.nanmax([*shown, claim.bound])
    bottom, top = (edge + sign * 0.1 * (top - bottom) for edge, sign in ((bottom, -1), (top, 1)))
    axis.fill_between(steps, low, high.clip(upper=10 * top), color="0.15", alpha=0.15, lw=0)
    axis.axhline(claim.bound, ls=":", lw=0.8, color="C2")
    edge = top if claim.below is None else bottom
    axis.axhspan(claim.bound, edge, color="C2", alpha=0.08, lw=0)
    axis.set(xscale="log", ylim=(bottom, top))
    axis.xaxis.set_major_formatter("{x:g}")
