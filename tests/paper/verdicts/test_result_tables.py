"""Choosing rows from the tables; and the made-up tables that claims and figures are tested on."""

import zlib

import numpy as np
import pandas as pd
import pytest

from deformstab.paper.runs.experiments import STUDIES
from deformstab.paper.runs.preset import Preset
from deformstab.paper.verdicts.result_tables import Results

RUN_COLUMNS = (
    "study dataset task downsampling seed class_displacement sigma input_scaling batch_statistics "
    "choice"
).split()
BLOCKS = ((1, 4), (2, 8), (1, 8), (1, 8))
LAYERS = (
    "input block1_conv1_relu block1_downsample block2_conv1_relu block2_conv2_relu "
    "block2_downsample block3_conv1_relu block3_downsample block4_conv1_relu block4_downsample"
).split()
KERNELS = "block1_conv1 block2_conv1 block2_conv2 block3_conv1 block4_conv1".split()


def small_preset(**changes) -> Preset:
    """Every study, small: networks of `BLOCKS` on images of 16 (large: 32) pixels."""
    choices = {
        "image_size": 16,
        "max_displacement": 1.0,
        "seeds": 3,
        "epochs": 1,
        "train_images": 40,
        "batch_size": 20,
        "measured_images": 8,
        "blocks": BLOCKS,
        "sigmas": (0.0, 0.5, 2.0),
        "class_displacements": (0.5, 1.0),
        "large_image_size": 32,
        "large_train_images": 20,
        "large_epochs": 1,
        "large_blocks": BLOCKS,
    }
    return Preset("made", **{**choices, **changes})


def drawn(experiment, quantity, phase, metric, layer) -> float:
    """A positive number that only its arguments decide, different for each."""
    text = repr((experiment.identity(), quantity, phase, metric, layer))
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    return float(rng.uniform(1.2, 2.0) if quantity == "smoothness" else np.exp(rng.normal(-2, 1)))


def layers_of(blocks) -> list[str]:
    """The representations of a network, by the names that the README gives."""
    names = ["input"]
    for block, (convolutions, _) in enumerate(blocks, start=1):
        for number in range(convolutions):
            names.append(f"block{block}_conv{number + 1}_relu")
        names.append(f"block{block}_downsample")
    return names


def kernels_of(experiment) -> list[tuple]:
    """(layer, side) of its filters; those of a strided downsampling are not comparable."""
    own = {"strided": "downsample", "strided_relu": "downsample_conv"}.get(experiment.downsampling)
    found = []
    for block, (convolutions, _) in enumerate(experiment.blocks, start=1):
        for number in range(convolutions):
            found.append((f"block{block}_conv{number + 1}", 3))
        if own:
            found.append((f"block{block}_{own}", 2))
    return found


def made_run(experiment, value=drawn) -> dict[str, pd.DataFrame]:
    """Tables like those of `runs.run`, without a network.

    Args:
        experiment: whose.
        value: (experiment, quantity, phase, metric, layer) → number; the quantities are
            "sensitivity", "smoothness" and the names of the accuracies.
    """
    which = {name: getattr(experiment, name) for name in RUN_COLUMNS}
    phases = ("initial", "trained") if experiment.epochs else ("initial",)
    found = {"sensitivity": [], "smoothness": [], "training": []}
    for phase in phases:
        for metric in ("cosine", "euclidean"):
            for index, layer in enumerate(layers_of(experiment.blocks)):
                sensitivity = value(experiment, "sensitivity", phase, metric, layer)
                row = {"layer": layer, "layer_index": index, "metric": metric}
                row |= {"sensitivity": sensitivity, "images": experiment.measured_images}
                row["distance"] = sensitivity / 2
                found["sensitivity"].append({**which, **row, "note": "", "phase": phase})
        kernels = kernels_of(experiment)
        for index, (layer, size) in enumerate(kernels):
            smoothness = value(experiment, "smoothness", phase, None, layer)
            row = {"layer": layer, "layer_index": index, "smoothness": smoothness}
            row |= {"kernel_height": size, "kernel_width": size}
            found["smoothness"].append({**which, **row, "note": "", "phase": phase})
    if experiment.epochs:
        row = {"epochs": experiment.epochs, "train_images": experiment.train_images, "classes": 10}
        for number, name in enumerate(("in_fit", "batch_statistics", "train", "test")):
            row[f"accuracy_{name}"] = 0.9 - 0.01 * number
        row["steps"] = 2 * experiment.epochs
        found["training"].append({**which, **row, "loss_in_fit": 0.3})
        found["epochs"] = [
            {**which, "epoch": epoch, "step": 2 * epoch, "accuracy_train": row["accuracy_train"]}
            for epoch in range(1, experiment.epochs + 1)
        ]
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


def made_results(preset, value=drawn, studies=STUDIES) -> Results:
    tables = {}
    for experiment in preset.experiments(studies):
        for name, frame in made_run(experiment, value).items():
            tables.setdefault(name, []).append(frame)
    return Results(preset, {name: pd.concat(t, ignore_index=True) for name, t in tables.items()})


# ---- Results ----


@pytest.fixture(scope="module")
def results():
    return made_results(small_preset())


@pytest.mark.parametrize(
    "condition",
    [
        ("main", "initial", "true_labels", "cosine"),
        ("main", "trained", "random_labels", "euclidean"),
        ("large", "trained", "true_labels", "cosine"),
        ("filters", "initial", "true_labels", "cosine"),
        ("tasks", "trained", "deformed_classes", "cosine"),
    ],
)
def test_a_condition_has_its_rows_and_no_other(results, condition):
    study, phase, task, metric = condition
    found = results.sensitivity(study, phase, task, metric)
    expected = [
        row
        for row in results.tables["sensitivity"].to_dict("records")
        if (row["study"], row["phase"], row["task"], row["metric"]) == condition
    ]
    assert expected
    assert found.to_dict("records") == expected
    assert list(found.index) == list(range(len(found)))

    kernels = results.smoothness(study, phase, task).to_dict("records")
    assert kernels == [
        row
        for row in results.tables["smoothness"].to_dict("records")
        if (row["study"], row["phase"], row["task"]) == condition[:3] and row["kernel_width"] == 3
    ]


def test_kernels_that_are_not_square_are_left_out():
    results = made_results(small_preset(), studies=("large",))
    table = results.tables["smoothness"]
    table.loc[table["layer"] == "block2_conv1", "kernel_height"] = 1
    table.loc[table["layer"] == "block3_conv1", "kernel_width"] = 1
    found = results.smoothness("large", "initial")
    assert set(found["layer"]) == set(KERNELS) - {"block2_conv1", "block3_conv1"}


def test_the_training_of_a_condition(results):
    found = results.training("main", "random_labels")
    assert len(found) == 15
    assert set(found["task"]) == {"random_labels"}
    assert results.training("filters").empty  # measured at initialization only


def test_the_choices_are_those_of_the_last_layer_one_row_each(results):
    found = results.choices()
    expected = [
        (row["input_scaling"], row["batch_statistics"], row["downsampling"], row["sensitivity"])
        for row in results.tables["sensitivity"].to_dict("records")
        if (row["study"], row["metric"], row["layer"]) == ("choices", "cosine", LAYERS[-1])
    ]
    assert len(expected) == 3 * 2 * 5
    columns = ["input_scaling", "batch_statistics", "downsampling", "sensitivity"]
    assert list(found[columns].itertuples(index=False, name=None)) == expected
    assert set(found["layer"]) == {LAYERS[-1]}


@pytest.mark.parametrize("tables", [{}, {"sensitivity": pd.DataFrame()}])
def test_what_was_not_run_has_no_rows(tables):
    results = Results(small_preset(), tables)
    for frame in (
        results.sensitivity("main", "initial"),
        results.choices(),
        results.smoothness("main", "trained"),
        results.training("large"),
    ):
        assert frame.empty


@pytest.mark.parametrize(
    ("study", "parts"),
    [
        ("main", ["photos", "16 px", "44 training images", "3 epochs", "2 seeds", "1×4, 2×8"]),
        ("tasks", ["digits", "16 px", "44 training images", "3 epochs", "2 seeds"]),
        ("large", ["photos", "48 px", "66 training images", "5 epochs", "2 seeds", "1×2, 1×3"]),
    ],
)
def test_a_description_names_data_network_and_training(study, parts):
    large = {"large_image_size": 48, "large_train_images": 66, "large_epochs": 5}
    preset = small_preset(
        seeds=2, epochs=3, train_images=44, large_blocks=((1, 2), (1, 3)), **large
    )
    for results in (Results(preset, {}), made_results(preset, studies=(study,))):
        text = results.describe(study)
        for part in parts:
            assert part in text


def test_seeds_are_those_of_which_every_network_is_there():
    results = made_results(small_preset(seeds=3), studies=("main", "filters"))
    assert (results.seeds("main"), results.seeds("filters")) == (3, 3)
    assert results.seeds("large") == 3  # that are to be run
    last = {"study": "main", "downsampling": "max", "seed": 2}
    tables = {
        name: table[~np.logical_and.reduce([table[key] == last[key] for key in last])]
        for name, table in results.tables.items()
    }
    partial = Results(results.preset, tables)
    assert (partial.seeds("main"), partial.seeds("filters")) == (2, 3)
    assert "2 seeds" in partial.describe("main")
