"""Runs that are packed beside their tables are finished runs: nothing of them is run again."""

import dataclasses
import io
import shutil
import tarfile

import pandas as pd
import pytest
from helpers import ROOT, needs_tensorflow

from deformstab.paper.reproduce import list_runs, reproduce
from deformstab.paper.runs import runs
from deformstab.paper.runs.output_folder import PACKED, PROVENANCE, refuse_other_results
from deformstab.paper.runs.presets import PRESETS
from deformstab.tables import read_csv, write_json

pytestmark = needs_tensorflow  # the reproduction's
NOTE = ROOT / "results" / "note"
PRESET = PRESETS["note"]


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """The committed folder of the note as it would be with its runs packed."""
    monkeypatch.setattr(runs, "execute", lambda *_, **__: pytest.fail("it is finished"))
    folder = tmp_path / "packed"
    folder.mkdir()
    shutil.copy(NOTE / "provenance.json", folder)
    with tarfile.open(folder / PACKED, "w:xz") as archive:
        archive.add(NOTE / "runs", "runs")
    return folder


def names(folder):
    return {path.name for path in (folder / "runs").glob("*")}


def test_packed_runs_are_finished(packed):
    assert list_runs(PRESET, packed)["finished"].all()
    assert names(packed) == names(NOTE)


def test_what_is_drawn_of_them_is_what_was_drawn_of_their_files(packed):
    reproduce(PRESET, packed, command="bin/reproduce_figures --preset=note")
    for path in (NOTE / "tables").glob("*.csv"):
        found = read_csv(packed / "tables" / path.name)
        pd.testing.assert_frame_equal(found, read_csv(path), rtol=1e-6)
    page, unpacked = ((each / "README.md").read_text("utf-8") for each in (packed, NOTE))
    assert page == unpacked.replace("in `runs/`", "in `runs.tar.xz`, which a second call unpacks")
    assert page != unpacked


def test_a_file_that_is_there_stays_as_it_is(packed):
    name = min(names(NOTE))
    (packed / "runs").mkdir()
    (packed / "runs" / name).write_text("mine", encoding="utf-8")
    refuse_other_results(packed, PRESET)
    assert (packed / "runs" / name).read_text(encoding="utf-8") == "mine"
    assert names(packed) == names(NOTE)


def test_nothing_is_written_outside_of_the_folder_of_runs(packed):
    with tarfile.open(packed / PACKED, "w:xz") as archive:
        for name in ("../../above.json", "/above.json", "runs/below.txt", "runs/inside.json"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
    refuse_other_results(packed, PRESET)
    assert names(packed) == {"above.json", "inside.json"}
    assert {path.name for path in packed.iterdir()} == {PACKED, "provenance.json", "runs"}
    assert {path.name for path in packed.parent.iterdir()} == {packed.name}


def test_of_another_configuration_nothing_is_unpacked(packed):
    with pytest.raises(ValueError, match="another configuration"):
        reproduce(dataclasses.replace(PRESET, seeds=2), packed)
    assert not (packed / "runs").exists()


@pytest.mark.parametrize(("run", "decides"), [("questions-network-a", True), ("note-a", False)])
def test_what_is_packed_says_which_choices_decide(tmp_path, run, decides):
    """Only runs of open questions read `shuffles`."""
    preset = dataclasses.replace(PRESETS["quick"], shuffles=2)
    write_json(
        {"backend": preset.backend, "configuration": preset.configuration()}, tmp_path / PROVENANCE
    )
    with tarfile.open(tmp_path / PACKED, "w:xz") as archive:
        archive.addfile(tarfile.TarInfo(f"runs/{run}.json"))
    other = dataclasses.replace(preset, shuffles=3)
    if decides:
        with pytest.raises(ValueError, match="shuffles: 2 there, 3 now"):
            refuse_other_results(tmp_path, other)
    else:
        refuse_other_results(tmp_path, other)
    refuse_other_results(tmp_path, preset)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_archive_is_refused_by_name(packed, damage):
    path = packed / PACKED
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "cut" else b"text")
    with pytest.raises(ValueError, match=r"runs\.tar\.xz cannot be unpacked .* fetch it again"):
        reproduce(PRESET, packed)
