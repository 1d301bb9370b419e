"""Kept networks: measured again they give the tables of the run, byte for byte."""

import dataclasses
import functools
import json
import shutil
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import test_reproduce
from test_runs import experiment

import deformstab as ds
from deformstab.paper.reproduce import measure_again, reproduce
from deformstab.paper.runs import measuring_again, runs, training
from deformstab.paper.runs.kept_networks import MOMENTS, KeptNetworks
from deformstab.paper.runs.preset import Preset
from deformstab.tables import read_csv, write_json

quick_pictures = test_reproduce.quick_pictures  # a fixture
TRACKED = {"track": True, "variants": True}
MORE = ("stability", "equivariance")
BY_DEFAULT = ("trained",)


def as_text(tables):
    return {name: table.to_csv(index=False) for name, table in tables.items() if len(table)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(moments, choices) → an experiment, its tables, its networks; each is run once.

    The networks are for all tests, and no test changes them.
    """

    @functools.cache
    def run(moments, **choices):
        this = experiment(**choices)
        networks = KeptNetworks(tmp_path_factory.mktemp("kept"), moments)
        return this, runs.run(this, networks=networks), networks

    return run


@pytest.mark.parametrize(
    "changes",
    [
        *({}, TRACKED, {"precision": "mixed_bfloat16"}, {"batch_statistics": True}, {"epochs": 0}),
        {"more_measures": MORE, "track": True},
    ],
    ids=lambda changes: ", ".join(changes) or "plain",
)
def test_measuring_again_gives_the_very_tables_the_run_gave(kept, changes):
    this, tables, networks = kept(MOMENTS, **changes)
    given = as_text(tables)
    training.compiled_model.cache_clear()  # nothing of the run is left in memory
    again = as_text(measuring_again.measure_again(this, networks))
    del_training = {
        name: text for name, text in given.items() if name not in ("training", "epochs")
    }
    assert again == del_training
    assert ("trajectory" in again) == bool(changes.get("track"))
    assert measuring_again.missing([this], networks).empty


def test_keeping_changes_no_result(kept):
    this, tables, _ = kept(MOMENTS, **TRACKED)
    assert as_text(tables) == as_text(runs.run(this))


def test_a_kept_network_is_a_file_that_keras_reads(kept):
    this, tables, networks = kept(BY_DEFAULT)
    (file,) = networks.folder.rglob("*.h5")
    assert file == networks.folder / this.id / "trained.weights.h5"
    assert json.loads((file.parent / "experiment.json").read_text()) == this.identity()
    model = ds.vgg((16, 16, 3), 10, this.blocks, "max")
    model.load_weights(file)
    smoothness = tables["smoothness"].query("phase == 'trained'")["smoothness"]
    np.testing.assert_array_equal(ds.filter_smoothness(model)["smoothness"], smoothness)


def test_a_run_that_was_stopped_keeps_what_one_that_was_not_keeps(tmp_path, kept):
    this, _, undisturbed = kept(MOMENTS, **TRACKED)
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
    whole = sorted(path.name for path in (undisturbed.folder / this.id).glob("*.h5"))
    assert sorted(path.name for path in (tmp_path / "stopped" / this.id).glob("*.h5")) == whole
    again = measuring_again.measure_again(this, undisturbed)
    assert as_text(measuring_again.measure_again(this, networks)) == as_text(again)


@pytest.mark.parametrize("content", [b"", b"not HDF5", "another network"])
def test_a_damaged_file_is_refused_by_name(tmp_path, kept, content):
    this, _, undamaged = kept(BY_DEFAULT)
    networks = KeptNetworks(shutil.copytree(undamaged.folder, tmp_path / "damaged"))
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


def test_only_trained_networks_are_kept_unless_asked(tmp_path):
    assert KeptNetworks(tmp_path).moments == ("trained",)


@pytest.mark.parametrize("moments", [(), ("trained", "never")])
def test_unknown_moments_are_refused(tmp_path, moments):
    with pytest.raises(ValueError, match="networks are kept at initial, tracked, trained"):
        KeptNetworks(tmp_path, moments)


# ---- a folder of results ----


PRESET = Preset(
    "made",
    studies=("main",),
    image_size=16,
    downsampling=("max", "average"),
    seeds=2,
    epochs=1,
    train_images=20,
    measured_images=8,
    main_tasks=("true_labels",),
    blocks=((1, 4), (1, 4)),
)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """The results of `PRESET`, and in a folder beside them its networks of every moment."""
    path = tmp_path_factory.mktemp("reproduced")
    reproduce(PRESET, path / "results", ["2d"], networks=KeptNetworks(path / "networks", MOMENTS))
    return path


@pytest.fixture
def copied(reproduced, tmp_path):
    """A test's own (folder of results, networks)."""
    copy = shutil.copytree(reproduced, tmp_path / "copy")
    return copy / "results", KeptNetworks(copy / "networks", MOMENTS)


def test_a_folder_is_measured_again_beside_what_it_has(copied):
    folder, networks = copied
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    missing = measure_again(PRESET, folder, networks)
    assert missing.empty
    assert before == {path: path.read_bytes() for path in before}
    for name in ("sensitivity", "smoothness"):
        again = read_csv(folder / "measured_again" / "tables" / f"{name}.csv")
        given = read_csv(folder / "tables" / f"{name}.csv")
        pd.testing.assert_frame_equal(again, given[list(again)], check_exact=True)


def test_more_is_measured_of_kept_networks_than_when_they_were_trained(copied):
    folder, networks = copied
    assert not (folder / "tables" / "stability.csv").exists()
    more = dataclasses.replace(PRESET, more_measures=MORE)
    assert measure_again(more, folder, networks).empty
    tables = {
        name: read_csv(folder / "measured_again" / "tables" / f"{name}.csv")
        for name in ("sensitivity", *MORE)
    }
    this = next(each for each in PRESET.experiments() if each.downsampling == "max")
    model = ds.vgg((16, 16, 3), 10, this.blocks, "max")
    assert networks.load(this, model, "trained")
    images = runs.dataset_of(this).x_test[:8]
    deformation = ds.RandomDeformation(this.control_points, this.max_displacement)
    options = images, deformation, ds.paper_layers(model)
    expected = {
        "sensitivity": ds.measure_sensitivity(model, *options),
        "stability": ds.measure_stability(model, *options),
        "equivariance": ds.measure_equivariance(model, *options),
    }
    for name, rows in tables.items():
        found = rows[(rows["downsampling"] == "max") & (rows["phase"] == "trained")]
        found = found[found["seed"] == this.seed]
        if name == "sensitivity":
            found = found[found["metric"] == "cosine"]
        found = found[[*expected[name].columns]].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected[name], rtol=1e-5, check_dtype=False)
    # The folder's own tables are those of another configuration, and stay refused.
    with pytest.raises(ValueError, match=r"another configuration .*more_measures"):
        reproduce(more, folder, ["2d"])


def test_more_measures_during_training(tmp_path, kept):
    this, tables, _ = kept(MOMENTS, more_measures=MORE, track=True)
    plain = runs.run(dataclasses.replace(this, more_measures=()))
    rows = tables["trajectory"]
    quantities = {
        f"{name}_{metric}"
        for name in (
            "noise_sensitivity",
            "relative_stability",
            "moves_with",
            "stays",
            "moving_ratio",
        )
        for metric in ("cosine", "euclidean")
    }
    assert set(rows["quantity"]) == {"sensitivity", "smoothness"} | quantities
    own = rows[~rows["quantity"].isin(quantities)].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, plain["trajectory"], check_exact=True)
    assert rows.groupby(["quantity", "step"])["layer"].nunique().nunique() == 2  # of filters, all
    # At the input the map is the image: it moves with it exactly, and it stays as it is sensitive.
    of_input = rows[rows["layer"] == "input"].pivot_table(
        index="step", columns="quantity", values="value"
    )
    assert (of_input["moving_ratio_cosine"].abs() < 1e-6).all()
    # Without a pixel at each edge, so not quite the sensitivity.
    np.testing.assert_allclose(of_input["stays_cosine"], of_input["sensitivity"], rtol=0.05)
    assert of_input["stays_cosine"].nunique() == 1
    runs.keep(this, runs.execute(this, tmp_path), tmp_path)
    collected, _ = runs.collect([this], tmp_path, [this])
    for name in MORE:
        assert set(collected[name]["phase"]) == {"initial", "trained"}


def test_more_measures_are_no_other_runs_where_there_are_none():
    this = experiment()
    assert "more_measures" not in this.identity()
    assert dataclasses.replace(this, more_measures=MORE).id != this.id
    with pytest.raises(ValueError, match="unknown more_measures 'rank'"):
        Preset("made", more_measures=("rank",))


@pytest.mark.parametrize("then", [("stability",), MORE[::-1]])
def test_other_things_are_measured_of_kept_networks_than_when_they_were_trained(copied, then):
    """As if the folder had been made with `then`: its runs have the names of that."""
    folder, networks = copied
    trained = dataclasses.replace(PRESET, more_measures=then)
    for before, after in zip(PRESET.experiments(), trained.experiments()):
        kept = (networks.folder / before.id).rename(networks.folder / after.id)
        write_json(after.identity(), kept / "experiment.json")
        (folder / "runs" / f"{before.id}.json").rename(folder / "runs" / f"{after.id}.json")
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["configuration"]["more_measures"] = list(then)
    write_json(provenance, folder / "provenance.json")
    for now in ((), ("equivariance",)):
        preset = dataclasses.replace(PRESET, more_measures=now)
        assert measure_again(preset, folder, networks).empty
    again = folder / "measured_again" / "tables"
    assert (again / "equivariance.csv").exists()
    assert not (again / "stability.csv").exists()
    given = read_csv(folder / "tables" / "sensitivity.csv")
    found = read_csv(again / "sensitivity.csv")
    pd.testing.assert_frame_equal(found, given[list(found)], check_exact=True)


def test_what_is_missing_is_told_and_the_rest_is_measured(copied):
    folder, networks = copied
    expected = {}
    for each in PRESET.experiments():
        kept = networks.folder / each.id
        if each.seed == 0:
            (kept / "initial.weights.h5").unlink()
        else:
            shutil.rmtree(kept)
        expected[each.id] = "initial" if each.seed == 0 else "initial, trained"
    missing = measure_again(PRESET, folder, networks)
    assert dict(zip(missing["run"], missing["missing"])) == expected
    again = read_csv(folder / "measured_again" / "tables" / "sensitivity.csv")
    assert set(again["seed"]) == {0}
    assert set(again["phase"]) == {"trained"}
    pd.testing.assert_frame_equal(
        read_csv(folder / "measured_again" / "tables" / "missing.csv"), missing
    )


def test_a_folder_of_which_nothing_is_kept_is_refused(copied, tmp_path):
    folder, _ = copied
    with pytest.raises(ValueError, match="holds no network of the 4 runs"):
        measure_again(PRESET, folder, KeptNetworks(tmp_path / "empty"))
