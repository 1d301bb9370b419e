"""What `docs/answers.md` says of questions 4 and 5, and in its end, recomputed as the others are."""

import numpy as np
from answers import FOLDER, NETWORKS, PAGE, POOLING, WITHOUT, by_kind, table, told
from scipy import stats

from deformstab.tables import read_csv


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
    assert "max pooling has {}, average pooling {}".format(*both) in PAGE
    # Without a search: the best of as many random draws.
    best = [searched(p, "best_of_k", half="late").mean(axis=1) for p in ("initial", "trained")]
    told_of = [f"{np.exp(each.mean()):.2f}" for each in best]
    assert f"from {told_of[0]} to {told_of[1]}: {told(best[1] - best[0], 2)} times" in PAGE
    within = [searched(p, "worst", "box", "late").mean(axis=1) for p in ("initial", "trained")]
    assert f'("within the box"), it is {told(within[1] - within[0], 2)} times' in PAGE
    # Networks of average pooling are as stable before as after.
    rows = table("question_worst", "followed").query("layer == 'block4_conv1_relu'")
    rows = rows[(rows["within"] == "rms") & (rows["kind"] == "average")]
    columns = rows.groupby("phase")[["mean_sensitivity", "ratio"]].agg(
        lambda x: x.astype(float).mean()
    )
    pair = [columns.loc[phase].tolist() for phase in ("initial", "trained")]
    (before, after), ratios = zip(*pair)
    assert f"sensitivity of {before:.2f} before training and {after:.2f} after." in PAGE
    assert "Worst / mean is {:.2f} there before, and {:.2f} after.".format(*ratios) in PAGE


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
    assert f"changes {worst} of them, the worst of 221 random ones {chance}." in PAGE
    accuracy = table("question_training", "followed")
    accuracy = 100 * accuracy["accuracy_test"].astype("float64").groupby(accuracy["kind"]).mean()
    assert f"right on {accuracy.min():.0f} to {accuracy.max():.0f} % of the test images" in PAGE
    rows = table("question_transfer", "followed")
    rows = rows.drop_duplicates(["kind", "seed", "source"])
    shares = 100 * (1 - rows["unchanged"].astype("float64").groupby(rows["source"]).mean())
    sources = ("input", "block1_conv1_relu", "block4_downsample")
    cells = [f"{shares[source]:.0f} %" for source in sources]
    told_of = "changes {} of the answers, that for the first layer {}, that for the last {}."
    assert told_of.format(*cells) in PAGE
    rows = table("question_transfer", "followed").query(
        "source != 'prediction' and layer != 'input'"
    )
    logs = np.log(rows["distance"].astype("float64"))
    own = rows["source"] == rows["layer"]
    keys = [rows["seed"], rows["kind"], rows["layer"]]
    by_layer = [logs[which].groupby([key[which] for key in keys]).mean() for which in (~own, own)]
    ratio = (by_layer[0] - by_layer[1]).groupby(level=0).mean()
    assert f"move a layer {told(ratio, 2)} times as far" in PAGE


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
    assert "without pooling to {} of what it was, with pooling to {}".format(*cells) in PAGE
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
    assert f"falls from {start:.2f} to {low:.2f} at step {lowest}, the end of the" in PAGE
    assert f"It ends at {end:.2f}." in PAGE


def test_necessary_and_sufficient():
    """The last section, but for what it takes from the findings."""
    rows = table("question_worst", "followed").query("within == 'rms'")
    cells = []
    for phase in ("initial", "trained"):
        logs = by_kind(rows[rows["phase"] == phase], "mean_sensitivity")
        cells.append(told(logs[POOLING].mean(axis=1) - logs[WITHOUT].mean(axis=1), 2))
    assert f"that without before training, and {cells[1]} after" in PAGE
    assert f"mean sensitivity is {cells[0]} of" in PAGE
    late = halves(rows[rows["phase"] == "trained"])["late"]
    late = late[late["layer"] != "prediction"]
    for column, extreme in (("mean_sensitivity", "idxmin"), ("ratio", "idxmax")):
        values = late[column].astype("float64").groupby([late["layer"], late["kind"]]).mean()
        assert set(getattr(values.unstack(), extreme)(axis=1)) == {"average"}
    kinds = table("question_worst", "followed").query("layer == 'prediction' and within == 'rms'")
    kinds = kinds[kinds["phase"] == "trained"]
    assert kinds["unchanged"].astype("float64").groupby(kinds["kind"]).mean().max() < 0.1
