"""Kept networks: measured again they give the tables of the run, byte for byte."""

import dataclasses
import json
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from test_runs import experiment

import deformstab as ds
from deformstab.paper.reproduce import measure_again, reproduce
from deformstab.paper.runs import measuring_again, runs, training
from deformstab.paper.runs.kept_networks import MOMENTS, KeptNetworks
from deformstab.paper.runs.preset import Preset
from deformstab.tables import read_csv

TRACKED = {"track": True, "variants": True}


def as_text(tables):
    return {name: table.to_csv(index=False) for name, table in tables.items() if len(table)}


@pytest.mark.parametrize(
    "changes",
    [{}, TRACKED, {"precision": "mixed_bfloat16"}, {"batch_statistics": True}, {"epochs": 0}],
    ids=lambda changes: ", ".join(changes) or "plain",
)
def test_measuring_again_gives_the_very_tables_the_run_gave(tmp_path, changes):
    this, networks = experiment(**changes), KeptNetworks(tmp_path, MOMENTS)
    given = as_text(runs.run(this, networks=networks))
    training.compiled_model.cache_clear()  # nothing of the run is left in memory
    again = as_text(measuring_again.measure_again(this, networks))
    del_training = {
        name: text for name, text in given.items() if name not in ("training", "epochs")
    }
    assert again == del_training
    assert ("trajectory" in again) == bool(changes.get("track"))
    assert measuring_again.missing([this], networks).empty


def test_keeping_changes_no_result(tmp_path):
    this = experiment(**TRACKED)
    plain = as_text(runs.run(this))
    assert as_text(runs.run(this, networks=KeptNetworks(tmp_path, MOMENTS))) == plain


def test_a_kept_network_is_a_file_that_keras_reads(tmp_path):
    this, networks = experiment(), KeptNetworks(tmp_path)
    tables = runs.run(this, networks=networks)
    (file,) = tmp_path.rglob("*.h5")
    assert file == tmp_path / this.id / "trained.weights.h5"
    assert json.loads((file.parent / "experiment.json").read_text()) == this.identity()
    model = ds.vgg((16, 16, 3), 10, this.blocks, "max")
    model.load_weights(file)
    smoothness = tables["smoothness"].query("phase == 'trained'")["smoothness"]
    np.testing.assert_array_equal(ds.filter_smoothness(model)["smoothness"], smoothness)


def test_a_run_that_was_stopped_keeps_what_one_that_was_not_keeps(tmp_path):
    this = experiment(**TRACKED)
    runs.run(this, networks=KeptNetworks(tmp_path / "whole", MOMENTS))
    stopped = tmp_path / "checkpoint.npz"
    short = training.Training.run_epoch

    class Stop(Exception):
        pass

    def first_epoch_only(self, *arguments):
        if self.epoch == 1:
            raise Stop
        return short(self, *arguments)

    networks = KeptNetworks(tmp_path / "stopped", MOMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "run_epoch", first_epoch_only)
        with pytest.raises(Stop):
            runs.run(this, stopped, networks)
    runs.run(this, stopped, networks)
    whole = sorted(path.name for path in (tmp_path / "whole" / this.id).glob("*.h5"))
    assert sorted(path.name for path in (tmp_path / "stopped" / this.id).glob("*.h5")) == whole
    again = measuring_again.measure_again(this, KeptNetworks(tmp_path / "whole", MOMENTS))
    assert as_text(measuring_again.measure_again(this, networks)) == as_text(again)


@pytest.mark.parametrize("content", [b"", b"not HDF5", "another network"])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    this, networks = experiment(), KeptNetworks(tmp_path)
    runs.run(this, networks=networks)
    (file,) = tmp_path.rglob("*.h5")
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save_weights(file)
    broken = pytest.raises(
        ValueError, match=r"trained\.weights\.h5 is damaged or of another network"
    )
    with warnings.catch_warnings(), broken:
        warnings.simplefilter("ignore")
        measuring_again.measure_again(this, networks)


@pytest.mark.parametrize("moments", [(), ("trained", "never")])
def test_unknown_moments_are_refused(tmp_path, moments):
    with pytest.raises(ValueError, match="networks are kept at initial, tracked, trained"):
        KeptNetworks(tmp_path, moments)


# ---- a folder of results ----


def small(seeds=2):
    return Preset(
        "made",
        studies=("main",),
        image_size=16,
        downsampling=("max", "average"),
        seeds=seeds,
        epochs=1,
        train_images=20,
        measured_images=8,
        main_tasks=("true_labels",),
        blocks=((1, 4), (1, 4)),
    )


def test_a_folder_is_measured_again_beside_what_it_has(tmp_path):
    preset, networks = small(), KeptNetworks(tmp_path / "networks", MOMENTS)
    folder = tmp_path / "results"
    reproduce(preset, folder, ["2d"], networks=networks)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    missing = measure_again(preset, folder, networks)
    assert missing.empty
    assert before == {path: path.read_bytes() for path in before}
    for name in ("sensitivity", "smoothness"):
        again = read_csv(folder / "measured_again" / "tables" / f"{name}.csv")
        given = read_csv(folder / "tables" / f"{name}.csv")
        pd.testing.assert_frame_equal(again, given[list(again)], check_exact=True)


def test_what_is_missing_is_told_and_the_rest_is_measured(tmp_path):
    preset, networks = small(), KeptNetworks(tmp_path / "networks")
    folder = tmp_path / "results"
    reproduce(dataclasses.replace(preset, seeds=1), tmp_path / "fewer", ["2d"], networks=networks)
    reproduce(preset, folder, ["2d"])
    missing = measure_again(preset, folder, networks)
    expected = {}
    for each in preset.experiments():
        expected[each.id] = "initial" if each.seed == 0 else "initial, trained"
    assert dict(zip(missing["run"], missing["missing"])) == expected
    again = read_csv(folder / "measured_again" / "tables" / "sensitivity.csv")
    assert set(again["seed"]) == {0}
    assert set(again["phase"]) == {"trained"}
    pd.testing.assert_frame_equal(
        read_csv(folder / "measured_again" / "tables" / "missing.csv"), missing
    )


def test_a_folder_of_which_nothing_is_kept_is_refused(tmp_path):
    preset = small(seeds=1)
    reproduce(preset, tmp_path / "results", ["2d"])
    with pytest.raises(ValueError, match="holds no network of the 2 runs"):
        measure_again(preset, tmp_path / "results", KeptNetworks(tmp_path / "empty"))
