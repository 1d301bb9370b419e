"""What `docs/findings.md` says of committed results, recomputed from their tables."""

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from scipy import stats

from deformstab.paper.pages import claims_page
from deformstab.tables import read_csv

FINDINGS = " ".join((ROOT / "docs" / "findings.md").read_text(encoding="utf-8").split())


def logs_by_seed(folder, quantity, phase):
    """Mean log over the layers of the cell that was run on two backends, for each seed."""
    table = read_csv(ROOT / "results" / folder / "tables" / f"{quantity}.csv")
    rows = table["downsampling"].eq("max") & table["task"].eq("true_labels")
    rows &= table["study"].eq("main") & table["phase"].eq(phase) & table["layer"].ne("input")
    if quantity == "sensitivity":
        rows &= table["metric"].eq("cosine")
    return np.log(table[rows].set_index("seed")[quantity]).groupby("seed").mean()


@pytest.mark.parametrize("phase", ["initial", "trained"])
@pytest.mark.parametrize("quantity", ["sensitivity", "smoothness"])
def test_jax_and_tensorflow_agree_within_seed_noise(quantity, phase):
    jax = logs_by_seed("cifar10-small-jax", quantity, phase)
    tensorflow = logs_by_seed("cifar10-small", quantity, phase)
    assert (len(jax), len(tensorflow)) == (3, 5)
    welch = stats.ttest_ind(jax, tensorflow, equal_var=False)
    low, high = np.exp(welch.confidence_interval())
    assert low < 1 < high
    value, digits = np.exp(jax.mean() - tensorflow.mean()), 2 if quantity == "sensitivity" else 3
    assert f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" in FINDINGS


def test_claims_on_fresh_seeds_are_those_of_the_committed_tables():
    first, fresh = (
        [line.strip("| ").split(" | ") for line in claims_page.short_table(claims(folder))[2:]]
        for folder in ("cifar10-small", "cifar10-small-confirmation")
    )
    rows = []
    for (claim, figure, _, claimed, value, _), (*same, fresh_value, verdict) in zip(first, fresh):
        assert (claim, figure, claimed) == (same[0], same[1], same[3])
        if verdict != "not tested":
            rows.append(f"| {claim} | {figure} | {claimed} | {value} | {fresh_value} | {verdict} |")
    assert len(rows) == 10
    table = "\n".join(rows)
    assert table in (ROOT / "docs" / "findings.md").read_text(encoding="utf-8"), table


def test_claims_by_the_number_of_images_are_those_of_the_committed_table():
    table = read_csv(ROOT / "results" / "cifar10-small" / "tables" / "claims_by_choice.csv")
    choices = ["half_the_images", "as stated, seeds 0, 1, 2", "twice_the_images"]
    table = table[table["choice"].isin(choices) & table["figure"].isin(["2d", "4b"])]
    table = table.assign(text=[claims_page._with_interval(row) for row in table.itertuples()])
    for claim, rows in table.groupby("claim"):
        cells = " | ".join(rows.set_index("choice")["text"][choices])
        assert f"| {cells} |" in FINDINGS, f"{claim}: {cells}"
    assert table["claim"].nunique() == 5


# ---- networks that others trained ----


def pretrained(name):
    table = read_csv(ROOT / "results" / "pretrained" / "tables" / f"pretrained_{name}.csv")
    return dict(list(table.groupby("network")))


@pytest.mark.parametrize("network", ["hed", "efficientnet-lite0", "fer"])
def test_what_is_said_of_other_networks_is_in_their_tables(network):
    def told(logs):
        mean, half = logs.mean(), stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
        value, low, high = np.exp([mean, mean - half, mean + half])
        return claims_page._with_interval(pd.Series({"value": value, "low": low, "high": high}))

    def change(quantity, state):
        rows = pretrained(quantity)[network]
        rows = rows[rows["layer"] != "input"].assign(value=lambda r: np.log(r[quantity]))
        trained = rows[rows["state"] == "trained"].set_index("layer_index")["value"]
        wide = rows[rows["state"] == state].pivot(
            index="layer_index", columns="seed", values="value"
        )
        return wide.rsub(trained, axis=0)

    smoother = change("smoothness", "random")
    slopes = [stats.linregress(range(len(smoother)), smoother[seed]).slope for seed in smoother]
    cells = [told(smoother.mean()), told(np.array(slopes))]
    cells.append(told(change("sensitivity", "random").mean()))
    normalized = change("sensitivity", "random_normalized").mean()
    cells.append(told(normalized) if len(normalized) else "has none")
    assert f"| {' | '.join(cells)} |" in FINDINGS, cells


def test_what_is_said_of_their_layers_is_in_the_tables():
    networks = ("hed", "efficientnet-lite0", "fer")
    found = [pretrained("sensitivity")[network].query("state == 'trained'") for network in networks]
    of = lambda numbers: "{:.2f}, {:.2f} and {:.2f}".format(*numbers)
    most = of([rows["sensitivity"].max() for rows in found])
    last = of([rows["sensitivity"].iloc[-1] for rows in found])
    first = of([rows["sensitivity"].iloc[0] for rows in found])
    assert f"in the first layers, to {most}, and falls in the later ones" in FINDINGS
    assert f"the last has {last}. The images themselves have {first}." in FINDINGS
    for rows in found:  # it rises in the first third, and falls after
        assert rows["sensitivity"].to_numpy().argmax() <= len(rows) / 3
    rows = pretrained("smoothness")["efficientnet-lite0"]
    by_state = {state: part.groupby("layer")["smoothness"] for state, part in rows.groupby("state")}
    ratio = (by_state["trained"].mean() / by_state["random"].mean()).filter(like="depthwise")
    halving = [ratio.pop(f"block{number}_depthwise") for number in (1, 3, 5, 11)]
    assert "{:.2f}, {:.2f}, {:.2f} and {:.2f} times".format(*halving) in FINDINGS
    assert f"the very last one {ratio.pop('block15_depthwise'):.2f}" in FINDINGS
    assert len(ratio) == 11
    assert f"the other eleven {ratio.min():.2f} to {ratio.max():.2f}" in FINDINGS
    answers = pretrained("networks")["efficientnet-lite0"].query("state == 'trained'").iloc[0]
    text = f"names {100 * answers.top1:.1f} % of {answers.answers} ImageNet photographs"
    assert text in FINDINGS


def claims(folder):
    return read_csv(ROOT / "results" / folder / "tables" / "claims.csv")


# ---- the note on convolution and pooling ----

NOTE = ROOT / "results" / "note" / "tables"
PAGE = " ".join((ROOT / "docs" / "convolution_and_pooling.md").read_text("utf-8").split())


def told(number):
    """With four digits, whole numbers whole."""
    return f"{int(number):,}" if float(number).is_integer() else f"{number:.4g}"


def with_interval(row, name):
    value, low, high = (told(row[each]) for each in (name, "low", "high"))
    return value if low == high else f"{value} ({low} to {high})"


def test_the_page_on_convolution_has_the_counts_of_the_tables():
    sparse, counts = read_csv(NOTE / "note_sparse.csv"), read_csv(NOTE / "note_counts.csv").iloc[0]
    fields = {kind: rows["field_x"].to_list() for kind, rows in sparse.groupby("kind")}
    for kind in ("max", "subsample"):
        blocks = [", ".join(map(str, fields[kind][at : at + 3])) for at in range(0, 12, 3)]
        assert ", then ".join(blocks) in PAGE
    assert (sparse["field_x"] == sparse["field_y"]).all()
    assert f"All {len(sparse)} layers see exactly that" in PAGE
    pairs, changed = (sparse[name].sum() for name in ("pairs_outside", "changed_outside"))
    assert (
        f"Of {pairs:,} pairs of a pixel and a unit that does not see it, {changed} changed" in PAGE
    )
    assert (
        f"this takes {counts['parameters']:.0f} parameters and {counts['operations']:,.0f} op"
        in PAGE
    )
    assert (
        f"has {counts['matrix_entries']:,.0f} entries and takes {counts['ratio']:,.0f} times"
        in PAGE
    )
    sharing = read_csv(NOTE / "note_sharing.csv").set_index("weights")
    assert (sharing.loc[["shared", "equal copies"], "largest_difference"] == 0).all()
    names = ("one for all places", "equal copies", "one of the 256 copies changed")
    for name, value in zip((*names, "one of its own at each place"), sharing["moves_with"]):
        assert f"| {name} | {f'{value:.3g}'} |" in PAGE
    units = read_csv(NOTE / "note_units.csv").set_index("kind")
    shares = 100 * units["units"] / units.loc["none", "units"]
    assert f"{shares['max']:.1f} % of the units are left" in PAGE
    assert f"{100 * units.loc['max', 'of_none']:.1f} % of the multiplications" in PAGE
    assert f"multiply too, it is {100 * units.loc['strided', 'of_none']:.1f} %" in PAGE
    assert units["of_none"][["subsample", "average"]].eq(units.loc["max", "of_none"]).all()


def test_the_page_on_convolution_has_the_simulations_of_the_tables():
    table = read_csv(NOTE / "note_symmetries.csv").set_index(["filters", "transform", "image"])
    rows = {
        "moved": ("any", "translation"),
        "turned by 90°": ("any", "rotation"),
        "every second pixel kept": ("any", "scale"),
        "turned by 90°, kernels that are alike when turned": ("turned alike", "rotation"),
    }
    for name, key in rows.items():
        white, photographs = table.loc[(*key, "white")], table.loc[(*key, "photograph")]
        cells = f"{told(white['expected'])} | {with_interval(white, 'error')}"
        assert f"| {name} | {cells} | {with_interval(photographs, 'error')} |" in PAGE
    table = read_csv(NOTE / "note_maxima.csv")
    table = table[table["place"] == "any"].set_index(["image", "window"])
    images = {"one bright pixel, anywhere": "bright pixel", "noise": "noise"}
    for name, image in images.items():
        both = [table.loc[(image, window)] for window in (2, 3)]
        cells = [f"{told(row['expected'])} | {with_interval(row, 'kept')}" for row in both]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE
    cells = [with_interval(table.loc[("photograph", window)], "kept") for window in (2, 3)]
    assert f"| photographs | | {cells[0]} | | {cells[1]} |" in PAGE


def test_the_page_on_convolution_has_the_gains_of_the_tables():
    table = read_csv(NOTE / "note_gains.csv")
    table = table[table["metric"] == "cosine"].set_index(["output", "state", "deformation"])

    def interval(output, state, deformation, name="gain"):
        logs = np.log(table.loc[(output, state, deformation), name].to_numpy())
        half = stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
        return np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])

    states = ("initial", "trained", "trained on turned")
    for name in ("rotation", "scaling", "translation", "spline"):
        found = [interval("map", state, name) for state in states]
        cells = ["{} ({} to {})".format(*map(told, each)) for each in found]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE
        for state in states:  # no Gain is below 1 by more than chance
            assert interval("map", state, name)[2] >= 1
            assert interval("maximum of the map", state, name)[2] >= 1
    made = "maximum of the map", "made of turns"
    baseline, *_ = interval(*made, "rotation", "gain_baseline")
    assert f"distances between images are {baseline:.2f} times" in PAGE
    whole = map(told, interval("map", "made of turns", "rotation"))
    assert "pays nothing that is clear: {} times ({} to {})".format(*whole) in PAGE
    text = "they are {:.1f} times as sensitive ({:.1f} to {:.1f})"
    assert text.format(*interval(*made, "rotation")) in PAGE
    assert (table.loc[(*made, "quarter turn"), "gain"] < 1e-6).all()
    turns = read_csv(NOTE / "note_turns.csv").set_index(["filters", "output"])["error"]
    assert (turns["maximum over its turns"] == 0).all()
    assert f"(by {turns['one filter', 'maximum of the map']:.4g}, squared" in PAGE
    filters = read_csv(NOTE / "note_filters.csv").groupby("state").mean(numeric_only=True)
    turned = 100 * filters["accuracy_turned"]
    text = f"{turned['trained on turned']:.1f} % of cases, in place of {turned['trained']:.1f} %"
    assert text in PAGE
    entropies = filters["entropy"]
    text = f"entropy of {entropies['trained']:.2f} bits, of 2 at most, and "
    assert f"{text}{entropies['trained on turned']:.2f} after turned training" in PAGE
    rms = table.drop("quarter turn", level="deformation")["rms_displacement"]
    assert f"move pixels by {rms.mean():.2f} px" in PAGE
    np.testing.assert_allclose(rms, rms.mean(), rtol=0.03)  # of 128 draws of splines
