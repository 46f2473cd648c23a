"""Sampling under values: every token is the rule's, at the same uniform numbers, on both backends.

Value augmented sampling (arXiv 2405.06639): π(a|s) ∝ π0(a|s) exp(Σ β (V(s⊕a) − mean V)) over the
base's k likeliest tokens. V is read here by whole passes without a cache, π0 too.
"""

import dataclasses

import numpy as np
import pytest

from fpo_core.backend.draws import uniforms
from fpo_core.backend.guidance import Guide, Value
from fpo_core.backend.policy import Sampling
from fpo_core.errors import ModelError
from fpo_core.evaluation.texts import sequences
from fpo_core.loss.values import VALUE_HEAD
from tests.backends.families import write_family
from tests.backends.support import shaken

PROMPTS = [np.array(ids, np.int32) for ids in ([7, 9, 11], [8], [30, 31, 32, 33, 34, 35])]
STOP = (20, 21, 22, 23)


@pytest.fixture
def policy(backend, make_policy):
    return make_policy(backend, sae=None, value_head=True)


def value_of(policy, beta, seed, size=0.7):
    """A value function with weights of its own, and the head that it reads them with."""
    weights = shaken(policy.trained(), 0.2, seed)
    head = size * np.random.default_rng(seed).normal(size=weights[VALUE_HEAD].shape)
    return Value(weights, head.astype(np.float32), beta)


def values_after(policy, value, prefix, candidates):
    """V (k,) of a prefix followed by each candidate, by a pass over the whole text."""
    own = policy.trained()
    policy.load_trained(value.weights | {VALUE_HEAD: value.head})
    texts = [[*prefix, int(token)] for token in candidates]
    found = policy.values(sequences(texts, [1] * len(texts)))[:, len(prefix)]
    policy.load_trained(own)
    return found.astype(np.float64)


def table_of(policy, guide, prefix, temperature):
    """The rule's distribution of the next token, and π0's, (v,) each."""
    x = policy.logits(np.array([prefix], np.int32))[0, -1].astype(np.float64) / temperature
    top = np.argsort(-x)[: guide.top_k]
    y = x.copy()
    for value in guide.values:
        v = values_after(policy, value, prefix, top)
        y[top] += value.beta * (v - v.mean())
    return [np.exp(z - np.logaddexp.reduce(z)) for z in (y, x)]


def check(policy, guide, prompts, temperature, told):
    """Every token is the one at its uniform number, and the KL that of the same tables."""
    sampling = Sampling(8, temperature=temperature, seed=4, stop=STOP, guide=guide)
    sampled = policy.generate(prompts, sampling)
    draws = uniforms(prompts, 4, 8)
    changed = 0
    for prompt, ids, u, kl in zip(prompts, sampled, draws, told[0], strict=True):
        expected = 0.0
        for place, token in enumerate(ids):
            prefix = [*prompt.tolist(), *ids[:place].tolist()]
            p, base = table_of(policy, guide, prefix, temperature or 1.0)
            expected += (p * np.log(p / base)).sum()
            below = np.cumsum(p)
            if temperature:
                assert below[token] - p[token] - 1e-5 <= u[place] <= below[token] + 1e-5
                changed += int((np.cumsum(base) <= u[place]).sum()) != token
            else:
                assert p[token] == pytest.approx(p.max(), rel=1e-4)
                changed += base.argmax() != token
        assert kl == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert changed, "the values make a difference"


@pytest.mark.parametrize("temperature", [0.8, 0.0])
def test_every_token_is_that_of_the_rule(policy, temperature):
    """Two values at once; prompts of several lengths in one batch; a stop token is one like others.

    The KL that is told is that of the same tables, summed along each completion.
    """
    told = []
    guide = Guide((value_of(policy, 2.0, 1), value_of(policy, -1.0, 2)), 9, told.append)
    check(policy, guide, [*PROMPTS, PROMPTS[0]], temperature, told)


def test_windows_that_slide_are_read_alike(backend, make_policy, tmp_path):
    """Caches of four tokens, which drop what candidates must not see."""
    folder = write_family("mistral", tmp_path / "mistral", sliding_window=4)
    policy = make_policy(backend, folder, sae=None, value_head=True)
    told = []
    guide = Guide((value_of(policy, 2.0, 1),), 9, told.append)
    check(policy, guide, PROMPTS[1:], 0.8, told)


def test_a_body_that_ends_in_its_output_layer_is_refused_on_mlx(make_policy, tmp_path):
    folder = write_family("gpt_neox", tmp_path / "gpt_neox")
    policy = make_policy("mlx", folder, sae=None, value_head=True)
    with pytest.raises(ModelError, match="keeps the output layer of this model in its body"):
        policy.values(sequences([[7, 9, 11]], [1]))
    guided = Sampling(2, guide=Guide((value_of(policy, 2.0, 1),), 9))
    with pytest.raises(ModelError, match="use the torch backend"):
        policy.generate(PROMPTS, guided)


def test_a_value_without_weight_changes_no_bit(policy):
    base = Sampling(12, temperature=1.1, seed=3, stop=STOP)
    idle = dataclasses.replace(base, guide=Guide((value_of(policy, 0.0, 1),), 20))
    found, expected = policy.generate(PROMPTS * 3, idle), policy.generate(PROMPTS * 3, base)
    assert [c.tolist() for c in found] == [c.tolist() for c in expected]


def test_a_guided_sample_does_not_depend_on_its_batch(policy):
    guide = Guide((value_of(policy, 2.0, 1),), 5)
    sampling = Sampling(8, seed=5, stop=STOP, guide=guide)
    together = policy.generate(PROMPTS, sampling)
    alone = [policy.generate([prompt], sampling)[0] for prompt in PROMPTS]
    assert [c.tolist() for c in together] == [c.tolist() for c in alone]


def test_a_value_of_other_weights_is_refused(policy):
    value = Value({"0.mlp.nothing.lora_A": np.zeros((1, 2), np.float32)}, np.zeros((1, 32)), 1.0)
    with pytest.raises(ModelError, match="do not fit"):
        policy.generate(PROMPTS, Sampling(2, guide=Guide((value,), 5)))
