"""The benchmarks: that they time what they name, and compute ratios as they say. Never how long."""

import contextlib
import importlib
import inspect
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, ROOT

FOLDER = ROOT / "benchmarks"

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="the benchmarks are TensorFlow's")


@pytest.fixture
def benchmarks(monkeypatch):
    """A function that imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_candidate_takes_its_arguments(benchmarks):
    comparisons = benchmarks("cases").COMPARISONS
    growth = [
        (function, arguments | {what: values[0]})
        for _, what, (function, arguments), values in benchmarks("growth").SERIES
    ]
    assert len({each.name for each in comparisons}) == len(comparisons)
    for each in comparisons:
        assert set(each.goals) <= set(each.candidates) - {next(iter(each.candidates))}
        assert set(each.slow) <= set(each.candidates)
    for candidate, arguments in [
        *(one for each in comparisons for one in each.candidates.values()),
        *growth,
    ]:
        module, function = candidate.split(":")
        inspect.signature(getattr(benchmarks(module), function)).bind(**arguments)


@pytest.mark.parametrize(
    ("candidate", "arguments"),
    [
        ("deformations:compiled", {"images": 2, "side": 8, "points": 3, "reach": 1.0}),
        ("deformations:eager", {"images": 2, "side": 8, "points": 3, "reach": 1.0}),
        ("deformations:in_tf_data", {"images": 2, "side": 8, "points": 3, "reach": 1.0}),
        ("deformations:gradient", {"images": 2, "side": 8, "points": 3, "reach": 1.0}),
        (
            "deformations:gradient",
            {"images": 2, "side": 8, "points": 3, "reach": 1.0, "by": ["images"], "xla": True},
        ),
        ("deformations:scaled", {"images": 2, "side": 8, "points": 3, "reach": 1.0}),
        ("deformations:loss_alone", {"images": 2, "side": 8, "points": 3, "reach": 1.0}),
        ("measurements:sensitivity_of_stack", {"images": 3, "side": 8, "depth": 2}),
        ("measurements:callback_epochs", {"images": 4, "side": 32, "epochs": 2}),
        ("measurements:pairs", {"name": "cifar", "images": 3, "side": 32}),
        ("measurements:pairs", {"name": "cifar", "images": 3, "side": 32, "exact": False}),
        ("measurements:reproduction", {"images": 128}),
        ("measurements:keras_fit", {"images": 128}),
        ("measurements:bare_loop", {"images": 128}),
        ("measurements:reproduction", {"images": 64, "precision": "mixed_bfloat16"}),
        ("measurements:keras_fit", {"images": 192, "steps": 3}),
        ("measurements:bare_loop", {"images": 64, "blocks": [[1, 4]], "xla": True}),
    ],
)
def test_our_candidates_compute(benchmarks, candidate, arguments):
    """And other inputs give other results."""
    module, function = candidate.split(":")
    call = getattr(benchmarks(module), function)(**arguments)
    results = [call(number) for number in range(3)]
    if module == "deformations" and function in ("compiled", "eager", "in_tf_data", "opencv_remap"):
        assert results[0].shape == (2, 8, 8, 3)
        assert not np.allclose(results[0], results[1])
    if "sensitivity" in function:
        assert len(results[0]) == 3
        assert results[0]["sensitivity"].notna().all()


@pytest.mark.parametrize("by", [["images"], ["displacements"], ["images", "displacements"]])
def test_the_gradient_timed_is_the_one_that_tensorflow_derives(benchmarks, by):
    options = {"images": 2, "side": 8, "points": 3, "reach": 0.0, "by": by}  # so draws are the same
    calls = [
        benchmarks("deformations").gradient(**options, derived=derived, xla=xla)
        for derived, xla in ((False, False), (False, True), (True, True))
    ]
    results = [call(0) for call in calls]
    assert results[0] != 0
    np.testing.assert_allclose(results[1:], results[0], rtol=1e-4)


def test_the_bare_loop_trains(benchmarks):
    model = benchmarks("measurements")._training(128).model
    before = model.get_weights()
    benchmarks("measurements").bare_loop(128)(0)
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_a_worker(benchmarks):
    arguments = {"images": 2, "side": 8, "points": 3, "reach": 1.0}
    worker = benchmarks("processes").Worker("eager", "deformations:eager", arguments)
    with contextlib.closing(worker):
        assert worker.ready["versions"]["keras"]
        assert worker.ready["first"] > 0
        answer = worker.seconds(3)
        assert len(answer["seconds"]) == 3
        assert min(answer["seconds"]) > 0
        assert answer["resident_gib"] > 0.1


def test_a_worker_that_cannot_says_why(benchmarks):
    with pytest.raises(RuntimeError, match="no_such_function"):
        benchmarks("processes").Worker("x", "deformations:no_such_function", {})


def test_rows_are_medians_of_ratios_within_rounds(benchmarks):
    comparison = benchmarks("cases").Comparison(
        "case",
        {"first": None, "second": None, "third": None},
        {"second": ("least", 2.5), "third": ("most", 0.6)},
        images=10,
    )
    # The machine was slow in the second round: for both.
    timed = {"first": [1.0, 4.0, 1.0], "second": [2.0, 8.0, 3.0], "third": [0.5, 2.0, 0.5]}
    ready = {label: {"first": 1.0, "peak_gib": 0.5} for label in timed}
    table = pd.DataFrame(benchmarks("run")._rows(comparison, timed, ready))
    assert table["ratio"].tolist() == [1.0, 2.0, 0.5]
    assert table["ratio_high"].tolist() == [1.0, 2.5, 0.5]
    assert table["images_per_second"].tolist() == [10.0, 10 / 3, 20.0]
    assert table["reached"].tolist() == ["", "no", "yes"]
    assert table["goal"].tolist() == ["", "at least 2.5", "at most 0.6"]


def test_exponents(benchmarks):
    values = np.array([1, 2, 4, 8, 16, 32])
    table = pd.DataFrame(
        {"series": "a", "value": values, "seconds": 3.0 * values**2, "peak_gib": 1.0 * values}
    )
    slopes = benchmarks("growth").exponents(table)
    assert slopes["exponent_seconds"][0] == pytest.approx(2)
    assert slopes["exponent_peak_gib"][0] == pytest.approx(1)


def test_on_a_device(benchmarks):
    """What is for a GPU runs on a CPU; the numbers of a candidate are its own."""
    device = benchmarks("device")
    warps = device.warps(2, 224)
    shapes = {tuple(call(0).shape) for call in warps.values()}
    assert shapes == {(2, 224, 224, 3)}
    table = device.timed(warps, 2)
    assert table["candidate"].tolist() == list(warps)
    assert (table["seconds"] > 0).all()
    assert table["ratio"][0] == table["ratio_low"][0] == 1


def test_figures(benchmarks, tmp_path):
    table = pd.DataFrame(
        {
            "comparison": ["a case", "a case", "import", "import"],
            "candidate": ["ours", "theirs", "ours", "theirs"],
            "ratio": [1.0, 20.0, 1.0, 0.9],
            "ratio_low": [1.0, 18.0, 1.0, 0.8],
            "ratio_high": [1.0, 22.0, 1.0, 1.0],
            "images_per_second": [1000.0, 50.0, 1.0, 1.1],
        }
    )
    benchmarks("figure").draw(table, tmp_path / "a.png")
    growth = pd.DataFrame(
        {"series": "a, b (c)", "value": [1, 2, 4], "seconds": [1, 2, 4], "peak_gib": [0, 1, 2]}
    )
    module = benchmarks("growth")
    module.draw(growth, module.exponents(growth), tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("a.png", "b.png"))


def test_an_unknown_comparison_is_refused():
    command = [sys.executable, FOLDER / "run.py", "--only=nonsense"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode != 0
    assert "names none of" in found.stdout + found.stderr


def test_committed_results_have_every_comparison(benchmarks):
    folder = FOLDER.parent / "results" / "benchmarks"
    table = pd.read_csv(folder / "timings.csv", keep_default_na=False)
    for each in benchmarks("cases").COMPARISONS:
        rows = table[table["comparison"] == each.name]
        assert rows["candidate"].tolist() == list(each.candidates)
    machine = json.loads((folder / "machine.json").read_text())
    assert machine["cores"]
    assert machine["threads"]
    labels = {label for each in benchmarks("cases").COMPARISONS for label in each.candidates}
    assert set(machine["versions"]) >= labels  # also of what was timed earlier than the rest


def test_the_readme_shows_the_speeds_that_were_measured():
    """All of its table, with three digits."""
    measured = pd.read_csv(FOLDER.parent / "results" / "benchmarks" / "timings.csv")
    candidates = (
        *("deformstab, compiled", "tensorflow-addons", "Keras RandomElasticTransform"),
        *("kornia", "albumentations", "OpenCV remap, flow known"),
    )
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    table = text.split("## Speed")[1].split("##")[0]
    lines = [line for line in table.splitlines() if "×" in line]
    assert len(lines) == 3
    for line in lines:
        name, *shown = (cell.strip(" *") for cell in line.strip("|").split("|"))
        rows = measured[measured["comparison"].str.startswith(f"{name}, ")].set_index("candidate")
        there = rows["images_per_second"].to_dict()
        assert [candidate in there for candidate in candidates] == [cell != "" for cell in shown]
        for candidate, cell in zip(candidates, shown):
            if cell:
                assert float(cell.replace(",", "")) == float(f"{there[candidate]:.3g}"), candidate
