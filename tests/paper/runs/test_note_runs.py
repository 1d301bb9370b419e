"""The study note: its runs, their files, and a folder that is drawn from them."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, committed_runs, needs_tensorflow

from deformstab.paper.note import gains, maxout, sparse
from deformstab.paper.reproduce import list_runs, reproduce
from deformstab.paper.runs import note_measurements, runs
from deformstab.paper.runs.note_experiments import STATEMENTS, STATES, NoteExperiment
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.runs.run_files import read_run
from deformstab.tables import read_csv

pytestmark = needs_tensorflow  # the reproduction's
PRESET = PRESETS["note"]
COMMITTED = ROOT / "results" / "note"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The committed runs, drawn again into an empty folder."""
    out = tmp_path_factory.mktemp("note") / "out"
    shutil.copytree(COMMITTED / "runs", out / "runs")
    shutil.copy(COMMITTED / "provenance.json", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "execute", lambda *_, **__: pytest.fail("it is finished"))
        reproduce(PRESET, out, command="bin/reproduce_figures --preset=note")
    return out


def test_a_statement_is_run_once_and_networks_of_every_seed():
    found = PRESET.experiments()
    assert [(each.part, each.seed) for each in found] == [
        *((part, 0) for part in STATEMENTS),
        *((state, seed) for state in STATES for seed in (0, 1, 2)),
    ]
    assert len({each.id for each in found}) == len(found)
    assert found[0].identity()["study"] == "note"
    assert dataclasses.replace(found[0], epochs=31).id != found[0].id
    later = dataclasses.replace(PRESET, seed=4, seeds=2).experiments()
    assert {each.seed for each in later if each.part in STATEMENTS} == {4}
    assert {each.seed for each in later} == {4, 5}


def test_the_committed_folder_is_what_its_runs_give(folder):
    assert list_runs(PRESET, COMMITTED)["finished"].all()
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"figure_note.png"}
    for path in (COMMITTED / "tables").glob("*.csv"):
        expected, found = read_csv(path), read_csv(folder / "tables" / path.name)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6)
    for page in ("claims.md", "README.md"):
        assert (folder / page).read_text("utf-8") == (COMMITTED / page).read_text("utf-8")


def test_the_section_has_a_row_for_every_number(folder):
    text = (folder / "claims.md").read_text(encoding="utf-8")
    section = text.split("## The note on convolution and pooling")[1]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(read_csv(folder / "tables" / "note_statements.csv"))
    assert "| sparse interactions | units outside that changed | 0 | 0 | 26,121,506 pairs" in text
    assert "0 reproduced, 0 not reproduced, 0 inconclusive, 14 not tested" in text


def test_other_folders_say_nothing_of_it():
    text = (ROOT / "results" / "pretrained" / "claims.md").read_text(encoding="utf-8")
    assert "The note on convolution" not in text


@pytest.mark.parametrize("damage", ["a row less", "twice", "a table less", "a state", "a column"])
def test_a_file_that_is_cut_is_refused(damage, tmp_path):
    experiment = next(each for each in PRESET.experiments() if each.part == "trained")
    path = COMMITTED / "runs" / f"{experiment.id}.json"
    read_run(path, experiment)
    result = json.loads(path.read_text(encoding="utf-8"))
    tables = result["tables"]
    lines = tables["note_gains"].splitlines(keepends=True)
    if damage == "a row less":
        tables["note_gains"] = "".join(lines[:-1])
    if damage == "twice":
        tables["note_gains"] = "".join([*lines[:-1], lines[-2]])
    if damage == "a table less":
        del tables["note_filters"]
    if damage == "a state":
        tables["note_gains"] = tables["note_gains"].replace("trained,", "initial,")
    if damage == "a column":
        tables["note_gains"] = tables["note_gains"].replace("below", "above", 1)
    other = tmp_path / "run.json"
    other.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged or of another run"):
        read_run(other, experiment)


@pytest.mark.parametrize("part", ["units", "maxima", "symmetries"])
def test_what_takes_seconds_is_measured_again_as_it_was(part):
    """Counts and whole numbers, on any machine."""
    experiment = next(each for each in PRESET.experiments() if each.part == part)
    expected, _ = read_run(COMMITTED / "runs" / f"{experiment.id}.json", experiment)
    found = note_measurements.measure(experiment)
    note_measurements.check(found, experiment)
    for name, frame in expected.items():
        other = found[name]
        if name == "note_maxima":  # photographs are scaled in floating point
            frame, other = (each[each["image"] != "photograph"] for each in (frame, other))
        pd.testing.assert_frame_equal(
            other.reset_index(drop=True), frame.reset_index(drop=True), check_dtype=False, rtol=1e-6
        )


def test_a_network_is_measured_by_its_filters(monkeypatch):
    """Which filters are handed on, for each state, and the accuracies of trained ones."""
    seen = {}

    def found(kernels, members, images, seed):
        seen["kernels"], seen["images"] = kernels, images
        return pd.DataFrame({"gain": [1.0]})

    monkeypatch.setattr(gains, "gains", found)
    options = {"seed": 1, "measured_images": 9, "epochs": 1}
    tables = note_measurements.measure(NoteExperiment("initial", **options))
    initial = maxout.network(1).get_layer("filters").get_weights()[0]
    np.testing.assert_array_equal(seen["kernels"], initial)
    np.testing.assert_array_equal(seen["images"], maxout.digits()[2][:9])
    assert tables["note_filters"]["accuracy_test"].isna().all()
    note_measurements.measure(NoteExperiment("made of turns", **options))
    np.testing.assert_array_equal(seen["kernels"], maxout.made_of_turns(1))
    called = []

    def trained(seed, turns, epochs):
        called.append((seed, turns, epochs))
        accuracies = dict.fromkeys(("accuracy_train", "accuracy_test", "accuracy_turned"), 0.5)
        return maxout.network(7), accuracies

    monkeypatch.setattr(maxout, "trained", trained)
    for state in STATES[1:3]:
        tables = note_measurements.measure(NoteExperiment(state, **options))
        assert tables["note_filters"]["accuracy_turned"].item() == 0.5
        assert set(tables["note_gains"]["state"]) == {state}
    assert called == [(1, False, 1), (1, True, 1)]


def test_fields_of_all_kinds_are_in_one_table():
    table = read_csv(COMMITTED / "tables" / "note_sparse.csv")
    for kind, rows in table.groupby("kind"):
        assert list(rows["field"]) == sparse.fields(kind)


def test_columns_of_texts_are_numbers_in_no_other_study():
    """The types of columns go by their names alone, in all files of runs."""
    for folder in ("cifar10-small", "pretrained"):
        _, content = next(committed_runs(folder))
        for text in json.loads(content)["tables"].values():
            if text.strip():
                frame = pd.read_csv(io.StringIO(text)).select_dtypes("number")
                assert not set(frame) & set(note_measurements.TEXTS)
