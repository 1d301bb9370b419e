"""Claims after less training and under open choices: of results that plain loops put together."""

import pandas as pd
import pytest
from test_result_tables import LAYERS, small_preset
from test_training_paths import VARIANTS, network, tracked_preset, tracked_results, uneven

from deformstab.paper.verdicts import claims, claims_by_choice
from deformstab.paper.verdicts.result_tables import Results

SHOWN = "claim figure statistic claimed value low high seeds p verdict".split()
MEASURED = ("sensitivity", "smoothness", "training")
# (claim, figure), in the order of the table of claims.
OF_SENSITIVITY = [
    ("pooling-stabilizes-init", "2c"),
    ("training-changes-stability", "2d"),
    ("kinds-converge", "2d"),
]
OF_SMOOTHNESS = [("training-smooths", "4b"), ("smoothness-converges", "4b"), ("depth-trend", "4b")]
OF_TASKS = [("stronger-task-smoother", "3b")]
OF_LABELS = [("labels-decide-smoothness", "4c"), ("labels-decide-stability", "5b")]
RECIPES = ("sgd", "inputs_unit", "tasks_20_epochs")
OF_TRAINING = [*OF_SENSITIVITY[1:], *OF_SMOOTHNESS, *OF_LABELS]


@pytest.fixture(scope="module")
def results():
    return tracked_results(tracked_preset(recipes=RECIPES), ("main", "tasks", "recipes"))


@pytest.fixture(scope="module")
def over_training(results):
    return claims_by_choice.claims_over_training(results)


@pytest.fixture(scope="module")
def by_choice(results):
    return claims_by_choice.claims_by_choice(results)


# ---- what they would be: loops over rows ----


def rows_of(results, name):
    return results.tables[name].to_dict("records")


def with_tables(results, **rows) -> Results:
    changed = {name: pd.DataFrame(found) for name, found in rows.items()}
    return Results(results.preset, results.tables | changed)


def last_tracked(results, step):
    """(quantity, network, layer) → the last value at or before a step."""
    found = {}
    for row in rows_of(results, "trajectory"):
        key = row["quantity"], network(row), row["layer"]
        if row["step"] <= step and row["step"] > found.get(key, (0, None))[0]:
            found[key] = row["step"], row["value"]
    return {key: value for key, (_, value) in found.items()}


def ended(results, step):
    return {network(row) for row in rows_of(results, "training") if row["steps"] <= step}


def stopped(results, step) -> Results:
    over, now = ended(results, step), last_tracked(results, step)
    found = {"sensitivity": [], "smoothness": []}
    for quantity, kept in found.items():
        for row in rows_of(results, quantity):
            key = quantity, network(row), row["layer"]
            if row["phase"] == "initial" or network(row) in over:
                kept.append(row)
            elif key in now and row.get("metric") != "euclidean":
                kept.append(row | {quantity: now[key]})
    return with_tables(results, **found)


def from_first(results) -> Results:
    first, over, kept = last_tracked(results, 1), ended(results, 1), []
    for row in rows_of(results, "sensitivity"):
        key = "sensitivity", network(row), row["layer"]
        if row["phase"] == "trained" and row["metric"] == "cosine":
            kept.append(row)
            if key in first:
                start = row["sensitivity"] if network(row) in over else first[key]
                kept.append(row | {"phase": "initial", "sensitivity": start})
    return with_tables(results, sensitivity=kept)


def of_variant(results, variant) -> Results:
    rows = [row for row in rows_of(results, "variants") if row["variant"] == variant]
    return with_tables(results, sensitivity=[row | {"metric": "cosine"} for row in rows])


def of_seeds(results, seeds) -> Results:
    found = {n: [row for row in rows_of(results, n) if row["seed"] in seeds] for n in MEASURED}
    return with_tables(results, **found)


def of_rows(results, row) -> Results:
    """Sensitivities made of each row, `None` where there is none."""
    found = [row(each) for each in rows_of(results, "sensitivity")]
    return with_tables(results, sensitivity=[each for each in found if each])


def euclidean(row):
    return row | {"metric": "cosine"} if row["metric"] == "euclidean" else None


def distance(row):
    return row | {"sensitivity": row["distance"]} if row["metric"] == "cosine" else None


def last_layer(row):
    return row if row["layer"] == LAYERS[-1] else None


def without_kind(results, kind) -> Results:
    found = {n: [r for r in rows_of(results, n) if r["downsampling"] != kind] for n in MEASURED}
    return with_tables(results, **found)


def of_recipe(results, choice, study="main") -> Results:
    found = {}
    for name in MEASURED:
        rows = [row for row in rows_of(results, name) if row["study"] == "recipes"]
        found[name] = [row | {"study": study} for row in rows if row["choice"] == choice]
    return with_tables(results, **found)


def used(results, quantity):
    """The rows that claims are made of, in no order."""
    rows = [row for row in rows_of(results, quantity) if row.get("metric") != "euclidean"]
    assert rows
    return sorted((row["phase"], network(row), row["layer"], row[quantity]) for row in rows)


def evaluated(results, which):
    chosen = [each for each in claims.CLAIMS if (each.id, each.figure) in which]
    assert len(chosen) == len(which)
    return claims.evaluate(results, chosen)[SHOWN]


def assert_same(found, expected):
    pd.testing.assert_frame_equal(found[SHOWN].reset_index(drop=True), expected)


# ---- at a step ----


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 10**9])
def test_a_network_that_is_stopped_is_as_it_was_last_seen_or_as_it_ended(results, step):
    found, expected = claims_by_choice.at_step(results, step), stopped(results, step)
    for name in ("sensitivity", "smoothness"):
        assert used(found, name) == used(expected, name)


def test_a_network_is_over_at_its_last_step_and_in_training_one_step_before():
    phases = {"initial": 1.0, "trained": 2.0}
    value = lambda experiment, quantity, phase, metric, layer: (
        phases[phase] if phase in phases else 10.0 + int(phase.split()[-1])
    )
    one = {"downsampling": ("max",), "main_tasks": ("true_labels",), "variants": False}
    steps = lambda experiment: (8, 10)[experiment.seed]
    results = tracked_results(tracked_preset(seeds=2, **one), value=value, steps=steps)
    for step, expected in ((7, (16, 16)), (8, (2, 18)), (9, (2, 18)), (10, (2, 2)), (11, (2, 2))):
        found = claims_by_choice.at_step(results, step)
        for name, layers in (("sensitivity", len(LAYERS)), ("smoothness", 5)):
            table = getattr(found, name)("main", "trained")
            for seed, number in enumerate(expected):
                assert list(table[table["seed"] == seed][name]) == [number] * layers
            assert set(getattr(found, name)("main", "initial")[name]) == {1.0}


def test_claims_over_training_are_those_of_networks_stopped_at_each_tracked_step(
    results, over_training
):
    assert list(over_training) == ["step", *SHOWN]
    assert list(dict.fromkeys(over_training["step"])) == [1, 2, 3, 4, 6, 8, 11]
    for step, rows in over_training.groupby("step"):
        assert list(zip(rows["claim"], rows["figure"])) == OF_TRAINING
        assert_same(rows, evaluated(stopped(results, step), OF_TRAINING))


def test_after_all_training_the_claims_are_the_final_ones(results):
    late = claims_by_choice.at_step(results, 10**9)
    assert_same(evaluated(late, OF_TRAINING), evaluated(results, OF_TRAINING))
    start = [("pooling-stabilizes-init", "2c"), ("init-smoothness-constant", "text")]
    early = claims_by_choice.at_step(results, 1)
    assert_same(evaluated(early, start), evaluated(results, start))


def test_the_accuracies_of_the_end_are_not_held_against_earlier_steps(results):
    training = results.tables["training"].assign(accuracy_train=0.3)  # 0.89 with batch statistics
    results = Results(results.preset, results.tables | {"training": training})
    chosen = OF_TRAINING[:2]
    assert set(evaluated(results, chosen)["verdict"]) == {claims.NOT_TESTED}
    found = evaluated(claims_by_choice.at_step(results, 4), chosen)
    assert claims.NOT_TESTED not in set(found["verdict"])


def test_other_studies_that_were_watched_change_nothing_over_training():
    kinds = {"downsampling": ("max",), "large_downsampling": ("max",), "recipes": ("sgd",)}
    preset = tracked_preset(seeds=2, main_tasks=("true_labels",), variants=False, **kinds)
    alone = claims_by_choice.claims_over_training(tracked_results(preset))
    steps = lambda this: uneven(this) + (this.study == "large")
    both = tracked_results(preset, ("main", "large", "tasks", "recipes"), steps=steps)
    pd.testing.assert_frame_equal(claims_by_choice.claims_over_training(both), alone)


# ---- by choice ----


def test_claims_by_choice_are_those_of_what_was_measured_or_trained_otherwise(results, by_choice):
    everything = OF_SENSITIVITY + OF_SMOOTHNESS
    expected = {"as stated": (results, everything)}
    for variant in VARIANTS:
        expected[variant] = of_variant(results, variant), OF_SENSITIVITY
    measures = {"Euclidean distance": euclidean, "distance, not over its baseline": distance}
    for choice, row in (measures | {"last layer only": last_layer}).items():
        expected[choice] = of_rows(results, row), OF_SENSITIVITY
    expected["statistics re-estimated at the start"] = from_first(results), OF_SENSITIVITY
    for kind in results.preset.downsampling:
        expected[f"without {kind}"] = without_kind(results, kind), everything + OF_LABELS
    expected["as stated, seeds 0, 1, 2"] = of_seeds(results, (0, 1, 2)), everything
    for choice in ("sgd", "inputs_unit"):
        expected[choice] = of_recipe(results, choice), everything
    expected["tasks_20_epochs"] = of_recipe(results, "tasks_20_epochs", "tasks"), OF_TASKS
    # With what any of the other rows is about.
    expected["as stated"] = results, everything + OF_TASKS + OF_LABELS
    expected["as stated, seeds 0, 1, 2"] = of_seeds(results, (0, 1, 2)), everything + OF_TASKS
    assert list(by_choice) == ["choice", *SHOWN]
    assert list(dict.fromkeys(by_choice["choice"])) == list(expected)
    for choice, (other, which) in expected.items():
        assert_same(by_choice[by_choice["choice"] == choice], evaluated(other, which))


@pytest.mark.parametrize("steps", [uneven, lambda _: 1])
def test_training_counted_from_its_first_step_starts_where_that_left_it(steps):
    preset = tracked_preset(downsampling=("max", "strided"), seeds=2, variants=False)
    results = tracked_results(preset, steps=steps)
    found = used(claims_by_choice.from_first_step(results), "sensitivity")
    assert found == used(from_first(results), "sensitivity")
    assert len(found) == 2 * 2 * 2 * len(LAYERS) * 2  # kinds, labels, seeds; both phases


def test_what_training_does_to_each_kind_of_pooling_is_told_apart():
    preset = tracked_preset(downsampling=("max", "average", "strided"), variants=False)
    results = tracked_results(preset)
    found = claims_by_choice.claims_by_choice(results)
    start = "statistics re-estimated at the start"
    for kind in ("max", "average"):
        rows = found[found["choice"] == f"{start}, without {kind}"]
        assert_same(rows, evaluated(without_kind(from_first(results), kind), OF_SENSITIVITY))
    (both, *apart) = [choice for choice in found["choice"].unique() if choice.startswith(start)]
    assert both == start
    assert len(apart) == 2


def test_without_random_labels_they_are_not_asked_about():
    preset = tracked_preset(main_tasks=("true_labels",), seeds=2, variants=False, track=False)
    found = claims_by_choice.claims_by_choice(tracked_results(preset))
    assert not {claim for claim, _ in OF_LABELS} & set(found["claim"])


def test_recipes_are_left_out_until_two_seeds_have_all_kinds():
    changes = {"seeds": 3, "downsampling": ("max", "strided"), "main_tasks": ("true_labels",)}
    preset = tracked_preset(**changes, track=False, variants=False)
    results = tracked_results(preset, ("main", "recipes"))

    def remove(choice, seed, kind):
        for name in MEASURED:
            row = results.tables[name]
            gone = (row["choice"] == choice) & (row["seed"] == seed) & (row["downsampling"] == kind)
            results.tables[name] = row[~gone]

    def seeds_by_choice():
        found = claims_by_choice.claims_by_choice(results)
        if found.empty:
            return {}
        found = found[found["claim"] == "training-smooths"]  # which of the recipes alone move
        return dict(zip(found["choice"], found["seeds"]))

    stated = {"as stated": 3, "as stated, seeds 0, 1, 2": 3}
    assert seeds_by_choice() == stated | {"sgd": 3, "inputs_unit": 3}
    remove("sgd", 1, "strided")
    # Each below the networks as stated of the same seeds.
    alone = {"as stated, seeds 0, 2": 2, "sgd": 2}
    found = {"as stated": 3} | alone | {"as stated, seeds 0, 1, 2": 3, "inputs_unit": 3}
    assert list(seeds_by_choice().items()) == list(found.items())
    remove("sgd", 2, "max")
    assert seeds_by_choice() == stated | {"inputs_unit": 3}
    remove("inputs_unit", 0, "strided")
    assert seeds_by_choice() == {"as stated": 3, "as stated, seeds 1, 2": 2, "inputs_unit": 2}
    remove("inputs_unit", 1, "strided")
    assert seeds_by_choice() == {"as stated": 3}


def test_a_recipe_of_tasks_is_left_out_until_two_seeds_have_all_strengths():
    preset = tracked_preset(seeds=3, recipes=("tasks_20_epochs",), track=False, variants=False)
    results = tracked_results(preset, ("main", "tasks", "recipes"))

    def remove(seed, strength):
        for name in MEASURED:
            row = results.tables[name]
            gone = (row["study"] == "recipes") & (row["seed"] == seed)
            results.tables[name] = row[~(gone & (row["class_displacement"] == strength))]

    def seeds_by_choice():
        found = claims_by_choice.claims_by_choice(results)
        found = found[found["claim"] == "stronger-task-smoother"]
        return dict(zip(found["choice"], found["seeds"]))

    stated = {"as stated": 3, "as stated, seeds 0, 1, 2": 3}
    assert seeds_by_choice() == stated | {"tasks_20_epochs": 3}
    remove(1, 0.5)
    assert seeds_by_choice() == {"as stated": 3, "as stated, seeds 0, 2": 2, "tasks_20_epochs": 2}
    remove(0, 1.0)
    assert seeds_by_choice() == {}  # nothing to compare this claim with, so it is not shown
    assert set(claims_by_choice.claims_by_choice(results)["claim"]) == {
        claim for claim, _ in OF_SENSITIVITY + OF_SMOOTHNESS + OF_LABELS
    }


def test_nothing_to_compare_is_an_empty_table():
    plain = {"track": False, "variants": False}
    for results in (
        Results(small_preset(), {}),
        tracked_results(tracked_preset(large_epochs=0), ("large",)),
        tracked_results(tracked_preset(**plain), ("recipes",)),  # but nothing as stated
    ):
        assert claims_by_choice.claims_by_choice(results).empty
        assert claims_by_choice.claims_over_training(results).empty


def test_the_results_themselves_are_not_touched(results, over_training, by_choice):
    fresh = tracked_results(tracked_preset(recipes=RECIPES), ("main", "tasks", "recipes"))
    assert results.tables.keys() == fresh.tables.keys()
    for name, table in fresh.tables.items():
        pd.testing.assert_frame_equal(results.tables[name], table)
