"""Diversity of samples."""

import numpy as np
import pytest

from fpo_core.evaluation.evaluate import distinct


@pytest.mark.parametrize(
    ("n", "expected"),
    # Tokens 1 2 1 2 and 1 3: three of six distinct; pairs 12 21 12 13: three of four.
    [(1, 3 / 6), (2, 3 / 4), (4, 1.0), (5, None)],
)
def test_distinct_n_by_hand(n, expected):
    assert distinct([np.array([1, 2, 1, 2]), np.array([1, 3])], n) == expected
