"""Log-probabilities, KL and entropy, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fpo_core.arrays import numpy_ops
from fpo_core.loss.logps import sequence_entropy, sequence_kl, sequence_logps, token_logps
from tests.helpers import FRAMEWORKS, framework, gradient

LOGITS = np.log([[[1.0, 2.0, 3.0], [4.0, 3.0, 1.0], [1.0, 1.0, 2.0], [5.0, 3.0, 2.0]]])
"""Probabilities 1/6 2/6 3/6, then 4/8 3/8 1/8, then 1/4 1/4 2/4, then 5/10 3/10 2/10."""


@pytest.fixture(params=FRAMEWORKS)
def fw(request):
    return framework(request.param)


def test_token_logps_by_hand(fw):
    labels = np.array([[2, 1, 0, 2]])
    found = token_logps(fw.xp, fw.array(LOGITS), fw.array(labels))
    fw.close(found, np.log([[3 / 6, 3 / 8, 1 / 4, 2 / 10]]))


def test_ignored_labels_are_read_as_zero_and_masked_away(fw):
    labels = np.array([[-100, 1, 0, -100]])
    tokens = token_logps(fw.xp, fw.array(LOGITS), fw.array(labels))
    fw.close(tokens, np.log([[1 / 6, 3 / 8, 1 / 4, 5 / 10]]))
    mask = np.array([[0.0, 1.0, 1.0, 0.0]])
    found = sequence_logps(fw.xp, fw.array(LOGITS), fw.array(labels), fw.array(mask))
    fw.close(found, [math.log(3 / 8) + math.log(1 / 4)])


def test_a_masked_infinity_does_not_reach_the_sum(fw):
    logits = LOGITS.copy()
    logits[0, 0] = [0.0, -np.inf, 0.0]
    labels, mask = np.array([[1, 1, 0, 2]]), np.array([[0.0, 1.0, 0.0, 0.0]])
    found = sequence_logps(fw.xp, fw.array(logits), fw.array(labels), fw.array(mask))
    fw.close(found, [math.log(3 / 8)])


def test_kl_of_reference_to_policy_by_hand(fw):
    reference = np.log([[[0.5, 0.5], [0.9, 0.1]]])
    policy = np.log([[[0.25, 0.75], [0.5, 0.5]]])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    second = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    both, one = np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]])
    arrays = fw.array(policy), fw.array(reference)
    fw.close(sequence_kl(fw.xp, *arrays, fw.array(both)), [first + second])
    fw.close(sequence_kl(fw.xp, *arrays, fw.array(one)), [first])


@pytest.mark.parametrize("chunk", [1, 2, 3, 64])
def test_kl_in_chunks_is_the_kl_at_once_with_the_same_gradient(fw, chunk):
    generator = np.random.default_rng(0)
    policy, reference = generator.normal(size=(2, 2, 7, 5))
    mask = np.array([[1, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 1, 1, 0]], float)
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (policy, reference))
    expected = ((q * np.log(q / p)).sum(-1) * mask).sum(1)
    arrays = fw.array(reference), fw.array(mask)
    fw.close(sequence_kl(fw.xp, fw.array(policy), *arrays, chunk=chunk), expected)
    if not fw.name.startswith("numpy"):
        found = gradient(fw, lambda x: sequence_kl(fw.xp, x, *arrays, chunk=chunk).sum(), policy)
        np.testing.assert_allclose(found, (p - q) * mask[..., None], rtol=1e-4, atol=1e-6)


def test_no_gradient_of_the_kl_reaches_the_reference():
    fw = framework("torch64")
    mask = fw.array(np.ones((1, 4)))
    found = gradient(fw, lambda x: sequence_kl(fw.xp, fw.array(LOGITS), x, mask).sum(), LOGITS * 2)
    assert (found == 0).all()


def test_entropy_by_hand(fw):
    logits = np.log([[[0.5, 0.5], [0.9, 0.1]]])
    second = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    found = sequence_entropy(fw.xp, fw.array(logits), fw.array([[1.0, 1.0]]))
    fw.close(found, [math.log(2) + second])


@pytest.mark.parametrize("name", ["torch", "mlx"])
def test_bfloat16_logits_are_widened_before_the_softmax(name):
    fw = framework(name + "32")
    x = fw.array(LOGITS)
    half = x.bfloat16() if name == "torch" else x.astype(__import__("mlx.core").core.bfloat16)
    found = fw.numpy(token_logps(fw.xp, half, fw.array(np.array([[2, 1, 0, 2]]))))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.log([[3 / 6, 3 / 8, 1 / 4, 2 / 10]]), rtol=2e-2)


@given(
    npst.arrays(np.float64, (2, 3, 5), elements=st.floats(-30, 30)),
    npst.arrays(np.float64, (2, 2, 5), elements=st.floats(-1e3, 1e3)),
)
def test_padding_and_shifts_of_the_logits_change_nothing(logits, padding):
    labels = np.array([[0, 1, 2, 9, -100], [4, 3, 2, 0, -100]])
    labels[:, 3] = 0
    mask = np.array([[1.0, 1, 1, 0, 0], [0, 1, 1, 0, 0]])
    wide = np.concatenate([logits, padding], 1)
    plain = sequence_logps(numpy_ops, logits, labels[:, :3], mask[:, :3])
    np.testing.assert_allclose(
        sequence_logps(numpy_ops, wide, labels, mask), plain, rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        sequence_logps(numpy_ops, logits + 7, labels[:, :3], mask[:, :3]), plain, atol=1e-9
    )


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_gradient_is_one_hot_minus_probability(name):
    fw = framework(name)
    labels, mask = fw.array(np.array([[2, 1, 0, 2]])), fw.array([[1.0, 0.0, 0.0, 0.0]])
    found = gradient(fw, lambda x: sequence_logps(fw.xp, x, labels, mask).sum(), LOGITS)
    np.testing.assert_allclose(found[0, 0], [-1 / 6, -2 / 6, 1 - 3 / 6], rtol=1e-5)
    assert (found[0, 1:] == 0).all()
