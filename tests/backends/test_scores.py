"""What a policy says of a batch: beside transformers, itself, and the other backend."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fpo_core.arrays import numpy_ops
from fpo_core.config import StepConfig
from fpo_core.loss.scores import Scores
from fpo_core.sae.discrepancy import discrepancy
from tests.backends.runs import degraded
from tests.backends.support import (
    OBJECTIVE,
    UNTRAINED,
    part,
    part_of_reference,
    reference_of,
    rows_of,
    shaken,
)
from tests.helpers import random_batch, random_sae


@pytest.fixture(scope="module")
def oracle(tiny):
    """transformers' own model: logits and hidden states of one unpadded sequence, in float64."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64).eval()

    @torch.no_grad()
    def run(tokens):
        out = model(torch.tensor(tokens).long()[None], output_hidden_states=True)
        return out.logits[0].numpy(), [state[0].numpy() for state in out.hidden_states]

    return run


@pytest.fixture
def moved(backend, make_policy):
    """A batch, its reference, and a policy that has moved away from it."""
    policy, batch = make_policy(backend), random_batch(4)
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    return policy, batch, reference


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_log_probabilities_are_those_of_transformers(backend, make_policy, oracle, plain):
    batch = random_batch(4)
    found = make_policy(backend, step=StepConfig(plain=plain)).score(batch, entropy=True)
    for row, (tokens, prompt, length) in enumerate(
        zip(batch.tokens, batch.prompt_lengths, batch.lengths, strict=True)
    ):
        logits, _ = oracle(tokens[:length])
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        places = range(prompt, length)  # the completion's tokens: nothing of the prompt
        expected = sum(log_p[i - 1, tokens[i]] for i in places)
        np.testing.assert_allclose(found.logps[row], expected, rtol=1e-5)
        assert found.lengths[row] == length - prompt
        entropy = -sum((np.exp(log_p[i - 1]) * log_p[i - 1]).sum() for i in places)
        np.testing.assert_allclose(found.entropy[row], entropy, rtol=1e-5)


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_pooled_features_are_those_of_the_tokens_own_hidden_states(
    backend, make_policy, oracle, plain
):
    batch, sae = random_batch(4), random_sae(32)
    found = make_policy(backend, step=StepConfig(plain=plain)).score(batch)
    for row, (tokens, prompt, length) in enumerate(
        zip(batch.tokens, batch.prompt_lengths, batch.lengths, strict=True)
    ):
        _, states = oracle(tokens[:length])
        places = [i for i in range(prompt, length) if tokens[i] not in UNTRAINED]
        features = np.maximum(states[2] @ sae.W_enc + sae.b_enc, 0)[places]
        expected = features.sum(0) / max(len(places), 1)
        np.testing.assert_allclose(found.pooled[row], expected, rtol=1e-4, atol=1e-5)
        assert found.feature_lengths[row] == len(places)


def test_d_is_that_of_the_numpy_core(moved):
    policy, batch, reference = moved
    found = policy.score(batch, reference, OBJECTIVE)
    pooled = found.pooled.astype(np.float64)
    d, union = discrepancy(numpy_ops, pooled, reference.pooled.astype(np.float64), OBJECTIVE.k)
    assert (found.d > 1e-3).all()
    np.testing.assert_allclose(found.d, d, rtol=1e-4)
    assert (found.union == union).all()


def assert_close(found, expected, rows=slice(None), rtol=1e-4):
    for field in dataclasses.fields(Scores):
        value = getattr(expected, field.name)
        if value is not None:
            np.testing.assert_allclose(
                getattr(found, field.name), value[rows], rtol=rtol, atol=1e-5, err_msg=field.name
            )


@pytest.mark.parametrize("kind", ["relu", "topk"])
def test_padding_order_and_batch_mates_change_nothing(backend, make_policy, kind):
    policy = make_policy(backend, sae=kind)
    narrow = random_batch(4)
    reference = reference_of(policy, narrow)
    policy.load_trained(shaken(policy.trained()))
    plain = policy.score(narrow, reference, OBJECTIVE)
    assert (plain.d > 1e-3).all()
    for width in (64, 96):
        assert_close(policy.score(random_batch(4, width=width), reference, OBJECTIVE), plain)
    for pairs in ([3, 1, 0, 2], [2], [1, 3]):
        some = part(narrow, pairs), part_of_reference(reference, narrow, pairs)
        assert_close(policy.score(*some, OBJECTIVE), plain, rows_of(narrow, pairs))


def test_what_fills_the_padding_does_not_matter(moved):
    policy, batch, reference = moved
    filled = batch.tokens.copy()
    for row, length in zip(filled, batch.lengths, strict=True):
        row[length:] = 33
    other = dataclasses.replace(batch, tokens=filled)
    assert_close(
        policy.score(other, reference, OBJECTIVE), policy.score(batch, reference, OBJECTIVE)
    )


def test_moving_the_prompt_border_moves_the_score(moved):
    policy, batch, _ = moved
    earlier = dataclasses.replace(batch, prompt_lengths=batch.prompt_lengths - 1)
    found, other = policy.score(batch), policy.score(earlier)
    assert (other.lengths == found.lengths + 1).all()
    assert (other.logps < found.logps - 1e-3).all()
    assert (np.abs(other.pooled - found.pooled).max(1) > 1e-3).all()


def test_a_completion_of_untrained_tokens_has_no_features_and_no_d(moved):
    policy, batch, reference = moved
    tokens = batch.tokens.copy()
    tokens[0, batch.prompt_lengths[0] : batch.lengths[0]] = UNTRAINED[0]
    pooled = reference.pooled.copy()
    pooled[0] = 0
    odd = dataclasses.replace(batch, tokens=tokens)
    found = policy.score(odd, dataclasses.replace(reference, pooled=pooled), OBJECTIVE)
    assert found.feature_lengths[0] == 0
    assert found.d[0] == 0
    assert (found.pooled[0] == 0).all()
    assert found.d[1] > 0


def test_kl_is_zero_at_the_start_and_positive_after(backend, make_policy, oracle):
    policy, batch = make_policy(backend), random_batch(4)
    start = policy.trained()
    policy.set_reference(start)
    assert np.abs(policy.score(batch, kl=True).kl).max() < 1e-5
    policy.load_trained(shaken(start))
    found = policy.score(batch, kl=True)
    assert (found.kl > 1e-3).all()
    kept = policy.trained()  # scoring against the reference leaves the policy as it was
    assert all((kept[name] == weight).all() for name, weight in shaken(start).items())
    assert (found.logps == policy.score(batch).logps).all()


def test_backends_agree_on_every_score(make_policy):
    batch = degraded(random_batch(6))
    scores = []
    for backend in ("torch", "mlx"):
        policy = make_policy(backend, degree_levels=4)
        start = policy.trained()
        policy.set_reference(start)
        if not scores:
            reference = reference_of(policy, batch)
        policy.load_trained(shaken(start))
        scores.append(policy.score(batch, reference, OBJECTIVE, kl=True, entropy=True))
    assert all(getattr(scores[0], f.name) is not None for f in dataclasses.fields(Scores))
    assert_close(*scores, rtol=1e-5)


def test_scoring_is_free_of_dropout(backend, make_policy):
    batch = random_batch(2)
    plain, noisy = make_policy(backend), make_policy(backend, dropout=0.5)
    weights = shaken(plain.trained())
    plain.load_trained(weights)
    noisy.load_trained(weights)
    assert (plain.score(batch).logps == noisy.score(batch).logps).all()


def test_half_precision_computes_in_half_and_scores_in_single(backend, make_policy):
    batch = random_batch(4)
    exact = make_policy(backend).score(batch)
    found = make_policy(backend, dtype="bfloat16").score(batch)
    assert found.logps.dtype == np.float32
    np.testing.assert_allclose(found.mean_logps, exact.mean_logps, rtol=5e-2)
    assert (found.logps != exact.logps).all()
