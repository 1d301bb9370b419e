"""The README's examples run, in order, as one session; the files it names are there."""

import re

import numpy as np
import pytest
from helpers import ROOT

from deformstab.paper.pages import claims_page
from deformstab.tables import read_csv

PAGES = (
    *("README.md", "benchmarks/README.md", "docs/findings.md"),
    *("results/quick/README.md", "results/cifar10-small/README.md"),
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_examples_run_and_give_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 6
    session = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), session)
    assert session["table"]["sensitivity"].notna().all()
    assert len(session["trained"]) == 13
    assert set(session["callback"].table["step"]) == {0, 1, 2, 4, 8, 16, 32}
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"sensitivity.png", "training.png"}
    assert session["comparison"]["ratio"].notna().all()
    assert set(session["strengths"]["max_displacement"]) == {0.5, 1, 2}
    assert 0 < session["answers"]["consistency"].item() <= 1
    assert len(session["distances"]) == 64 * session["table"]["sensitivity"].notna().sum()
    assert session["displacements"].shape == (8, 9, 2)
    assert session["flow"].shape[-1] == 2
    assert session["warped"].shape == (1, 32, 32, 3)
    first = [next(iter(session["pairs"])).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*first)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    for link in links:
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


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
    assert expected in README, f"the README's table is to be:\n{expected}"
