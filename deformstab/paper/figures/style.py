"""How figures look: pretty names, colours, axes, captions. Tables keep the raw names."""

import io
import logging
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from deformstab.deformations.parts import energy_shares
from deformstab.tables import write_bytes

# It tells at INFO, which absl shows, which letters of a font a PDF keeps.
logging.getLogger("fontTools").setLevel(logging.WARNING)

SCALING_LABELS = {
    "symmetric": "in [-1, 1]",
    "unit": "in [0, 1]",
    "standardized": "standardized by channel",
}
_PALETTE = sns.color_palette("colorblind")
_KINDS = {  # what figures call a kind of downsampling, its colour and its marker
    "subsample": ("subsampling", _PALETTE[0], "o"),
    "max": ("max pooling", _PALETTE[1], "s"),
    "average": ("average pooling", _PALETTE[2], "D"),
    "strided": ("strided convolution", _PALETTE[3], "^"),
    "strided_relu": ("strided convolution + ReLU", _PALETTE[4], "v"),
    "blur": ("blur pooling", _PALETTE[5], "P"),
    "max_blur": ("max blur pooling", _PALETTE[6], "X"),
    "aps": ("adaptive sampling", _PALETTE[9], "*"),
    "max_aps": ("max + adaptive sampling", _PALETTE[8], "h"),
}
KIND_LABELS = {kind: label for kind, (label, _, _) in _KINDS.items()}
KIND_COLOURS = {kind: colour for kind, (_, colour, _) in _KINDS.items()}
KIND_MARKERS = {kind: marker for kind, (_, _, marker) in _KINDS.items()}

_CONDITIONS = ["study", "downsampling", "class_displacement"]

# No date in the PDF: the same results give the same bytes.
_DPI = 130  # a page wide, and small enough to be committed
_COLOURS = 256  # of a PNG: a figure takes a third of the bytes
_FLAT = 32  # of them the most frequent ones: background, lines, bands
_FORMATS = {"png": {"dpi": _DPI}, "pdf": {"metadata": {"CreationDate": None}}}
_RC = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


def figure(width: float, height: float, **subplots):
    """(figure, axes) of a size in inches, laid out without overlap."""
    with plt.rc_context(_RC):
        return plt.subplots(figsize=(width, height), layout="constrained", **subplots)


def context():
    """The rc context that everything drawn on a figure of `figure` is drawn in."""
    return plt.rc_context(_RC)


def layer_label(name: str) -> str:
    """A short axis label: `block2_conv1_relu` → 2.1, `block2_downsample` → ↓2, `input` → in."""
    if name == "input":
        return "in"
    block, rest = name.removeprefix("block").split("_", 1)
    number = rest.removeprefix("conv").split("_")[0]
    return f"↓{block}" if rest.startswith("downsample") else f"{block}.{number}"


def lines(axis, table: pd.DataFrame, y: str, hue: str, colours: dict, labels: dict, markers=None):
    """Mean over seeds with a band of ±2 standard deviations, one line for each value of `hue`.

    Raises:
        ValueError: a seed has several rows for one point, which a mean would hide; a value of `hue`
            has no colour, so that its line would be left out.
    """
    check_labels(table[hue], colours, hue)
    key = [hue, "seed", "layer"]
    if table.duplicated(key).any():
        raise ValueError(f"several rows for one of {key}; select one condition first")
    order = [value for value in colours if value in set(table[hue])]
    markers = markers or dict.fromkeys(order, "o")
    layers = table.drop_duplicates("layer").sort_values("layer_index")["layer"]
    positions = {layer: place for place, layer in enumerate(layers)}
    sns.lineplot(
        table.assign(position=table["layer"].map(positions)),
        x="position",
        y=y,
        hue=hue,
        hue_order=order,
        palette=colours,
        style=hue,
        style_order=order,
        markers=markers,
        dashes=False,
        errorbar=("sd", 2),
        err_kws={"alpha": 0.15, "linewidth": 0},
        markersize=4,
        linewidth=1.2,
        legend=False,
        ax=axis,
    )
    axis.set_xticks(list(positions.values()), [layer_label(layer) for layer in layers])
    if len(layers) > 10:
        axis.tick_params(axis="x", labelsize=5.5)
    axis.set(xlabel="layer", ylabel="")
    for value in order:  # handles with both colour and marker, for one legend a figure
        axis.plot(
            [],
            [],
            color=colours[value],
            marker=markers[value],
            markersize=4,
            linewidth=1.2,
            label=labels[value],
        )


def check_labels(values, known, name: str) -> None:
    """Refuses what figures have no label and no colour for: they would leave it out silently.

    Args:
        values: that are to be shown.
        known: those that can be.
        name: of the column that the values are of.
    """
    missing = sorted({str(value) for value in values if value not in known})
    if missing:
        raise ValueError(
            f"figures have no label for {name} {', '.join(missing)}; those with one are "
            f"{', '.join(map(str, known))}. Labels are in deformstab/paper/figures/style.py"
        )


def kind_lines(axis, table, y):
    """`lines` by kind of downsampling, in the colours and order that kinds have everywhere."""
    lines(axis, table, y, "downsampling", KIND_COLOURS, KIND_LABELS, KIND_MARKERS)


def initial_line(axis, table: pd.DataFrame, y: str):
    """The dotted line: the mean at initialization, over kinds and seeds, of each layer."""
    mean = table.groupby("layer")[y].mean()
    layers = table.drop_duplicates("layer").sort_values("layer_index")["layer"]
    axis.plot(range(len(layers)), mean[layers], ":", color="0.2", lw=1.2, label="initialization")


def legend(fig, axes, rows: int = 1):
    """One legend below all panels, each entry once, in so many rows."""
    entries = {}
    for axis in axes:
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels())))
    if not entries:
        return
    order = [*KIND_LABELS.values(), *entries]  # kinds in their order, whichever panel came first
    entries = dict(sorted(entries.items(), key=lambda entry: order.index(entry[0])))
    space = (0.17 * rows + 0.06) / fig.get_figheight()
    fig.get_layout_engine().set(rect=(0, space, 1, 1 - space))
    columns = -(-len(entries) // rows)
    fig.legend(
        entries.values(), entries.keys(), loc="lower center", bbox_to_anchor=(0.5, 0), ncols=columns
    )


def smoothness_limits(axis, *tables):
    """Limits the y axis to all means and the bands of the later half of the layers.

    Early layers have so few weights that their bands alone would decide the scale.
    """
    bounds = []
    for table in tables:
        if table.empty:
            continue
        late = table["layer_index"] > table["layer_index"].median()
        points = table.groupby([late, "layer", *_CONDITIONS])["smoothness"]
        mean, deviation = points.mean(), points.std(ddof=1).fillna(0)
        bounds += [mean.min(), mean.max()]
        bounds += [(mean - 2 * deviation)[True].min(), (mean + 2 * deviation)[True].max()]
    if bounds:
        margin = 0.1 * (max(bounds) - min(bounds))
        axis.set_ylim(min(bounds) - margin, max(bounds) + margin)


def panel(axis, letter: str, title: str):
    """A panel's title, with its letter."""
    axis.set_title(f"({letter}) {title}", loc="left")


def in_place_of(papers: str, dataset: str) -> str:
    """For captions: that data are not those of the paper."""
    same = dataset == papers.lower().replace("-", "")
    return "" if same else f"In place of {papers}: "


def shifts(*grids: tuple[int, int]) -> str:
    """For captions: how much of the deformations on a grid of (points, pixels) a side is a shift."""
    shares = [
        f"{energy_shares((points, points), side, side)['translation']:.0%} ({points}×{points} "
        f"points at {side} px)"
        for points, side in dict.fromkeys(grids)
    ]
    return (
        "A random deformation also shifts the image: of the mean square displacement "
        f"{' and '.join(shares)} {'is' if len(shares) == 1 else 'are'} translation."
    )


def not_run(axis):
    """Says in a panel that its runs were not asked for."""
    axis.text(0.5, 0.5, "not run", ha="center", va="center", color="0.5", transform=axis.transAxes)
    # The ticks of an axis that is shared are its neighbours' too.
    if len(axis.get_shared_x_axes().get_siblings(axis)) == 1:
        axis.set_xticks([])
    if len(axis.get_shared_y_axes().get_siblings(axis)) == 1:
        axis.set_yticks([])


def show(axis, image):
    """An image in [-1, 1] without axes; one channel is grey."""
    image = (image + 1) / 2
    grey = image.shape[-1] == 1
    axis.imshow(image.squeeze(-1) if grey else image, cmap="gray" if grey else None, vmin=0, vmax=1)
    axis.set_axis_off()


def save(fig: Figure, caption: str, path) -> None:
    """Writes a figure as PNG and PDF, its caption below it; `path` has no suffix."""
    with context():
        # Arranged once; the caption then stands below what was arranged, and the figure grows.
        fig.draw_without_rendering()
        fig.set_layout_engine("none")
        width, height = fig.get_size_inches()
        text = textwrap.fill(caption, int(width * 18))
        # Whole pixels, so that a longer caption moves nothing of the figure above it.
        space = round((0.135 * (text.count("\n") + 1) + 0.15) * _DPI) / _DPI
        fig.text(0.01, -0.08 / height, text, va="top", ha="left", fontsize=7, color="0.25")
        box = Bbox.from_extents(0, -space, width, height)
        for suffix, options in _FORMATS.items():
            buffer = io.BytesIO()
            fig.savefig(buffer, format=suffix, bbox_inches=box, **options)
            written = buffer if suffix == "pdf" else with_palette(buffer)
            write_bytes(written.getvalue(), f"{path}.{suffix}")
    plt.close(fig)


def with_palette(png: io.BytesIO) -> io.BytesIO:
    """The same picture in 256 colours: the most frequent ones exactly, photographs dithered.

    Args:
        png: a PNG file.

    Returns:
        Another one, a third of its size or less.
    """
    opened = Image.open(png)
    image = opened.convert("RGB")
    codes = np.asarray(image) @ np.array([1 << 16, 1 << 8, 1])
    found, counts = np.unique(codes, return_counts=True)
    flat = np.sort(found[np.argsort(-counts, kind="stable")[:_FLAT]])
    others = image.quantize(_COLOURS - len(flat))
    pixels = np.array(image.quantize(palette=others))
    # Pillow finds the nearest colour of a palette to some bits only: white would be off-white.
    place = np.searchsorted(flat, codes).clip(max=len(flat) - 1)
    pixels = np.where(flat[place] == codes, _COLOURS - len(flat) + place, pixels)
    palette = np.zeros((_COLOURS, 3), "uint8")
    of_others = np.reshape(others.getpalette(), (-1, 3))[: _COLOURS - len(flat)]
    palette[: len(of_others)] = of_others
    palette[_COLOURS - len(flat) :] = flat[:, None] >> [16, 8, 0] & 255
    image, written = Image.fromarray(pixels.astype("uint8")), io.BytesIO()
    image.putpalette(palette.tobytes())
    image.save(written, "png", optimize=True, dpi=opened.info.get("dpi"))
    return written
