"""Checkpoints of PyTorch are read as PyTorch reads them, and nothing in them is run."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from helpers import DATA

from deformstab.paper.pretrained.torch_files import read_checkpoint

FORMS = ["checkpoint_pickles.pth", "checkpoint_archive.pth"]


def archive(path, content, **storages):
    """The newer form with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("made/data.pkl", content)
        for key, numbers in storages.items():
            file.writestr(f"made/data/{key[1:]}", numbers)
    return path


class Storage:
    """What a pickle refers to by an id of its own."""

    def __init__(self, *pid):
        self.pid = pid


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.found = storage, offset, shape, strides, False, collections.OrderedDict()


class Pickler(pickle._Pickler):
    """Writes `Storage` and `Tensor` as PyTorch writes its own, by the names that it has for them."""

    def persistent_id(self, each):
        return each.pid if isinstance(each, Storage) else None

    def save(self, each, save_persistent_id=True):
        if isinstance(each, Tensor):
            self.write(pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n")
            super().save(each.found)
            return self.write(pickle.REDUCE)
        if isinstance(each, str) and each.startswith("torch "):
            return self.write(pickle.GLOBAL + each.replace(" ", "\n").encode() + b"\n")
        return super().save(each, save_persistent_id)


def pickled(value) -> bytes:
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def float_storage(key="0", count=6):
    return Storage("storage", "torch FloatStorage", key, "cpu", count)


@pytest.mark.parametrize("name", FORMS)
def test_tensors_are_those_that_pytorch_saved(name):
    found = read_checkpoint(DATA / name)
    with np.load(DATA / "checkpoint.npz") as expected:
        assert list(found) == list(expected)
        for key, array in expected.items():
            assert found[key].dtype == array.dtype, key
            np.testing.assert_array_equal(found[key], array, err_msg=key)
            assert found[key].flags.c_contiguous


def test_the_made_up_form_is_the_one_that_is_read(tmp_path):
    numbers = np.arange(6, dtype="float32")
    content = pickled({"a": Tensor(float_storage(), 1, (2, 2), (2, 1))})
    found = read_checkpoint(archive(tmp_path / "a.pth", content, _0=numbers.tobytes()))
    np.testing.assert_array_equal(found["a"], [[1, 2], [3, 4]])


class Evil:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", ["archive", "pickles", "first pickle"])
def test_code_in_a_checkpoint_is_not_run(form, tmp_path):
    flag, path = tmp_path / "was_run", tmp_path / "evil.pth"
    content = pickle.dumps({"a": Evil(os.mkdir, str(flag))}, protocol=2)
    if form == "archive":
        archive(path, content)
    else:
        start = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        start = b"".join(pickle.dumps(each, protocol=2) for each in start)
        path.write_bytes(start * (form == "pickles") + content)
    with pytest.raises(ValueError, match=r"it asks for posix\.mkdir"):
        read_checkpoint(path)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": Tensor(float_storage(), 3, (2, 2), (2, 1))}, "reaches beyond its numbers"),
        ({"a": Tensor(float_storage(), 0, (7,), (1,))}, "reaches beyond its numbers"),
        ({"a": Tensor(float_storage(), -1, (2,), (1,))}, "has the shape"),
        ({"a": Tensor(float_storage(), 5, (2,), (-1,))}, "has the shape"),
        ({"a": Tensor(float_storage(), 0, (2,), (1, 1))}, "has the shape"),
        ({"a": Tensor(float_storage(count=7), 0, (2,), (1,))}, "cut short"),
        ({"a": Tensor(float_storage(key="1"), 0, (2,), (1,))}, "data/1"),
        ({"a": Tensor(3, 0, (2,), (1,))}, "no storage"),
        (
            {"a": Tensor(Storage("module", "torch FloatStorage", "0", "cpu", 6), 0, (), ())},
            "refers",
        ),
        ({"a": 5}, "a in it is no tensor"),
        ({}, "no dictionary of tensors"),
        ([1, 2], "no dictionary of tensors"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(value, message, tmp_path):
    numbers = np.arange(6, dtype="float32").tobytes()
    path = archive(tmp_path / "a.pth", pickled(value), _0=numbers)
    with pytest.raises(
        ValueError, match=f"a.pth was not read as a PyTorch checkpoint: .*{message}"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_cut_anywhere_is_refused(name, tmp_path):
    content = (DATA / name).read_bytes()
    path = tmp_path / "cut.pth"
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pth was not read"):
            read_checkpoint(path)


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "text.pth"
    path.write_text("weights")
    with pytest.raises(ValueError, match="was not read"):
        read_checkpoint(path)
    with pytest.raises(ValueError, match="was not read"):
        read_checkpoint(tmp_path / "absent.pth")
