"""The reader's note on convolution and pooling: a panel a statement, measured beside on paper."""

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import mean_interval
from deformstab.paper.figures import style

STUDIES = ("note",)
TABLES = (
    *("note_statements", "note_sparse", "note_sharing", "note_symmetries", "note_maxima"),
    *("note_units", "note_gains"),
)
CLAIMS = ()
TITLE = "What the note on convolution and pooling says, measured"
_STATES = {  # label, colour, marker
    "initial": ("before training", "0.5", "o"),
    "trained": ("trained", style.KIND_COLOURS["max"], "s"),
    "trained on turned": ("trained on turned digits", style.KIND_COLOURS["average"], "D"),
}
_DEFORMATIONS = ("rotation", "scaling", "translation", "spline")
_ON_PAPER = {"color": "0.15", "marker": "_", "linestyle": "", "markersize": 13, "label": "on paper"}
_BAR = style.KIND_COLOURS["strided"]
_KERNELS = ("one for\nall", "equal\ncopies", "one\nchanged", "one of\nits own\neach")


def plot(results):
    fig, axes = style.figure(7.2, 5.0, nrows=2, ncols=3)
    panels = (
        ("one pixel reaches few units", "note_sparse", _sparse),
        ("one kernel for all places", "note_sharing", _sharing),
        ("convolution only moves", "note_symmetries", _symmetries),
        ("maxima that stay", "note_maxima", _maxima),
        ("a stride saves work", "note_units", _units),
        ("learned by groups of filters?", "note_gains", _gains),
    )
    with style.context():
        for letter, axis, (title, name, draw) in zip("abcdef", axes.flat, panels):
            style.panel(axis, letter, title)
            table = results.tables.get(name, pd.DataFrame())
            if len(table):
                draw(axis, table)
            else:
                style.not_run(axis)
    return fig


def _sparse(axis, table):
    labels = {"subsample": "subsampling", "max": "2×2 windows"}
    for kind, label in labels.items():
        rows = table[table["kind"] == kind].sort_values("layer_index")
        look = {"color": style.KIND_COLOURS[kind], "markersize": 4, "linestyle": ""}
        places = rows["layer_index"]
        axis.plot(places, rows["field_x"], marker=style.KIND_MARKERS[kind], label=label, **look)
        axis.plot(places, rows["field"], **_ON_PAPER | {"markersize": 8})
    axis.set_xticks(places, [style.layer_label(name) for name in rows["layer"]])
    axis.tick_params(axis="x", labelsize=5.5)
    axis.set(xlabel="layer", ylabel="receptive field, pixels", ylim=(0, None))
    _legend(axis, "upper left")


def _sharing(axis, table):
    axis.bar(range(len(table)), table["moves_with"], color=_BAR, width=0.6)
    for place, value in enumerate(table["moves_with"]):
        text = "0" if value == 0 else f"{value:.3g}"
        axis.text(place, value, text, ha="center", va="bottom", fontsize=7)
    axis.set_xticks(range(len(table)), _KERNELS[: len(table)])
    axis.set(ylabel="does not move with its image", ylim=(0, 1.25 * table["moves_with"].max()))


def _symmetries(axis, table):
    order = [("translation", "any"), ("rotation", "any"), ("scale", "any")]
    order.append(("rotation", "turned alike"))
    looks = {"white": ("noise", "o", "strided"), "photograph": ("photographs", "D", "average")}
    for shift, (image, (label, marker, kind)) in zip((-0.12, 0.12), looks.items()):
        rows = table[table["image"] == image].set_index(["transform", "filters"]).loc[order]
        places = np.arange(len(rows)) + shift
        bars = np.abs(rows[["low", "high"]].to_numpy().T - rows["error"].to_numpy())
        look = {"color": style.KIND_COLOURS[kind], "markersize": 4, "linestyle": ""}
        axis.errorbar(places, rows["error"], bars, marker=marker, label=label, **look)
        if image == "white":
            axis.plot(places, rows["expected"], zorder=3, **_ON_PAPER)
    names = ["moved", "turned\n90°", "halved", "turned,\nalike\nfilters"]
    axis.set_xticks(range(len(order)), names)
    axis.set(ylabel="relative error of the map", ylim=(-0.1, 3.0))
    _legend(axis, "upper right")


def _maxima(axis, table):
    wanted = [("bright pixel", "corner"), ("bright pixel", "edge"), ("bright pixel", "centre")]
    wanted += [("bright pixel", "any"), ("noise", "any"), ("photograph", "any")]
    looks = {2: ("2×2", "o", "max"), 3: ("3×3", "s", "strided")}
    for shift, (window, (label, marker, kind)) in zip((-0.15, 0.15), looks.items()):
        rows = table[table["window"] == window].set_index(["image", "place"]).reindex(wanted)
        places = np.arange(len(wanted)) + shift
        bars = np.abs(rows[["low", "high"]].to_numpy().T - rows["kept"].to_numpy())
        look = {"color": style.KIND_COLOURS[kind], "markersize": 4, "linestyle": ""}
        axis.errorbar(places, rows["kept"], bars, marker=marker, label=label, **look)
        axis.plot(places, rows["expected"], zorder=3, **_ON_PAPER | {"markersize": 9})
    names = ["corner", "edge", "centre", "any\nplace", "noise", "photo-\ngraphs"]
    axis.set_xticks(range(len(wanted)), names)
    axis.tick_params(axis="x", labelsize=6)
    axis.set(
        xlabel="bright pixel at …            other images", ylabel="share of windows", ylim=(0, 1.3)
    )
    _legend(axis, "upper right")


def _units(axis, table):
    whole = table.set_index("kind").loc["none"]
    rows = table[table["kind"] != "none"]
    for shift, (name, colour) in zip(
        (-0.2, 0.2), (("units", "subsample"), ("multiplications", "strided"))
    ):
        shares = 100 * rows[name] / whole[name]
        places = np.arange(len(rows)) + shift
        axis.bar(places, shares, 0.36, color=style.KIND_COLOURS[colour], label=name)
        for place, share in zip(places, shares):
            axis.text(place, share, f"{share:.1f}", ha="center", va="bottom", fontsize=5.5)
    names = ["sub-\nsampling", "max", "aver-\nage", "strided", "strided\n+ ReLU"]
    axis.set_xticks(range(len(rows)), names[: len(rows)])
    axis.tick_params(axis="x", labelsize=6)
    axis.set(ylabel="% of those without", ylim=(0, 22))
    _legend(axis, "upper right")


def _gains(axis, table):
    rows = table[(table["metric"] == "cosine") & (table["output"] == "map")]
    for shift, (state, (label, colour, marker)) in zip((-0.22, 0, 0.22), _STATES.items()):
        for place, deformation in enumerate(_DEFORMATIONS):
            chosen = rows[(rows["state"] == state) & (rows["deformation"] == deformation)]
            if not len(chosen):
                continue
            mean, low, high = np.exp(mean_interval(np.log(chosen["gain"])))
            look = {"color": colour, "marker": marker, "linestyle": "", "markersize": 4}
            shown = label if place == 0 else None
            bars = None if np.isnan(low) else [[mean - low], [high - mean]]
            axis.errorbar([place + shift], [mean], bars, label=shown, **look)
    axis.axhline(1, color="0.15", linewidth=0.7)
    axis.set_xticks(range(len(_DEFORMATIONS)), ["rotation", "scaling", "translation", "spline"])
    axis.set(ylabel="Gain   (below 1: more stable)")
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.45 * (high - low))
    _legend(axis, "upper right")


def _legend(axis, place):
    entries = dict(zip(*reversed(axis.get_legend_handles_labels())))
    entries = dict(sorted(entries.items(), key=lambda entry: entry[0] == "on paper"))  # last
    axis.legend(entries.values(), entries.keys(), loc=place, fontsize=6, handletextpad=0.4)


def caption(results):
    table = results.tables.get("note_gains", pd.DataFrame())
    seeds, rms = 0, np.nan
    if len(table):
        small = table[table["deformation"].isin(_DEFORMATIONS)]
        seeds, rms = table["seed"].nunique(), small["rms_displacement"].mean()
    sharing = results.tables.get("note_symmetries", pd.DataFrame())
    kernels = int(sharing["count"].max()) if len(sharing) else 0
    gains = (
        f" (f) Sensitivity (cosine) of maxima over groups of four 5×5 filters, over that of maxima over "
        f"the same filters in random groups; scikit-learn's 8×8 digits at 28 px, {seeds} networks, "
        f"deformations of {rms:.2f} px RMS. Bars: 95 % intervals over networks."
    )
    return (
        "The statements of a note on convolution and pooling, measured. Black dashes: what follows "
        "on paper. (a) How many pixels of a row change a unit in the middle of a map. (b) How far a "
        "3×3 layer is from moving by a pixel with its image, squared, over the median squared "
        "distance between images: with one kernel, copies of it at each place, one copy of 256 "
        f"changed, and a kernel of its own at each place. (c) {kernels} random 3×3 kernels: squared "
        "relative difference between the map of a changed image and the changed map. (d) Windows "
        "whose maximum is the same after a shift by a pixel, mean over the eight. (e) What is left "
        "of units and multiplications of the paper's CIFAR-10 network where each block halves the "
        "image." + gains * bool(len(table))
    )
