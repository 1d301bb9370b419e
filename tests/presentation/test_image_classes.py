"""Folders of images are classes only where it is sure which."""

import json

import numpy as np
import pytest

from deformstab.presentation import image_classes
from deformstab.presentation.image_classes import folder_labels, imagenet_classes


def folders(root, *names):
    """A file in each of some folders, and their paths."""
    files = [root / name / "deep" / "image.png" for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return files


def test_as_many_folders_as_classes_are_taken_in_alphabetical_order(tmp_path):
    files = folders(tmp_path, "dog", "cat", "ant")
    (tmp_path / ".hidden").mkdir()
    labels, said = folder_labels(files, tmp_path, 3)
    assert labels.tolist() == [2, 1, 0]
    assert "alphabetical order: ant = 0, cat = 1, dog = 2" in said


def test_a_class_without_images_counts(tmp_path):
    files = folders(tmp_path, "dog", "cat")
    (tmp_path / "bee").mkdir()
    labels, _ = folder_labels(files, tmp_path, 3)
    assert labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "dog\n cat \n\nSea Lion\n"),
        ("names.json", json.dumps(["dog", "cat", "Sea Lion"])),
        ("index.json", json.dumps({"0": ["dog", "x"], "2": ["sea_lion"], "1": ["cat"]})),
    ],
)
def test_a_file_says_which_folder_is_which_class(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    root = tmp_path / "images"
    labels, said = folder_labels(folders(root, "cat", "sea_lion"), root, 3, tmp_path / name)
    assert labels.tolist() == [1, 2]
    assert name in said


def test_folders_of_imagenet_are_known_by_their_numbers_and_names(tmp_path, monkeypatch):
    ids = imagenet_classes()
    assert len(ids) == len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert (ids[0], ids[-1]) == ("n01440764", "n15075141")  # tench, toilet tissue
    files = folders(tmp_path / "a", ids[7], ids[3])
    labels, said = folder_labels(files, tmp_path / "a", 1000)
    assert labels.tolist() == [7, 3]
    assert "WordNet" in said
    words = [f"word {place}" for place in range(1000)]
    words[134] = words[517] = "crane"  # the bird, and the machine
    monkeypatch.setattr(image_classes, "_imagenet_words", lambda: words)
    files = folders(tmp_path / "b", "Word_5", ids[3])
    assert folder_labels(files, tmp_path / "b", 1000)[0].tolist() == [5, 3]
    with pytest.raises(ValueError, match=r"two classes are called crane.*--classes=FILE"):
        folder_labels(folders(tmp_path / "c", "crane"), tmp_path / "c", 1000)
    with pytest.raises(ValueError, match=r"no class of ImageNet is called .* tulip: say which"):
        folder_labels(folders(tmp_path / "d", "tulip"), tmp_path / "d", 1000)


def test_without_a_network_names_of_imagenet_say_what_to_do(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(image_classes.keras.utils, "get_file", fail)
    with pytest.raises(ValueError, match=r"no route.*--classes=FILE"):
        folder_labels(folders(tmp_path, "tench"), tmp_path, 1000)


@pytest.mark.parametrize(
    ("names", "classes", "words"),
    [
        (["a", "b"], 3, r"has 2 folders, and the model tells 3.*--classes=FILE"),
        ([str(each) for each in range(11)], 11, r"are numbers.*1 comes before 10: say which"),
    ],
)
def test_what_is_not_sure_is_refused(tmp_path, names, classes, words):
    with pytest.raises(ValueError, match=words):
        folder_labels(folders(tmp_path, *names), tmp_path, classes)


def test_numbers_with_zeros_before_them_are_sure(tmp_path):
    names = [f"{each:02}" for each in range(11)]
    labels, _ = folder_labels(folders(tmp_path, *names), tmp_path, 11)
    np.testing.assert_array_equal(labels, np.arange(11))


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    root = tmp_path / "images"
    files = folders(root, "a", "b")
    names = tmp_path / "names.txt"
    names.write_text("a\nc\n")
    with pytest.raises(ValueError, match=r"names\.txt does not name b: say"):
        folder_labels(files, root, 2, names)
    with pytest.raises(ValueError, match=r"names\.txt names 2 classes, and the model tells 3"):
        folder_labels(files, root, 3, names)
    (tmp_path / "broken.json").write_text('{"1": "a"}')
    with pytest.raises(ValueError, match=r"broken\.json is no list of names"):
        folder_labels(files, root, 1, tmp_path / "broken.json")


def test_an_image_in_no_folder_is_refused(tmp_path):
    loose = tmp_path / "image.png"
    with pytest.raises(ValueError, match=r"image\.png lies in no folder"):
        folder_labels([*folders(tmp_path, "a", "b"), loose], tmp_path, 2)
