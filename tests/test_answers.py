"""What `docs/answers.md` says, recomputed from the committed files of runs, without the rules' code."""

import re

import numpy as np
import pytest
from answers import FOLDER, PAGE, POOLING, WITHOUT, by_kind, table, told
from scipy import stats

from deformstab.tables import read_csv


def noise(kind, metric, phase="initial", statistics="re-estimated", of="gaussian"):
    rows = table("question_noise")
    which = {"metric": metric, "phase": phase, "statistics": statistics, "noise": of}
    for name, value in which.items():
        rows = rows[rows[name] == value]
    logs = by_kind(rows, "relative_stability")
    return logs[kind] - logs[WITHOUT].mean(axis=1)


@pytest.mark.parametrize("kind", POOLING)
def test_what_pooling_gives_before_training(kind):
    verdicts = read_csv(FOLDER / "tables" / "questions.csv").query("decisive and question == 1")
    cells = []
    for metric in ("cosine", "euclidean"):
        row = verdicts[verdicts["what"].str.contains(f"{kind} pooling /")]
        (verdict,) = row.loc[row["condition"].str.contains(metric, case=False), "verdict"]
        cells.append(f"{told(noise(kind, metric), 3)}, {verdict}")
    assert f"| {kind} pooling, Gaussian noise | {' | '.join(cells)} |" in PAGE
    cells = [told(noise(kind, metric, of="spectrum"), 3) for metric in ("cosine", "euclidean")]
    assert f"| {kind} pooling, noise like the deformation | {' | '.join(cells)} |" in PAGE


def test_what_else_is_said_of_question_1():
    for kind in POOLING:
        assert told(noise(kind, "cosine", statistics="moving averages"), 3) in PAGE
        assert told(noise(kind, "cosine", "trained"), 3) in PAGE
    rows = table("question_noise")
    rows = rows.query("noise == 'gaussian' and phase == 'initial' and statistics == 're-estimated'")
    values = rows.assign(log=np.log(rows["relative_stability"].astype("float64")))
    values = values.groupby(["metric", "layer", "kind"])["log"].mean().unstack()
    for metric in ("cosine", "euclidean"):
        assert values.loc[(metric, "block1_downsample")].idxmax() == "average"
        assert noise("average", metric, of="spectrum").max() < 0
    assert values.loc[("cosine", "block4_downsample")].idxmin() == "average"
    # Alone each metric would have its verdict, and not the same one: which of the two needs no Holm.
    bound = -np.log(1.1)
    for metric, below in (("cosine", True), ("euclidean", False)):
        logs = noise("average", metric)
        test = stats.ttest_1samp(logs, bound)
        assert test.pvalue < 0.05
        assert (test.statistic < 0) == below
    decisive = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    assert f"all {len(decisive)} tests" in PAGE


def test_networks_without_relu():
    rows = read_csv(FOLDER / "rectified_noise.csv").query("metric == 'cosine'")
    assert set(rows["seed"]) == set(range(5))
    logs = rows.assign(log=np.log(rows["relative_stability"]))

    def cells(kind, statistics):
        found = []
        for relu in (True, False):
            some = logs[(logs["relu"] == relu) & (logs["statistics"] == statistics)]
            wide = some.pivot(index="seed", columns="downsampling", values="log")
            found.append(wide[kind] - wide[WITHOUT].mean(axis=1))
        return found

    initial = ", batch normalization as Keras initializes it"
    for kind, statistics, named in (
        ("average", "re-estimated", ""),
        ("average", "moving averages", initial),
        ("max", "re-estimated", ""),
    ):
        both = cells(kind, statistics)
        # The networks with ReLU are those of the runs.
        of_runs = noise(kind, "cosine", statistics=statistics)
        np.testing.assert_allclose(both[0], of_runs, atol=1e-4)
        row = " | ".join(told(each, 3) for each in both)
        assert f"| {kind} pooling{named} | {row} |" in PAGE


def shuffled(shuffle, kinds, half=None):
    rows = table("question_shuffles")
    rows = rows[rows["shuffle"] == shuffle]
    if half:
        rows = rows[(rows["layer_index"] > 3) == (half == "late")]
    return by_kind(rows, "ratio")[kinds].mean(axis=1)


@pytest.mark.parametrize(("name", "kinds"), [("without", WITHOUT), ("with", POOLING)])
def test_shuffled_filters(name, kinds):
    def cells(half=None):
        return " | ".join(told(shuffled(each, kinds, half), 3) for each in ("taps", "channels"))

    assert f"| {name} pooling | {cells()} |" in PAGE
    if kinds == WITHOUT:
        assert f"| the same, first four convolutions | {cells('early')} |" in PAGE
        assert f"| the same, last four convolutions | {cells('late')} |" in PAGE
    rows = table("question_shuffles").query("shuffle == 'taps'")
    rows = rows[rows["kind"].isin(kinds)]
    before, after = (
        f"{rows[column].astype('float64').mean():.3f}"
        for column in ("smoothness_before", "smoothness")
    )
    told_of = {"without": f"have {before}, and {after} with", "with": f"{before} and {after}"}
    assert told_of[name] in PAGE


def test_what_else_is_said_of_question_3():
    without = shuffled("taps", WITHOUT) - shuffled("channels", WITHOUT)
    pooled = shuffled("taps", POOLING) - shuffled("channels", POOLING)
    assert f"without pooling: {told(without, 3)}" in PAGE
    assert f"With pooling the ratio is {told(pooled, 3)}" in PAGE
    assert f"it is {told(without - pooled, 3)} times that" in PAGE
    rows = table("question_shuffles").query("shuffle == 'taps'")
    rows = rows[rows["kind"].isin(WITHOUT)]
    by_layer = np.log(rows["ratio"].astype("float64")).groupby(rows["layer_index"]).mean()
    values = np.exp(by_layer).tolist()
    channels = table("question_shuffles").query("shuffle == 'channels'")
    channels = channels[channels["kind"].isin(WITHOUT)]
    others = np.log(channels["ratio"].astype("float64")).groupby(channels["layer_index"]).mean()
    assert (values[:2] < np.exp(others)[:2]).all()
    assert (others[:2] < 0).all()
    assert "shuffled places more so, {:.3f} and {:.3f}.".format(*values[:2]) in PAGE
    assert "little, {:.3f} and {:.3f}.".format(*values[2:4]) in PAGE
    assert min(values[4:]) > 1.04
    assert f"up to {max(values[4:]):.3f}" in PAGE
    decisive = read_csv(FOLDER / "tables" / "questions.csv").query("decisive and question == 3")
    assert list(decisive["verdict"]) == ["undecided", "alike"]


def test_questions_that_are_not_answered_are_those_without_runs():
    """The page answers what has runs, and says that the others are still to come."""
    decisive = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    answered = {f"{number}" for number in decisive.loc[decisive["seeds"] >= 3, "question"]}
    assert answered == set(re.findall(r"## (\d)\.", PAGE))
