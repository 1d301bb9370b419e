"""From a preset to a folder: everything is there, nothing is done twice, nothing is overwritten."""

import dataclasses
import functools
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from test_claims import IDS
from test_result_tables import RUN_COLUMNS, made_run, small_preset

import deformstab
from deformstab.paper import reproduce as reproduction
from deformstab.paper.figures import style
from deformstab.paper.pages import claims_page, folder_page
from deformstab.paper.reproduce import reproduce
from deformstab.paper.runs import experiments, runs
from deformstab.paper.runs.presets import PRESETS, Preset
from deformstab.paper.verdicts import approximations
from deformstab.paper.verdicts.pooling_shifts import pooling_shifts
from deformstab.tables import read_csv, write_json

FIGURES = ["1", "2", "3", "4", "5", "A1", "A2", "A3", "pooling"]
TINY = ((1, 4), (1, 8), (1, 8), (1, 8))
SMALLEST = dataclasses.replace(
    PRESETS["quick"],
    image_size=16,
    max_displacement=1.0,
    seeds=2,
    epochs=1,
    train_images=40,
    batch_size=20,
    measured_images=8,
    blocks=TINY,
    downsampling=("average", "strided"),
    sigmas=(0.0, 1.0),
    class_displacements=(0.5, 1.0),
    large_image_size=32,
    large_train_images=20,
    large_epochs=1,
    large_blocks=TINY,
    large_downsampling=("max",),
    filters_downsampling="average",
)


def content(folder):
    """Every file below a folder: path → bytes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def text(folder, name):
    return (folder / name).read_text(encoding="utf-8")


def links_of(page):
    return [link for link in re.findall(r"\]\(([^)#]+)\)", page) if not link.startswith("http")]


@pytest.fixture(scope="module", autouse=True)
def quick_pictures():
    """Coarse, and without fonts in a PDF: of pictures, these tests ask which there are.

    How they are saved otherwise, `test_figures` asks.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style._RC, "pdf.fonttype", 3)
        patch.setitem(style._FORMATS, "png", {"dpi": 60})
        yield


# ---- the whole, really run ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The quick preset at its smallest, all of it."""
    folder = tmp_path_factory.mktemp("results") / "quick"
    results = reproduce(SMALLEST, folder, command="bin/reproduce_figures --seeds=2")
    assert results.preset == SMALLEST
    return folder


def test_every_figure_table_and_page_is_there(folder):
    figures = {f"figures/figure_{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    names = (
        "sensitivity smoothness training epochs claims claims_by_choice changes_by_kind choices "
        "approximations pooling_shifts"
    ).split()
    tables = {f"tables/{name}.csv" for name in names}
    pages = {"README.md", "claims.md", "provenance.json"}
    found = content(folder)
    assert {name for name in found if not name.startswith("runs/")} == figures | tables | pages
    for name in figures:
        assert found[name].startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
        assert len(found[name]) > 5000
    expected = {f"runs/{each.id}.json" for each in SMALLEST.experiments()}
    assert {name for name in found if name.startswith("runs/")} == expected


def test_the_tables_hold_every_run(folder):
    sensitivity = read_csv(folder / "tables" / "sensitivity.csv")
    conditions = [name for name in RUN_COLUMNS if name != "dataset"]
    phases = sensitivity.groupby([*conditions, "phase", "metric"])
    # 9 representations; networks that are trained are measured twice, by two metrics each.
    trained, untrained = 2 * 2 * 2 + 2 + 2 * 2, 2 * 2 + 2 * 3 * 2
    assert len(phases) == trained * 4 + untrained * 2
    assert phases.size().eq(9).all()
    assert not sensitivity.duplicated([*conditions, "phase", "metric", "layer"]).any()
    smoothness = read_csv(folder / "tables" / "smoothness.csv")
    strided = smoothness["downsampling"].eq("strided").sum()
    assert strided == 4 * 2 * 8 + 6 * 8
    assert len(smoothness) == strided + (trained - 4) * 2 * 4 + (untrained - 6) * 4
    training = read_csv(folder / "tables" / "training.csv")
    assert len(training) == trained
    assert training["accuracy_train"].between(0, 1).all()
    for name, own in (
        ("approximations", approximations.approximations()),
        ("pooling_shifts", pooling_shifts()),
    ):
        written = read_csv(folder / "tables" / f"{name}.csv")
        written = written.astype(own.dtypes)  # 10.0 is written as 10
        pd.testing.assert_frame_equal(written, own, check_dtype=False)


@pytest.mark.parametrize("name", ["sensitivity", "smoothness"])
def test_beside_every_trained_network_is_how_accurate_it_is(folder, name):
    read = functools.partial(pd.read_csv, dtype=str, keep_default_na=False)
    table = read(folder / "tables" / f"{name}.csv")
    of = {}
    for row in read(folder / "tables" / "training.csv").to_dict("records"):
        key = tuple(row[column] for column in RUN_COLUMNS)
        of[key] = row["accuracy_train"], row["accuracy_test"]
    known = 0
    for row in table.to_dict("records"):
        found = row["accuracy_train"], row["accuracy_test"]
        key = tuple(row[column] for column in RUN_COLUMNS)
        assert found == (of[key] if row["phase"] == "trained" else ("", ""))
        known += row["phase"] == "trained"
    assert known
    (run, *_) = (folder / "runs").glob("main-*.json")  # which has its own, once
    assert "accuracy" not in json.loads(run.read_text())["tables"][name].splitlines()[0]


def test_networks_of_one_seed_start_equal_in_every_study(folder):
    """What `choices` calls the default is no other network than `main` has at initialization."""
    sensitivity = read_csv(folder / "tables" / "sensitivity.csv")
    plain = sensitivity.query("study == 'main' and phase == 'initial'")
    by_task = plain.pivot_table("sensitivity", ["downsampling", "seed", "metric", "layer"], "task")
    assert (by_task["true_labels"] == by_task["random_labels"]).all()
    default = "study == 'choices' and input_scaling == 'symmetric' and not batch_statistics"
    default = sensitivity.query(default).set_index(["downsampling", "seed", "metric", "layer"])
    assert len(default) == 2 * 2 * 9
    assert (default["sensitivity"] == by_task["true_labels"].loc[default.index]).all()


def check_interval(cell, row):
    """A cell tells value and interval to within 5 % of its width, and no more digits than that."""
    numbers = [float(number) for number in re.findall(r"-?\d[\d.]*(?:e-?\d+)?|inf", cell)]
    expected = [row.value, row.low, row.high]
    if np.isnan(row.low):
        assert numbers == ([] if np.isnan(row.value) else [float(f"{row.value:.3g}")])
        return
    assert cell.count(" to ") == 1
    width = row.high - row.low
    if np.isinf(width):
        assert numbers == [float(f"{number:.3g}") for number in expected]
    else:
        assert numbers == pytest.approx(expected, abs=0.0501 * width)
        assert len({len(number.partition(".")[2]) for number in re.findall(r"-?[\d.]+", cell)}) == 1


def test_the_claims_page_has_every_claim_and_says_what_it_is_not(folder):
    page = text(folder, "claims.md")
    top = page[: page.index("|")]
    assert "demonstration, not evidence" in top
    assert "2 seeds describe; evidence needs 5" in top
    table = read_csv(folder / "tables" / "claims.csv")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] in IDS]
    assert [row[0] for row in rows] == list(table["claim"])
    assert list(dict.fromkeys(table["claim"])) == IDS
    for row, expected in zip(rows, table.itertuples()):
        assert len(row) == 9
        assert row[1:5] == [
            expected.sentence,
            str(expected.figure),
            expected.statistic,
            expected.claimed,
        ]
        check_interval(row[5], expected)
        assert row[6] == str(expected.seeds)
        if row[7] == "< 0.0001":
            assert expected.p_holm <= 1e-4
        else:
            assert row[7] == ("" if np.isnan(expected.p_holm) else f"{expected.p_holm:.2g}")
        note = "" if pd.isna(expected.note) else expected.note
        assert row[8] == f"**{expected.verdict}**" + (f": {note}" if note else "")
    counts = table["verdict"].value_counts()
    for verdict, count in counts.items():
        assert f"{count} {verdict}" in page
    assert "0.05" in page  # the rule about batch normalization
    choices = read_csv(folder / "tables" / "choices.csv")
    assert len(choices) == 12
    for number in choices["sensitivity"]:
        assert f"| {number:.3f} |" in page
    for accuracy in ("training, batch statistics", "inference"):
        assert accuracy in page


def test_rows_of_the_claims_page_that_lack_something():
    row = {"claim": "a", "sentence": "b.", "figure": "1", "statistic": "c", "claimed": "< 1"}
    row |= {"value": 0.5, "low": 0.25, "high": 0.8, "seeds": 5, "p": 0.01, "p_holm": 0.0314}
    row |= {"verdict": "inconclusive", "note": ""}
    for changes, expected in [
        ({}, "0.50 (0.25 to 0.80) | 5 | 0.031 | **inconclusive**"),
        ({"note": "why"}, "0.50 (0.25 to 0.80) | 5 | 0.031 | **inconclusive**: why"),
        ({"p_holm": 3e-7}, "0.50 (0.25 to 0.80) | 5 | < 0.0001 | **inconclusive**"),
        ({"p_holm": 1.0}, "0.50 (0.25 to 0.80) | 5 | 1 | **inconclusive**"),
        (
            {"low": 0.4999, "high": 0.5002},
            "0.50000 (0.49990 to 0.50020) | 5 | 0.031 | **inconclusive**",
        ),
        ({"low": 3.0, "high": 99.0}, "0 (3 to 99) | 5 | 0.031 | **inconclusive**"),
        ({"low": 0.0, "high": np.inf}, "0.5 (0 to inf) | 5 | 0.031 | **inconclusive**"),
        ({"low": np.nan, "high": np.nan, "p_holm": np.nan}, "0.5 | 5 |  | **inconclusive**"),
    ]:
        *_, line = claims_page.claims_table(pd.DataFrame([row | changes]))
        assert line == f"| a | b. | 1 | c | < 1 | {expected} |"


def test_the_index_leads_to_everything(folder):
    page = text(folder, "README.md")
    links = links_of(page)
    for link in links:
        assert (folder / link).is_file(), link
    assert {f"figures/figure_{name}.png" for name in FIGURES} <= set(links)
    assert {"claims.md", "provenance.json", "tables/sensitivity.csv"} <= set(links)
    assert "demonstration, not evidence" in page[: page.index("|")]
    for name in FIGURES:
        assert f"`bin/reproduce_figures --seeds=2 --figures={name}`" in page
        assert re.search(rf"\[{name}\]\(#figure-{name.lower()}\)", page)
        assert re.search(rf"^## Figure {name}$", page, flags=re.MULTILINE)
    assert "photos at 16 px, 40 training images, 1 epochs, 2 seeds" in page
    shown = {claim for claim in IDS if f"{claim}: " in page}
    assert shown == set(IDS)
    assert deformstab.__version__ in page


def test_provenance_tells_how_it_was_made(folder):
    found = json.loads(text(folder, "provenance.json"))
    assert found["configuration"] == SMALLEST.configuration()
    assert set(found["seconds_per_run"]) == {each.id for each in SMALLEST.experiments()}
    assert all(seconds > 0 for seconds in found["seconds_per_run"].values())
    total = sum(found["seconds_per_run"].values())
    assert found["seconds"] == pytest.approx(total)
    assert set(found["seconds_by_study"]) == set(SMALLEST.studies)
    assert sum(found["seconds_by_study"].values()) == pytest.approx(total)
    of_main = [s for name, s in found["seconds_per_run"].items() if name.startswith("main-")]
    assert found["seconds_by_study"]["main"] == pytest.approx(sum(of_main))
    index = text(folder, "README.md")
    assert f"Runs took {total / 60:.1f} minutes on {SMALLEST.threads} threads (main " in index
    assert found["package_version"] == deformstab.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["devices"]
    assert found["command"]
    assert "git_commit" in found
    assert "package version" in found["finished_when"]


def test_the_index_gives_commands_for_what_is_in_the_folder_not_for_what_came_last():
    preset = dataclasses.replace(small_preset(seeds=2), name="cifar10-small")
    of = lambda study, choice="", seed=0: next(
        dataclasses.replace(each, study=study, choice=choice, seed=seed)
        for each in preset.experiments(["main"])
    )
    recipes = [of("recipes", choice, seed) for choice in ("sgd", "inputs_unit") for seed in (0, 1)]
    flags = "--recipes=inputs_unit,sgd --recipes_seeds=2"
    assert (
        folder_page.commands("it", preset, [of("tasks"), of("main")])
        == ("it --studies=main,tasks",) * 2
    )
    studies = "it --studies=main,recipes"
    assert folder_page.commands("it", preset, [*recipes, of("main")]) == (
        f"{studies} {flags}",
        studies,
    )
    every = [of(study) for study in PRESETS["cifar10-small"].studies[:-1]]
    assert folder_page.commands("it", preset, [*every, *recipes]) == (f"it {flags}", "it")
    assert folder_page.commands("it --init_only", preset, [of("large")]) == ("it --init_only",) * 2
    quick = dataclasses.replace(preset, name="quick")
    assert folder_page.commands("it", quick, every) == ("it", "it")  # it has no recipes
    assert folder_page.commands("it", quick, []) == ("it", "it")


def test_the_index_counts_runs_that_do_not_say_what_they_were_made_with(folder, tmp_path):
    assert "each: `made_with` in its file in `runs/`." in text(folder, "README.md")
    copy = shutil.copytree(folder, tmp_path / "copy")
    files = sorted((copy / "runs").iterdir())
    for file in files[:2]:
        content = json.loads(file.read_text(encoding="utf-8"))
        del content["made_with"]  # as files had it not before
        file.write_text(json.dumps(content), encoding="utf-8")
    reproduce(SMALLEST, copy, ["pooling"])
    assert f"`runs/` (2 of {len(files)} files are older than that)." in text(copy, "README.md")


def test_figures_of_studies_that_are_left_out_are_refused(tmp_path):
    """Or they would be drawn empty, without a word."""
    preset = small_preset(studies=("filters", "recipes"))
    with pytest.raises(ValueError, match=r"figure 2 shows the studies large, main.*drop --studies"):
        reproduce(preset, tmp_path / "out", ["5", "2d", "2"])
    with pytest.raises(ValueError, match="figure 2 shows the studies main, which"):
        reproduction.list_runs(preset, tmp_path / "out", ["2d"])
    assert len(reproduction.list_runs(preset, tmp_path / "out", ["1", "5"]))


def test_provenance_records_the_threads_on_which_weights_depend(folder):
    assert "thread" in text(folder, "provenance.json")


def test_a_second_call_runs_nothing_and_gives_the_same_bytes(folder, monkeypatch):
    monkeypatch.setattr(runs, "_run", lambda this, *_: pytest.fail(f"runs {this.id}"))
    before = content(folder)
    some = ["2", "3", "pooling"]  # drawn again; the others stay
    reproduce(SMALLEST, folder, some, command="bin/reproduce_figures --seeds=2")
    after = content(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"provenance.json"}  # which names the commit of this call
    first, second = (json.loads(files["provenance.json"]) for files in (before, after))
    assert {**first, "git_commit": None} == {**second, "git_commit": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"seed": 1},
        {"max_displacement": 0.5},
        {"large_image_size": 48},
        {"dataset": "digits"},
        {"name": "other"},
        {"backend": "another"},
        {"test_images": 600},
    ],
)
def test_another_configuration_is_refused_and_nothing_changed(folder, monkeypatch, changes):
    monkeypatch.setattr(runs, "_run", lambda *_: pytest.fail("runs"))
    before = content(folder)
    with pytest.raises(ValueError, match="another configuration") as caught:
        reproduce(dataclasses.replace(SMALLEST, **changes), folder)
    ((name, new),) = changes.items()
    old = getattr(SMALLEST, name)
    for word in (str(folder), "output_dir", name, f"{old} there", f"{new} now"):
        assert word in str(caught.value)
    assert content(folder) == before


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_results_from_before_a_choice_are_what_it_then_was(folder, tmp_path, monkeypatch, backend):
    """A folder's configuration has no word of choices that are younger than its results."""
    monkeypatch.setattr(runs, "_run", lambda *_: pytest.fail("runs"))
    shutil.copytree(folder, tmp_path / "old")
    path = tmp_path / "old" / "provenance.json"
    provenance = json.loads(path.read_text()) | {"backend": backend}
    for name in ("backend", "test_images"):
        del provenance["configuration"][name]
    path.write_text(json.dumps(provenance))
    if backend == SMALLEST.backend:
        reproduce(SMALLEST, tmp_path / "old", ["pooling"])
    else:  # what a seed draws is another network there
        with pytest.raises(ValueError, match=f"backend: {backend} there, {SMALLEST.backend} now"):
            reproduce(SMALLEST, tmp_path / "old", ["pooling"])


# ---- the rest, with made-up runs ----


@pytest.fixture
def ran(monkeypatch):
    """Replaces `runs.run` by made-up tables; the experiments it was called with."""
    called = []

    def run(experiment):
        called.append(experiment)
        return made_run(experiment)

    monkeypatch.setattr(runs, "_run", lambda this, *_: (run(this), 0.5))
    return called


@pytest.mark.parametrize(
    ("figures", "studies"),
    [
        (["5a"], ["filters"]),
        (["3b"], ["tasks"]),
        (["3a", "A1", "pooling"], []),
        (["2a", "5a"], ["large", "filters"]),
    ],
)
def test_a_subset_of_figures_runs_and_draws_only_what_it_needs(tmp_path, ran, figures, studies):
    preset = small_preset(seeds=2)
    folder = tmp_path / "out"
    reproduce(preset, folder, figures)
    assert ran == sorted(preset.experiments(studies), key=lambda each: each.seed)
    assert list(dict.fromkeys(each.study for each in ran)) == studies
    drawn = {file.stem.removeprefix("figure_") for file in (folder / "figures").iterdir()}
    assert drawn == {name if name in FIGURES else name[0] for name in figures}
    # Whatever was not run: every table can be read, every link leads somewhere.
    for file in (folder / "tables").iterdir():
        read_csv(file)
    for link in links_of(text(folder, "README.md")):
        assert (folder / link).is_file(), link
    table = read_csv(folder / "tables" / "claims.csv")
    assert list(dict.fromkeys(table["claim"])) == IDS


def test_subsets_add_up_to_the_whole(tmp_path, ran):
    preset = small_preset(seeds=2, downsampling=("max", "strided"))
    reproduce(preset, tmp_path / "whole", ["A2", "5"])
    everything = list(ran)
    assert everything == sorted(preset.experiments(["main", "filters"]), key=lambda each: each.seed)
    ran.clear()
    for figures in (["5a"], ["A2"], ["5b"]):
        reproduce(preset, tmp_path / "parts", figures)
    assert sorted(each.id for each in ran) == sorted(each.id for each in everything)
    whole, parts = content(tmp_path / "whole"), content(tmp_path / "parts")
    same = [name for name in whole if name.startswith(("tables", "figures", "claims"))]
    assert len(same) == 9 + 4 + 1
    for name in same:
        assert parts[name] == whole[name], name


def test_what_a_folder_has_is_shown_whatever_is_asked_for_next(tmp_path, ran):
    kinds = {"downsampling": ("max", "strided"), "recipes": ("sgd",), "recipes_seeds": 2}
    preset = small_preset(seeds=2, **kinds)
    asked = [{"studies": ("main", "recipes")}, {"studies": ("filters",)}]
    asked += [{"studies": ("recipes",), "recipes": ("inputs_unit",), "recipes_seeds": 1}]
    reproduce(dataclasses.replace(preset, studies=("main", "filters", "recipes")), tmp_path / "all")
    for changes in asked:
        ran.clear()
        reproduce(dataclasses.replace(preset, **changes), tmp_path / "out")
        assert {each.study for each in ran} == set(changes["studies"])
    assert {(each.choice, each.seed) for each in ran} == {("inputs_unit", 0)}
    ran.clear()
    reproduce(dataclasses.replace(preset, studies=("choices",)), tmp_path / "out", ["pooling"])
    assert not ran
    for name in ("claims", "claims_by_choice", "changes_by_kind"):
        whole, parts = (read_csv(tmp_path / x / f"tables/{name}.csv") for x in ("all", "out"))
        pd.testing.assert_frame_equal(parts, whole)
    table = read_csv(tmp_path / "out" / "tables" / "training.csv")
    assert set(table["choice"].fillna("")) == {"", "sgd", "inputs_unit"}


def test_what_is_said_of_seeds_is_of_those_that_are_there(tmp_path, ran):
    """A look at a study that is not finished."""
    preset = small_preset(seeds=3, studies=("main",))
    stopped = dataclasses.replace(preset, seeds=2)
    reproduce(stopped, tmp_path / "stopped", ["2"])
    assert preset.experiments("main")[0] in ran
    for path in (tmp_path / "stopped" / "runs").iterdir():
        (tmp_path / "out" / "runs").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "runs" / path.name).write_bytes(path.read_bytes())
    write_json(
        {"configuration": preset.configuration()} | {"backend": preset.backend},
        tmp_path / "out" / "provenance.json",
    )
    reproduce(preset, tmp_path / "out", ["2"], finished_only=True)
    page, verdicts = (
        (tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("README.md", "claims.md")
    )
    assert "at 16 px, 40 training images, 1 epochs, 2 seeds, network" in page
    assert "2 seeds describe; evidence needs 5." in verdicts


def test_a_picture_of_fewer_runs_does_not_stand_above_a_caption_of_more(tmp_path, ran):
    preset, folder = small_preset(seeds=2), tmp_path / "out"
    main = dataclasses.replace(preset, studies=("main",))
    reproduce(dataclasses.replace(main, seeds=2), folder, ["2d"])
    first = (folder / "figures" / "figure_2.png").read_bytes()
    reproduce(preset, folder, ["5a"])  # other runs: Figure 2 is drawn again, of all there is
    (folder / "figures" / "figure_2.png").write_bytes(b"old")
    reproduce(preset, folder, ["5a"])  # nothing new
    assert (folder / "figures" / "figure_2.png").read_bytes() == b"old"
    reproduce(preset, folder, ["3b"])
    assert (folder / "figures" / "figure_2.png").read_bytes() == first


def test_what_is_finished_is_drawn_where_its_data_are_not(tmp_path, ran, monkeypatch):
    preset = small_preset(studies=("main",))
    reproduce(preset, tmp_path / "out", ["2"])

    def unreachable(*_):
        raise OSError("no network")

    monkeypatch.setattr(runs, "dataset_of", unreachable)
    reproduce(preset, tmp_path / "out", ["2"], finished_only=True)
    reproduce(preset, tmp_path / "out", ["2"])
    with pytest.raises(OSError, match="no network"):
        reproduce(dataclasses.replace(preset, studies=("tasks",)), tmp_path / "out", ["3b"])


def test_a_study_whose_data_are_unknown_hinders_no_other(tmp_path, ran):
    preset = small_preset(large_dataset="folder", studies=("filters",))
    reproduce(preset, tmp_path / "out")
    assert {each.study for each in ran} == {"filters"}
    with pytest.raises(ValueError, match="large_data_dir"):
        reproduce(dataclasses.replace(preset, studies=("large",)), tmp_path / "out")


def test_a_recipe_with_more_images_than_there_are_is_refused_before_any_run(tmp_path, ran):
    data = {"dataset": "digits", "train_images": 1000}
    preset = small_preset(studies=("main", "recipes"), recipes=("twice_the_images",), **data)
    with pytest.raises(
        ValueError, match=r"twice_the_images asks for 2000.* digits has 13.*--recipes"
    ):
        reproduce(preset, tmp_path / "out")
    assert not ran
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")])
def test_stopped_in_the_middle_it_goes_on_where_it_was(tmp_path, ran, monkeypatch, error):
    preset, figures = small_preset(seeds=2), ["5a"]
    reproduce(preset, tmp_path / "whole", figures)
    ran.clear()

    def stops(experiment, *rest, run=runs._run):
        if len(ran) == 3:
            raise error
        return run(experiment, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "_run", stops)
        with pytest.raises(type(error)):
            reproduce(preset, tmp_path / "broken", figures)
    assert len(list((tmp_path / "broken" / "runs").iterdir())) == 3
    finished = list(ran)
    ran.clear()
    # A look at what is there: nothing is run.
    looked = reproduce(preset, tmp_path / "broken", figures, finished_only=True)
    assert not ran
    assert set(looked.tables["sensitivity"]["sigma"]) == {each.sigma for each in finished}
    told = json.loads((tmp_path / "broken" / "provenance.json").read_text(encoding="utf-8"))
    assert set(told["seconds_per_run"]) == {each.id for each in finished}
    with pytest.raises(ValueError, match=r"nothing has no finished run of what is asked for"):
        reproduce(preset, tmp_path / "nothing", figures, finished_only=True)
    reproduce(preset, tmp_path / "broken", figures)
    # Seed after seed.
    assert finished + ran == sorted(preset.experiments(["filters"]), key=lambda each: each.seed)
    whole, broken = content(tmp_path / "whole"), content(tmp_path / "broken")
    for name in whole:
        if name.startswith(("tables", "figures", "claims")):
            assert broken[name] == whole[name], name


def test_another_version_of_the_package_runs_again_in_the_same_folder(tmp_path, ran, monkeypatch):
    preset = small_preset(seeds=2)
    reproduce(preset, tmp_path / "out", ["5a"])
    count = len(ran)
    monkeypatch.setattr(experiments, "NUMBERS", "999.0")
    reproduce(preset, tmp_path / "out", ["5a"])
    assert len(ran) == 2 * count
    table = read_csv(tmp_path / "out" / "tables" / "sensitivity.csv")
    assert not table.duplicated(["sigma", "seed", "phase", "metric", "layer"]).any()


# ---- what is refused ----


def test_an_unknown_figure_is_refused_before_anything(tmp_path, ran):
    with pytest.raises(ValueError, match=r"'7'.*2c"):
        reproduce(small_preset(), tmp_path / "out", ["2", "7"])
    assert not ran
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_elses_is_refused(tmp_path, ran):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis.*not empty.*output_dir"):
        reproduce(small_preset(), folder, ["pooling"])
    assert content(folder) == {"chapter1.tex": b"years of work"}
    assert not ran


def test_an_empty_folder_is_taken_and_a_file_is_not(tmp_path, ran):
    (tmp_path / "empty").mkdir()
    reproduce(small_preset(), tmp_path / "empty", ["pooling"])
    assert (tmp_path / "empty" / "figures" / "figure_pooling.pdf").is_file()
    (tmp_path / "file").write_text("kept")
    with pytest.raises((ValueError, OSError), match="file"):
        reproduce(small_preset(), tmp_path / "file", ["pooling"])
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("provenance", ["", "{", "[]", "3", "{}", '{"configuration": 3}'])
def test_a_provenance_file_of_another_kind_is_refused(tmp_path, ran, provenance):
    (tmp_path / "provenance.json").write_text(provenance)
    with pytest.raises(ValueError, match=r"provenance\.json.*output_dir"):
        reproduce(small_preset(), tmp_path, ["pooling"])
    assert content(tmp_path) == {"provenance.json": provenance.encode()}


def npz(path, size=16, count=24):
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, size, size, 3)).astype("uint8")
        arrays[f"y_{part}"] = np.arange(count) % 3
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("study", "figure"), [("", "2c"), ("large_", "2a"), ("tasks_", "3b"), ("", "5a")]
)
def test_bad_data_is_refused_before_the_first_run_and_spoils_no_folder(
    tmp_path, ran, study, figure
):
    bad = npz(tmp_path / "bad.npz", size=20)  # 16 or 32 is what the preset says
    preset = small_preset(**{f"{study}dataset": "npz", f"{study}data_dir": bad})
    with pytest.raises(ValueError, match=r"bad\.npz.*20×20"):
        reproduce(preset, tmp_path / "out", [figure])
    assert not ran
    # Corrected, the same command must work: nothing was begun in that folder.
    reproduce(small_preset(seeds=1), tmp_path / "out", ["pooling"])


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({"image_size": 8}, "2c"),  # four blocks halve it to nothing
        ({"large_image_size": 8}, "2a"),
        ({"tasks_dataset": "photos", "image_size": 12}, "3b"),
    ],
)
def test_images_too_small_for_the_network_are_refused_before_the_first_run(
    tmp_path, ran, changes, figure
):
    with pytest.raises(ValueError, match=r"(image_size|pixels)"):
        reproduce(small_preset(**changes), tmp_path / "out", [figure])
    assert not ran
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "figure"),
    [({"max_displacement": 5.0}, "5a"), ({"class_displacements": (0.5, 5.0)}, "3b")],
)
def test_deformations_that_fold_warn_with_their_rate_and_are_run(tmp_path, ran, changes, figure):
    with pytest.warns(UserWarning, match=r"\d+% of the deformations.*5.*fold"):
        reproduce(small_preset(**changes), tmp_path / "out", [figure])
    assert ran


# ---- what the pages say ----


def test_only_a_demonstration_says_it_is_one(tmp_path, ran):
    assert "demonstration, not evidence" in PRESETS["quick"].demonstration
    reproduce(small_preset(), tmp_path / "out", ["5a"])
    for page in ("claims.md", "README.md"):
        assert "demonstration" not in text(tmp_path / "out", page)


def test_a_demonstration_on_other_data_does_not_speak_of_photographs(tmp_path, ran):
    """`--dataset=npz --large_dataset=npz` starts from the quick preset as well."""
    data = {"data_dir": npz(tmp_path / "a.npz"), "large_data_dir": npz(tmp_path / "b.npz", 32)}
    preset = dataclasses.replace(SMALLEST, dataset="npz", large_dataset="npz", **data)
    reproduce(preset, tmp_path / "out", ["A2"])
    for page in ("claims.md", "README.md"):
        top = text(tmp_path / "out", page).split("|")[0]
        assert "demonstration, not evidence" in top
        assert "photograph" not in top


def test_the_index_does_not_lose_figures_drawn_before(tmp_path, ran):
    preset = small_preset(seeds=2)
    reproduce(preset, tmp_path / "out", ["A2"])
    reproduce(preset, tmp_path / "out", ["pooling"])
    page = text(tmp_path / "out", "README.md")
    assert "## Figure A2" in page
    assert "## Figure pooling" in page
    assert "## Figure 2" not in page


def test_progress_names_the_run_and_how_many_there_are(tmp_path, ran, capsys):
    reproduce(small_preset(seeds=2), tmp_path / "out", ["5a"])
    shown = capsys.readouterr().err
    assert "run 1 of 6: filters-photos-subsample-sigma0-seed0" in shown
    assert "run 6 of 6" in shown
    assert "left" in shown


def test_the_results_that_are_committed_are_of_the_preset_as_it_is():
    """Otherwise a fresh clone's first command is refused: the folder holds another configuration."""
    committed = ROOT / "results" / "quick" / "provenance.json"
    found = json.loads(committed.read_text(encoding="utf-8"))
    # A choice that there was not yet when they were computed was what its default is.
    found = Preset("").configuration() | found["configuration"]
    assert found == PRESETS["quick"].configuration()


def test_what_a_kill_left_half_written_goes_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduction, "_run", lambda *_: None)
    monkeypatch.setattr(reproduction, "_check_data", lambda *_: None)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / ".provenance.json.ab12_xyz").write_text("{")  # the very first write of all
    reproduce(SMALLEST, folder, ["pooling"])
    halves = [
        ".README.md.abcdefgh",
        "tables/.choices.csv.01234567",
        "figures/.figure_1.png.a_b_c_d_",
    ]
    others = [".README.md.bak", ".notes.abcdefgh", "tables/.keep"]
    for name in halves + others:
        (folder / name).write_text("")
    reproduce(SMALLEST, folder, ["pooling"])
    assert not any((folder / name).exists() for name in halves)
    assert all((folder / name).exists() for name in others)
