"""The study questions: its runs, their files, and a folder that is drawn from them, in small."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import committed_runs, needs_tensorflow

import deformstab as ds
from deformstab.paper.figures import style
from deformstab.paper.questions import noise, shuffles, worst
from deformstab.paper.reproduce import list_runs, reproduce
from deformstab.paper.runs import question_experiments, question_measurements, runs, training
from deformstab.paper.runs.kept_networks import KeptNetworks
from deformstab.paper.runs.output_folder import refuse_other_results
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.runs.question_experiments import QUESTIONS
from deformstab.paper.runs.run_files import read_run
from deformstab.tables import read_csv

pytestmark = needs_tensorflow  # the reproduction's
SMALLEST = dataclasses.replace(
    PRESETS["quick"],
    studies=(QUESTIONS,),
    image_size=16,
    max_displacement=1.0,
    seeds=1,
    epochs=2,
    train_images=40,
    batch_size=20,
    measured_images=8,
    blocks=((1, 4), (1, 8)),
    downsampling=("max",),
    circular_downsampling=("aps",),
    shuffles=1,
    searched_images=4,
    sizes=(30, 40),
)
NETWORK, CIRCULAR, FOLLOWED, SIZED = SMALLEST.experiments()
FIRST = {
    "network": "question_noise",
    "circular": "question_shifts",
    "followed": "question_worst",
    "sized": "question_logits",
}


@pytest.fixture(scope="module", autouse=True)
def _short_searches():
    """What they find is tested where they are: here it is what becomes of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worst, "STEPS", 2)
        patch.setattr(worst, "STARTS", 1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Really run, one figure drawn."""
    out = tmp_path_factory.mktemp("questions") / "out"
    reproduce(SMALLEST, out, ["question_1"], command="it")
    return out


# ---- what is run ----


def test_networks_of_every_kind_and_seed_and_circular_ones():
    preset = PRESETS["questions"]
    found = dataclasses.replace(preset, dataset="photos").experiments()
    parts = {
        part: [(each.downsampling, each.seed) for each in found if each.part == part]
        for part in ("network", "circular", "followed", "sized")
    }
    assert sorted(parts["network"]) == sorted((k, s) for k in ds.PAPER_KINDS for s in range(5))
    kinds = ("subsample", "max", "average", "blur", "aps", "max_aps")
    assert sorted(parts["circular"]) == sorted((k, s) for k in kinds for s in range(5))
    assert sorted(parts["followed"]) == sorted(parts["network"])
    assert sorted(parts["sized"]) == sorted(3 * parts["network"])
    sized = [each.network.train_images for each in found if each.part == "sized"]
    assert sorted(set(sized)) == [2000, 8000, 16_000]  # 4,000 are followed
    assert len({each.id for each in found}) == len(found) == 55 + 25 + 75
    fewer = dataclasses.replace(preset, dataset="photos", circular_seeds=2).experiments()
    assert {each.seed for each in fewer if each.part == "circular"} == {0, 1}
    later = dataclasses.replace(SMALLEST, seed=4, seeds=2).experiments()
    assert {each.seed for each in later} == {4, 5}


def test_they_are_trained_by_the_recipe_of_cifar10_small():
    """All that differs is what is measured beside, and what the study is called."""
    main = dataclasses.replace(PRESETS["cifar10-small"], dataset="photos").experiments(("main",))
    asked = dataclasses.replace(PRESETS["questions"], dataset="photos").experiments()
    beside = {"study": "", "track": False, "variants": False, "class_pairs": False}
    beside |= {"more_measures": (), "test_images": 512}
    plain = {
        (each.downsampling, each.seed): dataclasses.replace(each, **beside)
        for each in main
        if each.task == "true_labels"
    }
    for each in asked:
        network = dataclasses.replace(each.network, **beside)
        followed = each.part == "followed"
        assert each.network.track == followed
        assert each.network.more_measures == (("equivariance",) if followed else ())
        assert each.network.test_images == (10_000 if each.part in ("followed", "sized") else 512)
        if each.part == "sized":
            network = dataclasses.replace(network, train_images=4000)
        if each.part == "circular":
            assert network.padding == "circular"
            continue
        assert network == plain[each.downsampling, each.seed]
    assert asked[0].network.train_images == 4000
    assert asked[0].network.stop_accuracy == 0.99


def test_every_choice_is_part_of_the_id():
    again = SMALLEST.experiments()
    these = [NETWORK.id, CIRCULAR.id, FOLLOWED.id, SIZED.id]
    assert [each.id for each in again] == these
    assert "sized30" in SIZED.id
    for change in ({"epochs": 3}, {"train_images": 41}, {"measured_images": 9}, {"threads": 1}):
        others = dataclasses.replace(SMALLEST, **change).experiments()
        assert not {each.id for each in others} & {*these} - (
            {SIZED.id} if change == {"train_images": 41} else set()
        )
    # Of some only one kind is shuffled, or searched.
    others = dataclasses.replace(SMALLEST, shuffles=2).experiments()
    assert [each.id == this for each, this in zip(others, these)] == [False, True, True, True]
    others = dataclasses.replace(SMALLEST, searched_images=5).experiments()
    assert [each.id == this for each, this in zip(others, these)] == [True, True, False, True]
    for each in again:
        assert json.loads(json.dumps(each.identity())) == each.identity()
        assert each.study == each.identity()["study"] == "questions"


def test_images_that_no_circle_can_be_halved_of_are_refused():
    assert len(dataclasses.replace(SMALLEST, studies=("main",), image_size=18).every_experiment())
    with pytest.raises(ValueError, match="image_size must be a multiple of 4, received 18"):
        dataclasses.replace(SMALLEST, image_size=18).experiments()


def test_names_of_layers_are_those_of_the_network():
    blocks = ((2, 4), (1, 6), (3, 5))
    model = ds.vgg((16, 16, 3), 4, blocks, "strided_relu", seed=0)
    network = dataclasses.replace(NETWORK.network, blocks=blocks, downsampling="strided_relu")
    this = dataclasses.replace(NETWORK, network=network)
    assert this.representations == [*ds.paper_layers(model), "logits"]
    assert this.convolutions == shuffles.convolutions(model)


def test_the_cost_grows_with_work():
    for each in (NETWORK, CIRCULAR, FOLLOWED, SIZED):
        for change in ({"epochs": 9}, {"measured_images": 512}, {"train_images": 4000}):
            network = dataclasses.replace(each.network, **change)
            assert dataclasses.replace(each, network=network).cost > each.cost > 0
    assert dataclasses.replace(NETWORK, shuffles=50).cost > NETWORK.cost
    assert dataclasses.replace(FOLLOWED, searched_images=64).cost > FOLLOWED.cost
    assert NETWORK.memory > 0


# ---- a folder ----


def test_the_folder_has_what_the_study_gives(folder):
    assert list_runs(SMALLEST, folder)["finished"].all()
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"figure_question_1.png"}
    names = {path.stem for path in (folder / "tables").iterdir()}
    assert {*question_measurements.TABLES, "questions"} <= names
    assert not {"sensitivity", "training", "epochs"} & names
    text = (folder / "claims.md").read_text(encoding="utf-8")
    assert "## Open questions" in text
    assert "## What was trained" not in text
    assert "not tested" not in text  # the claims, of which nothing was asked
    assert "`it --studies=questions --figures=question_1`" in (folder / "README.md").read_text()
    table = read_csv(folder / "tables" / "questions.csv")
    assert (table.loc[table["decisive"], "verdict"] == "undecided").all()
    noise_table = read_csv(folder / "tables" / "question_noise.csv")
    assert set(noise_table["statistics"]) == {"moving averages", "re-estimated"}
    assert len(noise_table) == 2 * 2 * 2 * 2 * 6
    assert noise_table["relative_stability"].gt(0).all()
    shifts = read_csv(folder / "tables" / "question_shifts.csv")
    assert len(shifts) == 2 * 12 * 2 * 6
    assert set(shifts["part"]) == {"circular"}
    shuffled = read_csv(folder / "tables" / "question_shuffles.csv")
    assert len(shuffled) == 2 * 2 * 1
    moving = read_csv(folder / "tables" / "question_moving.csv")
    # Four steps, all of which are tracked, and the initial one.
    assert list(moving.drop_duplicates("step")["phase"]) == ["initial", *["tracked"] * 3, "trained"]
    assert len(moving) == 5 * 5
    assert len(read_csv(folder / "tables" / "question_worst.csv")) == 2 * 2 * 6
    assert len(read_csv(folder / "tables" / "question_transfer.csv")) == 6 * 5
    logits = read_csv(folder / "tables" / "question_logits.csv")
    assert list(logits.drop_duplicates("train_images")["train_images"]) == [40, 30]
    assert len(logits) == 2 * 4
    channels = shuffled[shuffled["shuffle"] == "channels"]
    np.testing.assert_allclose(channels["smoothness"], channels["smoothness_before"], rtol=1e-8)


def test_a_second_call_runs_nothing_and_other_studies_may_follow(folder, monkeypatch):
    monkeypatch.setattr(runs, "execute", lambda *_, **__: pytest.fail("it is finished"))
    monkeypatch.setattr(style, "save", lambda *_: None)
    before = (folder / "claims.md").read_bytes()
    reproduce(SMALLEST, folder, ["question_1"], command="it")
    assert (folder / "claims.md").read_bytes() == before
    both = dataclasses.replace(SMALLEST, studies=("filters", QUESTIONS))
    left = list_runs(both, folder)
    assert left["finished"].sum() == 4
    assert len(left) == 4 + 5


DAMAGES = ["a row less", "twice", "a table less", "another layer", "a column", "text", "another"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("this", [NETWORK, CIRCULAR, FOLLOWED, SIZED], ids=lambda each: each.part)
def test_a_file_that_is_cut_is_refused(folder, this, damage, tmp_path):
    path = folder / "runs" / f"{this.id}.json"
    tables, seconds = read_run(path, this)
    assert seconds > 0
    result = json.loads(path.read_text(encoding="utf-8"))
    name = FIRST[this.part]
    assert name in tables
    texts = result["tables"]
    lines = texts[name].splitlines(keepends=True)
    if damage == "a row less":
        texts[name] = "".join(lines[:-1])
    if damage == "twice":
        texts[name] = "".join([*lines[:-1], lines[-2]])
    if damage == "a table less":
        del texts["question_training"]
    if damage == "another layer":
        layer = "logits" if this.part == "sized" else "block1_downsample"
        texts[name] = texts[name].replace(layer, "block3_downsample")
    if damage == "a column":
        column = {"followed": "best_of_k", "sized": "relative_stability"}
        texts[name] = texts[name].replace(column.get(this.part, "sensitivity"), "other")
    if damage == "text":
        texts["question_training"] = texts["question_training"].replace("2,", "two,", 1)
    if damage == "another":
        result["experiment"]["network"]["seed"] = 7
    other = tmp_path / "run.json"
    other.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged or of another run"):
        read_run(other, this)


def test_columns_of_texts_are_numbers_in_no_other_study():
    """The types of columns go by their names alone, in all files of runs."""
    for other in ("cifar10-small", "pretrained", "note"):
        for _, content in list(committed_runs(other))[::40]:
            for text in json.loads(content)["tables"].values():
                if text.strip():
                    frame = pd.read_csv(io.StringIO(text)).select_dtypes("number")
                    assert not set(frame) & set(question_measurements.TEXTS)


# ---- a run ----


@pytest.mark.parametrize("this", [NETWORK, FOLLOWED], ids=lambda each: each.part)
def test_one_that_was_stopped_goes_on_and_its_network_is_the_recipe_s(
    this, folder, tmp_path, monkeypatch
):
    expected, _ = read_run(folder / "runs" / f"{this.id}.json", this)
    run_epoch = training.Training.run_epoch

    def stops(self, *rest):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(self, *rest)

    (tmp_path / "runs").mkdir()
    networks = KeptNetworks(tmp_path / "asked", ("initial", "trained"))
    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "run_epoch", stops)
        with pytest.raises(KeyboardInterrupt):
            runs.execute(this, tmp_path, networks=networks)
    assert (tmp_path / "runs" / f"{this.id}.partial.npz").exists()
    training.compiled_model.cache_clear()  # nothing of the run is left in memory
    result = runs.execute(this, tmp_path, networks=networks)
    runs.keep(this, result, tmp_path)
    found, _ = read_run(tmp_path / "runs" / f"{this.id}.json", this)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table, check_exact=True)
    # What was measured on the way has left the network as it was.
    plain = KeptNetworks(tmp_path / "plain", ("initial", "trained"))
    runs.run(this.network, networks=plain)
    model = ds.vgg((16, 16, 3), 10, this.network.blocks, "max")
    for moment in ("initial", "trained"):
        weights = []
        for kept, run in ((networks, this), (plain, this.network)):
            assert kept.load(run, model, moment)
            weights.append(model.get_weights())
        assert all((one == other).all() for one, other in zip(*weights))


def test_statistics_are_what_they_are_called(monkeypatch):
    """Which moving averages a network has when it is measured beside noise."""
    seen = []

    def beside_noise(model, images, deformation):
        layer = model.get_layer("block1_conv1_bn")
        seen.append([np.array(v.numpy()) for v in (layer.moving_mean, layer.moving_variance)])
        return pd.DataFrame({"layer": ["input"]})

    monkeypatch.setattr(noise, "beside_noise", beside_noise)
    monkeypatch.setattr(shuffles, "by_shuffle", lambda *_: pd.DataFrame({"layer": ["input"]}))
    network = NETWORK.network
    this = training.Training(network, runs.dataset_of(network))
    found = {}
    question_measurements.measure(NETWORK, this, "initial", found)
    fresh, estimated = seen
    assert (fresh[0] == 0).all()
    assert (fresh[1] == 1).all()
    assert (estimated[0] != 0).all()
    np.testing.assert_array_equal(this.model.get_layer("block1_conv1_bn").moving_mean.numpy(), 0)
    while not this.is_over:
        this.run_epoch()
    question_measurements.measure(NETWORK, this, "trained", found)
    *_, stale, estimated = seen
    layer = this.model.get_layer("block1_conv1_bn")
    np.testing.assert_array_equal(layer.moving_mean.numpy(), estimated[0])
    # After four steps with momentum 0.99 little of the first variance, 1, is forgotten.
    assert (stale[1] > 0.9).all()
    assert (np.abs(stale[0]) < np.abs(estimated[0])).all()
    statistics = [frame["statistics"].item() for frame in found["question_noise"]]
    assert statistics == ["moving averages", "re-estimated"] * 2


def test_the_last_step_is_noted_down_where_it_is_not_tracked(tmp_path, monkeypatch):
    """All that is noted down has batch normalization re-estimated over the same images."""
    network = dataclasses.replace(FOLLOWED.network, batch_size=8)  # ten steps
    this, over = dataclasses.replace(FOLLOWED, network=network), []
    record = question_measurements.record
    evaluate = training.Training.evaluate

    def noted(training, found):
        over.append(training.step)
        return record(training, found)

    def evaluated(self, images=None):
        over.append(images)
        return evaluate(self, images)

    (tmp_path / "runs").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(question_measurements, "record", noted)
        patch.setattr(runs, "record", noted)
        patch.setattr(training.Training, "evaluate", evaluated)
        runs.keep(this, runs.execute(this, tmp_path), tmp_path)
    tables, _ = read_run(tmp_path / "runs" / f"{this.id}.json", this)
    steps = tables["question_moving"].drop_duplicates("step")
    phases = dict(zip(steps["step"], steps["phase"]))
    tracked = dict.fromkeys((1, 2, 3, 4, 6, 8), "tracked")
    assert phases == {0: "initial", **tracked, 10: "trained"}
    each = [over[place : place + 2] for place, step in enumerate(over) if step in (0, *phases)]
    assert each == [[step, training.TRACKED_IMAGES] for step in phases]


def test_more_images_than_there_are_are_refused_before_training(monkeypatch):
    monkeypatch.setattr(training.Training, "run_epoch", lambda *_: pytest.fail("it trains"))
    few = dataclasses.replace(SMALLEST, dataset="digits", sizes=(2000,), image_size=8)
    few = dataclasses.replace(few, max_displacement=0.5)
    this = next(each for each in few.experiments() if each.part == "sized")
    with pytest.raises(
        ValueError, match=r"2000 images is asked for \(--sizes\), and the data have 1"
    ):
        runs.execute(this, "nowhere")


def test_a_folder_takes_further_sizes(folder):
    """They say which runs there are: as in folders of before there was a choice."""
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert "sizes" not in provenance["configuration"]
    more = list_runs(dataclasses.replace(SMALLEST, sizes=(30, 40, 50)), folder)
    assert (more["finished"].sum(), len(more)) == (4, 5)


def test_sizes_that_a_folder_has_stay_in_its_tables(folder):
    """The table of question 6 has every finished network, whatever sizes are asked for next."""
    assert question_experiments.sizes_in(folder / "runs") == [30]
    before = read_csv(folder / "tables" / "question_logits.csv")
    assert set(before["train_images"]) == {30, 40}
    fewer = dataclasses.replace(SMALLEST, sizes=(40,))
    assert len(list_runs(fewer, folder)) == 3
    reproduce(fewer, folder, ["question_1"], command="it")
    after = read_csv(folder / "tables" / "question_logits.csv")
    pd.testing.assert_frame_equal(after, before)


def test_a_choice_that_no_run_of_a_folder_reads_makes_it_no_other_folder(folder, tmp_path):
    unread = {"track": True, "variants": True, "main_tasks": ("true_labels",)}
    unread |= {"more_measures": ("stability",), "pretrained_range": (0.0, 1.0)}
    assert list_runs(dataclasses.replace(SMALLEST, **unread), folder)["finished"].all()
    for name, value in {"shuffles": 2, "searched_images": 5, "circular_seeds": 2}.items():
        other = dataclasses.replace(SMALLEST, **{name: value})
        with pytest.raises(ValueError, match=rf"another configuration \({name}: "):
            list_runs(other, folder)
        # Where there are networks of figures only, it is the other way round.
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / "main-cifar10-max.json").touch()
        shutil.copy(folder / "provenance.json", tmp_path)
        refuse_other_results(tmp_path, other)
    with pytest.raises(ValueError, match=r"another configuration \(track: "):
        refuse_other_results(tmp_path, dataclasses.replace(SMALLEST, track=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "digits", "sizes": (100, 5000)}, r"5000 images is asked for \(--sizes\)"),
        ({"searched_images": 1}, "searched_images must be at least 2"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_first_run(
    tmp_path, monkeypatch, changes, words
):
    monkeypatch.setattr(runs, "execute", lambda *_: pytest.fail("a run began"))
    monkeypatch.setattr(runs, "run_all", lambda *_: pytest.fail("a run began"))
    with pytest.raises(ValueError, match=words):
        reproduce(dataclasses.replace(SMALLEST, **changes), tmp_path / "out")


def test_a_worker_elsewhere_is_told_where_its_data_lie():
    """What the executor of Ray reads of a run, and changes."""
    network = dataclasses.replace(NETWORK.network, data_dir="here.npz", data_fingerprint="abc")
    this = dataclasses.replace(NETWORK, network=network)
    there = question_experiments.located(this, "/there.npz")
    assert (there.data_dir, there.network.data_dir) == ("/there.npz", "/there.npz")
    assert (there.id, there.data_fingerprint, there.threads) == (this.id, "abc", network.threads)
    assert question_experiments.located(network, "/there.npz").data_dir == "/there.npz"
    (note, *_) = PRESETS["note"].experiments()
    assert (note.data_dir, note.data_fingerprint) == (None, "")
    assert "data_dir" not in note.identity()
