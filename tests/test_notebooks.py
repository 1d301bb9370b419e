"""The notebooks of examples/ run from top to bottom, and print what they were committed with."""

import os
import subprocess
import sys

import nbformat
import pytest
from helpers import ROOT
from test_readme import assert_printed

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def texts(notebook):
    """What each cell printed or gave as text; pictures have no text that says anything."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" not in output.get("data", {}) and output.get("name") != "stderr":
                found.append(output.get("text") or output["data"]["text/plain"])
    return found


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["measure_an_application", "watch_a_training"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_it_shows(path, tmp_path):
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
    subprocess.run(
        [*command, "--output-dir", str(tmp_path), str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    committed = nbformat.read(path, as_version=4)
    again = nbformat.read(tmp_path / path.name, as_version=4)
    assert len(texts(committed)) == len(texts(again)) > 0
    for shown, printed in zip(texts(committed), texts(again)):
        assert_printed(shown, printed)
    assert path.stat().st_size < 600_000
