"""Draws of samples: numbers of seed, prompt and number alone, and tokens by their shares."""

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.backend.draws import occurrences, pick, seeds, uniforms

PROMPTS = [np.array(ids, np.int32) for ids in ([7, 9], [8], [7, 9], [7, 9])]


def test_the_numbers_of_a_sample_do_not_depend_on_its_neighbours():
    together = uniforms(PROMPTS, 3, 5)
    assert occurrences(PROMPTS) == [0, 0, 1, 2]
    np.testing.assert_array_equal(uniforms(PROMPTS[3:], 3, 5, [2])[0], together[3])
    np.testing.assert_array_equal(uniforms(PROMPTS[1:2], 3, 2)[0], together[1, :2])
    assert len(np.unique(together)) == together.size
    assert (uniforms(PROMPTS, 4, 5) != together).all()
    assert uniforms([], 0, 5).shape == (0, 5)


def test_a_seed_for_another_library_is_of_the_sample_alone():
    together = seeds(PROMPTS, 3)
    assert seeds(PROMPTS[3:], 3, [2]) == together[3:]
    assert len({*together, *seeds(PROMPTS, 4)}) == 8
    assert all(0 <= seed < 2**63 for seed in together)


def test_numbers_are_uniform_and_below_one():
    u = uniforms([np.array([1])] * 200, 0, 200)
    assert 0 <= u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * u.size)
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.3


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_token_is_the_inverse_of_its_distribution_function(temperature):
    """Over even steps of u a token comes as often as softmax(logits / T) says."""
    logits = np.log(
        np.array([0.5, 0.0, 0.3, 0.2]), where=[True, False, True, True], out=np.full(4, -np.inf)
    )
    u = (np.arange(1000) + 0.5) / 1000
    tokens = pick(numpy_ops, np.tile(logits, (1000, 1)), u, temperature, 1.0)
    p = np.array([0.5, 0.0, 0.3, 0.2]) ** (1 / temperature)
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 1000, p / p.sum(), atol=1.1e-3)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.4, [1, 0, 0, 0]), (0.51, [5, 0, 3, 0]), (0.99, [5, 0, 3, 2])],
)
def test_top_p_is_the_smallest_set_of_that_share(top_p, expected):
    logits = np.log(np.array([0.5, 1e-9, 0.3, 0.2]))
    u = (np.arange(500) + 0.5) / 500
    tokens = pick(numpy_ops, np.tile(logits, (500, 1)), u, 1.0, top_p)
    shares = np.array(expected) / np.sum(expected)
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 500, shares, atol=3e-3)


def test_the_ends_of_the_interval_hit_tokens_that_can_come():
    logits = np.array([[-np.inf, 0.0, 0.0, -np.inf]], np.float32)
    for u, token in ((0.0, 1), (1 - 2**-23, 2)):
        assert pick(numpy_ops, logits, np.array([u], np.float32), 1.0, 1.0) == [token]
