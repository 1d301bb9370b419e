"""A run's file is held against its run: another's, a cut one or a damaged one does not count."""

import dataclasses
import io
import json
import os
import shutil

import pandas as pd
import pytest
from helpers import committed_runs
from test_result_tables import small_preset
from test_runs import experiment
from test_training_paths import tracked_run

import deformstab as ds
from deformstab.paper import reproduce as reproduction
from deformstab.paper.reproduce import reproduce
from deformstab.paper.runs import run_files, runs
from deformstab.paper.runs.experiments import Experiment
from deformstab.paper.runs.kept_networks import KeptNetworks
from deformstab.paper.runs.note_experiments import NOTE, NoteExperiment
from deformstab.paper.runs.pretrained_experiments import PRETRAINED, PretrainedExperiment
from deformstab.paper.runs.question_experiments import QuestionExperiment
from deformstab.paper.runs.run_files import read_run

THIS = experiment(
    **{"blocks": ((1, 4), (2, 8), (1, 8), (1, 8)), "downsampling": "strided_relu", "epochs": 3},
    **{"track": True, "variants": True, "class_pairs": True},
)


def experiment_of(identity) -> Experiment:
    """Fields that are younger than a file were what is said here, before there was a choice."""
    before = {"test_images": 512, "backend": "tensorflow", "class_pairs": False}
    if isinstance(identity.get("network"), dict):
        fields = {name: value for name, value in identity.items() if name != "study"}
        return QuestionExperiment(**fields | {"network": experiment_of(identity["network"])})
    if identity["study"] == PRETRAINED:
        fields = {name: value for name, value in identity.items() if name != "study"}
        return PretrainedExperiment(source="anywhere", **fields)
    if identity["study"] == NOTE:
        return NoteExperiment(
            **{name: value for name, value in identity.items() if name != "study"}
        )
    blocks = tuple(tuple(block) for block in identity["blocks"])
    return Experiment(**before | identity | {"blocks": blocks})


def of_another_seed(this):
    if isinstance(this, QuestionExperiment):
        return dataclasses.replace(this, network=of_another_seed(this.network))
    return dataclasses.replace(this, seed=this.seed + 1)


def test_every_committed_file_of_a_run_is_accepted_with_all_its_rows(tmp_path):
    count = 0
    for name, content in committed_runs():
        result, path = json.loads(content), tmp_path / name
        path.write_text(content, encoding="utf-8")
        this = experiment_of(result["experiment"])
        tables, seconds = read_run(path, this)
        assert seconds == result["seconds"]
        for table, text in result["tables"].items():
            rows = len(pd.read_csv(io.StringIO(text))) if text.strip() else 0
            assert len(tables[table]) == rows, (name, table)
        with pytest.raises(ValueError, match=r"its (seed|network) is"):
            read_run(path, of_another_seed(this))
        count += 1
    assert count == 350


# ---- one file, changed ----


def kept(folder, this=THIS, steps=lambda _: 6):
    """The file of a run of made-up tables; its content."""
    runs.keep(this, runs.as_result(this, tracked_run(this, steps=steps), 1.5, None), folder)
    path = folder / "runs" / f"{this.id}.json"
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_made_up_tables_are_whole(tmp_path):
    path, _ = kept(tmp_path)
    tables, seconds = read_run(path, THIS)
    assert seconds == 1.5
    assert {name: len(table) for name, table in tables.items()} == {
        "sensitivity": 2 * 2 * 10,  # phases, metrics, representations
        "smoothness": 2 * (5 + 4),  # 3×3 filters, and those of four strided convolutions
        "training": 1,
        "epochs": 3,
        "trajectory": 5 * (10 + 5),  # steps 1, 2, 3, 4, 6
        "variants": 2 * 5 * 10,
    }


def cut(name, rows=4):
    def change(result):
        lines = result["tables"][name].splitlines(keepends=True)
        result["tables"][name] = "".join(lines[: 1 + rows])

    return change


def doubled(name):
    def change(result):
        result["tables"][name] += result["tables"][name].splitlines(keepends=True)[-1]

    return change


def replaced(old, new, name="sensitivity"):
    def change(result):
        assert old in result["tables"][name]
        result["tables"][name] = result["tables"][name].replace(old, new, 1)

    return change


def put(**entries):
    return lambda result: result.update(entries)


def without(name):
    def change(result):
        del result["tables"][name]

    return change


def other_length(result):
    lines = result["tables"]["epochs"].splitlines(keepends=True)
    result["tables"]["epochs"] = "".join(lines[:-1])
    header, row = result["tables"]["training"].splitlines()
    place = header.split(",").index("epochs"), header.split(",").index("steps")
    cells = row.split(",")
    cells[place[0]], cells[place[1]] = "2", "4"
    result["tables"]["training"] = f"{header}\n{','.join(cells)}\n"


NAMES = ("sensitivity", "smoothness", "training", "epochs", "trajectory", "variants")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *((cut(name, 0), name) for name in NAMES),
        *((cut(name), name) for name in NAMES if name not in ("training", "epochs")),
        *((without(name), name) for name in NAMES),
        *((doubled(name), name) for name in NAMES),
        (replaced("cosine", "euclidean"), "sensitivity.*lacks phase initial, metric cosine"),
        (replaced("initial", "trained"), "sensitivity"),
        (replaced("block1_conv1_relu", "block9_conv1_relu"), "block1_conv1_relu"),
        (replaced("own_statistics", "train_images", "variants"), "variants"),
        (replaced("layer,", "lager,"), "in its table sensitivity, lager are not numbers"),
        (replaced("layer_index", "place"), "sensitivity has no column layer_index"),
        (replaced("distance", "distant"), "sensitivity has no column distance"),
        (cut("epochs", 2), "epochs"),
        (other_length, "2 of 3 epochs"),
        (put(tables=None), "no tables"),
        (put(tables=[]), "no tables"),
        (put(tables={"sensitivity": 3}), "no tables"),
        (put(seconds=None), "seconds"),
        (put(seconds="long"), "seconds"),
        (put(seconds=-1), "seconds"),
        (put(seconds=float("nan")), "seconds"),
        (put(experiment=None), "which experiment"),
        (put(experiment=THIS.identity() | {"seed": 1}), "its seed is 1, not 0"),
        (put(experiment=THIS.identity() | {"more": 1}), "its more is 1"),
        (lambda result: result["experiment"].pop("blocks"), "its blocks is None"),
    ],
)
def test_what_is_not_the_whole_of_its_run_is_refused(tmp_path, change, words):
    path, result = kept(tmp_path)
    change(result)
    path.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path.name} is damaged.*{words}") as found:
        runs.collect([THIS], tmp_path)
    assert "remove it, and the run is run again" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_network_that_diverged_keeps_its_rows(tmp_path):
    """Of one whose loss was not finite a column may hold no number at all."""
    path, result = kept(tmp_path)
    emptied = {
        "training": ("loss_in_fit", "accuracy_batch_statistics"),
        "sensitivity": ("sensitivity",),
        "smoothness": ("smoothness",),
    }
    for name, columns in emptied.items():
        frame = pd.read_csv(io.StringIO(result["tables"][name]), dtype="str", keep_default_na=False)
        assert set(columns) <= set(frame)
        result["tables"][name] = frame.assign(**dict.fromkeys(columns, "")).to_csv(index=False)
    path.write_text(json.dumps(result), encoding="utf-8")
    tables, _ = runs.collect([THIS], tmp_path)
    for name, columns in emptied.items():
        for column in columns:
            assert tables[name][column].dtype == "float64"
            assert tables[name][column].isna().all()


def test_a_number_that_is_none_is_refused(tmp_path):
    path, result = kept(tmp_path)
    for name in ("trajectory", "sensitivity", "epochs"):
        changed = json.loads(json.dumps(result))
        header, row, *rest = changed["tables"][name].splitlines()
        column = {"trajectory": "value", "sensitivity": "sensitivity", "epochs": "accuracy_train"}
        cells, place = row.split(","), header.split(",").index(column[name])
        cells[place] = "abc"
        changed["tables"][name] = "\n".join([header, ",".join(cells), *rest]) + "\n"
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
            read_run(path, THIS)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00random\x9c", b"null", b"[]", b"3", b'{"experiment": {', b"[" * 100_000],
    ids=["empty", "bytes", "null", "list", "number", "cut", "deep"],
)
def test_a_file_of_anything_else_is_named(tmp_path, content):
    path, _ = kept(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name} is damaged.*remove it") as found:
        runs.collect([THIS], tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, make):
    path, _ = kept(tmp_path)
    path.unlink()
    make(path)
    with pytest.raises(ValueError, match=rf"{path.name} is damaged.*no regular file"):
        runs.collect([THIS], tmp_path)


def test_one_seeds_file_over_anothers_does_not_count_twice(tmp_path):
    first, second = THIS, dataclasses.replace(THIS, seed=1)
    for each in (first, second):
        path, _ = kept(tmp_path, each)
    shutil.copy(tmp_path / "runs" / f"{first.id}.json", path)
    with pytest.raises(ValueError, match=rf"{path.name}.*its seed is 0, not 1"):
        runs.collect([first, second], tmp_path)


def test_a_training_may_end_early_only_where_it_fits(tmp_path):
    stopping = dataclasses.replace(THIS, stop_accuracy=0.5)
    path, result = kept(tmp_path, stopping)
    other_length(result)
    trajectory = pd.read_csv(io.StringIO(result["tables"]["trajectory"])).query("step < 6")
    result["tables"]["trajectory"] = trajectory.to_csv(index=False)
    path.write_text(json.dumps(result), encoding="utf-8")
    tables, _ = read_run(path, stopping)
    assert len(tables["epochs"]) == 2
    stricter = dataclasses.replace(THIS, stop_accuracy=0.99)  # made-up networks reach 0.88
    path, _ = kept(tmp_path, stricter)
    result["experiment"] = stricter.identity()
    path.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(ValueError, match="2 of 3 epochs"):
        read_run(path, stricter)


@pytest.mark.parametrize("kind", ["max", "strided", "strided_relu", "blur"])
def test_names_of_layers_and_filters_are_those_of_the_network(kind):
    blocks = ((2, 4), (1, 6), (3, 5))
    model = ds.vgg((16, 16, 3), 4, blocks, kind, seed=0)
    this = experiment(blocks=blocks, downsampling=kind)
    assert this.representations == ds.paper_layers(model)
    table = ds.filter_smoothness(model)
    found = list(zip(table["layer_index"], table["layer"], table["kernel_height"]))
    assert run_files._kernels(this) == found


# ---- in the middle ----


@pytest.fixture
def made(monkeypatch):
    """Runs of made-up tables, in no time; the experiments that are run, which tests may act on."""
    called, after = [], []

    def run(this, checkpoint, networks=None):
        for act in after:
            act(called)
        called.append(this)
        return tracked_run(this), 0.5

    monkeypatch.setattr(runs, "_run", run)
    monkeypatch.setattr(reproduction, "_check_data", lambda experiments: None)
    return called, after


def test_a_damaged_file_is_refused_before_other_runs(tmp_path, made):
    called, _ = made
    preset = small_preset(seeds=2)
    reproduce(preset, tmp_path, ["5a"])
    path = next((tmp_path / "runs").iterdir())
    path.write_text("{}")
    called.clear()
    with pytest.raises(ValueError, match=path.name):
        reproduce(preset, tmp_path, ["3"])
    assert not called
    path.unlink()
    reproduce(preset, tmp_path, ["5a"])
    assert [f"{each.id}.json" for each in called] == [path.name]


def test_runs_that_vanish_while_others_run_end_with_an_error(tmp_path, made):
    called, after = made
    preset = small_preset(seeds=2)
    after.append(lambda ran: len(ran) == 4 and shutil.rmtree(tmp_path / "runs"))
    with pytest.raises(ValueError, match=r"4 finished runs have vanished.*start again"):
        reproduce(preset, tmp_path, ["5a"])
    assert not (tmp_path / "claims.md").exists()
    assert not (tmp_path / "tables").exists()
    after.clear()
    called.clear()
    reproduce(preset, tmp_path, ["5a"])
    assert len(called) == 4
    assert (tmp_path / "claims.md").exists()


def test_runs_that_vanish_after_the_last_or_while_pages_are_written_are_an_error(
    tmp_path, made, monkeypatch
):
    preset = small_preset(seeds=2)
    finish = reproduction._run

    def and_vanish(*arguments):
        finish(*arguments)
        shutil.rmtree(tmp_path / "a" / "runs")

    with monkeypatch.context() as patch:
        patch.setattr(reproduction, "_run", and_vanish)
        with pytest.raises(ValueError, match="6 finished runs have vanished"):
            reproduce(preset, tmp_path / "a", ["5a"])
    write = reproduction.claims_page.claims_page

    def and_vanish_then(*arguments):
        shutil.rmtree(tmp_path / "b" / "runs")
        return write(*arguments)

    monkeypatch.setattr(reproduction.claims_page, "claims_page", and_vanish_then)
    with pytest.raises((ValueError, OSError)):
        reproduce(preset, tmp_path / "b", ["5a"])


# ---- what else is kept of a run ----


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path):
    first, second = (experiment(seed=seed, epochs=2) for seed in (0, 1))
    training = runs.Training(first, runs.dataset_of(first))
    training.run_epoch()
    training.save(tmp_path / "a.npz", {"tables": {}, "seconds": 1.0})
    assert runs.Training(first, runs.dataset_of(first)).resume(tmp_path / "a.npz") is not None
    other = runs.Training(second, runs.dataset_of(second))
    with pytest.warns(UserWarning, match=r"a\.npz is damaged.*another run's.*starts again"):
        assert other.resume(tmp_path / "a.npz") is None
    assert other.epoch == 0


def test_networks_of_another_run_are_not_measured_under_its_name(tmp_path):
    first, second = (experiment(seed=seed) for seed in (0, 1))
    networks = KeptNetworks(tmp_path)
    model = ds.vgg((16, 16, 3), 10, first.blocks, "max", seed=0)
    networks.keep(first, model, "trained")
    assert networks.load(first, model, "trained")
    shutil.copytree(tmp_path / first.id, tmp_path / second.id)
    with pytest.raises(ValueError, match=rf"{second.id} holds the networks of another run"):
        networks.load(second, model, "trained")
    (tmp_path / first.id / "experiment.json").write_text("{")
    with pytest.raises(ValueError, match=r"experiment\.json is damaged"):
        networks.load(first, model, "trained")


def test_what_was_measured_again_may_be_of_some_moments_but_each_whole(tmp_path):
    tables = tracked_run(THIS, steps=lambda _: 6)
    some = {name: tables[name].query("phase == 'trained'") for name in ("sensitivity", "variants")}
    some["smoothness"] = tables["smoothness"].query("phase == 'trained'")
    some["trajectory"] = tables["trajectory"].query("step == 4")
    runs.keep(THIS, runs.as_result(THIS, some, 1.0, None), tmp_path)
    found, _ = runs.collect([THIS], tmp_path, [THIS], whole=False)
    assert len(found["sensitivity"]) == 20
    assert len(found["trajectory"]) == 15
    with pytest.raises(ValueError, match="is damaged or of another run"):
        runs.collect([THIS], tmp_path)
    some["sensitivity"] = some["sensitivity"][:4]
    runs.keep(THIS, runs.as_result(THIS, some, 1.0, None), tmp_path)
    with pytest.raises(ValueError, match="sensitivity has 4 rows, not the 20"):
        runs.collect([THIS], tmp_path, whole=False)
    runs.keep(THIS, runs.as_result(THIS, {}, 1.0, None), tmp_path)
    with pytest.raises(ValueError, match="nothing was measured"):
        runs.collect([THIS], tmp_path, whole=False)
