"""The figure of the timings: how many times longer each candidate takes."""

import io
import pathlib
import textwrap

import matplotlib.pyplot as plt
import numpy as np

from deformstab.paper.figures.style import with_palette


def draw(table, path) -> None:
    """A panel a comparison: bars of time over that of the first candidate, quartiles as lines.

    Args:
        table: timings.csv.
        path: of a PNG.
    """
    names = list(dict.fromkeys(table["comparison"]))
    counts = [(table["comparison"] == name).sum() for name in names]
    figure, axes = plt.subplots(
        len(names),
        figsize=(8, 0.34 * sum(counts) + 0.85 * len(names)),
        gridspec_kw={"height_ratios": np.add(counts, 0.6)},
        layout="constrained",
        squeeze=False,
    )
    for axis, name in zip(axes[:, 0], names):
        rows = table[table["comparison"] == name]
        places = np.arange(len(rows))
        colours = ["#0072b2" if place == 0 else "#999999" for place in places]
        axis.barh(places, rows["ratio"], color=colours, height=0.7)
        ends = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
        axis.errorbar(rows["ratio"], places, xerr=ends, fmt="none", ecolor="black", elinewidth=1)
        for place, row in zip(places, rows.itertuples()):
            text = f" {row.ratio:.2f}   {_rate(row.images_per_second, name)}"
            axis.annotate(text, (max(row.ratio, row.ratio_high), place), va="center", fontsize=8)
        axis.set_yticks(places, rows["candidate"], fontsize=8)
        axis.invert_yaxis()
        axis.set_xscale("log" if rows["ratio"].max() > 8 else "linear")
        axis.set_xlim(right=rows["ratio_high"].max() * (4 if rows["ratio"].max() > 8 else 1.35))
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title("\n".join(textwrap.wrap(name, 70)), fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("time, as a multiple of the first one's (median and quartiles)")
    save(figure, path)


def save(figure, path) -> None:
    """Writes a figure as a PNG of few colours, small enough to be committed, and closes it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    pathlib.Path(path).write_bytes(with_palette(buffer).getvalue())
    plt.close(figure)


def _rate(images_per_second, name) -> str:
    if name == "import":
        return f"{1 / images_per_second:.2f} s"
    digits = 0 if images_per_second > 100 else 1
    return f"{images_per_second:,.{digits}f} images/s"
