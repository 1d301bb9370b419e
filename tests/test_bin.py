"""The two scripts, as they are called: what they print, write, and refuse without a traceback."""

import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from absl import app, flags
from helpers import ROOT
from PIL import Image

import deformstab as ds
from deformstab.paper import reproduce as reproduction
from deformstab.paper.runs.preset import Preset
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.verdicts.result_tables import Results
from deformstab.presentation.measure_files import measure_files
from deformstab.presentation.plots import plot_sensitivity
from deformstab.tables import SENSITIVITY_COLUMNS, read_csv

SCRIPTS = ("measure_sensitivity", "reproduce_figures")


def process(script, *arguments, cwd=None):
    """A script in a process of its own, from anywhere: (status, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bin" / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def elsewhere(script, *arguments, folder=None):
    """A script by a Python that has no deformstab (nor absl): (status, stdout, stderr)."""
    python = [sys.executable, "-I", "-S"]  # no site-packages, and the environment does not count
    path = (folder or ROOT / "bin") / script
    done = subprocess.run([*python, str(path), *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_in_a_checkout_a_script_finds_its_environment(script, tmp_path):
    """Called by the system's Python, as `bin/…` is whose user did not activate `.venv`."""
    folder = tmp_path / "checkout" / "bin"
    shutil.copytree(ROOT / "bin", folder)
    python = tmp_path / "checkout" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    status, out, _ = elsewhere(script, "--help", folder=folder)
    assert status == 1  # of absl, after help
    assert f"{folder / script} --" in out  # the name it was called by
    assert f"  bin/{script}" not in out


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_an_environment_a_script_says_in_a_line_what_to_do(script, tmp_path):
    folder = tmp_path / "bin"
    shutil.copytree(ROOT / "bin", folder)
    status, out, error = elsewhere(script, "--help", folder=folder)
    assert (status, out) == (1, "")
    (line,) = error.splitlines()
    for words in (script, sys.executable, "make install", 'pip install "deformstab[tensorflow'):
        assert words in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_called_by_its_name_alone_a_script_calls_itself_so(script, tmp_path):
    on_path = tmp_path / script
    text = (ROOT / "bin" / script).read_text(encoding="utf-8")
    on_path.write_text(f"#!{sys.executable}\n{text.split(chr(10), 1)[1]}", encoding="utf-8")
    on_path.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run([script, "--help"], env=environment, capture_output=True, text=True)
    assert f"\n  {script} --" in done.stdout
    assert str(tmp_path) not in done.stdout.split("flags:")[0]


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """A script's `main` in this process and an empty folder: (exit status or message, stdout).

    What a script lets through other than `SystemExit` would be a traceback, and fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    others = set(flags.FLAGS)

    def forget():
        for name in set(flags.FLAGS) - others:
            delattr(flags.FLAGS, name)

    def run(script, *arguments):
        forget()
        loader = importlib.machinery.SourceFileLoader(script, str(ROOT / "bin" / script))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(script, loader))
        loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            status = module.main(flags.FLAGS(sys.argv))
        except (flags.Error, app.UsageError) as error:  # of which absl makes a message and status 1
            status = str(error)
        except SystemExit as error:
            status = error.code
        return status, capsys.readouterr().out

    yield run
    forget()


# ---- --help ----


@pytest.mark.parametrize(
    ("script", "names"),
    [
        (
            "reproduce_figures",
            "preset dataset data_dir figures downsampling seeds epochs train_images batch_size "
            "seed output_dir image_size measured_images sigmas class_displacements",
        ),
        (
            "measure_sensitivity",
            "model images output figure report layers max_images value_range control_points "
            "max_displacement metric deformations seed batch_size allow_unsafe_model image_seed resize "
            "import_module weights weights_seed image_size preprocessing measures compare "
            "compare_weights compare_by labels classes family strengths",
        ),
    ],
)
def test_help_is_a_manual(script, names, tmp_path):
    _, shown, errors = process(script, "--help", cwd=tmp_path)
    assert "Traceback" not in shown + errors
    for name in names.split():  # each with a sentence
        assert re.search(rf"--(\[no\])?{name}: *(\n *)?\S.{{8,}}", shown), name
    assert f"bin/{script} --" in shown  # examples
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_executed(script):
    path = ROOT / "bin" / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env python3\n")


def test_every_choice_of_a_preset_is_a_flag(call):
    before = set(flags.FLAGS)
    call("reproduce_figures", "--figures=nothing")
    own = set(flags.FLAGS) - before - {"preset", "figures", "output_dir", "list", "init_only"}
    own -= {"executor", "workers", "ray_address", "gpus_per_run"}
    own -= {"keep_networks", "kept_moments", "measure_again", "report", "finished_only"}
    # The name and what it is a demonstration of are the preset's; Keras reads the backend.
    assert own == {field.name for field in dataclasses.fields(Preset)} - {
        *("name", "demonstration", "backend")
    }


# ---- reproduce_figures ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds=0"], ["seeds", "0"]),
        (["--epochs=-1"], ["epochs", "-1"]),
        (["--batch_size=0"], ["batch_size"]),
        (["--train_images=5"], ["train_images", "20"]),
        (["--measured_images=1"], ["measured_images", "2"]),
        (["--learning_rate=0"], ["learning_rate"]),
        (["--max_displacement=-2"], ["max_displacement", "-2"]),
        (["--seed=-1"], ["seed", "-1"]),
        (["--seeds=two"], ["seeds", "two"]),
        (["--learning_rate=fast"], ["learning_rate", "fast"]),
        (["--sigmas=0,x"], ["sigmas", "x"]),
        (["--class_displacements=1,C"], ["class_displacements", "C"]),
        (["--sigmas=-1"], ["sigmas"]),
        (["--downsampling=max,median"], ["median", "subsample, max, average"]),
        (["--tasks_downsampling=median"], ["median", "subsample, max, average"]),
        (["--dataset=svhn"], ["svhn", "photos", "digits", "cifar10", "npz", "folder"]),
        (["--dataset=folder"], ["folder", "data_dir"]),
        (["--dataset=folder", "--data_dir=nowhere"], ["nowhere", "does not exist"]),
        (["--dataset=npz", "--data_dir=."], ["npz"]),
        (["--data_dir=."], ["photos", "data_dir"]),
        (["--main_tasks=no_labels"], ["no_labels", "true_labels"]),
        (["--figures=7"], ["7", "2c", "pooling"]),
        (["--preset=full"], ["full", "quick"]),
        (["--unknown=1"], ["unknown"]),
        (["quick"], ["quick", "--name=value"]),
        (["--figures", "2", "3"], ["3"]),
    ],
)
def test_bad_values_are_refused_with_a_message_and_nothing_is_written(
    call, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.setattr(reproduction.runs, "_run", lambda *_: pytest.fail("runs"))
    status, _ = call("reproduce_figures", *arguments)
    assert isinstance(status, str)  # printed, with exit status 1
    for word in words:
        assert word in status
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("reproduce_figures", ["--epochs=0"], ["epochs must be above 0, received 0"]),
        ("reproduce_figures", ["--seeds=two"], ["seeds", "two"]),
        ("reproduce_figures", ["stray"], ["stray"]),
        ("measure_sensitivity", [], ["--model"]),
        ("measure_sensitivity", ["--model=a.keras", "--images=b", "stray"], ["stray"]),
    ],
)
def test_a_process_that_refuses_exits_with_a_status_and_no_traceback(
    tmp_path, script, arguments, words
):
    status, shown, errors = process(script, *arguments, cwd=tmp_path)
    assert status not in (0, None)
    assert "Traceback" not in shown + errors
    for word in words:
        assert word in shown + errors
    assert not list(tmp_path.iterdir())


def test_figures_that_need_no_runs_are_drawn_at_once(call, tmp_path):
    arguments = ["--figures", "pooling,A2", "--output_dir", "my figures", "--seeds=2"]
    status, shown, errors = process("reproduce_figures", *arguments, cwd=tmp_path)
    assert status == 0, errors
    assert "Traceback" not in errors
    assert os.path.join("my figures", "README.md") in shown
    folder = tmp_path / "my figures"
    assert {file.name for file in (folder / "figures").iterdir()} == {
        f"figure_{name}.{kind}" for name in ("pooling", "A2") for kind in ("png", "pdf")
    }
    assert len(read_csv(folder / "tables" / "pooling_shifts.csv")) == 4 + 9
    found = json.loads((folder / "provenance.json").read_text())
    assert found["command"] == ["reproduce_figures", *arguments]
    assert found["configuration"]["seeds"] == 2
    # The command that the index gives is one that can be typed again, for one figure.
    page = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("--seeds=2", "my figures", "--figures=A2"):
        assert part in page.split("## Figure")[0]
    command = next(line for line in page.splitlines() if "--figures=A2" in line).split("`")[1]
    assert command.startswith("bin/reproduce_figures ")
    words = shlex.split(command)[1:]
    assert "pooling,A2" not in words
    assert not call("reproduce_figures", *words)[0]


def test_by_default_results_go_below_the_folder_of_the_preset(call, tmp_path):
    status, shown = call("reproduce_figures", "--figures=pooling")
    assert not status
    assert (tmp_path / "results" / "quick" / "figures" / "figure_pooling.pdf").is_file()
    assert os.path.join("results", "quick", "README.md") in shown


def test_every_flag_reaches_the_preset(call, monkeypatch):
    seen = []
    nothing = Results(PRESETS["quick"], {})
    monkeypatch.setattr(reproduction, "reproduce", lambda *given: seen.append(given) or nothing)
    status, _ = call(
        "reproduce_figures",
        "--downsampling=max,average",
        "--seeds=4",
        "--seed=7",
        "--sigmas=0,1.5",
        "--class_displacements=1,2",
        "--learning_rate=0.5",
        "--dataset=digits",
        "--large_image_size=96",
        "--main_tasks=random_images",
        "--figures=2c,3",
        "--output_dir=there",
    )
    assert not status
    ((preset, output_dir, figures, *_),) = seen
    assert (str(output_dir), list(figures)) == ("there", ["2c", "3"])
    assert preset.downsampling == ("max", "average")
    assert (preset.seeds, preset.seed, preset.learning_rate) == (4, 7, 0.5)
    assert (preset.sigmas, preset.class_displacements) == ((0.0, 1.5), (1.0, 2.0))
    assert (preset.dataset, preset.large_image_size) == ("digits", 96)
    assert preset.main_tasks == ("random_images",)
    assert preset.epochs == 4  # what was not said is what the preset says


def test_a_report_of_a_folder_is_written_where_it_is_wanted(call, monkeypatch, tmp_path):
    table = read_csv(ROOT / "results" / "quick" / "tables" / "sensitivity.csv")
    results = Results(PRESETS["quick"], {"sensitivity": table[table["study"] == "main"]})
    began = []
    monkeypatch.setattr(reproduction, "reproduce", lambda *_: began.append(1) or results)
    status, shown = call("reproduce_figures", "--report=new/report.html", "--seeds=4")
    assert not status
    assert "to explore in a browser: new/report.html" in shown
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert "<dt>called by</dt><dd>bin/reproduce_figures" in page
    assert "±2 standard deviations over networks" in page
    status, shown = call("reproduce_figures", "--output_dir=there", "--report=none", "--seeds=4")
    assert not status
    assert "browser" not in shown
    assert not (tmp_path / "there").exists()
    status, shown = call("reproduce_figures", "--output_dir=there", "--seeds=4")
    assert "to explore in a browser: there/report.html" in shown
    assert (tmp_path / "there" / "report.html").stat().st_size > 100_000
    results.tables.clear()
    began.clear()
    status, shown = call("reproduce_figures", "--output_dir=there", "--seeds=4")
    assert not status
    assert "no there/report.html: none of these figures measures" in shown
    status, _ = call("reproduce_figures", "--report=a.html", "--seeds=4")
    assert "none of these figures measures" in str(status)
    began.clear()
    (tmp_path / "file").write_text("")
    status, _ = call("reproduce_figures", "--report=file/report.html")
    assert "file/report.html cannot be written" in status
    assert not began  # it is refused before the runs


def test_without_the_extra_there_is_no_report_unless_one_is_asked_for(call, monkeypatch):
    began = []
    nothing = Results(PRESETS["quick"], {})
    monkeypatch.setattr(reproduction, "reproduce", lambda *_: began.append(1) or nothing)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    status, shown = call("reproduce_figures", "--output_dir=there")
    assert not status
    assert "report" not in shown
    began.clear()
    status, _ = call("reproduce_figures", "--report=a.html")
    assert "deformstab[report]" in str(status)
    assert not began


@pytest.mark.parametrize(
    ("backend", "before"),
    [("tensorflow", ""), ("jax", "KERAS_BACKEND=jax "), ("torch", "KERAS_BACKEND=torch ")],
)
def test_the_command_to_type_again_names_a_backend_that_is_not_the_default(
    backend, before, call, monkeypatch
):
    seen = []
    nothing = Results(PRESETS["quick"], {})
    monkeypatch.setattr(reproduction, "reproduce", lambda *given: seen.append(given) or nothing)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert not call("reproduce_figures")[0]
    assert seen[0][3] == f"{before}bin/reproduce_figures"


def test_a_folder_of_another_configuration_is_refused_with_the_way_out(call, tmp_path):
    assert not call("reproduce_figures", "--figures=pooling", "--output_dir=out")[0]
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    status, _ = call("reproduce_figures", "--figures=pooling", "--output_dir=out", "--epochs=9")
    for word in ("another configuration", "epochs", "4 there, 9 now", "--output_dir"):
        assert word in status
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_failed_download_names_what_needs_no_network(call, monkeypatch, tmp_path):
    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    status, _ = call("reproduce_figures", "--dataset=cifar10", "--figures=2c")
    for word in ("cifar10", "photos", "digits", "data_dir"):
        assert word in status


def test_ctrl_c_says_that_finished_runs_are_kept(call, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduction.runs, "_run", stop)
    monkeypatch.setattr(reproduction, "_check_data", lambda experiments: None)
    status, _ = call("reproduce_figures", "--figures=5a")
    assert "kept" in status


# ---- measure_sensitivity ----


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with models and images."""
    folder = tmp_path_factory.mktemp("files")
    model = ds.vgg((16, 16, 3), 4, ((1, 4), (1, 6)), seed=0)
    model.save(folder / "model.keras")
    grey = ds.vgg((16, 16, 1), 4, ((1, 4),), seed=0)
    grey.save(folder / "grey.keras")
    ds.vgg((None, None, 3), 4, ((1, 4),), seed=0).save(folder / "any_size.keras")
    inputs = keras.Input((10,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(folder / "dense.keras")
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Lambda(lambda x: x * 2, output_shape=(16, 16, 3), name="twice")(inputs)
    unsafe = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(outputs))
    unsafe.save(folder / "unsafe.keras")
    (folder / "broken.keras").write_bytes(b"PK\x03\x04 not a model")

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 20, 24, 3)).astype("uint8")
    pixels = pixels // 2 + np.linspace(0, 120, 10).astype("uint8")[:, None, None, None]
    (folder / "images" / "deep").mkdir(parents=True)
    for number, image in enumerate(pixels):
        where = "deep/" if number % 3 == 0 else ""
        suffix = ("png", "jpg", "JPEG")[number % 3]
        Image.fromarray(image).save(folder / "images" / f"{where}{number}.{suffix}")
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / "few").mkdir()
    Image.fromarray(pixels[0]).save(folder / "few" / "one.png")
    (folder / "damaged").mkdir()
    for number in range(3):
        Image.fromarray(pixels[number]).save(folder / "damaged" / f"{number}.png")
    content = (folder / "damaged" / "1.png").read_bytes()
    (folder / "damaged" / "1.png").write_bytes(content[: len(content) // 2])

    square = np.ascontiguousarray(pixels[:, :16, :16])
    np.savez(folder / "images.npz", other=square[:3], x_test=square[:4], images=square)
    np.savez(folder / "x_test.npz", y_test=np.arange(10), x_test=square)
    np.savez(folder / "only.npz", birds=square / 255)
    np.savez(folder / "grey.npz", birds=square[..., 0])
    np.savez(folder / "two.npz", labels=np.arange(10), birds=square)
    np.savez(folder / "empty.npz")
    np.savez(folder / "scaled.npz", images=square / 127.5 - 1)
    np.savez(folder / "large.npz", images=square * 1.0)
    np.savez(folder / "nan.npz", images=np.full((4, 16, 16, 3), np.nan))
    np.savez(folder / "size.npz", images=pixels)
    np.savez(folder / "words.npz", images=np.array(["a", "b"]))
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(folder / "objects.npz", images=np.array([{}, {}], object))
    (folder / "empty.keras").write_bytes(b"")
    (folder / "text.keras").write_text("not a model")
    (folder / "text.h5").write_text("not a model")
    shutil.copy(folder / "model.keras", folder / "zip.h5")
    model.save(folder / "model.h5")
    shutil.copy(folder / "model.h5", folder / "hdf5.keras")
    for name in ("pipes", "huge"):
        shutil.copytree(folder / "few", folder / name)
    os.mkfifo(folder / "pipes" / "z.png")
    Image.new("1", (60_000, 4_000)).save(folder / "huge" / "z.png")
    return folder


def cropped(image, width, height):
    """Scaled until it covers 256/224 of the size, of which the middle is kept."""
    if image.size == (width, height):
        return image
    wide, tall = round(width * 256 / 224), round(height * 256 / 224)
    scale = max(wide / image.width, tall / image.height)
    larger = [max(wide, round(image.width * scale)), max(tall, round(image.height * scale))]
    image = image.resize(larger)
    x, y = (larger[0] - width) // 2, (larger[1] - height) // 2
    return image.crop((x, y, x + width, y + height))


def images_of(folder, count=None, size=(16, 16), mode="RGB", squash=False):
    """What a user would read: in the order of paths, resized, scaled to [-1, 1]."""
    found = []
    for path, _, names in os.walk(folder):
        found += [os.path.join(path, name) for name in names if not name.endswith("txt")]
    images = []
    for file in sorted(found, key=lambda file: pathlib.Path(file).parts)[:count]:
        with Image.open(file) as image:
            image = image.convert(mode)
            image = image.resize(size) if squash else cropped(image, *size)
            pixels = np.asarray(image, "float32")
        images.append(pixels.reshape(*pixels.shape[:2], -1))
    return np.stack(images) / 127.5 - 1


def own_measurement(model_file, images, **options):
    return ds.measure_sensitivity(keras.saving.load_model(model_file), images, **options)


def assert_measured(found, expected):
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


def test_a_model_and_a_folder_of_images_give_a_table_and_a_picture(files, tmp_path):
    status, shown, errors = process(
        "measure_sensitivity",
        f"--model={files / 'model.keras'}",
        f"--images={files / 'images'}",
        "--output=new/table.csv",
        "--figure=layers.png",
        "--report=new/report.html",
        cwd=tmp_path,
    )
    assert status == 0, errors
    assert "Traceback" not in errors
    table = read_csv(tmp_path / "new" / "table.csv", SENSITIVITY_COLUMNS)
    expected = own_measurement(files / "model.keras", images_of(files / "images"))
    assert_measured(table, expected)
    for row in expected.itertuples():
        assert row.layer in shown
    with Image.open(tmp_path / "layers.png") as picture:
        assert min(picture.size) > 300
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    for name in (*expected["layer"], "data:image/png;base64", "<dt>model</dt><dd>model.keras</dd>"):
        assert name in page


def test_flags_of_a_measurement_reach_it(call, files, tmp_path):
    status, shown = call(
        "measure_sensitivity",
        f"--model={files / 'model.keras'}",
        f"--images={files / 'images.npz'}",
        "--output=table.csv",
        "--layers=block1_downsample,input",
        "--metric=euclidean",
        "--deformations=3",
        "--seed=5",
        "--control_points=4",
        "--max_displacement=0.5",
        "--value_range=0,1",
        "--batch_size=4",
    )
    assert not status
    with np.load(files / "images.npz") as file:
        images = file["images"] / np.float32(255)
    expected = own_measurement(
        files / "model.keras",
        images,
        deformation=ds.RandomDeformation(4, 0.5),
        layers=["input", "block1_downsample"],
        metric="euclidean",
        deformations=3,
        seed=5,
    )
    table = read_csv(tmp_path / "table.csv", SENSITIVITY_COLUMNS)
    assert_measured(table, expected)
    assert "block2_downsample" not in shown


def test_every_flag_reaches_the_request(call, monkeypatch):
    from deformstab.presentation import measure_command
    from deformstab.presentation.model_sources import ModelSource
    from deformstab.presentation.shell_request import Request

    seen = []
    monkeypatch.setattr(measure_command, "run", lambda request, show: seen.append(request))
    read = {
        "weights_seed": 4,
        "image_size": 64,
        "preprocessing": "caffe",
        "allow_unsafe_model": True,
        "import_modules": ["a.py", "b"],
    }
    wanted = {
        "measures": ("sensitivity", "stability"),
        "strengths": ["1", "2"],
        "family": "rotation",
        "control_points": 4,
        "max_displacement": 1.5,
        "classes": "names.txt",
        "compare_by": "depth",
        "layers": ["a", "b*"],
        "metric": "euclidean",
        "deformations": 2,
        "seed": -3,
        "batch_size": 5,
        "max_images": 6,
        "image_seed": 7,
        "resize": "squash",
        "output": "t.csv",
        "figure": "t.png",
        "report": "t.html",
    }
    given = ["--model=VGG16", "--weights=none", "--images=there", "--labels=folders"]
    given += ["--compare=b.keras", "--compare_weights=w.h5", "--allow_unsafe_model"]
    given += ["--import_module=a.py", "--import_module=b"]
    for name, value in ({k: read[k] for k in list(read)[:3]} | wanted).items():
        value = ",".join(value) if isinstance(value, (list, tuple)) else value
        given.append(f"--{name}={value}")
    assert not call("measure_sensitivity", *given)[0]
    first, other = ModelSource("VGG16", "none", **read), ModelSource("b.keras", "w.h5", **read)
    assert seen == [Request(first, "there", other, labels=True, **wanted)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--preprocessing=tf", "--value_range=0,1"], "say the same: pass one of the two"),
        (["--compare_weights=none"], "--compare names: pass both"),
        (["--labels=names"], "folders"),
        (["--family=shear"], "spline|diffeomorphism"),
        (["--weights=none"], "--weights=none is for a network of keras.applications"),
        (["--preprocessing=bgr"], "caffe, torch, tf or two numbers"),
    ],
)
def test_flags_that_make_no_sense_are_refused_in_a_line(call, files, given, words):
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images.npz'}"]
    status, _ = call("measure_sensitivity", *arguments, *given)
    assert isinstance(status, str)
    assert "\n" not in status
    assert words in status


@pytest.mark.parametrize(
    ("model", "archive", "name"),
    [
        ("model.keras", "images.npz", "images"),
        ("model.keras", "x_test.npz", "x_test"),
        ("model.keras", "only.npz", "birds"),
        ("grey.keras", "grey.npz", "birds"),
    ],
)
def test_an_npz_gives_the_array_that_is_documented(files, model, archive, name):
    with np.load(files / archive) as file:
        images = file[name]
    scale = 127.5 if images.dtype.kind == "u" else 0.5
    images = images.reshape(10, 16, 16, -1) / np.float32(scale) - 1
    assert_measured(
        measure_files(files / model, files / archive), own_measurement(files / model, images)
    )


def test_a_grey_model_and_one_of_any_size_take_colour_files(files):
    images = images_of(files / "images", mode="L")
    found = measure_files(files / "grey.keras", files / "images")
    assert_measured(found, own_measurement(files / "grey.keras", images))
    images = images_of(files / "images", size=(24, 20))  # of the first file
    found = measure_files(files / "any_size.keras", files / "images")
    assert_measured(found, own_measurement(files / "any_size.keras", images))


def test_squashed_images_are_measured_as_they_always_were(call, files, tmp_path):
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images'}"]
    status, shown = call("measure_sensitivity", *arguments, "--resize=squash", "--output=t.csv")
    assert not status
    assert "10 of 10 files" in shown
    assert "squashed" in shown
    expected = own_measurement(files / "model.keras", images_of(files / "images", squash=True))
    assert_measured(read_csv(tmp_path / "t.csv", SENSITIVITY_COLUMNS), expected)


def test_of_more_images_a_sample_is_measured_and_the_output_says_so(call, files, tmp_path):
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images'}"]
    arguments += ["--max_images=4", "--output=t.csv"]
    status, shown = call("measure_sensitivity", *arguments, "--image_seed=2")
    assert not status
    assert "4 of 10 files" in shown.splitlines()[0]
    assert "evenly over its folders by image seed 2" in shown.splitlines()[0]
    first = (tmp_path / "t.csv").read_bytes()
    assert not call("measure_sensitivity", *arguments, "--image_seed=2")[0]
    assert (tmp_path / "t.csv").read_bytes() == first
    assert not call("measure_sensitivity", *arguments, "--image_seed=3")[0]
    assert (tmp_path / "t.csv").read_bytes() != first


def test_images_of_16_bits_are_measured_as_what_they_are(files, tmp_path):
    """Not clipped: the same images in 8 bits differ by rounding only."""
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    (tmp_path / "bytes").mkdir()
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5)).astype("uint8"))
        pixels = np.asarray(coarse.resize((16, 16), Image.Resampling.BICUBIC))
        Image.fromarray(pixels).save(tmp_path / "bytes" / f"{number}.png")
        deep = pixels.astype("uint16") * 257
        Image.fromarray(deep).save(tmp_path / "deep" / f"{number}.png")
    found = measure_files(files / "model.keras", tmp_path / "deep")
    expected = measure_files(files / "model.keras", tmp_path / "bytes")
    assert found["sensitivity"].iloc[0] > 0
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


def test_an_h5_model_is_measured_like_the_other(files, tmp_path):
    model = keras.saving.load_model(files / "model.keras")
    model.save(tmp_path / "model.h5")
    found = measure_files(tmp_path / "model.h5", files / "images.npz")
    assert_measured(found, measure_files(files / "model.keras", files / "images.npz"))


def test_one_of_two_options_of_the_deformation_leaves_the_other_as_it_is(files):
    model, images = files / "model.keras", files / "images.npz"
    paper = ds.paper_deformation((10, 16, 16, 3))
    assert (paper.control_points, paper.max_displacement) == ((3, 3), (1.0, 1.0))
    default = measure_files(model, images)
    assert_measured(default, measure_files(model, images, control_points=3, max_displacement=1.0))
    only = measure_files(model, images, max_displacement=0.5)["rms_displacement"]
    np.testing.assert_allclose(only, default["rms_displacement"] / 2, rtol=1e-5)
    finer = measure_files(model, images, control_points=5)
    assert_measured(finer, measure_files(model, images, control_points=5, max_displacement=1.0))
    assert (finer["rms_displacement"] != default["rms_displacement"]).all()


def test_the_picture_shows_the_table(files):
    table = measure_files(files / "model.keras", files / "images.npz")
    (axis,) = plot_sensitivity(table, "title").axes
    (line,) = axis.lines
    np.testing.assert_array_equal(line.get_ydata(), table["sensitivity"])
    ticks = [tick.get_text() for tick in axis.get_xticklabels()]
    assert ticks == list(table["layer"])
    low, high = axis.collections[0].get_datalim(axis.transData).intervaly
    assert low == pytest.approx(table["sensitivity_low"].min())
    assert high == pytest.approx(table["sensitivity_high"].max())
    assert axis.get_title() == "title"
    assert "cosine" in axis.get_ylabel()


def test_code_in_a_model_file_runs_only_when_allowed(call, files, tmp_path):
    arguments = [f"--model={files / 'unsafe.keras'}", f"--images={files / 'images.npz'}"]
    status, _ = call("measure_sensitivity", *arguments)
    assert "--allow_unsafe_model" in status
    assert "unsafe.keras" in status
    assert not list(tmp_path.iterdir())
    status, _ = call("measure_sensitivity", *arguments, "--allow_unsafe_model", "--output=t.csv")
    assert not status
    assert "twice" in list(read_csv(tmp_path / "t.csv")["layer"])


def test_code_in_an_h5_file_does_not_run_either(files, tmp_path):
    model = keras.saving.load_model(files / "unsafe.keras", safe_mode=False)
    model.save(tmp_path / "unsafe.h5")
    with pytest.raises(ValueError, match=r"unsafe\.h5.*(?s:.*)--allow_unsafe_model"):
        measure_files(tmp_path / "unsafe.h5", files / "images.npz")
    table = measure_files(tmp_path / "unsafe.h5", files / "images.npz", allow_unsafe_model=True)
    assert "twice" in list(table["layer"])


# NumPy leaves a file open that it cannot read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "nowhere.keras"}, ["nowhere.keras", "does not exist"]),
        ({"images": "nowhere"}, ["nowhere", "does not exist"]),
        ({"model": "broken.keras"}, ["broken.keras"]),
        ({"model": "dense.keras"}, ["dense.keras", "images"]),
        ({"images": "few"}, ["few", "1 ", "at least two"]),
        ({"images": "images/notes.txt"}, ["notes.txt"]),
        ({"images": "damaged"}, ["damaged/1.png"]),
        ({"images": "broken.npz"}, ["broken.npz"]),
        ({"images": "empty.npz"}, ["empty.npz"]),
        ({"images": "two.npz"}, ["two.npz", "labels", "birds"]),
        ({"images": "scaled.npz"}, ["scaled.npz", "0…1", "-1"]),
        ({"images": "large.npz"}, ["large.npz", "0…1"]),
        ({"images": "nan.npz"}, ["nan.npz", "nan"]),
        ({"images": "words.npz"}, ["words.npz"]),
        ({"images": "size.npz"}, ["20", "16"]),
        ({"model": "grey.keras", "images": "images.npz"}, ["16, 16, 3"]),
        ({"layers": "block9"}, ["block9", "block1_conv1"]),
        ({"value_range": "1"}, ["value_range", "1"]),
        ({"value_range": "low,high"}, ["value_range", "low"]),
        ({"value_range": "0,1,2"}, ["value_range"]),
        ({"value_range": "nan,1"}, ["value_range", "nan"]),
        ({"value_range": "0,inf"}, ["value_range", "inf"]),
        ({"value_range": "0,0"}, ["value_range", "first below the second"]),
        ({"value_range": "1,0"}, ["value_range", "first below the second"]),
        ({"value_range": ""}, ["value_range"]),
        ({"max_displacement": "nan"}, ["max_displacement", "nan"]),
        ({"max_displacement": "1e300"}, ["max_displacement", "16 pixels", "1e+300"]),
        ({"control_points": "1000"}, ["control_points", "16", "1000"]),
        ({"control_points": "0"}, ["control_points", "0"]),
        ({"image_seed": "-1"}, ["image_seed"]),
        ({"resize": "stretch"}, ["stretch", "crop", "squash"]),
        ({"images": "/dev/null"}, ["/dev/null", "neither a folder"]),
        ({"model": "/dev/null"}, ["/dev/null", "regular file"]),
        ({"model": "images"}, ["images", "folder"]),
        ({"model": "images/notes.txt"}, ["notes.txt", ".keras or .h5"]),
        ({"model": "empty.keras"}, ["empty.keras", "is empty"]),
        ({"model": "text.keras"}, ["text.keras", "text"]),
        ({"model": "text.h5"}, ["text.h5", "text"]),
        ({"model": "zip.h5"}, ["zip.h5", ".keras file by its content"]),
        ({"model": "hdf5.keras"}, ["hdf5.keras", ".h5"]),
        ({"images": "objects.npz"}, ["objects.npz", "object"]),
        ({"images": "pipes"}, ["pipes/z.png", "no regular file"]),
        ({"images": "huge"}, ["huge/z.png", "too large"]),
        ({"import_module": "nowhere.py"}, ["nowhere.py"]),
        ({"import_module": "no.such.module"}, ["no.such.module", "ModuleNotFoundError"]),
        ({"max_displacement": "-1"}, ["max_displacement", "-1"]),
        ({"control_points": "1"}, ["control_points", "1"]),
        ({"max_images": "1"}, ["max_images"]),
        ({"deformations": "0"}, ["deformations"]),
        ({"batch_size": "0"}, ["batch_size"]),
        ({"metric": "manhattan"}, ["manhattan", "cosine", "euclidean"]),
        ({"figure": "picture.docx"}, ["docx"]),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_message(call, files, arguments, words):
    chosen = {"model": "model.keras", "images": "images.npz"} | arguments
    for name in ("model", "images"):
        chosen[name] = files / chosen[name]
    given = [f"--{name}={value}" for name, value in chosen.items()]
    status, shown = call("measure_sensitivity", *given)
    assert isinstance(status, str), status
    assert "\n" not in status
    assert "sensitivity_low" not in shown
    for word in words:
        assert word in status


def test_a_picture_goes_into_a_folder_that_is_made_like_a_tables(call, files, tmp_path):
    status, _ = call(
        "measure_sensitivity",
        f"--model={files / 'model.keras'}",
        f"--images={files / 'images.npz'}",
        "--figure=new/picture.pdf",
    )
    assert not status
    assert (tmp_path / "new" / "picture.pdf").read_bytes().startswith(b"%PDF")


# ---- classes that are not importable ----


CLASSES = """
import keras


class {name}(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture
def own_class(tmp_path):
    """A model with a class of a file, which is gone from this process: (model, file)."""
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "twice_layer.py"
    path.write_text(CLASSES.format(name="Twice"))
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "twice_layer"} | names, names)
    inputs = keras.Input((16, 16, 3))
    tensor = names["Twice"](name="twice")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(tensor))
    for suffix in ("keras", "h5"):
        model.save(tmp_path / "own" / f"model.{suffix}")
    yield tmp_path / "own", path
    for name in [name for name in sys.modules if name.endswith("twice_layer")]:
        del sys.modules[name]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_an_unknown_class_is_named_with_the_flag_that_imports_it(
    call, files, own_class, suffix, monkeypatch
):
    folder, path = own_class
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = [f"--model={folder}/model.{suffix}", f"--images={files / 'images.npz'}"]
    status, _ = call("measure_sensitivity", *arguments)
    for words in (f"model.{suffix}", "Twice", "--import_module=FILE.py"):
        assert words in status
    assert "allow_unsafe_model" not in status
    assert "\n" not in status
    status, shown = call("measure_sensitivity", *arguments, f"--import_module={path}")
    assert not status
    assert "twice" in shown


def test_a_module_is_imported_by_its_name_as_well(call, files, own_class, monkeypatch):
    folder, _ = own_class
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)
    arguments = ["--model=model.keras", f"--images={files / 'images.npz'}"]
    status, shown = call("measure_sensitivity", *arguments, "--import_module=twice_layer")
    assert not status
    assert "twice" in shown


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("1 +", "SyntaxError"),
        ("x = undefined", "NameError"),
    ],
)
def test_a_module_that_fails_says_how(call, files, tmp_path, code, words, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken_layers.py").write_text(code)
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images.npz'}"]
    status, _ = call("measure_sensitivity", *arguments, "--import_module=broken_layers.py")
    assert "broken_layers.py" in status
    assert words in status
    assert "\n" not in status


# ---- what cannot be written ----


@pytest.mark.parametrize("flag", ["--output", "--figure", "--report"])
@pytest.mark.parametrize("place", ["below a file", "a folder", "proc"])
def test_what_cannot_be_written_is_refused_before_the_measurement(
    call, files, tmp_path, flag, place, monkeypatch
):
    from deformstab.presentation import model_sources as module

    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    path = {
        "below a file": tmp_path / "file" / "out.png",
        "a folder": tmp_path / "folder.png",
        "proc": "/proc/out.png",
    }[place]
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images.npz'}"]
    status, _ = call("measure_sensitivity", *arguments, f"{flag}={path}")
    assert f"{path} cannot be written" in status
    assert "\n" not in status
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_no_output_replaces_another_or_an_input(call, files, tmp_path):
    shutil.copy(files / "model.keras", tmp_path / "model.keras")
    arguments = ["--model=model.keras", f"--images={files / 'images.npz'}"]
    for more in (
        ["--output=./model.keras"],
        ["--output=a.png", "--figure=a.png"],
        ["--report=./model.keras"],
    ):
        status, _ = call("measure_sensitivity", *arguments, *more)
        assert "named twice" in status
    assert (tmp_path / "model.keras").read_bytes() == (files / "model.keras").read_bytes()


def test_a_full_disk_is_named_and_the_table_is_printed_all_the_same(files, tmp_path):
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images.npz'}"]
    status, shown, errors = process(
        "measure_sensitivity", *arguments, "--output=/dev/full", "--figure=a.pdf", cwd=tmp_path
    )
    assert status == 1
    assert "block2_downsample" in shown
    assert "/dev/full cannot be written: No space left on device" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "a.pdf").exists()  # what can be written is
    assert pathlib.Path("/dev/full").is_char_device()


def test_a_table_can_go_to_the_standard_output(files, tmp_path):
    arguments = [f"--model={files / 'model.keras'}", f"--images={files / 'images.npz'}"]
    status, shown, _ = process("measure_sensitivity", *arguments, "--output=/dev/stdout")
    assert status == 0
    table = shown[shown.index("layer,layer_index") :]
    assert len(table.splitlines()) == 12


def shell(command, cwd):
    """A line of the shell with this Python as $PYTHON and the scripts in $BIN."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHON": sys.executable,
            "BIN": str(ROOT / "bin"),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


SMALL = (
    "--figures=5a --sigmas=0,1 --seeds=1 --image_size=16 --train_images=20 --measured_images=4 "
    "--blocks=1x4,1x4 --max_displacement=1 --report=none --output_dir=out"
)


@pytest.mark.parametrize(
    "closed", ["2>&-", ">&-", "<&- >&- 2>&-", "2>&1 | head -c 1", "2>/dev/full"]
)
def test_closed_streams_do_not_end_a_sweep(tmp_path, closed):
    _, _, errors = shell(f"$PYTHON $BIN/reproduce_figures {SMALL} {closed}", tmp_path)
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) == 2
    assert (tmp_path / "out" / "claims.md").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "| head -c 1", "2>&1 >/dev/full"])
def test_closed_streams_do_not_end_a_measurement(files, tmp_path, closed):
    arguments = f"--model={files / 'model.keras'} --images={files / 'images.npz'} --output=t.csv"
    status, shown, errors = shell(
        f"$PYTHON $BIN/measure_sensitivity {arguments} {closed}", tmp_path
    )
    assert "Traceback" not in shown + errors
    assert "BrokenPipe" not in shown + errors
    assert len(read_csv(tmp_path / "t.csv")) == 11
    assert status == ("full" in closed)  # what was not printed is not lost without a word
    assert ("could not be printed" in shown + errors) == ("full" in closed)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_manual_that_is_not_read_to_its_end_is_no_error(script, tmp_path):
    _, shown, errors = shell(f"$PYTHON $BIN/{script} --help | head -1", tmp_path)
    assert len(shown.splitlines()) == 1
    assert errors == ""


def test_a_file_that_grows_beyond_what_may_be_written_is_named(files, tmp_path):
    arguments = f"--model={files / 'model.keras'} --images={files / 'images.npz'} --output=t.csv"
    line = f"ulimit -f 1; $PYTHON -B $BIN/measure_sensitivity {arguments}"
    status, shown, errors = shell(line, tmp_path)
    assert status == 1
    assert "block2_downsample" in shown
    assert "t.csv cannot be written: File too large" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds=1000000000000"], ["seeds", "at most 10000"]),
        (["--threads=1000000"], ["threads", "1024"]),
        (["--control_points=1000"], ["control_points", "at most 32"]),
        (["--blocks=0x0"], ["blocks", "1 or more"]),
        (["--blocks=2x-3"], ["blocks", "1 or more"]),
        (["--blocks="], ["blocks", "1 or more"]),
        (["--stop_accuracy=2"], ["stop_accuracy", "at most 1"]),
        (["--dataset=npz", "--data_dir=pipe.npz"], ["pipe.npz", "no regular file"]),
        (["--dataset=npz", "--data_dir=text.npz"], ["text.npz", "another kind of file"]),
        (["--output_dir=text.npz"], ["text.npz is no folder", "--output_dir"]),
        (["--output_dir=text.npz/below"], ["text.npz is no folder", "--output_dir"]),
        (["--train_images=1000000000000"], ["not enough memory"]),
    ],
)
def test_what_would_hang_or_fill_the_memory_is_one_line(call, tmp_path, arguments, words):
    (tmp_path / "text.npz").write_text("text")
    os.mkfifo(tmp_path / "pipe.npz")
    status, _ = call("reproduce_figures", *arguments)
    assert "\n" not in status
    for word in words:
        assert word in status
