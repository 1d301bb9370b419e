"""What a results file says of the process that made it."""

import json
import subprocess

import pytest

from deformstab import provenance


def test_provenance_names_versions_machine_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/reproduce_figures", "--seeds=2"])
    found = json.loads(json.dumps(provenance.provenance()))
    for package in ("numpy", "keras", "pandas", "matplotlib", "seaborn"):
        assert found["versions"][package] == __import__(package).__version__
    assert found["backend"] in ("tensorflow", "jax", "torch")
    assert found["command"] == ["reproduce_figures", "--seeds=2"]
    assert found["devices"]
    assert found["cores"] >= 1


def test_the_git_commit_is_that_of_the_source_or_none(tmp_path, monkeypatch):
    source = tmp_path / "package" / "provenance.py"
    source.parent.mkdir()
    source.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(source))
    assert provenance.provenance()["git_commit"] is None  # no repository

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("init")
    except FileNotFoundError:
        pytest.skip("no git here")
    assert provenance.provenance()["git_commit"] is None  # a repository without a commit
    git("commit", "--allow-empty", "-m", "first")
    assert (
        provenance.provenance()["git_commit"] is None
    )  # installed inside another project's repository
    git("add", ".")
    git("commit", "-m", "second")
    head = git("rev-parse", "HEAD")
    assert provenance.provenance()["git_commit"] == head
    (tmp_path / "elsewhere.py").write_text("")
    assert provenance.provenance()["git_commit"] == head
    source.write_text("something else")
    assert provenance.provenance()["git_commit"] == f"{head}+changes"
    git("commit", "-a", "-m", "third")
    assert provenance.provenance()["git_commit"] == git("rev-parse", "HEAD") != head
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.provenance()["git_commit"] is None  # no git


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["cpu:0"], False),
        (["CPU:0", "cpu:1"], False),
        (["cpu:0", "gpu:0"], True),
        (["cuda:0"], True),
        (["NVIDIA H100 80GB HBM3"], True),
        (["tpu:0"], True),
    ],
)
def test_whether_there_is_more_than_processors(monkeypatch, found, expected):
    monkeypatch.setattr(provenance, "devices", lambda: found)
    assert provenance.computes_on_gpu() is expected
