"""What `docs/answers.md` says of questions 4 and 5, and in its end, recomputed as the others are."""

import numpy as np
from answers import FOLDER, NETWORKS, PAGE, POOLING, WITHOUT, by_kind, table, told
from helpers import ROOT
from scipy import stats

from deformstab.tables import read_csv


def halves(rows):
    """Of the twelve layers behind the image: the first six, and the last six."""
    return {"early": rows[rows["layer_index"] < 7], "late": rows[rows["layer_index"] > 6]}


def verdict(number, what):
    """Of the one decisive row of a question whose name has this in it, a pattern."""
    rows = read_csv(FOLDER / "tables" / "questions.csv").query("decisive")
    rows = rows[rows["question"].astype(str) == str(number)]
    (found,) = rows.loc[rows["what"].str.contains(what), "verdict"]
    return found


def searched(phase, column, half=""):
    """log of a distance over the mean of random ones: seeds × kinds."""
    rows = table("question_worst", "followed")
    rows = rows[(rows["within"] == "rms") & (rows["phase"] == phase)]
    rows = halves(rows)[half] if half else rows
    return by_kind(rows, column) - by_kind(rows, "mean")


def of_image():
    """log of the largest distance that is found over the mean one, of the image itself."""
    rows = table("question_worst", "followed").query("layer == 'input' and within == 'rms'")
    ratio = rows["worst"].astype("float64") / rows["mean"].astype("float64")
    assert ratio.nunique() == 1  # no network changes the image
    return np.log(ratio.iloc[0])


def test_worst_and_mean():
    image = of_image()
    for half in ("early", "late"):
        before, after = (
            searched(p, "worst", half=half).mean(axis=1) for p in ("initial", "trained")
        )
        judged = verdict(4, f"trained / initial, {half}")
        cells = [told(before, 2), told(after, 2), f"{told(after - before, 2)}, {judged}"]
        assert f"| {half} layers | {' | '.join(cells)} |" in PAGE
        judged = verdict(4, f"{half} layers / image")
        cells = [told(before - image, 2), f"{told(after - image, 2)}, {judged}"]
        assert f"| {half} layers, over that of the image | {' | '.join(cells)} | |" in PAGE
    # As the README has it, of late layers, the last of the two.
    before, after = (f"{np.exp(each.mean()):.1f} times" for each in (before, after))
    told_of = f"{before} the effect of the mean one before training, and {after} after"
    assert told_of in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"| image | {np.exp(image):.2f} | {np.exp(image):.2f} | |" in PAGE


def changes(rows, column):
    """What training changes of the log of a column: one number a seed."""
    both = [by_kind(rows[rows["phase"] == phase], column) for phase in ("trained", "initial")]
    return (both[0] - both[1]).mean(axis=1)


def of_layers():
    rows = table("question_worst", "followed").query("within == 'rms'")
    return rows[~rows["layer"].isin(["input", "prediction"])]


def test_means_fall_more_than_worsts():
    late = halves(of_layers())["late"]
    for column, named in (("mean_sensitivity", "far more (to"), ("worst_sensitivity", "found (to")):
        assert f"{named} {np.exp(changes(late, column).mean()):.2f} times)" in PAGE
    last, others = (late["layer_index"] > 10, late["layer_index"] < 11)
    cells = [told(changes(late[which], "ratio"), 2) for which in (last, others)]
    assert (
        "grows to {} times, in the four late layers before them to {} times.".format(*cells) in PAGE
    )
    best = [searched(p, "best_of_k", half="late").mean(axis=1) for p in ("initial", "trained")]
    assert f"over the mean, grows to {told(best[1] - best[0], 2)} times, without" in PAGE
    rows = of_layers()
    keys = ["phase", "kind", "seed", "layer"]
    logs = np.log(rows.set_index(keys)[["ratio", "mean_sensitivity"]].astype("float64"))
    correlation = (logs.loc["trained"] - logs.loc["initial"]).corr().iloc[0, 1]
    assert f"a correlation of {correlation:.2f} (of logs" in PAGE
    rows = rows.query("kind == 'average' and layer == 'block4_downsample'")
    logs = np.log(rows["mean"].astype("float64")).groupby(rows["phase"]).mean()
    assert f"itself grows, to {np.exp(logs['trained'] - logs['initial']):.2f} times" in PAGE
    ratios = rows["ratio"].astype("float64").groupby(rows["phase"]).mean()
    assert "goes from {:.1f} to {:.1f}.".format(*ratios[["initial", "trained"]]) in PAGE


def test_kinds_by_the_worst():
    logs, before = searched("trained", "worst"), searched("initial", "worst")
    rest = logs[WITHOUT].mean(axis=1)
    judged = verdict(4, "with / without")
    cells = told(logs[POOLING].mean(axis=1) - rest, 2)
    assert (
        f"Worst / mean is {cells} times as large with pooling as without, which is {judged}."
        in PAGE
    )
    before = before[POOLING].mean(axis=1) - before[WITHOUT].mean(axis=1)
    assert f"Before training it was {np.exp(before.mean()):.2f}." in PAGE
    both = (told(logs[kind] - rest, 2) for kind in ("average", "max"))
    assert "makes the difference, {}; max pooling has {}.".format(*both) in PAGE


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


def percent(rows, column):
    return 100 * (1 - rows[column].astype("float64").mean())


def test_answers_under_deformation():
    rows = table("question_worst", "followed").query("layer == 'prediction' and within == 'rms'")
    after, before = rows[rows["phase"] == "trained"], rows[rows["phase"] == "initial"]
    cells = [percent(some, "unchanged") for some in (after, before)]
    assert (
        "for {:.1f} % of the images after training, and for {:.1f} % before.".format(*cells) in PAGE
    )
    kinds = [after[after["kind"].isin(some)] for some in (POOLING, WITHOUT)]
    cells = [percent(some, "unchanged_by_chance") for some in kinds]
    assert (
        "{:.0f} % of the answers of networks with pooling, and {:.0f} % without".format(*cells)
        in PAGE
    )
    assert (
        f"the answer, for {percent(kinds[0], 'unchanged'):.0f} % of the images (question 4)" in PAGE
    )
    accuracy = table("question_training", "followed")
    accuracy = 100 * accuracy["accuracy_test"].astype("float64").groupby(accuracy["kind"]).mean()
    assert f"(kinds: {accuracy.min():.0f} to {accuracy.max():.0f} %)" in PAGE
    rows = table("question_transfer", "followed").drop_duplicates(["kind", "seed", "source"])
    sources = ("input", "block3_conv1_relu", "block4_downsample")
    cells = [percent(rows[rows["source"] == source], "unchanged") for source in sources]
    told_of = (
        "it changes {:.0f} % of the network's answers. The one that moves the first late layer "
        "furthest changes {:.0f} %, the one for the last layer {:.0f} %."
    )
    assert told_of.format(*cells) in PAGE


def test_worst_deformations_of_other_layers():
    rows = table("question_transfer", "followed").query("source != 'prediction'")
    logs = np.log(rows["distance"].astype("float64"))
    own = rows["source"] == rows["layer"]
    keys = [rows[name] for name in ("layer", "seed", "kind")]
    both = [logs[which].groupby([key[which] for key in keys]).mean() for which in (~own, own)]
    others = np.exp((both[0] - both[1]).groupby(level=0).mean()).drop("input")
    rows = of_layers()
    rows = rows[rows["phase"] == "trained"]
    chance = np.log(rows["mean"].astype("float64") / rows["worst"].astype("float64"))
    chance = np.exp(chance.groupby(rows["layer"]).mean())
    last = ["block4_conv2_relu", "block4_downsample"]
    cells = []
    for each in (others, chance):
        rest = each.drop(last)
        assert len(rest) == 10
        cells += [(rest.min(), rest.max()), tuple(each[last])]
    told_of = "{:.2f} to {:.2f} times as far as their own, a random one {:.2f} to {:.2f} times."
    assert told_of.format(*cells[0], *cells[2]) in PAGE
    assert "are {:.2f} and {:.2f}, and {:.2f} and {:.2f}.".format(*cells[1], *cells[3]) in PAGE


def moved(phase, column, half=""):
    rows = table("question_moving", "followed")
    rows = rows[rows["phase"] == phase]
    rows = halves(rows)[half] if half else rows
    return by_kind(rows, f"{column}_euclidean")


def changed(column, half=""):
    return moved("trained", column, half) - moved("initial", column, half)


def test_maps_that_move_and_maps_that_stay():
    for column, named in (("stays", "that stays"), ("moves_with", "that moves along")):
        cells = []
        for half in ("early", "late"):
            judged = verdict(5, f"{named}, after / before .* {half} layers$")
            cells.append(f"{told(changed(column, half).mean(axis=1), 2)}, {judged}")
        assert f"| distance to the map {named} | {' | '.join(cells)} |" in PAGE
    cells = [told(changed("ratio", half).mean(axis=1), 2) for half in ("early", "late")]
    assert f"| the second over the first | {' | '.join(cells)} |" in PAGE


def test_what_else_is_said_of_question_5():
    for half, named in (
        ("early", "{:.2f} in early layers before training and {:.2f} after"),
        ("late", "In late layers it is {:.2f} and {:.2f}."),
    ):
        values = (moved(p, "ratio", half).mean(axis=1).mean() for p in ("initial", "trained"))
        assert named.format(*np.exp([*values])) in PAGE
    late = changed("stays", "late")
    rest = np.exp(late.drop(columns="average").mean())
    told_of = f"{told(late['average'], 2)} times, in the other kinds to "
    assert f"{told_of}{rest.min():.2f} to {rest.max():.2f}" in PAGE
    rows = halves(table("question_moving", "followed"))["late"]
    rows = rows[rows["phase"] != "trained"].assign(step=rows["step"].astype(int))
    everyone = rows.groupby("step")["seed"].transform("size") == 6 * NETWORKS["followed"]
    by_step = {
        step: by_kind(some, "stays_euclidean").stack().mean()
        for step, some in rows[everyone].groupby("step")
    }
    lowest = min(by_step, key=by_step.get)
    start, low = (np.exp(by_step[step]) for step in (0, lowest))
    end = np.exp(moved("trained", "stays", "late").stack().mean())
    assert f"falls from {start:.2f} to {low:.2f} at step {lowest}, just after" in PAGE
    assert f"It ends at {end:.2f}." in PAGE


def test_necessary_and_sufficient():
    """The last section, but for what it takes from the findings and from question 1."""
    rows = of_layers()
    cells = {}
    for phase in ("initial", "trained"):
        logs = by_kind(rows[rows["phase"] == phase], "mean_sensitivity")
        rest = logs[WITHOUT].mean(axis=1)
        cells[phase] = told(logs[POOLING].mean(axis=1) - rest, 2)
        cells |= {
            f"{phase} {kind}": f"{np.exp((logs[kind] - rest).mean()):.2f}" for kind in POOLING
        }
    assert f"is {cells['initial']} before training and {cells['trained']} after." in PAGE
    assert f"from {cells['initial average']} to {cells['trained average']}; max" in PAGE
    assert f"max pooling goes from {cells['initial max']} to {cells['trained max']}." in PAGE
    late = halves(rows[rows["phase"] == "trained"])["late"]
    for column, extreme in (
        ("mean_sensitivity", "idxmin"),
        ("worst_sensitivity", "idxmin"),
        ("ratio", "idxmax"),
    ):
        values = late[column].astype("float64").groupby([late["layer"], late["kind"]]).mean()
        assert set(getattr(values.unstack(), extreme)(axis=1)) == {"average"}
