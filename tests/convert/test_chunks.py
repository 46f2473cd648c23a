"""Pieces of a source's arrays: all rows, once, in order."""

import numpy as np
import pytest

from fpo_convert.row_readers import ArrayTensor, WholeTensor, chunks, product


@pytest.mark.parametrize("shape", [(1, 3), (7, 300_000), (9, 70_000), (40, 65_536), (1000,)])
def test_chunks_are_all_rows_in_order(shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    for tensor in (ArrayTensor(array), WholeTensor(shape, lambda: array)):
        parts = list(chunks(tensor))
        assert [part.start for part, _ in parts] == [0, *(part.stop for part, _ in parts[:-1])]
        assert all(len(rows) == part.stop - part.start for part, rows in parts)
        assert np.array_equal(np.concatenate([rows for _, rows in parts]), array)


@pytest.mark.parametrize("shape", [(3, 5), (64, 16_384), (700, 1000)])
def test_product_is_a_matrix_product(shape):
    rng = np.random.default_rng(0)
    left, rows = rng.normal(size=(2, shape[0])), rng.normal(size=shape)
    assert np.allclose(product(left, ArrayTensor(rows)), left @ rows)
    narrow = product(left, ArrayTensor(rows.astype(np.float32)))
    assert np.allclose(narrow, left @ rows, rtol=1e-4, atol=1e-4)
