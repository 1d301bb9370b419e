"""The shape of paths through training; and made-up tables of networks that were watched."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from test_result_tables import LAYERS, RUN_COLUMNS, layers_of, made_run, small_preset
from test_statistics import plausible

from deformstab.paper.runs import runs
from deformstab.paper.runs.training import is_tracked
from deformstab.paper.verdicts import claims_by_choice, training_paths
from deformstab.paper.verdicts.result_tables import Results

VARIANTS = ("train_images", "before_relu", "own_statistics")
VARIANTS += ("pairs_between_classes", "pairs_within_classes")
LAYER = [*RUN_COLUMNS, "quantity", "layer_index", "layer"]


# ---- made-up tables; those of claims and figures over training are made so, too ----


def uneven(experiment) -> int:
    """Steps until a network fits: seeds and labels differ; step 3 and 11 are tracked, 5 is not."""
    return 3 + 2 * experiment.seed + 2 * (experiment.task == "random_labels")


def tracked_run(experiment, value=plausible, steps=uneven) -> dict[str, pd.DataFrame]:
    """`made_run` with all tables of `runs.run`.

    Args:
        experiment: whose.
        value: as for `made_run`; the phase is "step 3" in the trajectory, "initial before_relu" in
            the variants.
        steps: experiment → the last step.
    """
    tables = made_run(experiment, value)
    which = {name: getattr(experiment, name) for name in RUN_COLUMNS}
    table = tables["sensitivity"]  # distances are to tell of something else
    table["distance"] = table["sensitivity"] ** 2 / (1 + table["layer_index"])
    kernels = tables["smoothness"].query("phase == 'initial' and kernel_height == 3")
    layers = {
        "sensitivity": [(name, index) for index, name in enumerate(layers_of(experiment.blocks))],
        "smoothness": list(zip(kernels["layer"], kernels["layer_index"])),
    }
    if experiment.epochs:
        tables["training"] = tables["training"].assign(steps=steps(experiment), fits=True)
        done = tables["epochs"]["epoch"] / experiment.epochs
        tables["epochs"] = tables["epochs"].assign(step=done * steps(experiment))
    trajectory, variants = [], []
    watched = experiment.track and experiment.epochs
    for step in range(1, steps(experiment) + 1) if watched else ():
        for quantity in layers if is_tracked(step) else ():
            metric = "cosine" if quantity == "sensitivity" else None
            for layer, index in layers[quantity]:
                found = value(experiment, quantity, f"step {step}", metric, layer)
                row = {"layer": layer, "layer_index": index, "quantity": quantity, "value": found}
                trajectory.append({**which, **row, "step": step, "accuracy_train": step / 100})
    phases = ("initial", "trained") if experiment.epochs else ("initial",)
    for phase in phases if experiment.variants else ():
        for variant in VARIANTS[: 5 if experiment.class_pairs else 3]:
            for index, layer in enumerate(layers_of(experiment.blocks)):
                found = value(experiment, "sensitivity", f"{phase} {variant}", "cosine", layer)
                name = layer.replace("_relu", "_bn") if variant == "before_relu" else layer
                row = {
                    "layer": name,
                    "layer_index": index,
                    "distance": 0.1,
                    "baseline": 0.1 / found,
                }
                row |= {"sensitivity": found, "variant": variant, "phase": phase}
                variants.append({**which, **row})
    return tables | {"trajectory": pd.DataFrame(trajectory), "variants": pd.DataFrame(variants)}


def tracked_preset(**changes):
    choices = {"downsampling": ("max", "subsample", "strided_relu"), "seeds": 4}
    choices |= {"recipes": ("sgd", "inputs_unit"), "track": True, "variants": True}
    return small_preset(**choices | changes)


def tracked_results(preset, studies=("main",), value=plausible, steps=uneven) -> Results:
    tables = {}
    for experiment in preset.experiments(studies):
        for name, frame in tracked_run(experiment, value, steps).items():
            tables.setdefault(name, []).extend([frame] if len(frame) else [])
    tables = {
        n: pd.concat(t, ignore_index=True) if t else pd.DataFrame() for n, t in tables.items()
    }
    return Results(preset, tables)


def network(row) -> tuple:
    return tuple(row[column] for column in RUN_COLUMNS)


def test_the_made_up_tables_are_like_those_of_a_run_that_was_read_back(tmp_path):
    changes = {"downsampling": ("strided_relu",), "seeds": 1, "main_tasks": ("true_labels",)}
    preset = tracked_preset(**changes)  # two steps
    (this,) = preset.experiments(("main",))
    runs.run_all([this], tmp_path, lambda *_: None)
    real, _ = runs.collect([this], tmp_path)
    made = tracked_run(this, steps=lambda _: 2)
    assert set(made["training"]) <= set(real["training"])
    for name in ("trajectory", "variants"):
        assert list(made[name]) == list(real[name])
        numbers = ["value", "accuracy_train", "layer_index", "distance", "baseline", "sensitivity"]
        same = [column for column in made[name] if column not in numbers]
        pd.testing.assert_frame_equal(made[name][same], real[name][same])
    layer = lambda table: set(zip(table["layer"], table["layer_index"]))
    for tables in (made, real):  # by name and index, as tables are merged
        for quantity, rows in tables["trajectory"].groupby("quantity"):
            table = tables[quantity]
            table = table if quantity == "sensitivity" else table[table["kernel_height"] == 3]
            assert layer(rows) == layer(table)
    # What is made of them works with the types that files give, too.
    results = Results(preset, real)
    found = claims_by_choice.at_step(results, 2)
    for quantity in ("sensitivity", "smoothness"):
        expected = getattr(results, quantity)("main", "trained")
        pd.testing.assert_frame_equal(getattr(found, quantity)("main", "trained"), expected)
    assert len(claims_by_choice.claims_over_training(results)) == 2 * 7
    table = training_paths.path_shapes(results)
    assert len(table) == len(LAYERS) + 5
    assert set(table.query("layer != 'input'")["monotonicity"].abs() <= 1 + 1e-9) == {True}


# ---- both ends ----


@pytest.fixture(scope="module")
def results():
    return tracked_results(tracked_preset(seeds=3), ("main", "tasks", "recipes"))


def loop_paths(results):
    """(network, quantity, layer index, layer) → {step: (value, accuracy)}."""
    found, ends = {}, {}
    for row in results.tables["trajectory"].to_dict("records"):
        key = network(row), row["quantity"], row["layer_index"], row["layer"]
        found.setdefault(key, {})[row["step"]] = row["value"], row["accuracy_train"]
    for row in results.tables["training"].to_dict("records"):
        ends[network(row)] = row["steps"], row["accuracy_train"]
    for quantity in ("sensitivity", "smoothness"):
        for row in results.tables[quantity].to_dict("records"):
            key = network(row), quantity, row["layer_index"], row["layer"]
            if (
                key not in found
                or row.get("metric") == "euclidean"
                or row.get("kernel_height") == 2
            ):
                continue
            if row["phase"] == "initial":
                found[key][0] = row[quantity], math.nan
            else:
                step, accuracy = ends[network(row)]
                found[key][step] = row[quantity], accuracy
    return {key: dict(sorted(path.items())) for key, path in found.items()}


def test_a_full_path_has_both_ends_and_each_step_once(results):
    expected = loop_paths(results)
    found = training_paths.full_paths(results)
    assert list(found) == [*LAYER, "step", "value", "accuracy_train"]
    assert not found.duplicated([*LAYER, "step"]).any()
    groups = {
        (key[: len(RUN_COLUMNS)], *key[len(RUN_COLUMNS) :]): rows
        for key, rows in found.groupby(LAYER)
    }
    assert groups.keys() == expected.keys()
    assert len(groups) == 3 * 2 * 3 * (len(LAYERS) + 5)  # none of networks that were not watched
    for key, rows in groups.items():
        assert list(rows["step"]) == list(expected[key])
        values, accuracies = zip(*expected[key].values())
        assert list(rows["value"]) == list(values)
        np.testing.assert_array_equal(rows["accuracy_train"], accuracies)


def test_without_tracking_there_are_no_paths():
    for results in (Results(small_preset(), {}), tracked_results(tracked_preset(track=False))):
        assert training_paths.full_paths(results).empty
        assert training_paths.path_shapes(results).empty
        assert claims_by_choice.claims_over_training(results).empty


# ---- shapes ----


def loop_half_way(logs):
    """The first place from which on nothing is short of half of the change."""
    half = (logs[-1] - logs[0]) / 2
    for place in range(len(logs)):
        if all(half != 0 and (each - logs[0]) / half >= 1 for each in logs[place:]):
            return place
    return 0 if half == 0 else len(logs) - 1


def test_the_shapes_are_those_of_a_plain_loop(results):
    found = training_paths.path_shapes(results)
    shapes = "first lowest highest last change length monotonicity half_step half_accuracy".split()
    assert list(found) == [*LAYER, *shapes]
    expected = loop_paths(results)
    assert len(found) == len(expected)
    for row in found.to_dict("records"):
        path = expected[network(row), row["quantity"], row["layer_index"], row["layer"]]
        path = {step: path[step] for step in path if step > 0 or row["quantity"] == "smoothness"}
        values, logs = [v for v, _ in path.values()], [math.log(v) for v, _ in path.values()]
        length = sum(abs(after - before) for before, after in itertools.pairwise(logs))
        assert (row["first"], row["last"]) == (values[0], values[-1])
        assert (row["lowest"], row["highest"]) == (min(values), max(values))
        assert row["change"] == pytest.approx(logs[-1] - logs[0])
        assert row["length"] == pytest.approx(length)
        assert row["monotonicity"] == pytest.approx((logs[-1] - logs[0]) / length)
        place = loop_half_way(logs)
        assert row["half_step"] == list(path)[place]
        assert row["half_accuracy"] == pytest.approx(list(path.values())[place][1], nan_ok=True)


def shape_of(*values, quantity="smoothness"):
    """The shape of a path with these values at steps 0, 1, 2, 3, 4, 6, …, the last one trained."""
    steps = [0] + [step for step in range(1, 40) if is_tracked(step)]
    steps = steps[: len(values)]
    by_phase = {f"step {step}": value for step, value in zip(steps, values)}
    by_phase |= {"initial": values[0], "trained": values[-1]}
    value = lambda experiment, quantity, phase, *_: by_phase[phase]
    one = {"downsampling": ("max",), "seeds": 1, "main_tasks": ("true_labels",), "variants": False}
    results = tracked_results(tracked_preset(**one), value=value, steps=lambda _: steps[-1])
    table = training_paths.path_shapes(results).query("quantity == @quantity and layer != 'input'")
    assert len(table) == {"smoothness": 5, "sensitivity": len(LAYERS) - 1}[quantity]
    return table.iloc[0]


def test_a_path_that_only_falls_or_rises_is_monotone_and_one_that_returns_is_not():
    assert shape_of(4, 2, 2, 1)["monotonicity"] == pytest.approx(-1)
    assert shape_of(1, 1, 3, 7, 7.5)["monotonicity"] == pytest.approx(1)
    returned = shape_of(2, 4, 8, 4, 2)
    assert (returned["change"], returned["monotonicity"]) == (0, 0)
    assert returned["length"] == pytest.approx(4 * math.log(2))
    assert (returned["lowest"], returned["highest"]) == (2, 8)


def test_half_of_the_change_counts_from_when_it_is_not_lost_again():
    assert shape_of(16, 16, 4, 8, 4, 4, 1)["half_step"] == 4  # past half at 2, not at 3
    assert shape_of(16, 1, 1, 1)["half_step"] == 1
    assert shape_of(16, 16, 16, 1)["half_step"] == 3
    assert shape_of(16, 4, 1)["half_step"] == 1  # exactly half, of the logs
    at_last = shape_of(16, 8, 8, 1)
    assert at_last["half_accuracy"] == pytest.approx(0.88)  # of the trained network
    assert shape_of(16, 1, 1, 1)["half_accuracy"] == pytest.approx(0.01)


def test_sensitivity_counts_from_the_first_step_and_smoothness_from_initialization():
    values = (100, 1, 2, 4)
    assert shape_of(*values, quantity="sensitivity")["monotonicity"] == pytest.approx(1)
    assert shape_of(*values, quantity="sensitivity")["first"] == 1
    assert shape_of(*values)["first"] == 100
    assert -1 < shape_of(*values)["monotonicity"] < 0


def test_a_constant_path_has_a_length_of_zero_and_no_direction():
    found = shape_of(2, 2, 2, 2)
    assert (found["change"], found["length"], found["half_step"]) == (0, 0, 0)
    assert math.isnan(found["monotonicity"])
    single = shape_of(3, 2, quantity="sensitivity")  # one step in all
    assert (single["first"], single["last"], single["half_step"]) == (2, 2, 1)
    assert math.isnan(single["monotonicity"])


def test_a_layer_that_is_dead_at_one_step_has_ends_and_no_length():
    found = shape_of(16, 4, math.nan, 2, 1)
    assert (found["first"], found["last"]) == (16, 1)
    assert (found["lowest"], found["highest"]) == (1, 16)
    assert found["change"] == pytest.approx(-math.log(16))
    assert math.isnan(found["length"])
    assert math.isnan(found["monotonicity"])
    assert found["half_step"] == 3  # not before it is back


def test_half_way_is_what_a_plain_loop_finds_of_any_path():
    rng = np.random.default_rng(0)
    for count in rng.integers(1, 9, 500):
        values = 2.0 ** rng.integers(-3, 4, count)
        if count > 2 and rng.random() < 0.3:
            values[rng.integers(1, count - 1)] = math.nan
        assert training_paths.half_way(values) == loop_half_way(list(np.log(values)))
