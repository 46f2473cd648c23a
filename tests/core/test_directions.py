"""Directions by (seed, step, name): fixed numbers, the normal distribution, any part by itself."""

from itertools import pairwise

import numpy as np
import pytest

from fpo_core.backend.directions import LEFT, RIGHT, Stream, matrix_shape, row_blocks

STREAM = Stream(0, "layers.0.weight", 7, LEFT)
RAW = [1454957157726209351, 10322469264945332349]
NORMALS = [-2.231959581375122, -0.3133356273174286, 1.014975905418396, 0.36187514662742615]


def test_the_numbers_are_what_they_were():
    """A run of any version must go on with the same directions."""
    assert STREAM.raw(0, 2).tolist() == RAW
    np.testing.assert_array_equal(STREAM.normals(0, 4), np.array(NORMALS, np.float32))


def test_box_and_muller_by_hand():
    """√(−2 ln u) cos 2πv and its sine, u and v the halves of an integer."""
    integer = int(STREAM.raw(0, 1)[0])
    u, v = ((integer >> 32) + 1) / 2**32, (integer & (2**32 - 1)) / 2**32
    radius = np.sqrt(-2 * np.log(u))
    expected = [radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)]
    np.testing.assert_allclose(STREAM.normals(0, 2), expected, rtol=1e-6)


def test_a_part_is_that_of_the_whole():
    whole = STREAM.normals(0, 1000)
    for start, count in ((0, 1), (3, 10), (8, 16), (511, 489)):
        np.testing.assert_array_equal(STREAM.normals(start, count), whole[start : start + count])


def test_they_are_normal():
    z = STREAM.normals(0, 200_000).astype(np.float64)
    # Standard errors of the mean, variance and fourth moment: 1/√n, √(2/n), √(96/n).
    for moment, expected, error in ((1, 0, 1), (2, 1, 2**0.5), (4, 3, 96**0.5)):
        assert abs((z**moment).mean() - expected) < 4 * error / len(z) ** 0.5
    assert abs((z[:-1] * z[1:]).mean()) < 4 / len(z) ** 0.5
    assert (np.abs(z) > 1.959964).mean() == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(
    "other",
    [
        Stream(1, "layers.0.weight", 7, LEFT),
        Stream(0, "layers.1.weight", 7, LEFT),
        Stream(0, "layers.0.weight", 8, LEFT),
        Stream(0, "layers.0.weight", 7, RIGHT),
    ],
    ids=["seed", "name", "step", "kind"],
)
def test_other_keys_give_other_numbers(other):
    ours, theirs = STREAM.normals(0, 10_000), other.normals(0, 10_000)
    assert abs((ours * theirs).mean()) < 4e-2
    assert not (ours == theirs).any()


def test_weights_as_matrices_in_parts():
    assert matrix_shape((5,)) == (1, 5)
    assert matrix_shape((3, 4)) == (3, 4)
    assert matrix_shape((2, 3, 4)) == (6, 4)
    blocks = list(row_blocks((49152, 576)))
    assert blocks[0][0] == 0
    assert blocks[-1][1] == 49152
    assert all(end == start for (_, end), (start, _) in pairwise(blocks))
    assert max(stop - start for start, stop in blocks) * 576 <= 2**21
