"""What `docs/findings.md` says of committed results, recomputed from their tables."""

import numpy as np
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


def claims(folder):
    return read_csv(ROOT / "results" / folder / "tables" / "claims.csv")
