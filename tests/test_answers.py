"""What `docs/answers.md` says, recomputed from the committed files of runs, without the rules' code."""

import functools
import io
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


NETWORKS = {"network": 25, "followed": 10}  # of questions 1 and 3; of 4 and 5


@functools.cache
def table(name, part="network"):
    """Of a part's networks: from the runs, with kind and seed."""
    frames = []
    with tarfile.open(FOLDER / "runs.tar.xz") as archive:
        for member in archive.getmembers():
            if f"questions-{part}-" in member.name:
                run = json.load(archive.extractfile(member))
                network = run["experiment"]["network"]
                frame = pd.read_csv(io.StringIO(run["tables"][name]), keep_default_na=False)
                which = {"kind": network["downsampling"], "seed": network["seed"]}
                frames.append(frame.assign(**which))
    assert len(frames) == NETWORKS[part]
    return pd.concat(frames, ignore_index=True)


def told(logs, digits):
    """Of a Series by seed: as the page has it."""
    mean, half = logs.mean(), stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    value, low, high = (f"{np.exp(each):.{digits}f}" for each in (mean, mean - half, mean + half))
    return f"{value} ({low} to {high})"


def by_kind(rows, column):
    """Mean log over layers: seeds × kinds."""
    rows = rows[~rows["layer"].isin(["input", "logits", "prediction"])]
    logs = np.log(rows[column].astype("float64"))
    by_layer = logs.groupby([rows["seed"], rows["kind"], rows["layer"]]).mean()
    found = by_layer.groupby(level=[0, 1]).mean().unstack()
    assert found.notna().all(axis=None)
    return found


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


def halves(rows):
    """Of the twelve layers behind the image: the first six, and the last six."""
    return {"early": rows[rows["layer_index"] < 7], "late": rows[rows["layer_index"] > 6]}


def verdicts(number, what, condition):
    """Of decisive rows, in their order."""
    rows = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    rows = rows[rows["question"].astype(str) == str(number)]
    rows = rows[rows["what"].str.contains(what) & rows["condition"].str.contains(condition)]
    return list(rows["verdict"])


def searched(phase, column, within="rms", half="", below="mean"):
    """log of a distance over the mean of random ones: seeds × kinds."""
    rows = table("question_worst", "followed")
    rows = rows[(rows["within"] == within) & (rows["phase"] == phase)]
    rows = halves(rows)[half] if half else rows
    return by_kind(rows, column) - by_kind(rows, below)


def of_image(column="worst", within="rms"):
    rows = table("question_worst", "followed").query("layer == 'input'")
    rows = rows[rows["within"] == within]
    ratio = rows[column].astype("float64") / rows["mean"].astype("float64")
    assert ratio.nunique() == 1  # no network changes the image
    return np.log(ratio.iloc[0])


def test_worst_and_mean():
    image = of_image()
    for half in ("early", "late"):
        before, after = (
            searched(p, "worst", half=half).mean(axis=1) for p in ("initial", "trained")
        )
        (verdict,) = verdicts(4, f"trained / initial, {half}", "")
        cells = [told(before, 2), told(after, 2), f"{told(after - before, 2)}, {verdict}"]
        assert f"| {half} layers | {' | '.join(cells)} |" in PAGE
        (verdict,) = verdicts(4, f"{half} layers / image", "")
        cells = [told(before - image, 2), f"{told(after - image, 2)}, {verdict}"]
        assert f"| {half} layers / image | {' | '.join(cells)} | |" in PAGE
    assert f"| image | {np.exp(image):.2f} | {np.exp(image):.2f} | |" in PAGE


def test_what_else_is_said_of_question_4():
    logs = searched("trained", "worst")
    rest = logs[WITHOUT].mean(axis=1)
    (verdict,) = verdicts(4, "with / without", "")
    cells = told(logs[POOLING].mean(axis=1) - rest, 2)
    assert f"with / without pooling is {cells}: {verdict}" in PAGE
    both = (told(logs[kind] - rest, 2) for kind in POOLING)
    assert "max pooling {}, average pooling {}".format(*both) in PAGE
    # Without a search: the best of as many random draws.
    best = [searched(p, "best_of_k", half="late").mean(axis=1) for p in ("initial", "trained")]
    told_of = [f"{np.exp(each.mean()):.2f}" for each in best]
    assert f"from {told_of[0]} to {told_of[1]}, {told(best[1] - best[0], 2)}" in PAGE
    within = [searched(p, "worst", "box", "late").mean(axis=1) for p in ("initial", "trained")]
    assert f"within the box: {told(within[1] - within[0], 2)}" in PAGE
    # Networks of average pooling are as stable before as after.
    rows = table("question_worst", "followed").query("layer == 'block4_conv1_relu'")
    rows = rows[(rows["within"] == "rms") & (rows["kind"] == "average")]
    columns = rows.groupby("phase")[["mean_sensitivity", "ratio"]].agg(
        lambda x: x.astype(float).mean()
    )
    pair = [columns.loc[phase].tolist() for phase in ("initial", "trained")]
    told_of = f"{pair[0][0]:.2f} before and {pair[1][0]:.2f} after"
    assert f"{told_of}, and worst / mean {pair[0][1]:.2f} and {pair[1][1]:.2f}" in PAGE


def test_ranks_of_kinds():
    rows = table("question_worst", "followed").query("within == 'rms' and phase == 'trained'")
    rows = rows[~rows["layer"].isin(["input", "prediction"])]
    columns = ["worst_sensitivity", "mean_sensitivity"]
    found = {}
    for (seed, _), some in rows.groupby(["seed", "layer"]):
        worst, mean = (some[column].astype("float64") for column in columns)
        found.setdefault(seed, []).append(stats.spearmanr(worst, mean).statistic)
    assert (
        f"a rank correlation of {np.mean([np.mean(each) for each in found.values()]):.2f}" in PAGE
    )


def test_answers_under_deformation():
    rows = table("question_worst", "followed").query("layer == 'prediction' and within == 'rms'")
    rows = rows[rows["phase"] == "trained"]
    worst, chance = (
        f"{100 * (1 - rows[name].astype('float64').mean()):.0f} %"
        for name in ("unchanged", "unchanged_by_chance")
    )
    assert f"The worst that is found changes {worst} of the answers" in PAGE
    assert f"the best of 221 random ones {chance}" in PAGE
    rows = table("question_transfer", "followed")
    rows = rows.drop_duplicates(["kind", "seed", "source"])
    shares = 100 * (1 - rows["unchanged"].astype("float64").groupby(rows["source"]).mean())
    sources = ("input", "block1_conv1_relu", "block4_downsample")
    cells = [f"{shares[source]:.0f} %" for source in sources]
    assert (
        "the image furthest changes {} of the answers, for the first layer {}, for the last {}".format(
            *cells
        )
        in PAGE
    )
    rows = table("question_transfer", "followed").query(
        "source != 'prediction' and layer != 'input'"
    )
    logs = np.log(rows["distance"].astype("float64"))
    own = rows["source"] == rows["layer"]
    keys = [rows["seed"], rows["kind"], rows["layer"]]
    by_layer = [logs[which].groupby([key[which] for key in keys]).mean() for which in (~own, own)]
    ratio = (by_layer[0] - by_layer[1]).groupby(level=0).mean()
    assert f"move it {told(ratio, 2)} times as far" in PAGE


def moved(phase, column, half="", metric="euclidean"):
    rows = table("question_moving", "followed")
    rows = rows[rows["phase"] == phase]
    rows = halves(rows)[half] if half else rows
    return by_kind(rows, f"{column}_{metric}")


def changed(column, half="", **options):
    return moved("trained", column, half, **options) - moved("initial", column, half, **options)


def test_maps_that_move_and_maps_that_stay():
    for column, named in (("stays", "that stays"), ("moves_with", "that moves along")):
        cells = []
        for half in ("early", "late"):
            (verdict,) = verdicts(5, f"{named}, after / before .* {half} layers$", "")
            cells.append(f"{told(changed(column, half).mean(axis=1), 2)}, {verdict}")
        assert f"| distance to the map {named} | {' | '.join(cells)} |" in PAGE
    cells = [told(changed("ratio", half).mean(axis=1), 2) for half in ("early", "late")]
    assert f"| the second over the first | {' | '.join(cells)} |" in PAGE


def test_what_else_is_said_of_question_5():
    for half in ("early", "late"):
        values = (moved(p, "ratio", half).mean(axis=1).mean() for p in ("initial", "trained"))
        told_of = "{:.2f} before training and {:.2f} after".format(*np.exp([*values]))
        assert f"{half} layers {told_of}" in PAGE
    whole = changed("stays")
    cells = (told(whole[kinds].mean(axis=1), 2) for kinds in (WITHOUT, POOLING))
    assert "without pooling {}, with pooling {}".format(*cells) in PAGE
    rows = halves(table("question_moving", "followed"))["late"]
    rows = rows[rows["phase"] != "trained"].assign(step=rows["step"].astype(int))
    by_step = {
        step: by_kind(some, "stays_euclidean").stack().mean() for step, some in rows.groupby("step")
    }
    lowest = min(by_step, key=by_step.get)
    start, low = (np.exp(by_step[step]) for step in (0, lowest))
    end = np.exp(moved("trained", "stays", "late").stack().mean())
    assert f"from {start:.2f} to {low:.2f} at step {lowest}, and ends at {end:.2f}" in PAGE


def test_questions_that_are_not_answered_are_those_without_runs():
    """The page answers what has runs, and says that the others are still to come."""
    decisive = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    answered = {f"{number}" for number in decisive.loc[decisive["seeds"] >= 3, "question"]}
    assert answered == set(re.findall(r"## (\d)\.", PAGE))
