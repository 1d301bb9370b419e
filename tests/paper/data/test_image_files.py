"""Images that stay files until they are needed, and the data set made of them."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_runs import experiment

from deformstab.paper.data import datasets, tasks
from deformstab.paper.data.image_files import ImageFiles
from deformstab.paper.runs import runs, training

SIZE = 16


def smooth(height, width, seed):
    """An image that scaling changes little: uint8, [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype("uint8"))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def save(
    root, shapes=((SIZE, SIZE),), parts=("train", "val"), classes=("ant", "bee"), suffix="png"
):
    """Six images a class and part; their paths."""
    paths = []
    for number in range(6 * len(classes) * len(parts)):
        part, label = parts[number % len(parts)], number // len(parts) % len(classes)
        folder = root / part / classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{number:02}.{suffix}")
        Image.fromarray(smooth(*shapes[number % len(shapes)], number)).save(paths[-1])
    return paths


def decoded(path):
    return np.asarray(Image.open(path).convert("RGB"), "float64") / 127.5 - 1


# ---- as an array ----


def test_images_of_the_size_come_as_they_are(tmp_path):
    paths = save(tmp_path)
    images = ImageFiles(tuple(paths), SIZE)
    assert images.shape == (len(images), SIZE, SIZE, 3) == (24, SIZE, SIZE, 3)
    which = np.array([5, 0, 23, 5])
    found = images[which]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [decoded(paths[index]) for index in which], atol=1e-6)
    np.testing.assert_array_equal(images[3], images[np.array([3])][0])
    np.testing.assert_array_equal(np.asarray(images), images[np.arange(24)])


@pytest.mark.parametrize("shape", [(32, 32), (20, 64), (64, 20), (300, 200), (9, 7), (16, 17)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_other_images_are_scaled_and_cropped_in_the_middle(tmp_path, shape, suffix):
    (path,) = save(tmp_path, [shape])[:1]
    found = ImageFiles((path,), SIZE)[0]
    assert found.shape == (SIZE, SIZE, 3)
    # By coordinates: pixel (i, j) of the crop shows this place of the image, which is smooth.
    image, side = decoded(path), round(SIZE * 256 / 224)
    centre = (np.arange(SIZE) + 0.5 - SIZE / 2) / side * min(shape)
    rows, columns = (np.clip(length / 2 + centre - 0.5, 0, length - 1) for length in shape)
    nearest = image[np.ix_(rows.round().astype(int), columns.round().astype(int))]
    assert np.abs(found - nearest).mean() < 0.15
    mirrored = np.abs(found[:, ::-1] - nearest).mean(), np.abs(found[::-1] - nearest).mean()
    assert np.abs(found - nearest).mean() < min(mirrored) / 2


def test_a_slice_reads_nothing_and_an_index_what_it_needs(tmp_path):
    paths = save(tmp_path)
    images = ImageFiles(tuple(paths), SIZE)
    paths[1].unlink()
    half = images[:12]
    assert isinstance(half, ImageFiles)
    assert len(half) == 12
    assert half[np.array([0, 2])].shape == (2, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match=f"{paths[1].name} cannot be read"):
        half[np.array([0, 1])]


@pytest.mark.parametrize("shift", [-1.0, np.array([0.1, 0.2, 0.3], "float32")])
def test_scaled_images_are_scaled_when_they_are_read(tmp_path, shift):
    images = ImageFiles(tuple(save(tmp_path)), SIZE)
    once = images.scaled(shift, 2.0)
    np.testing.assert_allclose(np.asarray(once), (np.asarray(images) - shift) / 2, atol=1e-6)
    twice = np.asarray(once.scaled(0.5, 0.25))
    np.testing.assert_allclose(twice, (np.asarray(once) - 0.5) / 0.25, atol=1e-5)


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "no.png"
    path.write_text("text")
    with pytest.raises(ValueError, match=r"no.png cannot be read as an image"):
        ImageFiles((path,), SIZE)[0]


# ---- the data set ----


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_folder_like_imagenets(tmp_path, held_out):
    save(tmp_path, [(32, 20), (20, 40)], ("train", held_out))
    data = datasets.load("imagenet", tmp_path, SIZE, train_images=8, test_images=4)
    assert isinstance(data.x_train, ImageFiles)
    assert data.x_train.shape == (8, SIZE, SIZE, 3)
    assert data.x_test.shape == (4, SIZE, SIZE, 3)
    assert (data.classes, data.name, data.measured_only) == (2, tmp_path.name, False)
    assert np.bincount(data.y_train).tolist() == [4, 4]
    names = [str(path).split("/")[-2] for path in data.x_train.paths]
    assert [["ant", "bee"].index(name) for name in names] == data.y_train.tolist()
    assert all("train" in str(path) for path in data.x_train.paths)


def test_a_folder_of_classes_can_be_measured(tmp_path):
    save(tmp_path, [(32, 20)], (".",))
    data = datasets.load("imagenet", tmp_path, SIZE, test_images=6)
    assert data.measured_only
    assert data.x_test.shape == (6, SIZE, SIZE, 3)


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_a_folder_of_images_can_be_measured_and_not_trained_on(tmp_path, name):
    save(tmp_path, parts=(".",), classes=(".",))
    data = datasets.load(name, tmp_path, SIZE, test_images=6)
    assert (data.measured_only, data.classes) == (True, 1)
    assert data.x_test.shape == (6, SIZE, SIZE, 3)
    assert (data.y_test == 0).all()
    blocks = {"blocks": ((1, 4),), "image_size": SIZE, "measured_images": 6, "train_images": 20}
    this = experiment(dataset=name, data_dir=str(tmp_path), epochs=0, **blocks)
    assert runs.run(this)["sensitivity"]["sensitivity"].notna().all()
    with pytest.raises(ValueError, match="measured on its images but not trained"):
        runs.dataset_of(dataclasses.replace(this, epochs=1))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(next(tmp_path.glob("*.png")).read_bytes())
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    if name == "folder":
        with pytest.raises(ValueError, match="one class"):
            datasets.load(name, tmp_path, SIZE)


def test_a_folder_that_lacks_something_says_what(tmp_path):
    save(tmp_path / "a", parts=("train",))
    with pytest.raises(FileNotFoundError, match="neither val/ nor test/"):
        datasets.load("imagenet", tmp_path / "a", SIZE)
    save(tmp_path / "b", parts=("train",))
    save(tmp_path / "b", parts=("val",), classes=("ant", "bee", "cat"))
    with pytest.raises(ValueError, match=r"val has 3 classes, the training images 2; .* cat"):
        datasets.load("imagenet", tmp_path / "b", SIZE)


@pytest.mark.parametrize("scaling", ["unit", "standardized"])
def test_scaling_is_that_of_images_in_memory(tmp_path, scaling):
    save(tmp_path)
    files = datasets.load("imagenet", tmp_path, SIZE)
    memory = dataclasses.replace(files, x_train=np.asarray(files.x_train))
    found, expected = tasks.scaled(files, scaling), tasks.scaled(memory, scaling)
    np.testing.assert_allclose(np.asarray(found.x_train), expected.x_train, atol=1e-5)
    np.testing.assert_allclose(found.x_test, expected.x_test, atol=1e-6)


def test_a_run_on_files_is_the_run_on_the_same_images_in_memory(tmp_path):
    save(tmp_path / "files")
    save(tmp_path / "memory", parts=("train", "test"))
    changes = {"image_size": SIZE, "train_images": 20, "batch_size": 6, "epochs": 2, "track": True}
    files = experiment(dataset="imagenet", data_dir=str(tmp_path / "files"), **changes)
    memory = experiment(dataset="folder", data_dir=str(tmp_path / "memory"), **changes)
    found, expected = runs.run(files), runs.run(memory)
    for name, table in expected.items():
        # Eight bits become floats by one operation here and by two there.
        same = found[name].drop(columns=["dataset"], errors="ignore")
        table = table.drop(columns=["dataset"], errors="ignore")
        pd.testing.assert_frame_equal(same, table, rtol=1e-2, atol=1e-3, obj=name)


def test_statistics_come_from_as_many_images_as_fit_into_memory(tmp_path, monkeypatch):
    save(tmp_path)
    this = experiment(dataset="imagenet", data_dir=str(tmp_path), image_size=SIZE, batch_size=4)
    monkeypatch.setattr(training, "_MOST_BYTES", 5 * SIZE * SIZE * 3 * 4 + 7)
    seen = []
    real = training.reestimate_batch_normalization
    monkeypatch.setattr(
        training,
        "reestimate_batch_normalization",
        lambda model, x, size: seen.append(x.shape) or real(model, x, size),
    )
    accuracies = training.Training(this, runs.dataset_of(this)).evaluate()
    assert seen == [(5, SIZE, SIZE, 3)]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
