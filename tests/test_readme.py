"""The examples of README and docs run, and print what is shown; the files they name are there."""

import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import run_pages
from helpers import ROOT

from deformstab.paper.pages import claims_page
from deformstab.tables import read_csv

DOCS = ("docs/measuring.md", "docs/reporting.md", "docs/deforming.md")
DOCS += ("docs/convolution_and_pooling.md",)
PAGES = (
    *("README.md", "CONTRIBUTING.md", "benchmarks/README.md", *DOCS),
    *("docs/findings.md", "docs/answers.md", "docs/reproduction.md", "docs/keras_applications.md"),
    "docs/ideas.md",
    *("results/quick/README.md", "results/cifar10-small/README.md"),
    *("results/note/README.md", "results/questions/README.md"),
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Pages that need no other one. Each is run from its first line to its last.
ALONE = ["docs/start.md", "docs/gallery/README.md"]
ALONE += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs/how_to").glob("*.md"))]
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def blocks(page):
    return run_pages.blocks((ROOT / page).read_text("utf-8"))


def run_page(page, names):
    """Runs a page in the current folder; what it shows must be what it prints."""
    for block in blocks(page):
        printed = run_pages.run(block, page, names)
        if block.shown is not None:
            assert_printed(block.shown, printed)


def assert_printed(shown, printed):
    """Words and integers are equal, other numbers within their last digit, or 2 %.

    Another processor rounds sums otherwise, and training makes more of it.
    """
    shown, printed = shown.split(), printed.split()
    assert len(shown) == len(printed), printed
    for expected, found in zip(shown, printed):
        number = _NUMBER.fullmatch(expected)
        if number and number[1]:
            digit = 10.0 ** (1 - len(number[1]))
            assert float(found) == pytest.approx(float(expected), rel=0.02, abs=1.01 * digit), found
        else:
            assert found == expected


def test_what_is_printed_is_compared_to_the_digit():
    assert_printed("layer 0.034 -1.20 64", "layer  0.0344\n-1.199 64")
    for printed in ("layer 0.036 -1.20 64", "layer 0.034 -1.25 64", "layer 0.034 -1.20 65"):
        with pytest.raises(AssertionError):
            assert_printed("layer 0.034 -1.20 64", printed)
    with pytest.raises(AssertionError):
        assert_printed("layer 0.034", "layer 0.034 and more")
    (code, other) = run_pages.blocks("```python\nprint(1)\n```\n\n```\n1\n```\n\n```sh\nls\n```\n")
    assert (code.shown, other.shown) == ("1\n", None)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What a reader has who typed all of the README, and the pictures that it saved."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        run_page("README.md", names)
        names["drawn"] = {path.name for path in pathlib.Path().glob("*.png")}
    return names


def test_the_readme_shows_a_table():
    shown = [block.shown for block in blocks("README.md") if block.shown]
    assert "sensitivity_high" in shown[0]  # `session` compares it with the table that is printed


def test_the_network_that_the_readme_trains_learns(session):
    accuracy = session["model"].history.history["accuracy"][-1]
    assert accuracy > 0.7  # of ten classes
    model, data = session["model"], session["data"]
    assert (model.predict(data.x_test, verbose=0).argmax(axis=1) == data.y_test).mean() > 0.5


def test_python_examples_give_what_they_say(session):
    assert len(session["trained"]) == 13
    assert set(session["callback"].table["step"]) == {0, 1, 2, 4, 8, 16, 32, 64, 128}
    assert session["drawn"] == {"sensitivity.png", "training.png"}
    assert session["comparison"]["ratio"].notna().all()
    assert set(session["strengths"]["max_displacement"]) == {0.5, 1, 2}
    assert 0 < session["answers"]["consistency"].item() <= 1
    assert 0 < session["shifts"]["consistency"].item() <= 1
    assert len(session["distances"]) == 64 * session["table"]["sensitivity"].notna().sum()


@pytest.mark.parametrize("page", DOCS)
def test_examples_of_the_docs_run(page, session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = dict(session)
    run_page(page, names)
    if page == "docs/measuring.md":
        assert (tmp_path / "sensitivity.csv").exists()
        return
    if page == "docs/convolution_and_pooling.md":
        assert (names["difference"] != 0).any(axis=-1).sum() == 9
        np.testing.assert_allclose(names["table"]["moves_with"], 0, atol=1e-6)
        assert (names["table"]["stays"] > 0.001).all()
        return
    if page == "docs/reporting.md":
        names = {path.name for path in tmp_path.iterdir()}
        assert {"report.html", "families.html", "families.png", "measures.png"} < names
        return
    assert names["displacements"].shape == (8, 9, 2)
    assert names["flow"].shape == (8, 32, 32, 2)
    assert set(np.unique(names["both"]["segmentation_masks"])) <= {0, 1}
    np.testing.assert_array_equal(names["both"]["labels"], names["data"].y_test[:8])
    assert np.isfinite(names["moved"]).all()
    count = len(names["data"].x_train)

    def epochs(dataset):
        """The first image of two epochs."""
        whole = dataset.take(count + 1).as_numpy_iterator()
        first, *_, last = whole
        return first, last

    first, second = epochs(names["repeatable"])
    assert np.abs(first - second).max() > 0.01  # new draws in the next epoch
    np.testing.assert_array_equal(first, epochs(names["repeatable"])[0])  # the same in the next run
    np.testing.assert_array_equal(second, epochs(names["repeatable"])[1])
    first, second = (next(names["frozen"].as_numpy_iterator()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    first, second = (next(names["augmented"].as_numpy_iterator()) for _ in range(2))
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("page", ALONE)
def test_pages_that_stand_alone_run_and_print_what_they_show(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page, {})
    text = (ROOT / page).read_text(encoding="utf-8")
    drawn = {path.name for path in tmp_path.glob("*.png")}
    for picture in re.findall(r"!\[[^]]*\]\(([^)/]+\.png)\)", text):
        assert picture in drawn, f"{picture} is shown, and not drawn by the page"
        assert (ROOT / page).with_name(picture).stat().st_size < 150_000


def test_every_page_with_code_is_run():
    found = {
        "README.md",
        *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")),
    }
    found = {page for page in found if any(b.language == "python" for b in blocks(page))}
    assert found <= {"README.md", *DOCS, *ALONE}


def test_the_readme_counts_the_verdicts_that_there_are():
    verdicts = read_csv(ROOT / "results/cifar10-small/tables/claims.csv")["verdict"].value_counts()
    words = {3: "three", 10: "Ten"}
    sentence = (
        f"{words[verdicts['reproduced']]} come out as claimed, "
        f"{words[verdicts['not reproduced']]} do not, and one"
    )
    assert verdicts["not tested"] == 1
    assert sentence in " ".join(README.split())


@pytest.mark.parametrize("page", [*PAGES, *ALONE])
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    for link in links:
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("command", ["measure_sensitivity", "reproduce_figures"])
def test_flags_of_commands_that_pages_only_show_exist(command):
    """Commands whose output no page shows are not run; a flag that was renamed is found here."""
    helped = [sys.executable, str(ROOT / "bin" / command), "--helpfull"]
    known = subprocess.run(helped, capture_output=True, text=True).stdout
    known = set(re.findall(r"^ *--(?:\[no\])?(\w+):", known, flags=re.MULTILINE))
    assert "output_dir" in known or "output" in known
    used = set()
    for page in [*PAGES, *ALONE]:
        for block in blocks(page):
            if block.language == "sh":
                for line in block.code.replace("\\\n", " ").splitlines():
                    words = shlex.split(line, comments=True)
                    if words and words[0].removeprefix("bin/") == command:
                        used |= {word[2:].split("=")[0] for word in words if word.startswith("--")}
    assert used
    assert used <= known, used - known


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200


def test_every_dependency_is_named_with_its_reason():
    declared = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = declared.split("install_requires =")[1].split("[options.packages")[0]
    extras = declared.split("[options.extras_require]")[1]
    names = re.findall(r"^    ([a-z][\w-]*)", section + extras, flags=re.MULTILINE)
    assert "keras" in names
    table = README.split("## What it stands on")[1]
    for name in set(names):
        assert re.search(rf"\b{re.escape(name)}\b", table), name


def test_the_table_of_claims_is_that_of_the_committed_results():
    claims = read_csv(ROOT / "results" / "cifar10-small" / "tables" / "claims.csv")
    expected = "\n".join(claims_page.short_table(claims))
    findings = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert expected in findings, f"the table in docs/findings.md is to be:\n{expected}"
