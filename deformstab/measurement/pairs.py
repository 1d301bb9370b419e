"""Distances between all pairs of a set of rows: from products of matrices, and yet exact where close."""

import functools

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled
from deformstab.backend_tensors import memory_of
from deformstab.measurement.distances import largest_entries, unit

_IN_CACHE = 1 << 20  # bytes of rows that a processor multiplies without waiting for its memory
_LARGEST = 1e30  # of scales; they and their inverses are float32


def pairwise_distances(x, metric: str) -> np.ndarray:
    """Distances between all pairs of rows.

    Args:
        x: [rows, features], float32 or better.
        metric: "cosine" or "euclidean".

    Returns:
        float64 [rows, rows], symmetric; the diagonal is zero.
    """
    if metric == "cosine":
        return 0.5 * pair_squares([unit(x)])
    scale = float(ops.max(largest_entries(x)))
    return np.sqrt(pair_squares([x], scale)) * scale


def pair_squares(parts, scales=1.0, memory: float = 1 << 28) -> np.ndarray:
    """Squared Euclidean distances between all pairs of rows, each over its scale.

    From inner products of rows that were centred first: distances do not depend on a common shift,
    and inner products of what is left cancel less. Pairs that are close all the same (a tenth of
    their squares, or less) are computed again from their difference, which is exactly zero for
    equal rows.

    Args:
        parts: tensors [some rows, features], float32 or better, which are the rows together.
        scales: a number or [rows], float64, that rows are divided by.
        memory: bytes that copies of rows may take.

    Returns:
        float64 [rows, rows], symmetric; the diagonal is zero.
    """
    views = [memory_of(part) for part in parts]
    here = all(view is not None for view in views)
    count = sum(part.shape[0] for part in parts)
    scales = np.broadcast_to(np.asarray(scales, "float64"), (count,))
    rows = _RowsHere(views, scales, memory) if here else _RowsOnDevice(parts, scales, memory)
    products = np.triu(rows.products())
    squares = np.diagonal(products)
    both = squares[:, None] + squares
    squared = both - 2 * products
    close = np.nonzero(np.triu(squared < 0.1 * both, 1))
    if len(close[0]):
        squared[close] = rows.apart(*close)
    squared = np.triu(squared, 1)
    return squared + squared.T


class _RowsHere:
    """Rows in the memory of the processor.

    A few entries at a time are copied to where they stay in its cache: over their scales, less
    their mean, times each other. That takes half the time of passes over whole rows; and BLAS
    multiplies rows with themselves in half the operations of a product of matrices.
    """

    def __init__(self, views, scales, memory):
        self.views, self.memory = views, memory
        self.dtype = np.result_type(*views)
        inverse = (1 / scales)[:, None]
        ordinary = ((scales <= _LARGEST) & (scales >= 1 / _LARGEST)).all()
        self.inverse = inverse.astype(self.dtype) if ordinary else inverse

    def _chunks(self):
        """Some entries of all rows over their scales; the next ones take their place."""
        count, entries = len(self.inverse), self.views[0].shape[1]
        most = min(_IN_CACHE, self.memory / 4) / (count * self.dtype.itemsize)
        width = min(max(1, int(most)), entries)
        space = np.empty(count * width, self.dtype)
        for start in range(0, entries, width):
            stop = min(start + width, entries)
            chunk, row = space[: count * (stop - start)].reshape(count, -1), 0
            for view in self.views:
                some = slice(row, row + len(view))
                parts = view[:, start:stop], self.inverse[some]
                np.multiply(*parts, out=chunk[some], casting="same_kind")
                row += len(view)
            yield chunk

    def products(self):
        """Of all pairs of centred rows, float64; the upper half counts."""
        from scipy.linalg.blas import dsyrk, ssyrk

        multiply = dsyrk if self.dtype == "float64" else ssyrk
        count = len(self.inverse)
        products, share = np.zeros((count, count)), np.full(count, 1 / count, self.dtype)
        for chunk in self._chunks():
            chunk -= share @ chunk
            products += multiply(1.0, chunk.T, trans=1)
        return products

    def apart(self, first, second):
        """Squared distances of these pairs, float64."""
        squares = np.zeros(len(first))
        for chunk in self._chunks():
            step = max(1, int(self.memory / (4 * chunk[0].nbytes)))  # pairs at once
            for start in range(0, len(first), step):
                some = slice(start, start + step)
                difference = chunk[first[some]] - chunk[second[some]]
                squares[some] += np.square(difference, out=difference).sum(1, dtype="float64")
        return squares


class _RowsOnDevice:
    """Rows in the memory of an accelerator, which multiplies them there."""

    def __init__(self, parts, scales, memory):
        self.parts, self.memory = parts, memory
        self.within = np.clip(scales, 1 / _LARGEST, _LARGEST)[:, None]  # what a float32 can say
        self.beyond = scales[:, None] / self.within

    def _chunks(self):
        entries = self.parts[0].shape[1]
        dtype = keras.backend.standardize_dtype(self.parts[0].dtype)
        # Four bytes, in four tensors at once.
        width = max(1, int(self.memory / (4 * 4 * len(self.within))))
        for start in range(0, entries, width):
            some = [part[:, start : start + width] for part in self.parts]
            chunk = some[0] if len(some) == 1 else ops.concatenate(some)
            if (self.beyond != 1).any():
                chunk = chunk / ops.cast(self.beyond, dtype)
            yield chunk / ops.cast(self.within, dtype)

    def products(self):
        """As of `_RowsHere`."""
        products = _products(keras.backend.standardize_dtype(self.parts[0].dtype))
        found = (ops.convert_to_numpy(products(chunk)) for chunk in self._chunks())
        return sum(each.astype("float64") for each in found)

    def apart(self, first, second):
        """As of `_RowsHere`."""
        squares = np.zeros(len(first))
        for chunk in self._chunks():
            step = max(1, int(self.memory / (4 * 4 * chunk.shape[1])))
            for start in range(0, len(first), step):
                some = slice(start, start + step)
                both = (ops.take(chunk, each[some], axis=0) for each in (first, second))
                difference = next(both) - next(both)
                squares[some] += ops.convert_to_numpy(ops.sum(ops.square(difference), axis=-1))
        return squares


@functools.cache
def _products(dtype):
    """Inner products of all pairs of rows less their mean, compiled for any shape."""

    def products(x):
        x = x - ops.mean(x, axis=0, keepdims=True)
        return x @ ops.transpose(x)  # ops.matmul computes float64 in float32 on PyTorch

    return compiled(products, ((None, None), dtype), jit=False)
