"""What `docs/answers.md` says of question 2, recomputed as the others are."""

import numpy as np
import pytest
from answers import FOLDER, PAGE, by_kind, table, told

from deformstab.tables import read_csv

PAIRS = (("aps", "subsample"), ("max_aps", "max"))
BEYOND = "beyond_translation"
ROWS = {  # of the table: what deviates from what the rule asks
    "layers: deformations without their shift": {},
    "the same, before training": {"phase": "initial"},
    "the same, trained, borders touch": {"outside": "circular"},
    "the same, trained, Euclidean distance": {"metric": "euclidean"},
    "layers: the shift in the deformations": {"change": "translation"},
    "layers: whole deformations": {"change": "full"},
    "layers: a shift by one whole pixel, borders touch": {
        "change": "whole pixel",
        "outside": "circular",
    },
    "layers: a shift in any direction, borders touch": {
        "change": "fraction",
        "outside": "circular",
    },
    "output: deformations without their shift": {"layers": "output"},
    " the same, before training": {"layers": "output", "phase": "initial"},
    "output: whole deformations": {"change": "full", "layers": "output"},
}


def logs_of(layers="all", **which):
    """Mean log sensitivity over layers: seeds × kinds."""
    rows = table("question_shifts", "circular")
    usual = {"change": BEYOND, "outside": "edge", "phase": "trained", "metric": "cosine"}
    for name, value in (usual | which).items():
        rows = rows[rows[name] == value]
    if layers == "output":  # which `by_kind` leaves out
        rows = rows[rows["layer"] == "logits"].assign(layer="output")
    places = {"first": (1, 2), "early": range(1, 7), "late": range(7, 13)}
    if layers in places:
        rows = rows[rows["layer_index"].isin(places[layers])]
    return by_kind(rows, "sensitivity")


def between(pair, **which):
    """What the first kind has over the second: logs by seed."""
    logs = logs_of(**which)
    return logs[pair[0]] - logs[pair[1]]


@pytest.mark.parametrize("row", ROWS)
def test_adaptive_kinds_beside_the_others(row):
    verdicts = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    verdicts = verdicts[verdicts["question"].astype(str) == "2"]
    cells = [told(between(pair, **ROWS[row]), 2) for pair in PAIRS]
    if not ROWS[row]:
        for place, (kind, _) in enumerate(PAIRS):
            (found,) = verdicts.loc[verdicts["what"].str.contains(f" {kind} /"), "verdict"]
            cells[place] += f", {found}"
        assert f"{np.exp(between(PAIRS[1]).mean()):.1f} times as sensitive" in PAGE
        by_seed = "{:.2f}, {:.2f} and {:.2f} times".format(*np.exp(between(PAIRS[1])))
        assert f"By seed, max pooling with adaptive sampling has {by_seed}" in PAGE
        (p,) = verdicts.loc[verdicts["what"].str.contains(" max_aps /"), "p"]
        assert f"p is {p:.3f}, since" in PAGE
    assert f"| {row.strip()} | {' | '.join(cells)} |" in PAGE


def test_which_layers():
    late, early = (told(between(PAIRS[1], layers=half), 2) for half in ("late", "early"))
    assert (
        f"in late layers (the last six), {late}, and less in early ones (the first six), {early}."
        in PAGE
    )
    first = [told(between(pair, layers="first"), 2) for pair in PAIRS]
    told_of = "they are {} times as sensitive as those of subsampling, with max pooling {} times"
    assert told_of.format(*first) in PAGE
    for pair in PAIRS:  # before it, weights are equal
        assert between(pair, layers="first", phase="initial").abs().max() < 1e-6
    output = np.exp(between(PAIRS[0], layers="output").mean())
    assert f"it is otherwise, {output:.2f} times for subsampling" in PAGE


def test_consistency():
    rows = table("question_consistency", "circular").query("phase == 'trained'")
    values = rows["consistency"].astype("float64")
    for kind, _ in PAIRS:
        assert values[rows["kind"] == kind].eq(1).all()
    percent = 100 * values.groupby(rows["kind"]).mean()
    names = ("subsample", "max", "average", "blur")
    told_of = (
        "subsampling gives the same answer to {:.0f} % of pairs of shifted images, max pooling"
    )
    told_of += " to {:.0f} %, average pooling to {:.0f} %, blur pooling to {:.0f} %"
    assert told_of.format(*percent[list(names)]) in PAGE


def test_other_kinds_of_pooling():
    pixel = told(between(("blur", "subsample"), change="whole pixel", outside="circular"), 2)
    kinds = [told(between((kind, "subsample")), 2) for kind in ("blur", "average", "max")]
    told_of = "a shift by one pixel is {} times that of subsampling, and that to deformations "
    told_of += "without their shift {}. With average pooling the second is {}, with max pooling {}."
    assert told_of.format(pixel, *kinds) in PAGE
    means = logs_of()[["blur", "average", "max", "subsample"]]  # from the least sensitive one
    assert means.mean().is_monotonic_increasing
    rows = table("question_consistency", "circular").query("phase == 'trained'")
    consistent = rows["consistency"].astype("float64").groupby(rows["kind"]).mean()
    assert consistent[means.columns].is_monotonic_decreasing


def test_how_long_they_were_trained():
    rows = table("question_training", "circular")
    epochs = rows["epochs"].astype("float64").groupby(rows["kind"]).mean()
    told_of = "{:.0f} epochs against {:.0f}, and {:.0f} against {:.0f} with max pooling."
    names = [name for pair in PAIRS for name in pair]
    assert told_of.format(*epochs[names]) in PAGE


def held(phase, kind, reference, output=False):
    """Logs, choices free and held, over those of the kind without choices: a number a seed each."""
    rows = read_csv(FOLDER / "held_choices.csv")
    rows = rows[(rows["phase"] == phase) & ((rows["layer"] == "logits") == output)]
    rows = rows[~rows["layer"].isin(["block1_conv1_relu", "block1_conv2_relu"])]
    keys = ["seed", "downsampling", "choices"]
    logs = np.log(rows["sensitivity"]).groupby([rows[key] for key in keys]).mean()
    wide = logs.unstack([1, 2])
    wide = wide.loc[:, [(kind, "free"), (kind, "held"), (reference, "free")]].dropna()
    return [wide[kind, choices] - wide[reference, "free"] for choices in ("free", "held")]


@pytest.mark.parametrize("pair", PAIRS)
def test_held_choices(pair):
    named = {"aps": "adaptive sampling / subsampling"}
    named["max_aps"] = "max pooling with adaptive sampling / max pooling"
    before, after = (held(phase, *pair) for phase in ("initial", "trained"))
    assert [len(both[0]) for both in (before, after)] == [5, 2]
    cells = [told(each, 2) for each in before]
    cells += [" and ".join(f"{np.exp(value):.2f}" for value in each) for each in after]
    assert f"| {named[pair[0]]} | {' | '.join(cells)} |" in PAGE


def test_held_choices_at_the_output():
    cells = [np.exp(each) for pair in PAIRS for each in held("trained", *pair, output=True)]
    told_of = (
        "with choices free, {:.2f} and {:.2f} times that of subsampling, and {:.2f} and {:.2f} "
    )
    told_of += (
        "times with choices held. For max pooling these are {:.2f} and {:.2f}, and {:.2f} and "
    )
    assert (told_of + "{:.2f}.").format(*np.concatenate(cells)) in PAGE


def test_the_networks_whose_choices_are_free_are_those_of_the_runs():
    rows = read_csv(FOLDER / "held_choices.csv").query("choices == 'free'")
    keys = ["phase", "downsampling", "seed", "layer"]
    runs = table("question_shifts", "circular").rename(columns={"kind": "downsampling"})
    for name, value in {"change": BEYOND, "outside": "edge", "metric": "cosine"}.items():
        runs = runs[runs[name] == value]
    runs = runs.set_index(keys)["sensitivity"].astype("float64").rename("of_runs")
    both = rows.merge(runs, left_on=keys, right_index=True)
    assert len(both) == 13 * (3 * 4 + 2 * 4 + 1)  # before training; after it; a network of seed 0
    np.testing.assert_allclose(both["sensitivity"], both["of_runs"], rtol=1e-4)


def test_how_many_choices_change():
    rows = read_csv(FOLDER / "held_choices.csv")
    rows = rows[rows["changed"].notna() & (rows["layer"] == "logits")]
    rows = rows[(rows["phase"] == "initial") | (rows["seed"] > 0)]  # of one kind alone
    percent = 100 * rows.groupby("phase")["changed"].mean()
    told_of = "at least one of the four choices for {:.0f} % of the images before training"
    assert f"{told_of}, and for {{:.0f}} % after.".format(*percent) in PAGE
