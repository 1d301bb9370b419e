"""What claims.md says beside the claims: how far choices move them, and when filters get smooth."""

import math
import re
import statistics

import pandas as pd
import pytest
from test_reproduce import check_interval
from test_training_paths import loop_half_way, loop_paths, tracked_preset, tracked_results

from deformstab.paper.pages import claims_page
from deformstab.paper.verdicts import claims, claims_by_choice, training_paths
from deformstab.paper.verdicts.result_tables import Results

CHOICES = "How far the open choices move the claims"
PATHS = "When filters become smooth"


@pytest.fixture(scope="module")
def results():
    return tracked_results(tracked_preset(recipes=("sgd",)), ("main", "recipes"))


def page_of(results, by_choice=None, shapes=None):
    tables = {"claims": claims.evaluate(results, claims.CLAIMS[:1])}
    tables["claims_by_choice"] = pd.DataFrame() if by_choice is None else by_choice
    tables["changes_by_kind"] = pd.DataFrame()
    tables["paths"] = pd.DataFrame() if shapes is None else shapes
    return claims_page.claims_page(results, tables)


def rows_below(page, title):
    """The table under a title, a list of texts a row; the titles of the columns first."""
    (text,) = [part for part in page.split("\n## ") if part.startswith(title + "\n")]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert set("".join(rows[1])) == {"-"}
    assert len({len(row) for row in rows}) == 1
    return [rows[0], *rows[2:]]


def test_the_page_shows_how_far_choices_move_claims(results):
    table = claims_by_choice.claims_by_choice(results)
    titles, *rows = rows_below(page_of(results, table), CHOICES)
    assert titles == [
        "choice",
        "pooling-stabilizes-init (< 1)",
        "training-changes-stability (> 1)",
        "kinds-converge (< 0.5)",
        "training-smooths (< 1)",
        "smoothness-converges (< 0.5)",
        "depth-trend (> 1)",
        "labels-decide-smoothness (> 1)",
        "labels-decide-stability (> 1)",
    ]
    choices = list(dict.fromkeys(table["choice"]))
    assert [row[0] for row in rows] == [choice.replace("_", " ") for choice in choices]
    assert {"as stated", "before_relu", "sgd"} < set(choices)
    cells = {
        (row[0], title.split(" (")[0]): cell
        for row in rows
        for title, cell in zip(titles[1:], row[1:])
        if cell
    }
    assert len(cells) == len(table)
    for row in table.itertuples():
        cell = cells[row.choice.replace("_", " "), row.claim]
        if math.isnan(row.low):  # without pooling, for example
            assert cell == row.verdict
            continue
        assert cell.startswith("**") == cell.endswith("**") == (row.p < 0.05)
        check_interval(cell, row)
    assert (table["p"] < 0.05).nunique() == 2  # bold ones and others


def test_the_page_shows_what_was_trained_each_recipe_by_itself():
    preset = tracked_preset(recipes=("sgd", "tasks_20_epochs"), seeds=2)
    results = tracked_results(preset, ("main", "tasks", "recipes"))
    names = ("accuracy_in_fit", "accuracy_batch_statistics", "accuracy_train", "accuracy_test")
    training = results.tables["training"].reset_index(drop=True)
    for number, name in enumerate(names):  # else all accuracies are the same
        training[name] = [(7 * place + number) % 31 / 31 for place in range(len(training))]
    found = {}
    for row in training.to_dict("records"):
        study = row["study"] + (": " + row["choice"].replace("_", " ") if row["choice"] else "")
        found.setdefault((study, row["task"], row["downsampling"]), []).append(row)
    expected = {}
    for key, rows in found.items():
        means = [f"{statistics.mean(row[name] for row in rows):.3f}" for name in names]
        epochs = statistics.mean(row["epochs"] for row in rows)
        expected[key] = [str(len(rows)), f"{epochs:.3g}", *means]
    results = Results(preset, results.tables | {"training": training})
    _, *rows = rows_below(page_of(results), "What was trained")
    assert {tuple(row[:3]): row[3:] for row in rows} == expected
    assert ("recipes: tasks 20 epochs", "deformed_classes", "max") in expected
    assert len(rows) == 3 * 2 + 1 + 3 + 1


def test_a_claim_that_is_not_tested_says_so_in_its_cell(results):
    table = claims_by_choice.claims_by_choice(results)
    untested = (table["choice"] == "sgd") & (table["claim"] == "depth-trend")
    without = (table["choice"] == "sgd") & (table["claim"] == "kinds-converge")
    table.loc[untested, "verdict"] = claims.NOT_TESTED
    table.loc[without, ["value", "low", "high", "p"]] = math.nan
    table.loc[without, "verdict"] = claims.INCONCLUSIVE
    titles, *rows = rows_below(page_of(results, table), CHOICES)
    cells = dict(zip(titles, rows[-1]))
    assert cells["depth-trend (> 1)"].endswith(": not tested")
    assert cells["kinds-converge (< 0.5)"] == "inconclusive"


def expected_paths(results):
    """(quantity, labels, kind) → the row of the page, by loops over paths."""
    found = {}
    for (network, quantity, _, layer), path in loop_paths(results).items():
        if network[0] != "main" or layer == "input":
            continue
        path = {step: path[step] for step in path if step > 0 or quantity == "smoothness"}
        logs = [math.log(value) for value, _ in path.values()]
        length = sum(abs(logs[n + 1] - logs[n]) for n in range(len(logs) - 1))
        half = loop_half_way(logs)
        shape = logs[-1] - logs[0], (logs[-1] - logs[0]) / length, list(path)[half]
        shape += (list(path.values())[half][1],)
        found.setdefault((quantity, network[2], network[3]), []).append(shape)
    rows = {}
    for key, shapes in found.items():
        change, monotonicity, step, accuracy = zip(*shapes)
        known = [each for each in accuracy if not math.isnan(each)]
        middle = [statistics.median(each) for each in (monotonicity, step, known)]
        factor = math.exp(statistics.mean(change))
        rows[key] = [f"{factor:.3f}", f"{middle[0]:.2f}", f"{middle[1]:.0f}", f"{middle[2]:.2f}"]
    return rows


def test_the_page_shows_when_filters_become_smooth(results):
    titles, *rows = rows_below(page_of(results, shapes=training_paths.path_shapes(results)), PATHS)
    assert titles[1:] == ["labels", "kind", "change", "monotonicity", "half way", "accuracy then"]
    assert {tuple(row[:3]): row[3:] for row in rows} == expected_paths(results)
    assert len(rows) == 2 * 2 * 3


def test_larger_images_do_not_mix_with_the_main_study_in_when_filters_become_smooth():
    """Both have true labels and kinds in common; the larger ones may be watched, too."""
    preset = tracked_preset(seeds=2, variants=False, large_downsampling=("max", "strided_relu"))
    results = tracked_results(preset, ("main", "large"))
    page = page_of(results, shapes=training_paths.path_shapes(results))
    rows = [" | ".join(row) for row in rows_below(page, PATHS)]
    for key, numbers in expected_paths(results).items():
        text = re.escape(" | ".join([*key, *numbers]))
        assert sum(bool(re.search(text, row)) for row in rows) == 1, key


def test_without_anything_to_compare_the_page_has_neither_table():
    preset = tracked_preset(seeds=2, track=False, variants=False)
    page = page_of(tracked_results(preset))
    assert CHOICES not in page
    assert PATHS not in page
