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
