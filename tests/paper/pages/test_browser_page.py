"""The page to explore: means over seeds by a plain loop, of every study that measures sensitivity."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from test_result_tables import small_preset

from deformstab.paper.pages.browser_page import browser_tables, write_browser_page
from deformstab.paper.verdicts.result_tables import Results
from deformstab.tables import read_csv

QUICK = ROOT / "results" / "quick" / "tables"


@pytest.fixture(scope="module")
def results():
    tables = {
        name: read_csv(path)
        for name in ("sensitivity",)
        if (path := QUICK / f"{name}.csv").exists()
    }
    return Results(small_preset(), tables)


def test_networks_are_means_over_seeds(results):
    (found,) = browser_tables(results)
    own = results.tables["sensitivity"]
    names = {"average": "average pooling", "subsample": "subsampling"}
    checked = 0
    for kind, name in names.items():
        for phase in ("initial", "trained"):
            for metric in ("cosine", "euclidean"):
                rows = own[(own["study"] == "main") & (own["task"] == "true_labels")]
                rows = rows[(rows["downsampling"] == kind) & (rows["phase"] == phase)]
                rows = rows[rows["metric"] == metric]
                shown = found[(found["study"] == "main") & (found["task"] == "true_labels")]
                shown = shown[(shown["network"] == name) & (shown["phase"] == phase)]
                shown = shown[shown["metric"] == metric]
                assert len(shown) == rows["layer"].nunique()
                for point in shown.to_dict("records"):
                    numbers = rows[rows["layer"] == point["layer"]]["sensitivity"].to_numpy()
                    mean, spread = numbers.mean(), 2 * numbers.std(ddof=1)
                    assert point["sensitivity"] == pytest.approx(mean)
                    assert point["sensitivity_low"] == pytest.approx(max(mean - spread, 0))
                    assert point["sensitivity_high"] == pytest.approx(mean + spread)
                    assert point["seeds"] == len(numbers)
                    checked += 1
    assert checked >= 8 * 9


def test_every_row_is_of_one_condition(results):
    (found,) = browser_tables(results)
    own = results.tables["sensitivity"]
    assert not found.duplicated(["study", "task", "phase", "network", "metric", "layer"]).any()
    by_seed = own.groupby(["study", "task", "phase", "metric", "layer"])
    rows_of = found.groupby(["study", "task", "phase", "metric", "layer"])["seeds"].sum()
    assert rows_of.to_dict() == by_seed.size().to_dict()  # none is left out, none counts twice
    assert {name for name in found["network"] if name.startswith(("σ", "C"))}


def test_recipes_of_tasks_are_told_apart_by_their_strength(results):
    own = results.tables["sensitivity"].query("study == 'tasks' and phase == 'trained'")
    own = own.assign(study="recipes", choice="tasks_20_epochs")
    (found,) = browser_tables(Results(small_preset(), {"sensitivity": own}))
    strengths = sorted(set(own["class_displacement"]))
    assert len(strengths) > 1
    names = {name.rsplit(", ", 1)[1] for name in found["network"]}
    assert names == {f"C = {strength:g} px" for strength in strengths}
    with pytest.raises(ValueError, match="several networks of one seed"):
        browser_tables(Results(small_preset(), {"sensitivity": own.assign(class_displacement=1.0)}))


def test_training_has_its_steps():
    rows = pd.DataFrame(
        [
            {
                **{"study": "main", "task": "true_labels", "downsampling": "max", "choice": ""},
                **{"class_displacement": 0.0, "seed": seed, "step": step},
                **{"layer": "a", "layer_index": 0},
                **{"quantity": quantity, "value": value},
            }
            for seed in (0, 1)
            for step in (1, 8)
            for quantity, value in (("sensitivity", step + seed), ("smoothness", 99.0))
        ]
    )
    (found,) = browser_tables(Results(small_preset(), {"trajectory": rows}))
    assert found["step"].tolist() == [1, 8]
    assert found["sensitivity"].tolist() == [1.5, 8.5]
    assert found["phase"].unique().tolist() == ["while it trains"]


def test_the_page_is_one_file(results, tmp_path):
    write_browser_page(results, tmp_path / "a.html", "bin/reproduce_figures --figures=2c")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert len(page) < 8e6
    assert "bin/reproduce_figures --figures=2c" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])
    (table,) = browser_tables(results)
    assert data["tables"][0]["text"] == table.to_csv(index=False, lineterminator="\n")
    assert len(data["points"]["value"]) == len(table)
    assert np.isfinite(data["points"]["value"]).all()


def test_a_folder_without_sensitivities_has_no_page(tmp_path):
    with pytest.raises(ValueError, match="none of these figures"):
        write_browser_page(Results(small_preset(), {}), tmp_path / "a.html", "")
