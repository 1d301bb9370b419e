"""The pooling arithmetic: how many one-pixel shifts the maximum of a window survives."""

import numpy as np

from deformstab.paper.figures import style
from deformstab.paper.verdicts.pooling_shifts import SHIFTS, pooling_shifts

STUDIES = ()
TABLES = ("pooling_shifts",)
CLAIMS = ()
TITLE = "How many one-pixel shifts the maximum of a pooling window survives"


def plot(results):
    table = pooling_shifts()
    fig, axes = style.figure(5.2, 2.6, ncols=2)
    with style.context():
        for axis, (window, counts) in zip(axes, table.groupby("window")):
            grid = counts.pivot(index="row", columns="column", values="kept")
            axis.imshow(grid, cmap="crest", vmin=0, vmax=len(SHIFTS))
            for row, column, kept in counts[["row", "column", "kept"]].to_numpy():
                axis.text(
                    column, row, f"{kept} / {len(SHIFTS)}", ha="center", va="center", color="w"
                )
            axis.hlines(np.arange(window - 1) + 0.5, -0.5, window - 0.5, color="w", lw=2)
            axis.vlines(np.arange(window - 1) + 0.5, -0.5, window - 0.5, color="w", lw=2)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            share = counts["kept"].mean() / len(SHIFTS)
            axis.set_title(f"{window}×{window} window: {share:.1%} on average")
    return fig


def caption(results):
    means = pooling_shifts().groupby("window")["kept"].mean()
    return (
        "Pooling arithmetic. By the place of the maximum in its window: the number of the "
        f"{len(SHIFTS)} one-pixel translations under which the window still holds it, counted by max "
        "pooling shifted images of one bright pixel. On average "
        + ", ".join(f"{mean:.2f} for {window}×{window}" for window, mean in means.items())
        + ". (The notes this follows say 3 and 5: for 3×3 that is a maximum on an edge.)"
    )
