"""Rows of a tensor by slices of NumPy, and as few operations of a graph as a split can have."""

import keras
import numpy as np
import pytest
from helpers import needs_tensorflow, numpy

from deformstab.backend_tensors import copy_of_rows, memory_of, row_products, split_rows

ROWS = np.random.default_rng(0).normal(size=(5, 3, 2)).astype("float32")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_are_split_as_numpy_slices_them(count):
    first, rest = split_rows(keras.ops.convert_to_tensor(ROWS), count)
    np.testing.assert_array_equal(numpy(first), ROWS[:count])
    np.testing.assert_array_equal(numpy(rest), ROWS[count:])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_copy_of_rows_has_memory_of_its_own(count):
    whole = keras.ops.convert_to_tensor(ROWS)
    copy = copy_of_rows(whole, count)
    np.testing.assert_array_equal(numpy(copy), ROWS[:count])
    if memory_of(whole) is not None:
        assert not np.shares_memory(memory_of(whole), memory_of(copy))


def test_products_of_rows_are_sums():
    """One tensor stands in several pairs, as in what is measured."""
    x, y = (keras.ops.convert_to_tensor(each) for each in (ROWS, ROWS[:, :1]))
    wide = ROWS.astype("float64")
    expected = [
        (wide * wide[:, :1]).sum(axis=-1),
        (wide**2).sum(axis=-1),
        (wide[:, :1] ** 2).sum(axis=-1),
    ]
    for found, sums in zip(row_products((x, y), (x, x), (y, y)), expected, strict=True):
        np.testing.assert_allclose(numpy(found).reshape(sums.shape), sums, rtol=1e-6, atol=1e-6)


@needs_tensorflow
def test_a_split_is_one_operation_of_a_graph():
    """Of a model of many layers, each is split: what a split takes to trace counts."""
    import tensorflow as tf

    @tf.function
    def parts(x):
        return split_rows(x, 2)

    graph = parts.get_concrete_function(tf.TensorSpec(ROWS.shape)).graph
    kinds = [each.type for each in graph.get_operations()]
    assert set(kinds) <= {"Placeholder", "Const", "SplitV", "Identity"}
    assert kinds.count("SplitV") == 1
