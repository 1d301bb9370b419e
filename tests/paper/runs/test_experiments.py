"""Experiments and presets: an id for each choice, and what cannot be refused before any work."""

import dataclasses
import itertools
import json
import math

import keras
import pytest
from helpers import ROOT
from test_result_tables import small_preset

import deformstab
from deformstab.networks.downsampling import PAPER_KINDS
from deformstab.paper.data import datasets
from deformstab.paper.runs import experiments
from deformstab.paper.runs.experiments import STUDIES, Experiment
from deformstab.paper.runs.note_experiments import NOTE, NoteExperiment
from deformstab.paper.runs.presets import PRESETS, Preset
from deformstab.paper.runs.pretrained_experiments import PRETRAINED, PretrainedExperiment
from deformstab.paper.runs.question_experiments import QUESTIONS, QuestionExperiment
from deformstab.paper.runs.recipes import RECIPES

QUICK = PRESETS["quick"]
RESULTS = ROOT / "results"

# ---- ids ----


def experiment(**changes):
    return Experiment(
        **{"study": "main", "dataset": "photos", "downsampling": "max", "seed": 0} | changes
    )


OTHER = {
    "study": "large",
    "dataset": "digits",
    "downsampling": "average",
    "seed": 1,
    "data_fingerprint": "abc",
    "image_size": 33,
    "train_images": 1201,
    "task": "random_labels",
    "class_displacement": 1.0,
    "blocks": ((2, 16), (2, 32), (2, 64), (2, 129)),
    "sigma": 1e-9,
    "epochs": 5,
    "batch_size": 65,
    "learning_rate": 1.0000001e-3,
    "control_points": 4,
    "max_displacement": 2.0000001,
    "measured_images": 127,
    "test_images": 513,
    "input_scaling": "unit",
    "batch_statistics": True,
    "stop_accuracy": 0.99,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "precision": "mixed_bfloat16",
    "track": True,
    "variants": True,
    "class_pairs": True,
    "more_measures": ("stability",),
    "choice": "sgd",
    "padding": "circular",
    "threads": 3,
    "backend": "another",
}


def test_every_field_is_part_of_the_id_but_for_where_the_data_lie():
    assert set(OTHER) | {"data_dir"} == {field.name for field in dataclasses.fields(Experiment)}
    assert experiment(data_dir="/data").id == experiment().id
    assert experiment(data_dir="/data") == experiment()
    ids = {experiment(**{name: value}).id for name, value in OTHER.items()}
    assert len(ids | {experiment().id}) == len(OTHER) + 1
    hashes = {name.rsplit("-", 1)[1] for name in ids}  # not only of what the name shows
    assert len(hashes) == len(OTHER)


def test_equal_experiments_have_equal_ids():
    assert experiment(epochs=3).id == experiment(epochs=3).id
    for measures in ((), ("stability",)):  # as JSON gives them back
        assert experiment(more_measures=[*measures]).id == experiment(more_measures=measures).id
    for name, whole in (("sigma", 1), ("class_displacement", 2), ("max_displacement", 2)):
        first, second = experiment(**{name: whole}), experiment(**{name: float(whole)})
        assert first == second
        assert first.id == second.id


def test_what_was_computed_before_backends_were_told_apart_was_tensorflow_s():
    assert "backend" not in experiment(backend="tensorflow").identity()
    assert experiment(backend="jax").identity()["backend"] == "jax"
    assert experiment().backend == keras.backend.backend()


@pytest.mark.parametrize(
    "folder", sorted(RESULTS.glob("*/runs")), ids=lambda path: path.parent.name
)
def test_committed_runs_keep_their_ids_when_experiments_get_new_fields(folder):
    paths = sorted(folder.glob("*.json"))
    assert paths
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))["experiment"]
        if found["study"] == PRETRAINED:
            fields = {name: value for name, value in found.items() if name != "study"}
            again = PretrainedExperiment(source="anywhere", **fields)
        elif found["study"] == NOTE:
            fields = {name: value for name, value in found.items() if name != "study"}
            again = NoteExperiment(**fields)
        elif found["study"] == QUESTIONS:
            fields = {name: value for name, value in found.items() if name != "study"}
            again = QuestionExperiment(**fields | {"network": of_json(found["network"])})
        else:
            again = of_json(found)
        assert again.id == path.stem
        assert again.identity() == found


def of_json(found):
    blocks = tuple(tuple(block) for block in found["blocks"])
    return Experiment(**{"backend": "tensorflow"} | found | {"blocks": blocks})


def test_the_version_of_the_numbers_is_part_of_the_id_and_that_of_the_package_is_not(monkeypatch):
    before = experiment().id
    monkeypatch.setattr(deformstab._version, "__version__", "999.0")
    monkeypatch.setattr(deformstab, "__version__", "999.0")
    assert experiment().id == before
    monkeypatch.setattr(experiments, "NUMBERS", "999.0")
    assert experiment().id != before


def test_an_id_is_a_readable_file_name():
    for each in QUICK.experiments():
        assert each.study in each.id
        assert each.downsampling in each.id
        assert f"seed{each.seed}" in each.id
        assert set(each.id) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
        )
        assert len(each.id) < 120


def test_the_cost_grows_with_work():
    base = experiment()
    assert base.cost > 0
    for more in (
        {"epochs": 8},
        {"train_images": 3000},
        {"image_size": 64},
        {"measured_images": 512},
        {"blocks": ((2, 32), (2, 64), (2, 128), (2, 256))},
    ):
        assert dataclasses.replace(base, **more).cost > base.cost


# ---- what a preset runs ----


def test_the_quick_preset_has_what_the_figures_need():
    found = QUICK.experiments()
    by_study = {
        study: [each for each in found if each.study == study] for study in experiments.STUDIES
    }
    seeds = range(QUICK.seeds)
    assert QUICK.seeds >= 2
    kinds = ("subsample", "max", "average", "strided", "strided_relu")
    assert {(each.downsampling, each.task, each.seed) for each in by_study["main"]} == set(
        itertools.product(kinds, ("true_labels", "random_labels"), seeds)
    )
    assert {(each.downsampling, each.seed) for each in by_study["large"]} == set(
        itertools.product(("max", "strided_relu"), seeds)
    )
    assert {(each.class_displacement, each.seed) for each in by_study["tasks"]} == set(
        itertools.product((1.0, 2.0, 3.0, 4.0), seeds)
    )
    assert {(each.sigma, each.seed) for each in by_study["filters"]} == set(
        itertools.product(QUICK.sigmas, seeds)
    )
    assert len(found) == len({each.id for each in found})
    assert {
        (each.downsampling, each.input_scaling, each.batch_statistics)
        for each in by_study["choices"]
    } == set(itertools.product(kinds, ("symmetric", "unit", "standardized"), (False, True)))
    others = 5 * 3 * 2
    assert len(found) == (5 * 2 + 2 + 4 + len(QUICK.sigmas)) * QUICK.seeds + others
    for each in found:
        if each.study != "choices":
            assert (each.input_scaling, each.batch_statistics) == ("symmetric", False)
    assert 0 in QUICK.sigmas

    for each in (
        by_study["main"] + by_study["filters"] + by_study["choices"]
    ):  # 13 representations; paper's grid
        assert [convolutions for convolutions, _ in each.blocks] == [2, 2, 2, 2]
        assert (each.control_points, each.max_displacement, each.image_size) == (3, 2.0, 32)
    for each in by_study["large"]:
        assert each.control_points == 5
        assert each.image_size >= 64
        assert each.max_displacement == pytest.approx(each.image_size * 10 / 224)
        assert [convolutions for convolutions, _ in each.blocks] == [2, 2, 3, 3, 3]
    assert {each.task for each in by_study["tasks"]} == {"deformed_classes"}
    assert {each.epochs for each in by_study["filters"] + by_study["choices"]} == {0}
    assert all(each.epochs > 0 for study in ("main", "large", "tasks") for each in by_study[study])
    assert {each.measured_images for each in found} == {128}


def test_every_choice_reaches_its_experiments():
    preset = small_preset(
        seeds=2,
        seed=7,
        epochs=3,
        train_images=50,
        batch_size=5,
        learning_rate=0.5,
        measured_images=9,
        test_images=777,
        image_size=24,
        max_displacement=0.5,
        downsampling=("max", "strided"),
        main_tasks=("random_images",),
        tasks_dataset="photos",
        tasks_downsampling="average",
        filters_downsampling="strided",
        large_dataset="digits",
        large_image_size=40,
        large_epochs=4,
        large_train_images=30,
        large_downsampling=("average",),
        large_blocks=((1, 3),),
    )
    found = preset.experiments()
    for each in found:
        assert each.seed in (7, 8)
        assert (each.batch_size, each.learning_rate, each.measured_images) == (5, 0.5, 9)
        assert each.test_images == 777
        large, untrained = each.study == "large", each.study in ("filters", "choices")
        assert each.train_images == (30 if large else 50)
        assert each.epochs == (4 if large else 0 if untrained else 3)
        assert each.image_size == (40 if large else 24)
        assert each.blocks == (((1, 3),) if large else preset.blocks)
        assert each.max_displacement == (pytest.approx(400 / 224) if large else 0.5)
    at = lambda study, name: {getattr(each, name) for each in found if each.study == study}
    assert at("main", "downsampling") == {"max", "strided"}
    assert at("main", "task") == {"random_images"}
    assert at("main", "dataset") == at("tasks", "dataset") == {"photos"}
    assert at("large", "dataset") == {"digits"}
    assert at("tasks", "downsampling") == at("large", "downsampling") == {"average"}
    assert at("filters", "downsampling") == {"strided"}
    assert at("filters", "sigma") == {0.0, 0.5, 2.0}
    assert at("tasks", "class_displacement") == {0.5, 1.0}


def test_only_the_studies_asked_for_and_one_architecture_after_the_other():
    for studies in ((), ("tasks",), ("filters", "main")):
        assert {each.study for each in QUICK.experiments(studies)} == set(studies)
    for study in set(experiments.STUDIES) - {"recipes"}:  # which are of several
        networks = [
            (each.image_size, each.blocks, each.downsampling)
            for each in QUICK.experiments((study,))
        ]
        assert len(list(itertools.groupby(networks))) == len(set(networks))


def test_the_content_of_data_on_disk_is_part_of_an_experiment(tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(b"one")
    preset = small_preset(dataset="npz", data_dir=str(path))
    first = {each.id: each.study for each in preset.experiments()}
    path.write_bytes(b"two")
    second = {each.id for each in preset.experiments()}
    changed = {first[each] for each in set(first) - second}
    assert changed == {"main", "filters", "choices"}
    assert {first[each] for each in set(first) & second} == {"large", "tasks"}
    assert {each.data_dir for each in preset.experiments(("tasks",))} == {None}


def test_data_on_disk_are_read_once_for_all_experiments(tmp_path, monkeypatch):
    read, fingerprint = [], datasets.fingerprint

    def counted(data_dir):
        read.extend([data_dir] if data_dir else [])
        return fingerprint(data_dir)

    monkeypatch.setattr(datasets, "fingerprint", counted)
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in paths:
        path.write_bytes(path.name.encode())
    one, two = map(str, paths)
    sources = {"dataset": "npz", "data_dir": one, "tasks_dataset": "npz", "tasks_data_dir": two}
    found = small_preset(**sources).experiments(experiments.STUDIES)
    assert sorted(read) == [one, two]
    assert {each.data_dir for each in found} == {one, two, None}
    for each in found:
        assert each.data_fingerprint == fingerprint(each.data_dir)


def test_a_configuration_is_every_choice_as_json_has_it():
    configuration = QUICK.configuration()
    assert json.loads(json.dumps(configuration)) == configuration
    # These say which runs there are, not what they are: a folder may come by them one by one.
    which = {"demonstration", "studies", "recipes", "recipes_seeds", "sizes"}
    assert set(configuration) == {field.name for field in dataclasses.fields(Preset)} - which
    assert configuration["downsampling"] == list(PAPER_KINDS)
    assert dataclasses.replace(QUICK, epochs=5).configuration() != configuration


# ---- recipes ----


def varied(preset, name):
    """(what they are, the fields that differ from the network they vary) of a recipe's networks."""
    where = lambda each: (each.downsampling, each.class_displacement, each.seed)
    by_study = {"main": {}, "tasks": {}}
    for each in preset.experiments(("main", "tasks")):
        if each.task in ("true_labels", "deformed_classes"):
            by_study[each.study][where(each)] = dataclasses.asdict(each)
    found = []
    for each in preset.experiments(("recipes",)):
        if each.choice == name:
            base = by_study["tasks" if each.task == "deformed_classes" else "main"][where(each)]
            fields = dataclasses.asdict(each)
            different = {n: value for n, value in fields.items() if value != base[n]}
            found.append((where(each), different))
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inputs_unit", {"input_scaling": "unit"}),
        ("inputs_standardized", {"input_scaling": "standardized"}),
        ("half_the_images", {"train_images": 20}),
        ("twice_the_images", {"train_images": 80}),
        ("batches_times_4", {"batch_size": 80}),
        ("learning_rate_tenth", {"learning_rate": pytest.approx(0.002)}),
        ("sgd", {"optimizer": "sgd", "learning_rate": pytest.approx(0.6)}),
        ("bfloat16", {"precision": "mixed_bfloat16"}),
        ("tasks_20_epochs", {"epochs": 20, "stop_accuracy": 0.0}),
    ],
)
def test_a_recipe_changes_one_thing_of_the_networks_it_is_about(name, expected):
    kinds = {"downsampling": ("max", "strided"), "tasks_downsampling": "average"}
    training = {"learning_rate": 0.02, "stop_accuracy": 0.9, "recipes_seeds": 2, "seed": 5}
    preset = small_preset(track=True, variants=True, recipes=(name,), **kinds, **training)
    networks = list(itertools.product(kinds["downsampling"], [0.0], [5, 6]))
    if name == "tasks_20_epochs":
        networks = list(itertools.product(["average"], [0.5, 1.0], [5, 6]))
    found = varied(preset, name)
    assert [where for where, _ in found] == networks
    expected = expected | {"study": "recipes", "choice": name}
    for _, different in found:
        # Nothing is measured meanwhile, of the tasks not in the preset's study either.
        watched = [different.pop(key, False) for key in ("track", "variants", "class_pairs")]
        assert watched == [False] * 3
        assert different == expected


def test_pairs_of_classes_are_of_true_labels_and_of_presets_with_variants():
    tasks = ("true_labels", "random_labels", "random_images")
    for variants in (True, False):
        preset = small_preset(variants=variants, main_tasks=tasks)
        for each in preset.experiments(STUDIES):
            wanted = variants and each.study == "main" and each.task == "true_labels"
            assert each.class_pairs == wanted


def test_a_recipe_that_repeats_its_preset_is_refused():
    changes = {"optimizer": "sgd", "input_scaling": "unit", "precision": "mixed_bfloat16"}
    preset = small_preset(recipes=("sgd",), **changes)
    for name, field in (
        ("sgd", "optimizer"),
        ("inputs_unit", "input_s"),
        ("bfloat16", "precision"),
    ):
        asked = dataclasses.replace(preset, recipes=(name,), studies=("recipes",))
        with pytest.raises(
            ValueError, match=f"recipe {name} is the preset's own: {field}.*--recipes"
        ):
            asked.experiments()
        with pytest.raises(ValueError, match=f"recipe {name} "):
            asked.every_experiment()
    every = preset.every_experiment()  # where the study is not asked for
    repeated = {"sgd", "inputs_unit", "bfloat16"}
    assert {each.choice for each in every} == {"", *RECIPES} - repeated


def test_the_presets_recipes_are_others():
    for name, preset in PRESETS.items():
        source = {"large_data_dir": "tests"} if name == "imagenet" else {}
        found = dataclasses.replace(preset, **source).experiments(("recipes",))
        assert {each.choice for each in found} == set(preset.recipes)


def test_by_default_there_are_all_recipes_that_any_processor_computes():
    assert set(RECIPES) - set(QUICK.recipes) == {"bfloat16"}


def test_recipes_learn_true_labels_also_where_the_main_study_does_not():
    found = small_preset(main_tasks=("random_labels",), recipes=("sgd",)).experiments(("recipes",))
    assert {each.task for each in found} == {"true_labels"}
    assert len(found) == 5 * 3


# ---- what is refused ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[
            ({name: number}, rf"{name} must be .*{number}")
            for name in ("seeds", "epochs", "batch_size", "recipes_seeds")
            for number in (0, -3)
        ],
        ({"large_epochs": -3}, "large_epochs must be at least 0.*-3"),
        ({"stop_accuracy": 1.5}, "stop_accuracy.*at most 1.*1.5"),
        ({"random_stop_accuracy": -0.5}, "random_stop_accuracy must be at least 0.*-0.5"),
        ({"weight_decay": math.nan}, "weight_decay.*nan"),
        ({"optimizer": "lion"}, "'lion'.*adam, sgd"),
        ({"schedule": "linear"}, "'linear'.*constant, cosine"),
        ({"precision": "float16"}, "'float16'.*float32, mixed_bfloat16"),
        ({"input_scaling": "raw"}, "'raw'.*symmetric, unit, standardized"),
        ({"studies": ("main", "other")}, "'other'.*main, large"),
        ({"recipes": ("adagrad",)}, "'adagrad'.*inputs_unit"),
        ({"train_images": 0}, "train_images"),
        ({"test_images": 511}, "test_images must be at least 512.*511"),
        ({"train_images": 19}, "train_images.*at least 20"),
        ({"large_train_images": 19}, "large_train_images.*at least 20"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": -0.1}, "learning_rate.*-0.1"),
        ({"learning_rate": math.nan}, "learning_rate.*nan"),
        ({"learning_rate": math.inf}, "learning_rate.*inf"),
        ({"max_displacement": 0.0}, "max_displacement"),
        ({"max_displacement": -1.0}, "max_displacement.*-1"),
        ({"max_displacement": math.nan}, "max_displacement.*nan"),
        ({"max_displacement": math.inf}, "max_displacement.*inf"),
        ({"measured_images": 1}, "measured_images.*at least 2.*1"),
        ({"seed": -1}, "seed.*-1"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": -32}, "image_size"),
        ({"large_image_size": 0}, "large_image_size"),
        ({"sigmas": (0.0, -1.0)}, "sigmas.*at least 0"),
        ({"sigmas": (0.0, math.nan)}, "sigmas"),
        ({"class_displacements": (-0.5,)}, "class_displacements.*at least 0"),
        ({"class_displacements": (1.0, math.nan)}, "class_displacements"),
        (
            {"main_tasks": ("true_labels", "no_labels")},
            "no_labels.*true_labels, random_labels, ran",
        ),
        ({"downsampling": ()}, "downsampling is empty.*subsample"),
        ({"downsampling": ("max", "min")}, "'min'.*subsample, max, average, strided, strided_relu"),
        ({"large_downsampling": ("min",)}, "'min'.*subsample, max"),
        ({"tasks_downsampling": "min"}, "'min'.*subsample, max"),
        ({"filters_downsampling": "min"}, "'min'.*subsample, max"),
        ({"dataset": "svhn"}, "'svhn'.*photos, digits"),
        ({"tasks_dataset": "svhn"}, "'svhn'.*photos, digits"),
        ({"large_dataset": "svhn"}, "'svhn'.*photos, digits"),
        ({"dataset": "npz", "data_dir": "/nowhere/at_all.npz"}, "at_all.npz does not exist"),
        ({"tasks_dataset": "npz", "tasks_data_dir": "/nowhere/x.npz"}, "x.npz does not exist"),
        ({"large_dataset": "folder", "large_data_dir": "/nowhere"}, "/nowhere does not exist"),
        ({"data_dir": "/tmp"}, "photos.*no data_dir"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_before_any_work(changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        small_preset(**changes)


@pytest.mark.parametrize("name", ["dataset", "tasks_dataset", "large_dataset"])
def test_data_that_must_be_said_where_are_asked_for_before_any_work(name):
    preset = small_preset(**{name: "folder"})  # --data_dir may follow: presets do without it
    with pytest.raises(ValueError, match=r"folder.*data_dir"):
        preset.experiments()


def test_the_presets_differ_in_what_they_are_for():
    small, full, imagenet = (PRESETS[name] for name in ("cifar10-small", "cifar10", "imagenet"))
    assert [each.name for each in PRESETS.values()] == list(PRESETS)
    assert small.blocks == full.blocks == ((2, 32), (2, 64), (2, 128), (2, 256))
    assert small.large_image_size == imagenet.large_image_size == 224
    assert full.train_images == 50_000
    assert small.seeds == full.seeds == imagenet.seeds == 5
    with pytest.raises(ValueError, match=r"imagenet.*data_dir"):
        imagenet.experiments()


@pytest.mark.parametrize(
    "changes",
    [
        {"downsampling": ("max", "average", "max")},
        {"large_downsampling": ("max", "max")},
        {"main_tasks": ("true_labels", "true_labels")},
        {"sigmas": (0.0, 1.0, 0.0)},
        {"class_displacements": (1.0, 1.0)},
    ],
)
def test_what_is_asked_for_twice_is_refused_or_run_once(changes):
    try:
        preset = small_preset(**changes)
    except ValueError:
        return
    ids = [each.id for each in preset.experiments()]
    assert len(ids) == len(set(ids))
