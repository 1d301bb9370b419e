"""What `docs/answers.md` says, recomputed from the committed files of runs, without the rules' code."""

import functools
import io
import itertools
import json
import re
import tarfile

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from scipy import stats

from deformstab.tables import read_csv

FOLDER = ROOT / "results" / "questions"
PAGE = " ".join((ROOT / "docs" / "answers.md").read_text(encoding="utf-8").split())
WITHOUT, POOLING = ["subsample", "strided", "strided_relu"], ["max", "average"]


@functools.cache
def table(name):
    """Of the networks of questions 1 and 3: from the runs, with kind and seed."""
    frames = []
    with tarfile.open(FOLDER / "runs.tar.xz") as archive:
        for member in archive.getmembers():
            if "questions-network-" in member.name:
                run = json.load(archive.extractfile(member))
                network = run["experiment"]["network"]
                frame = pd.read_csv(io.StringIO(run["tables"][name]), keep_default_na=False)
                which = {"kind": network["downsampling"], "seed": network["seed"]}
                frames.append(frame.assign(**which))
    assert len(frames) == 25
    return pd.concat(frames, ignore_index=True)


def told(logs, digits):
    """Of a Series by seed: as the page has it."""
    mean, half = logs.mean(), stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    value, low, high = (f"{np.exp(each):.{digits}f}" for each in (mean, mean - half, mean + half))
    return f"{value} ({low} to {high})"


def by_kind(rows, column):
    """Mean log over layers: seeds × kinds."""
    rows = rows[~rows["layer"].isin(["input", "logits"])]
    logs = np.log(rows[column].astype("float64"))
    by_layer = logs.groupby([rows["seed"], rows["kind"], rows["layer"]]).mean()
    return by_layer.groupby(level=[0, 1]).mean().unstack()


def noise(kind, metric, phase="initial", statistics="re-estimated"):
    rows = table("question_noise").query("noise == 'gaussian'")
    which = {"metric": metric, "phase": phase, "statistics": statistics}
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
        (verdict,) = row.loc[row["condition"].str.contains(metric), "verdict"]
        cells.append(f"{told(noise(kind, metric), 3)}, {verdict}")
    assert f"| {kind} pooling | {' | '.join(cells)} |" in PAGE


def test_what_else_is_said_of_question_1():
    averages = noise("average", "cosine", statistics="moving averages")
    assert told(averages, 2).replace(" (", " (") in PAGE
    for kind in POOLING:
        assert told(noise(kind, "cosine", "trained"), 3) in PAGE
    rows = table("question_noise")
    rows = rows.query("noise == 'gaussian' and phase == 'initial' and statistics == 're-estimated'")
    values = rows.assign(log=np.log(rows["relative_stability"].astype("float64")))
    values = values.groupby(["metric", "layer", "kind"])["log"].mean().unstack()
    for metric in ("cosine", "euclidean"):
        assert values.loc[(metric, "block1_downsample")].idxmax() == "average"
    assert values.loc[("cosine", "block4_downsample")].idxmin() == "average"
    # The two metrics disagree.
    assert noise("average", "cosine").mean() < 0 < noise("average", "euclidean").mean()


def test_networks_without_relu():
    rows = read_csv(FOLDER / "rectified_noise.csv").query("metric == 'cosine'")
    assert set(rows["seed"]) == set(range(5))
    logs = rows.assign(log=np.log(rows["relative_stability"]))
    for relu, statistics in itertools.product((True, False), ("re-estimated", "moving averages")):
        some = logs[(logs["relu"] == relu) & (logs["statistics"] == statistics)]
        wide = some.pivot(index="seed", columns="downsampling", values="log")
        assert told(wide["average"] - wide[WITHOUT].mean(axis=1), 2) in PAGE
        if not relu and statistics == "re-estimated":
            assert told(wide["max"] - wide[WITHOUT].mean(axis=1), 2) in PAGE
        if relu and statistics == "re-estimated":
            # The same networks as in the runs: their noise is another draw at most.
            both = wide["average"], noise("average", "cosine") + by_kind_without(statistics)
            np.testing.assert_allclose(*both, atol=0.02)


def by_kind_without(statistics):
    rows = table("question_noise").query(
        "noise == 'gaussian' and metric == 'cosine' and phase == 'initial'"
    )
    logs = by_kind(rows[rows["statistics"] == statistics], "relative_stability")
    return logs[WITHOUT].mean(axis=1)


def shuffled(shuffle, kinds, half=None):
    rows = table("question_shuffles")
    rows = rows[rows["shuffle"] == shuffle]
    if half:
        rows = rows[(rows["layer_index"] > 3) == (half == "late")]
    return by_kind(rows, "ratio")[kinds].mean(axis=1)


@pytest.mark.parametrize(("name", "kinds"), [("without", WITHOUT), ("with", POOLING)])
def test_shuffled_filters(name, kinds):
    cells = [told(shuffled(shuffle, kinds), 3) for shuffle in ("taps", "channels")]
    assert f"| {name} pooling | {' | '.join(cells)} |" in PAGE
    rows = table("question_shuffles").query("shuffle == 'taps'")
    rows = rows[rows["kind"].isin(kinds)]
    for column in ("smoothness_before", "smoothness"):
        assert f"{rows[column].astype('float64').mean():.3f}" in PAGE


def test_what_else_is_said_of_question_3():
    without = shuffled("taps", WITHOUT) - shuffled("channels", WITHOUT)
    both = without - (shuffled("taps", POOLING) - shuffled("channels", POOLING))
    assert told(without, 3) in PAGE
    assert told(both, 3) in PAGE
    for half in ("early", "late"):
        assert f"{np.exp(shuffled('taps', WITHOUT, half).mean()):.3f}" in PAGE
    decisive = read_csv(FOLDER / "tables" / "questions.csv").query("decisive and question == 3")
    assert list(decisive["verdict"]) == ["undecided", "alike"]


def test_questions_that_are_not_answered_are_those_without_runs():
    """The page answers 1 and 3, and says that the others are still to come."""
    decisive = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    answered = {f"{number}" for number in decisive.loc[decisive["seeds"] >= 3, "question"]}
    assert answered == set(re.findall(r"## (\d)\.", PAGE))
