"""Scores of single tokens: their sums are those of `score`, features those of a dense pass."""

import numpy as np
import pytest

from fpo_core.config import StepConfig
from fpo_core.loss.token_scores import token_bounds
from tests.backends.support import HIDDEN, UNTRAINED, shaken
from tests.helpers import random_batch

BATCH = random_batch(4)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=[False, True], ids=["packed", "plain"])
def policy(request, make_policy, backend):
    policy = make_policy(backend, step=StepConfig(plain=request.param))
    policy.start = policy.trained()
    policy.set_reference(policy.start)
    policy.load_trained(shaken(policy.trained(), 0.05))
    return policy


def per_sequence(values, reduce):
    return np.array([reduce(part) for part in split(values)])


def test_tokens_add_up_to_sequences(policy):
    tokens, scores = policy.token_scores(BATCH), policy.score(BATCH)
    np.testing.assert_allclose(per_sequence(tokens.logps, np.sum), scores.logps, **CLOSE)
    np.testing.assert_allclose(tokens.pooled, scores.pooled, **CLOSE)


def test_features_at_tokens_have_the_means_and_peaks(policy):
    every = np.arange(96)[::-1].copy()
    found, whole = policy.token_scores(BATCH, every).columns, policy.token_scores(BATCH)
    counted = ~np.isin(labels(), UNTRAINED)
    means = [
        values[mask].mean(0) if mask.any() else np.zeros(96)
        for values, mask in zip(split(found), split(counted), strict=True)
    ]
    np.testing.assert_allclose(np.array(means)[:, ::-1], whole.pooled, **CLOSE)
    peaks = np.array([np.abs(values).max(0) for values in split(found)])
    np.testing.assert_allclose(peaks[:, ::-1], whole.peaks, **CLOSE)
    assert (found[~counted] == 0).all()


def test_the_reference_is_swapped_in(policy):
    start = policy.token_scores(BATCH, features=False, reference=True)
    moved = policy.token_scores(BATCH, features=False)
    assert start.pooled is None
    assert np.abs(moved.logps - start.logps).max() > 1e-3
    policy.load_trained(policy.start)
    found = policy.token_scores(BATCH, features=False)
    np.testing.assert_allclose(found.logps, start.logps, **CLOSE)


def test_a_direction_through_norm_and_head(policy, tiny):
    """RMSNorm(d) · w @ W_U, by hand from the files."""
    from safetensors.numpy import load_file

    weights = load_file(next(tiny.glob("*.safetensors")))
    directions = np.random.default_rng(0).normal(size=(3, HIDDEN)).astype(np.float32)
    norm, head = weights["model.norm.weight"], weights.get("lm_head.weight")
    head = weights["model.embed_tokens.weight"] if head is None else head
    scaled = directions / np.sqrt((directions**2).mean(1, keepdims=True) + 1e-6) * norm
    np.testing.assert_allclose(policy.unembed(directions), scaled @ head.T, rtol=1e-3, atol=1e-3)


def labels():
    rows = zip(BATCH.tokens, BATCH.prompt_lengths, BATCH.lengths, strict=True)
    return np.concatenate([row[max(p, 1) : end] for row, p, end in rows])


def split(values):
    return np.split(values, token_bounds(BATCH)[1:-1])
