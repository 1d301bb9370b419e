"""The table of what training does to each kind, against loops over the rows of made-up tables."""

import itertools
import math
import re
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_training_paths import tracked_preset, tracked_results

from deformstab.paper.pages import claims_page
from deformstab.paper.verdicts import changes_by_kind
from deformstab.paper.verdicts.claims import CLAIMS, evaluate

KINDS = ("max", "subsample", "strided_relu")
LABELS = ("true_labels", "random_labels")


@pytest.fixture(scope="module")
def results():
    return tracked_results(tracked_preset(main_tasks=LABELS))


@pytest.fixture(scope="module")
def table(results):
    return changes_by_kind.changes_by_kind(results).set_index(["task", "downsampling", "quantity"])


def logs(results, name, task, kind, phase, seed, **condition):
    """log values, layer by layer, of one network."""
    rows = results.tables[name].to_dict("records")
    wanted = {"study": "main", "task": task, "downsampling": kind, "phase": phase, "seed": seed}
    wanted |= condition
    rows = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    column = "smoothness" if name == "smoothness" else "sensitivity"
    if name == "smoothness":
        rows = [row for row in rows if row["kernel_height"] == row["kernel_width"] == 3]
    else:
        rows = [row for row in rows if row["layer_index"] > 0]
    assert rows
    return [math.log(row[column]) for row in sorted(rows, key=lambda row: row["layer_index"])]


def check(row, by_seed):
    """The row is the mean of these logs, with Student's interval as scipy computes it."""
    low, high = stats.t.interval(
        0.95, len(by_seed) - 1, statistics.mean(by_seed), stats.sem(by_seed)
    )
    expected = math.exp(statistics.mean(by_seed)), math.exp(low), math.exp(high)
    assert (row["value"], row["low"], row["high"]) == pytest.approx(expected)
    assert row["seeds"] == len(by_seed) == 4


@pytest.mark.parametrize(("task", "kind"), list(itertools.product(LABELS, KINDS)))
def test_changes_are_means_over_layers_and_seeds(results, table, task, kind):
    for quantity, name, condition in (
        ("sensitivity", "sensitivity", {"metric": "cosine"}),
        ("own_statistics", "variants", {"variant": "own_statistics"}),
        ("smoothness", "smoothness", {}),
    ):
        by_seed = []
        for seed in range(4):
            initial, trained = (
                logs(results, name, task, kind, phase, seed, **condition)
                for phase in ("initial", "trained")
            )
            by_seed.append(statistics.mean(trained) - statistics.mean(initial))
        check(table.loc[task, kind, quantity], by_seed)


@pytest.mark.parametrize(("task", "kind"), list(itertools.product(LABELS, KINDS)))
def test_from_the_first_step_on(results, table, task, kind):
    path = results.tables["trajectory"].query("quantity == 'sensitivity' and step == 1")
    by_seed = []
    for seed in range(4):
        rows = path[(path["task"] == task) & (path["downsampling"] == kind)]
        first = np.log(rows.query(f"seed == {seed} and layer_index > 0")["value"]).mean()
        trained = logs(results, "sensitivity", task, kind, "trained", seed, metric="cosine")
        by_seed.append(statistics.mean(trained) - first)
    check(table.loc[task, kind, "first_step"], by_seed)


@pytest.mark.parametrize(("task", "kind"), list(itertools.product(LABELS, KINDS)))
def test_the_trend_over_depth_is_a_regression(results, table, task, kind):
    by_seed = []
    for seed in range(4):
        values = logs(results, "smoothness", task, kind, "trained", seed)
        by_seed.append(stats.linregress(range(len(values)), values).slope)
    check(table.loc[task, kind, "depth"], by_seed)


def test_its_means_over_kinds_are_the_claims(results, table):
    verdicts = evaluate(results).set_index(["claim", "figure"])["value"]
    depth = np.log(table.loc["true_labels"].xs("depth", level="quantity")["value"]).mean()
    assert verdicts["depth-trend", "4b"] == pytest.approx(math.exp(depth))
    increase = table.loc["true_labels", "max", "sensitivity"]["value"]  # the one with pooling
    assert verdicts["training-changes-stability", "2d"] == pytest.approx(increase)


def test_without_what_was_not_measured_its_quantities_are_left_out():
    plain = tracked_results(tracked_preset(track=False, variants=False))
    assert set(changes_by_kind.changes_by_kind(plain)["quantity"]) == {
        "sensitivity",
        "smoothness",
        "depth",
    }
    assert changes_by_kind.changes_by_kind(tracked_results(tracked_preset(), ())).empty


def test_the_page_has_a_row_a_network_and_bold_where_one_is_outside(results):
    found = changes_by_kind.changes_by_kind(results)
    tables = {"claims": evaluate(results, CLAIMS[:1]), "changes_by_kind": found}
    tables |= {"claims_by_choice": pd.DataFrame(), "paths": pd.DataFrame()}
    page = claims_page.claims_page(results, tables)
    part = page.split("## What training does to each kind")[1]
    titles, _, *rows = [line for line in part.splitlines() if line.startswith("|")]
    assert [x.strip() for x in titles.split("|")[3:-1]] == list(changes_by_kind.QUANTITIES.values())
    assert len(rows) == len(LABELS) * len(KINDS)
    by_row = {tuple(x.strip() for x in row.split("|")[1:3]): row.split("|")[3:-1] for row in rows}
    bold = 0
    for row in found.itertuples():
        cell = by_row[row.task, row.downsampling][
            list(changes_by_kind.QUANTITIES).index(row.quantity)
        ]
        number = re.search(r"[\d.]+", cell).group()
        assert float(number) == pytest.approx(row.value, rel=0.05)
        assert ("**" in cell) == (not row.low <= 1 <= row.high)
        bold += "**" in cell
    assert 0 < bold < len(found)
