"""A PyTorch checkpoint → arrays, without PyTorch, and without running anything that is in it.

A checkpoint is a pickle that refers to storages, raw numbers beside it. Pickles can run any code;
this one may make ordered dictionaries and tensors, and nothing else. Read are both forms that
`torch.save` has had: an archive (since PyTorch 1.6), and pickles one after the other before that.
"""

import collections
import math
import pathlib
import pickle
import zipfile
from dataclasses import dataclass

import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older form
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "|u1",
}


def read_checkpoint(path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary that `torch.save` wrote: name → array.

    Args:
        path: of the file, .pth or .pt.

    Returns:
        Arrays of the shapes that PyTorch has: convolutions [out, in, height, width].

    Raises:
        ValueError: the file is damaged, no checkpoint, holds something else than a dictionary of
            tensors, or asks for code to be run.
    """
    path = pathlib.Path(path)
    try:
        found, storages = (_archive if zipfile.is_zipfile(path) else _pickles)(path)
        if not isinstance(found, dict) or not found:
            raise ValueError(f"it holds {type(found).__name__}, no dictionary of tensors")
        odd = [name for name, value in found.items() if not isinstance(value, _Tensor)]
        if odd or not all(isinstance(name, str) for name in found):
            raise ValueError(f"{odd[0] if odd else 'a key'} in it is no tensor, or has no name")
        return {name: tensor.array(storages) for name, tensor in found.items()}
    except Exception as error:  # of pickle and zipfile: whatever a damaged file provokes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} was not read as a PyTorch checkpoint: {reason}") from error


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, which the older form has behind the pickle that speaks of it."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self, storages) -> np.ndarray:
        values = storages[self.storage.key]
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        numbers = (self.offset, *self.shape, *self.strides)
        whole = all(isinstance(number, int) and number >= 0 for number in numbers)
        if not whole or len(self.shape) != len(self.strides):
            raise ValueError(f"a tensor has the shape {self.shape} and the strides {self.strides}")
        if math.prod(self.shape) and last >= len(values):
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its numbers")
        step = values.dtype.itemsize
        strides = [step * stride for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view)


def _rebuilt(storage, offset, shape, strides, *_):
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor refers to no storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_NAMES = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Restricted(pickle.Unpickler):
    """Knows what a state dictionary is made of; any other name in the pickle is refused."""

    def find_class(self, module, name):
        try:
            return _NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no dictionary of tensors needs"
            ) from None

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or any(each for each in view):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, no storage of numbers")
        return _Storage(str(key), dtype, int(count))


def _archive(path):
    """(what was saved, {key: its numbers}) of the newer form."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (pickled,) = [name for name in names if name.endswith("/data.pkl")]
        root = pickled.removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        if order != b"little":
            raise ValueError(f"its numbers are {order.decode(errors='replace')}-endian")
        with archive.open(pickled) as file:
            found = _Restricted(file).load()
        return found, {
            storage.key: _numbers(archive.read(f"{root}data/{storage.key}"), storage)
            for storage in _storages(found)
        }


def _pickles(path):
    """The same of the older form: magic number, protocol, system, object, keys, storages."""
    with path.open("rb") as file:
        if _Restricted(file).load() != _MAGIC or _Restricted(file).load() != _PROTOCOL:
            raise ValueError("it does not begin as one")
        if not _Restricted(file).load()["little_endian"]:
            raise ValueError("its numbers are big-endian")
        found = _Restricted(file).load()
        known, values = {each.key: each for each in _storages(found)}, {}
        for key in _Restricted(file).load():
            header = file.read(8)
            count = int.from_bytes(header, "little")
            if len(header) < 8 or count != known[key].count:
                raise ValueError(f"storage {key} has {count} numbers, not {known[key].count}")
            values[key] = _numbers(file.read(count * _size(known[key])), known[key])
        return found, values


def _storages(found) -> list[_Storage]:
    tensors = found.values() if isinstance(found, dict) else ()
    return list({each.storage for each in tensors if isinstance(each, _Tensor)})


def _size(storage) -> int:
    return np.dtype(storage.dtype).itemsize


def _numbers(content: bytes, storage) -> np.ndarray:
    if len(content) != storage.count * _size(storage):
        raise ValueError(f"storage {storage.key} is cut short")
    return np.frombuffer(content, storage.dtype)
