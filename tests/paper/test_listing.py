"""What would be run, before it is: its order, what is there already, and nothing else."""

import dataclasses
import re

import pytest
import test_bin
from test_training_paths import tracked_preset, tracked_run

from deformstab.paper import reproduce as reproduction
from deformstab.paper.figures import style
from deformstab.paper.figures.catalogue import FIGURES, drawable, resolve
from deformstab.paper.reproduce import list_runs, reproduce
from deformstab.paper.runs import runs
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.verdicts.result_tables import Results
from deformstab.tables import read_csv

call = test_bin.call  # a script's `main` in this process
OTHER_NETWORKS = {"pretrained_2b", "pretrained_4a"}  # with their own study only
QUESTIONS = {f"question_{number}" for number in range(1, 7)}
APART = OTHER_NETWORKS | QUESTIONS | {"note"}
COLUMNS = ["run", "finished", "seconds", "gigabytes"]


@pytest.fixture
def ran(monkeypatch):
    """Replaces runs by made-up tables and figures by their names; the experiments that are run."""
    called = []

    def run(experiment, checkpoint, networks=None):
        called.append(experiment)
        return tracked_run(experiment), 0.5

    monkeypatch.setattr(runs, "_run", run)
    for name, spec in FIGURES.items():
        plain = {"plot": lambda results: None, "caption": lambda results: "A caption."}
        monkeypatch.setitem(FIGURES, name, dataclasses.replace(spec, **plain))

    def save(figure, caption, path):
        path.parent.mkdir(exist_ok=True)
        for suffix in ("png", "pdf"):
            path.with_suffix(f".{suffix}").write_text("")

    monkeypatch.setattr(style, "save", save)
    return called


def drawn(folder):
    return {path.stem.removeprefix("figure_") for path in (folder / "figures").iterdir()}


def preset_of(**changes):
    """All studies, two kinds, two seeds."""
    kinds = {"downsampling": ("max", "strided"), "main_tasks": ("true_labels",), "seeds": 2}
    return tracked_preset(**kinds | {"studies": PRESETS["cifar10-small"].studies} | changes)


# ---- the order ----


def test_seeds_come_first_and_recipes_last_one_after_another():
    preset = preset_of(seeds=3, recipes=("sgd", "inputs_unit"))
    table = list_runs(preset, "nowhere")
    by_id = {each.id: each for each in preset.experiments()}
    assert sorted(table["run"]) == sorted(by_id)
    order = [by_id[name] for name in table["run"]]
    stages = [(each.choice, each.seed) for each in order]
    expected = [(choice, seed) for choice in ("", "sgd", "inputs_unit") for seed in range(3)]
    assert list(dict.fromkeys(stages)) == expected  # each of them once, so none is interrupted
    # Within a stage, the order of tables.
    for stage in expected:
        found = [each.id for each, its in zip(order, stages) if its == stage]
        assert found == [name for name in by_id if name in found]


@pytest.mark.parametrize("figures", [(), ("2c",), ("5a", "3b"), ("trajectory",), ("pooling",)])
def test_the_list_is_what_is_run_in_that_order(tmp_path, ran, figures):
    changes = {"track": "trajectory" in figures, "variants": False, "recipes": ("sgd",)}
    preset, folder = preset_of(**changes), tmp_path / "out"
    table = list_runs(preset, folder, figures)
    assert list(table) == COLUMNS
    assert not folder.exists()
    assert not table["finished"].any()
    reproduce(preset, folder, figures)
    assert [each.id for each in ran] == list(table["run"])
    again = list_runs(preset, folder, figures)
    assert list(again["run"]) == list(table["run"])
    assert again["finished"].all()


def test_the_list_tells_what_is_finished_and_touches_nothing(tmp_path, ran):
    preset = preset_of(track=False, variants=False)
    reproduce(preset, tmp_path / "out", ["2c"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    table = list_runs(preset, tmp_path / "out")
    expected = {each.id: each.study == "main" for each in preset.experiments()}
    assert dict(zip(table["run"], table["finished"])) == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(ran) == 4


def test_the_list_has_what_a_run_costs(tmp_path):
    preset = PRESETS["cifar10-small"]
    table = list_runs(preset, tmp_path)
    by_id = {each.id: each for each in preset.experiments()}
    for row in table.to_dict("records"):
        this = by_id[row["run"]]
        assert row["seconds"] == round(this.cost)
        assert row["gigabytes"] == pytest.approx(this.memory / 2**30, abs=0.06)


def test_what_would_be_refused_when_run_is_refused_when_listed(tmp_path, ran):
    reproduce(preset_of(), tmp_path / "out", ["pooling"])
    with pytest.raises(ValueError, match=r"another configuration.*epochs"):
        list_runs(preset_of(epochs=9), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        list_runs(preset_of(), tmp_path / "mine")
    with pytest.raises(ValueError, match="'7'"):
        list_runs(preset_of(), tmp_path / "new", ["7"])
    with pytest.raises(ValueError, match="data_dir"):
        list_runs(PRESETS["imagenet"], tmp_path / "new")


# ---- figures of networks that were watched ----


@pytest.mark.parametrize("function", [reproduce, list_runs])
@pytest.mark.parametrize("figures", [["trajectory"], ["2", "over_training"]])
def test_a_figure_of_training_without_tracking_is_refused(tmp_path, ran, function, figures):
    with pytest.raises(ValueError, match=f"{figures[-1]}.*--track.*--output_dir"):
        function(preset_of(track=False), tmp_path / "out", figures)
    assert not ran
    assert not (tmp_path / "out").exists()


def test_without_tracking_they_are_left_out_of_all_and_with_it_drawn(tmp_path, ran):
    plain = preset_of(track=False, variants=False, studies=("filters",))
    reproduce(plain, tmp_path / "plain")
    new = {"trajectory", "over_training"}
    assert drawn(tmp_path / "plain") == set(FIGURES) - new - APART
    reproduce(preset_of(), tmp_path / "watched", sorted(new))
    assert drawn(tmp_path / "watched") == new
    tables = tmp_path / "watched" / "tables"
    for name in ("trajectory", "paths", "claims_over_training", "claims_by_choice"):
        assert len(read_csv(tables / f"{name}.csv"))
    page = (tmp_path / "watched" / "README.md").read_text(encoding="utf-8")
    for name in new:
        row = next(line for line in page.splitlines() if line.startswith(f"| [{name}]"))
        assert f"--figures={name}`" in row
        for link in re.findall(r"\]\(([^)#]+)\)", row):
            assert (tmp_path / "watched" / link).is_file()
        assert "(tables/trajectory.csv)" in row
    assert "(tables/paths.csv)" in page


@pytest.mark.parametrize(
    "studies",
    [
        *(("pretrained",), ("main", "pretrained"), ("main",)),
        *(("note",), ("note", "pretrained"), ("main", "note")),
        *(("questions",), ("main", "questions"), ("note", "questions")),
    ],
)
def test_figures_of_other_networks_are_drawn_with_their_study(studies):
    preset = preset_of(studies=studies)
    found = set(drawable(resolve(()), preset, ()))
    assert found & OTHER_NETWORKS == (OTHER_NETWORKS if "pretrained" in studies else set())
    assert ("note" in found) == ("note" in studies)
    assert found & QUESTIONS == (QUESTIONS if "questions" in studies else set())
    assert (found - APART == set()) == ("main" not in studies)
    asked = ("pretrained_2b",)  # whatever the studies: what then is wrong is said later
    assert set(drawable(resolve(asked), preset, asked)) == {"pretrained_2b"}


# ---- through the script ----


def test_the_list_through_the_script(tmp_path):
    """The one that is typed first, on a new machine."""
    status, shown, errors = test_bin.process("reproduce_figures", "--list", cwd=tmp_path)
    assert status == 0, errors
    assert "Traceback" not in errors
    expected = list_runs(PRESETS["quick"], "nowhere")
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(expected["run"])
    assert lines[0].split() == COLUMNS
    hours = expected["seconds"].sum() / 3600
    assert f"{len(expected)} runs, {len(expected)} left: about {hours:.1f} hours" in lines[-1]
    assert f"at most {expected['gigabytes'].max():.1f} GB" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_the_totals_are_of_what_is_left(call, tmp_path, ran):
    flags = ["--image_size=16", "--max_displacement=1", "--seeds=2", "--figures=5a"]
    flags += ["--sigmas=0,1", "--output_dir=out"]
    assert (
        call("reproduce_figures", "--list", *flags)[1].splitlines()[-1].startswith("4 runs, 4 left")
    )
    assert not list(tmp_path.iterdir())
    assert not call("reproduce_figures", *flags)[0]
    last = call("reproduce_figures", "--list", *flags)[1].splitlines()[-1]
    assert last.startswith("4 runs, 0 left: about 0.0 hours")
    assert "0.0 GB" in last
    assert len(ran) == 4


def test_a_list_of_no_runs_says_so(call, tmp_path):
    status, shown = call("reproduce_figures", "--list", "--figures=pooling")
    assert not status
    assert "0 runs, 0 left" in shown
    assert not list(tmp_path.iterdir())


def test_no_list_of_what_init_only_leaves_out(call, tmp_path):
    status, _ = call("reproduce_figures", "--list", "--init_only", "--figures=2c")
    assert "drop --studies (or --init_only)" in status
    assert not list(tmp_path.iterdir())


def test_tracking_is_asked_for_through_the_script(call, tmp_path, ran):
    for more in ([], ["--list"]):
        status, _ = call("reproduce_figures", "--figures=trajectory", *more)
        assert "trajectory" in status
        assert "--track" in status
        assert not list(tmp_path.iterdir())
    status, shown = call("reproduce_figures", "--figures=trajectory", "--track", "--list")
    assert not status
    assert "main-photos-max-random_labels-seed2" in shown
    assert "large" not in shown


# ---- larger images at initialization only ----


@pytest.mark.parametrize("preset", ["quick", "cifar10-small"])
def test_init_only_is_the_study_of_larger_images_without_training(call, monkeypatch, preset):
    seen = []
    nothing = Results(PRESETS[preset], {})
    monkeypatch.setattr(reproduction, "reproduce", lambda *given: seen.append(given) or nothing)
    flags = [f"--preset={preset}", "--init_only", "--large_image_size=96"]
    assert not call("reproduce_figures", *flags)[0]
    ((found, *_),) = seen
    changes = {"studies": ("large",), "large_epochs": 0, "large_image_size": 96}
    assert found == dataclasses.replace(PRESETS[preset], **changes)
    status, shown = call("reproduce_figures", "--list", *flags)
    assert not status
    names = [line.split()[0] for line in shown.splitlines()[1:-1]]
    assert len(names) == 2 * PRESETS[preset].seeds
    assert all(name.startswith("large-") for name in names)
    assert {each.epochs for each in found.experiments()} == {0}


@pytest.mark.parametrize("flag", ["--large_epochs=0", "--large_epochs=3", "--studies=large"])
def test_init_only_leaves_no_other_choice_of_what_to_run(call, tmp_path, ran, flag):
    status, _ = call("reproduce_figures", "--init_only", flag)
    for word in ("--init_only", "--large_epochs", "--studies"):
        assert word in status
    assert not ran
    assert not list(tmp_path.iterdir())


def test_init_only_draws_what_there_is(call, tmp_path, ran):
    flags = ["--init_only", "--large_image_size=32", "--large_max_displacement=1", "--track"]
    status, _ = call("reproduce_figures", *flags, "--output_dir=out")
    assert not status
    assert [(each.study, each.epochs) for each in ran] == [("large", 0)] * 6
    assert drawn(tmp_path / "out") == set(FIGURES) - APART
    assert not {"trajectory.csv", "paths.csv"} & {
        p.name for p in (tmp_path / "out/tables").iterdir()
    }
