"""Runs: each as if it were alone, measured as a user would, and never half written."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from test_result_tables import RUN_COLUMNS, made_run

import deformstab as ds
from deformstab.paper.data import datasets, tasks
from deformstab.paper.runs import (
    apart,
    experiments,
    network_measurements,
    runs,
    training,
)
from deformstab.paper.runs.experiments import MORE_MEASURES, Experiment
from deformstab.provenance import devices
from deformstab.tables import SENSITIVITY_COLUMNS, SMOOTHNESS_COLUMNS

CHOICES = {
    "study": "main",
    "dataset": "photos",
    "downsampling": "max",
    "seed": 0,
    "image_size": 16,
    "train_images": 40,
    "blocks": ((1, 4), (1, 8), (1, 8), (1, 8)),
    "epochs": 2,
    "batch_size": 16,
    "measured_images": 8,
    "max_displacement": 1.0,
    "learning_rate": 0.01,
}
RUN = runs._run  # which tests replace
LAYERS = ["input"] + [
    f"block{block}_{rest}" for block in (1, 2, 3, 4) for rest in ("conv1_relu", "downsample")
]


def experiment(**changes):
    return Experiment(**CHOICES | changes)


def assert_same(first, second):
    """Bit for bit."""
    assert first.keys() == second.keys()
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name], check_exact=True)


@pytest.fixture(scope="module")
def alone():
    """Experiment → its tables, run with nothing left of a run before it; each once."""

    @functools.cache
    def run(experiment):
        training.compiled_model.cache_clear()
        return RUN(experiment, None)[0]

    return run


# ---- the tables of a run ----


@pytest.mark.parametrize("kind", ["max", "strided_relu"])
def test_a_run_has_the_columns_and_rows_that_are_documented(alone, kind):
    tables = alone(experiment(downsampling=kind))
    assert tuple(tables) == runs.TABLES
    assert list(runs.RUN_COLUMNS) == RUN_COLUMNS
    sensitivity = tables["sensitivity"]
    assert list(sensitivity) == [*RUN_COLUMNS, *SENSITIVITY_COLUMNS, "phase"]
    parts = list(sensitivity.groupby(["phase", "metric"], sort=False))
    assert [name for name, _ in parts] == [
        (phase, metric) for phase in ("initial", "trained") for metric in ("cosine", "euclidean")
    ]
    for _, part in parts:
        assert list(part["layer"]) == LAYERS
        assert list(part["layer_index"]) == list(range(9))
        assert (part["images"] == 8).all()
        assert (part["sensitivity_low"] < part["sensitivity"]).all()
        assert (part["sensitivity"] < part["sensitivity_high"]).all()

    smoothness = tables["smoothness"]
    assert list(smoothness) == [*RUN_COLUMNS, *SMOOTHNESS_COLUMNS, "phase"]
    for phase in ("initial", "trained"):
        part = smoothness[smoothness["phase"] == phase]
        assert list(part[part["kernel_height"] == 3]["layer"]) == [
            f"block{block}_conv1" for block in (1, 2, 3, 4)
        ]
        assert (part["kernel_height"] == 2).sum() == (4 if kind == "strided_relu" else 0)
        assert part["smoothness"].between(0, 4).all()

    (training,) = tables["training"].to_dict("records")
    accuracies = ("in_fit", "batch_statistics", "train", "test")
    assert list(training) == [
        *RUN_COLUMNS,
        *("epochs", "steps", "fits", "train_images", "classes", "loss_in_fit"),
        *(f"accuracy_{name}" for name in accuracies),
    ]
    assert (training["epochs"], training["train_images"], training["classes"]) == (2, 40, 10)
    assert all(0 <= training[f"accuracy_{name}"] <= 1 for name in accuracies)
    assert tables["trajectory"].empty
    assert tables["variants"].empty
    assert list(tables["epochs"]["epoch"]) == [1, 2]
    for table in (table for table in tables.values() if len(table)):
        assert (table["downsampling"] == kind).all()
        assert (table["dataset"] == "photos").all()


def test_without_training_a_run_is_measured_at_initialization_only(alone):
    tables = alone(experiment(study="filters", epochs=0, sigma=1.0))
    assert tables["training"].empty
    for name in ("sensitivity", "smoothness"):
        assert set(tables[name]["phase"]) == {"initial"}
        assert set(tables[name]["sigma"]) == {1.0}
    smooth = tables["smoothness"]["smoothness"]
    initial = alone(experiment())["smoothness"].query("phase == 'initial'")["smoothness"]
    assert (smooth.to_numpy() < initial.to_numpy()).all()


def test_the_made_up_tables_of_other_tests_are_like_these(alone):
    real, made = alone(experiment()), made_run(experiment())
    for name, table in made.items():
        assert set(table) <= set(real[name])
        assert list(table)[:10] == RUN_COLUMNS
        assert set(table["phase"]) == set(real[name]["phase"]) if "phase" in table else True


# ---- against a network of one's own ----


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"downsampling": "strided_relu", "seed": 3},
        {"sigma": 0.75, "epochs": 0, "study": "filters"},
        {"input_scaling": "standardized", "epochs": 0, "study": "choices"},
        {"batch_statistics": True, "input_scaling": "unit", "epochs": 0, "study": "choices"},
        {"control_points": 5, "max_displacement": 0.7, "measured_images": 11, "epochs": 0},
    ],
)
def test_at_initialization_it_is_what_a_user_would_measure(alone, changes):
    this = experiment(**changes)
    data = runs.dataset_of(this)
    initializer = ds.SmoothedInitializer(this.sigma) if this.sigma else None
    model = ds.vgg((16, 16, 3), 10, this.blocks, this.downsampling, initializer, seed=this.seed)
    if this.batch_statistics:
        ds.reestimate_batch_normalization(model, data.x_train, this.batch_size)
    tables = alone(this) if this.epochs else runs.run(this)
    for metric in ("cosine", "euclidean"):
        expected = ds.measure_sensitivity(
            model,
            data.x_test[: this.measured_images],
            ds.RandomDeformation(this.control_points, this.max_displacement),
            layers=ds.paper_layers(model),
            metric=metric,
        )
        found = tables["sensitivity"].query("phase == 'initial' and metric == @metric")
        found = found.reset_index(drop=True)[list(expected)]
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    found = tables["smoothness"].query("phase == 'initial'")
    expected = ds.filter_smoothness(model)
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True)[list(expected)], expected, check_exact=True
    )


@pytest.fixture(scope="module")
def watched():
    """A run on random labels, and the batches of images and labels its training was given."""
    this, given = experiment(task="random_labels", seed=4), []
    step = keras.Model.train_on_batch

    def recording(model, x, y, **options):
        given.append((np.array(x), np.array(y)))
        return step(model, x, y, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_on_batch", recording)
        training.compiled_model.cache_clear()
        tables = runs.run(this)
    return this, given, tables


def test_every_epoch_has_all_images_in_another_order_with_the_same_labels(watched):
    this, given, _ = watched
    data = runs.dataset_of(this)
    label_of = {image.tobytes(): label for image, label in zip(data.x_train, data.y_train)}
    assert len(label_of) == 40
    assert [len(x) for x, _ in given] == [16, 16, 8] * this.epochs
    orders = []
    for epoch in range(this.epochs):
        x, y = (np.concatenate(parts) for parts in zip(*given[3 * epoch : 3 * epoch + 3]))
        assert [label_of[image.tobytes()] for image in x] == list(y)
        orders.append([image.tobytes() for image in x])
        assert sorted(orders[-1]) == sorted(label_of)
    assert orders[0] != orders[1]


def test_training_is_what_a_model_of_ones_own_gives(watched):
    this, given, tables = watched
    data = runs.dataset_of(this)
    model = ds.vgg((16, 16, 3), 10, this.blocks, "max", seed=this.seed)
    model.compile(
        keras.optimizers.Adam(this.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    for epoch in range(this.epochs):
        x, y = (np.concatenate(parts) for parts in zip(*given[3 * epoch : 3 * epoch + 3]))
        history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    ds.reestimate_batch_normalization(model, data.x_train, 16)
    expected = ds.measure_sensitivity(
        model,
        data.x_test[:8],
        ds.RandomDeformation(3, 1.0),
        layers=ds.paper_layers(model),
    )
    found = tables["sensitivity"].query("phase == 'trained' and metric == 'cosine'")
    np.testing.assert_allclose(found["sensitivity"], expected["sensitivity"], rtol=1e-4)
    (row,) = tables["training"].to_dict("records")
    assert row["loss_in_fit"] == pytest.approx(history["loss"][-1], rel=1e-4)
    assert row["accuracy_in_fit"] == pytest.approx(history["accuracy"][-1])
    accuracy = lambda x, y: (model.predict(x, verbose=0).argmax(axis=1) == y).mean()
    assert row["accuracy_train"] == pytest.approx(accuracy(data.x_train, data.y_train))
    assert row["accuracy_test"] == pytest.approx(accuracy(data.x_test, data.y_test))
    # The networks did learn something, and were measured after that.
    before = tables["sensitivity"].query("phase == 'initial' and metric == 'cosine'")
    changed = before["sensitivity"].to_numpy()[1:] != found["sensitivity"].to_numpy()[1:]
    assert changed.all()


def test_all_networks_are_measured_on_the_same_deformed_images(alone, watched):
    others = [
        alone(experiment()),
        alone(experiment(downsampling="strided_relu")),
        alone(experiment(downsampling="strided_relu", seed=3)),
        watched[2],
    ]
    inputs = [
        tables["sensitivity"].query("layer == 'input'")[["metric", "phase", "sensitivity"]]
        for tables in others
    ]
    for each in inputs:
        np.testing.assert_array_equal(each.to_numpy(), inputs[0].to_numpy())
        assert each.groupby("metric")["sensitivity"].nunique().eq(1).all()  # at both phases


# ---- a run knows nothing of the runs before it ----


@pytest.mark.parametrize(
    "before",
    [
        {"seed": 9, "task": "random_labels", "batch_size": 8, "learning_rate": 0.1},
        {"learning_rate": 1e30},  # diverges: weights, moments and statistics are not numbers
        {"sigma": 1.0, "epochs": 0},
        {"batch_statistics": True, "epochs": 0},
        {"downsampling": "strided_relu", "seed": 3},
    ],
)
def test_a_run_after_another_is_as_if_it_were_alone(alone, before):
    expected = alone(experiment())
    runs.run(experiment(**before))
    assert_same(runs.run(experiment()), expected)


def test_a_run_that_diverges_says_so_in_its_rows():
    tables = runs.run(experiment(learning_rate=1e30))
    trained = tables["sensitivity"].query("phase == 'trained' and layer != 'input'")
    assert trained["sensitivity"].isna().any()
    assert (trained[trained["sensitivity"].isna()]["note"] != "").all()


@pytest.mark.parametrize("task", ["random_images", "deformed_classes"])
def test_a_run_of_another_task_trains_on_that_task(task):
    this = experiment(task=task, class_displacement=1.0, epochs=1)
    data, plain = runs.dataset_of(this), runs.dataset_of(experiment())
    assert (data.x_train[:, 3, 3] != plain.x_train[:, 3, 3]).any()
    tables = runs.run(this)
    assert set(tables["training"]["task"]) == {task}
    assert set(tables["training"]["class_displacement"]) == {1.0}


# ---- many runs ----


@pytest.fixture
def three():
    return [
        experiment(),
        experiment(study="filters", epochs=0, sigma=1.0),
        experiment(downsampling="strided_relu", seed=3),
    ]


@pytest.fixture
def by_hand(monkeypatch):
    """Replaces `runs.run` by made-up tables; the experiments it was called with."""
    called = []

    def run(experiment):
        called.append(experiment)
        return made_run(experiment)

    replace_run(monkeypatch, run)
    return called


def replace_run(monkeypatch, function):
    """Has `runs` take an experiment's tables from a function."""
    monkeypatch.setattr(runs, "_run", lambda experiment, *_: (function(experiment), 0.5))


def silent(*_):
    pass


def csv_of(experiments, folder):
    tables, _ = runs.collect(experiments, folder)
    return {name: table.to_csv() for name, table in tables.items()}


def test_a_finished_run_is_not_run_again(tmp_path, by_hand, three):
    assert not any(runs.finished(each, tmp_path) for each in three)
    runs.run_all(three[1:2], tmp_path, silent)
    assert [runs.finished(each, tmp_path) for each in three] == [False, True, False]
    heard = []
    runs.run_all(three, tmp_path, lambda *what: heard.append(what))
    assert by_hand == [three[1], three[0], three[2]]
    assert [what[0] for what in heard] == [three[0], three[0], three[2], three[2]]
    assert [len(what) for what in heard] == [1, 2, 1, 2]
    assert all(what[1] >= 0 for what in heard[1::2])
    runs.run_all(three, tmp_path, lambda *what: pytest.fail("nothing is left to run"))
    assert len(by_hand) == 3


def test_another_version_or_choice_is_another_run(tmp_path, by_hand, three, monkeypatch):
    runs.run_all(three, tmp_path, silent)
    assert not runs.finished(dataclasses.replace(three[0], epochs=3), tmp_path)
    monkeypatch.setattr(experiments, "NUMBERS", "999.0")
    assert not any(runs.finished(each, tmp_path) for each in three)


def test_a_file_of_a_run_tells_what_was_run(tmp_path, by_hand, three):
    runs.run_all(three, tmp_path, silent)
    files = sorted((tmp_path / "runs").iterdir())
    assert [file.name for file in files] == sorted(f"{each.id}.json" for each in three)
    for file in files:
        found = json.loads(file.read_text())
        this = next(each for each in three if each.id == file.stem)
        assert found["experiment"] == this.identity()
        assert found["seconds"] >= 0


def test_collected_tables_are_those_of_the_runs_bit_for_bit(tmp_path, alone, three, monkeypatch):
    replace_run(monkeypatch, alone)
    runs.run_all(three, tmp_path, silent)
    tables, seconds = runs.collect(three, tmp_path)
    assert set(seconds) == {each.id for each in three}
    for name, table in tables.items():
        if table.empty:
            assert name in ("trajectory", "variants", *MORE_MEASURES, *apart.TABLES)
            continue
        parts = [alone(each)[name] for each in three]
        expected = pd.concat([part for part in parts if len(part)], ignore_index=True)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)


def test_collected_columns_keep_their_types_where_nothing_is_in_them(tmp_path, monkeypatch, three):
    """Three images have no interval, a diverged network no sensitivity: numbers all the same."""

    def run(experiment):
        tables = made_run(experiment)
        frame = tables["sensitivity"]
        frame["sensitivity_low"], frame["note"] = np.nan, ""
        if experiment == three[0]:
            frame["sensitivity"], frame["note"] = np.nan, "non-finite representation"
        return tables

    replace_run(monkeypatch, run)
    runs.run_all(three, tmp_path, silent)
    for some in (three, three[:1], three[1:]):
        table = runs.collect(some, tmp_path)[0]["sensitivity"]
        expected = pd.concat([run(each)["sensitivity"] for each in some], ignore_index=True)
        pd.testing.assert_frame_equal(table[list(expected)], expected, check_exact=True)


def test_nothing_finished_is_nothing_to_collect(tmp_path, three):
    tables, seconds = runs.collect(three, tmp_path)
    assert seconds == {}
    assert all(table.empty for table in tables.values())


def test_only_finished_runs_are_collected_in_the_order_asked_for(tmp_path, by_hand, three):
    runs.run_all([three[2], three[0]], tmp_path, silent)
    tables, seconds = runs.collect(three, tmp_path)
    assert list(seconds) == [three[0].id, three[2].id]
    assert list(tables["sensitivity"]["downsampling"].unique()) == ["max", "strided_relu"]
    assert len(tables["training"]) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no memory")])
def test_an_interrupted_run_costs_only_itself(tmp_path, by_hand, three, monkeypatch, error):
    runs.run_all(three, tmp_path / "whole", silent)

    def breaks(experiment):
        if experiment == three[1]:
            raise error
        by_hand.append(experiment)
        return made_run(experiment)

    with monkeypatch.context() as patched:
        replace_run(patched, breaks)
        with pytest.raises(type(error)):
            runs.run_all(three, tmp_path / "broken", silent)
    assert os.listdir(tmp_path / "broken" / "runs") == [f"{three[0].id}.json"]
    by_hand.clear()
    runs.run_all(three, tmp_path / "broken", silent)
    assert by_hand == three[1:]
    assert csv_of(three, tmp_path / "broken") == csv_of(three, tmp_path / "whole")


KILLED = """
import json, os, sys, time
from deformstab.paper.runs import runs
from deformstab.paper.runs.experiments import Experiment

blocks = lambda fields: {"blocks": tuple(map(tuple, fields["blocks"]))}
experiments = [Experiment(**fields | blocks(fields)) for fields in json.loads(sys.argv[1])]
replace = os.replace

def slow(source, target):
    if experiments[1].id in str(target):
        print("writing", flush=True)
        time.sleep(600)
    replace(source, target)

os.replace = slow
runs.run_all(experiments, sys.argv[2], lambda *_: None)
"""


def test_a_killed_process_leaves_no_half_file_and_the_next_completes_it(
    tmp_path, alone, three, monkeypatch
):
    """SIGKILL while the second result is being written; the first is from another process, then."""
    fields = json.dumps([dataclasses.asdict(each) for each in three])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, fields, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "writing\n"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "killed" / "runs"
    (whole,) = (path for path in folder.glob("*.json") if not path.name.startswith("."))
    assert whole.stem == three[0].id
    json.loads(whole.read_text())
    assert [runs.finished(each, tmp_path / "killed") for each in three] == [True, False, False]

    called = []

    def run(experiment):
        called.append(experiment)
        return alone(experiment)

    replace_run(monkeypatch, run)
    runs.run_all(three, tmp_path / "killed", silent)
    assert called == three[1:]
    runs.run_all(three, tmp_path / "whole", silent)
    assert csv_of(three, tmp_path / "killed") == csv_of(three, tmp_path / "whole")


def test_a_damaged_file_of_a_run_is_named(tmp_path, by_hand, three):
    runs.run_all(three[:1], tmp_path, silent)
    (file,) = (tmp_path / "runs").iterdir()
    file.write_text(file.read_text()[:100])
    with pytest.raises(ValueError, match=file.name):
        runs.collect(three, tmp_path)


# ---- a training that is stopped goes on where it was ----


def stopped(this, path, epochs):
    """Trains so many epochs, as a process would that is then killed: its checkpoint."""
    data = runs.dataset_of(this)
    started = training.Training(this, data)
    found = {}
    network_measurements.measure(started.measured, this, data, "initial", found)

    def track():
        if training.is_tracked(started.step):
            network_measurements.record(started, found)

    for _ in range(epochs):
        started.run_epoch(track if this.track else lambda: None)
    started.save(path, {"tables": runs._texts(found), "seconds": 100.0})


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 3, "track": True, "variants": True},
        {"epochs": 3, "optimizer": "sgd", "schedule": "cosine", "weight_decay": 1e-3},
        {"epochs": 3, "downsampling": "strided_relu", "precision": "mixed_bfloat16"},
    ],
)
def test_a_resumed_run_gives_what_one_gives_that_was_never_stopped(tmp_path, alone, changes):
    this = experiment(**changes)
    path = tmp_path / "checkpoint.npz"
    stopped(this, path, 2)
    training.compiled_model.cache_clear()
    tables, seconds = runs._run(this, path)
    assert seconds > 100
    expected = alone(this)
    for name, table in expected.items():
        assert tables[name].to_csv() == table.to_csv()
    assert len(expected["epochs"]) == 3
    assert len(expected["trajectory"]) > 0 or not this.track


def test_a_damaged_checkpoint_costs_the_training_so_far_and_no_more(tmp_path, alone):
    this, path = experiment(), tmp_path / "checkpoint.npz"
    stopped(this, path, 1)
    path.write_bytes(path.read_bytes()[:1000])
    resumed = training.Training(this, runs.dataset_of(this))
    with pytest.warns(UserWarning, match="checkpoint.npz is damaged.*starts again"):
        assert resumed.resume(path) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = runs.run(this, path)
    assert_same(tables, alone(this))


@pytest.mark.parametrize("missing", ["history", "kept", "epoch"])
def test_a_checkpoint_that_lacks_something_is_no_checkpoint(tmp_path, missing):
    this, path = experiment(), tmp_path / "checkpoint.npz"
    stopped(this, path, 1)
    arrays = dict(np.load(path))
    state = json.loads(str(arrays["state"]))
    del state[missing]
    np.savez(path, **arrays | {"state": json.dumps(state)})
    resumed = training.Training(this, runs.dataset_of(this))
    fresh = resumed.model.get_weights()
    with pytest.warns(UserWarning, match="checkpoint.npz is damaged.*starts again"):
        assert resumed.resume(path) is None
    assert (resumed.epoch, resumed.step, resumed.history) == (0, 0, [])
    for old, new in zip(fresh, resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_stops_when_the_network_fits_its_images_and_not_before():
    this = experiment(epochs=30, stop_accuracy=0.6)
    tables = runs.run(this)
    (row,) = tables["training"].to_dict("records")
    reached = tables["epochs"]["accuracy_train"] >= 0.6
    assert row["fits"]
    assert 1 < row["epochs"] < 30
    assert row["steps"] == 3 * row["epochs"]
    assert list(reached) == [False] * (row["epochs"] - 1) + [True]
    unreachable = runs.run(experiment(stop_accuracy=1.0))["training"].iloc[0]
    assert not unreachable["fits"]
    assert unreachable["epochs"] == 2


def test_tracking_and_variants_change_no_other_table(alone):
    plain, watched = alone(experiment()), alone(experiment(track=True, variants=True))
    for name in ("sensitivity", "smoothness", "training", "epochs"):
        pd.testing.assert_frame_equal(plain[name], watched[name], check_exact=True)
    steps = watched["trajectory"]["step"].unique()
    assert list(steps) == [1, 2, 3, 4, 6]
    assert set(watched["variants"]["variant"]) == {"train_images", "before_relu", "own_statistics"}


def test_what_is_measured_does_not_depend_on_how_many_images_tell_the_accuracy(alone):
    plain, more = alone(experiment(track=True)), alone(experiment(track=True, test_images=700))
    for name in ("sensitivity", "smoothness", "trajectory", "epochs"):
        pd.testing.assert_frame_equal(plain[name], more[name], check_exact=True)
    of = {}
    for tables, count in ((plain, 512), (more, 700)):
        of[count] = tables["training"]["accuracy_test"].item()
        right = of[count] * count  # a whole number of images
        assert right == pytest.approx(round(right), abs=1e-6)
    assert of[512] != of[700]


@pytest.mark.parametrize("scaling", ["symmetric", "standardized"])
def test_the_accuracy_is_of_as_many_test_images_as_asked_for(scaling):
    this = experiment(test_images=700, input_scaling=scaling)
    data = runs.dataset_of(this)
    assert len(data.x_test) == 512
    x, y = runs.test_images_of(this, data)
    assert len(x) == len(y) == 700
    raw = datasets.load("photos", None, 16, 40, 700)
    expected = tasks.scaled(raw, scaling)
    np.testing.assert_array_equal(x, expected.x_test)
    np.testing.assert_array_equal(y, expected.y_test)
    if scaling == "standardized":  # by the images it was trained on
        np.testing.assert_array_equal(expected.x_train, data.x_train)


@pytest.mark.parametrize(
    "changes", [{}, {"test_images": 700, "task": "random_labels"}, {"measured_images": 600}]
)
def test_else_the_accuracy_is_of_the_images_that_measure(changes):
    this = experiment(**changes)
    data = runs.dataset_of(this)
    assert len(data.x_test) == max(512, this.measured_images)
    assert runs.test_images_of(this, data)[0] is data.x_test


def test_a_run_says_what_it_ran_on(tmp_path):
    this = experiment(epochs=0)
    found = runs.execute(this, tmp_path, "0eb3b28")
    made_with = json.loads(json.dumps(found))["made_with"]
    assert made_with["devices"] == devices()
    assert made_with["versions"]["keras"] == keras.__version__
    assert made_with["git_commit"] == "0eb3b28"  # of who sent it: a worker has a copy without git
    assert "command" not in made_with  # which may name places of this machine
