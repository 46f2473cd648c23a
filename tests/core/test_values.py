"""Value functions on a language model that can be enumerated: three tokens, horizon 4.

81 texts with a reward each; V(s) = E_π0[r | s] and the guided table are summed over all of them.
"""

import itertools

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.backend.guidance import GuidedPick, divergence, tilted
from fpo_core.data.batches import Batch
from fpo_core.loss.values import lambda_returns, state_mask, value_errors
from tests.helpers import FRAMEWORKS, framework, gradient

TOKENS, HORIZON = 3, 4
DRAWN = np.random.default_rng(3)
TEXTS = [*itertools.product(range(TOKENS), repeat=HORIZON)]
PREFIXES = [p for n in range(HORIZON) for p in itertools.product(range(TOKENS), repeat=n)]
BASE = {prefix: DRAWN.dirichlet(np.ones(TOKENS)) for prefix in PREFIXES}
"""π0(a|s), (3,)."""
REWARD = dict(zip(TEXTS, DRAWN.normal(size=len(TEXTS)), strict=True))


@pytest.fixture(params=FRAMEWORKS)
def fw(request):
    return framework(request.param)


def value(prefix, reward=REWARD):
    """E_π0[r | prefix]."""
    if len(prefix) == HORIZON:
        return reward[prefix]
    return sum(BASE[prefix][a] * value((*prefix, a), reward) for a in range(TOKENS))


def soft_value(prefix, beta):
    """(1/β) log E_π0[e^βr | prefix]: the KL-optimal policy is π0 exp(β (of s⊕a − of s))."""
    if len(prefix) == HORIZON:
        return REWARD[prefix]
    after = [soft_value((*prefix, a), beta) for a in range(TOKENS)]
    return np.log(BASE[prefix] @ np.exp(beta * np.array(after))) / beta


def rule(prefix, beta):
    """π0(a|s) exp(β V(s⊕a)) / Z, (3,)."""
    weighed = BASE[prefix] * np.exp(beta * np.array([value((*prefix, a)) for a in range(TOKENS)]))
    return weighed / weighed.sum()


def table(fw, prefixes, beta, k=TOKENS):
    """The same by the sampler's own code, (n, 3)."""
    logits = fw.array(np.log([BASE[p] for p in prefixes]))
    candidates = fw.xp.top_indices(logits, k)
    after = np.array([[value((*p, a)) for a in range(TOKENS)] for p in prefixes])
    v = fw.xp.take_along_axis(fw.array(after), candidates, -1)
    y = tilted(fw.xp, logits, candidates, [(beta, v)])
    return fw.xp.exp(y - fw.xp.logsumexp(y, -1)[:, None])


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_the_samplers_table_is_the_rule(fw, beta):
    fw.close(table(fw, PREFIXES, beta), [rule(p, beta) for p in PREFIXES], 10)


def test_without_beta_not_a_bit_changes(fw):
    logits = fw.array(DRAWN.normal(size=(5, 7)))
    candidates = fw.xp.top_indices(logits, 4)
    found = tilted(fw.xp, logits, candidates, [(0.0, fw.array(DRAWN.normal(size=(5, 4))))])
    assert (fw.numpy(found) == fw.numpy(logits)).all()
    fw.close(divergence(fw.xp, logits, found), np.zeros(5))


def test_tokens_beyond_the_likeliest_keep_their_logit(fw):
    """Of two candidates the mean value is taken off; the third token's share moves by Z alone."""
    for prefix in PREFIXES[:6]:
        top = np.argsort(-BASE[prefix])[:2]
        v = np.array([value((*prefix, a)) for a in range(TOKENS)])
        expected = BASE[prefix].copy()
        expected[top] *= np.exp(2.0 * (v[top] - v[top].mean()))
        fw.close(table(fw, [prefix], 2.0, k=2)[0], expected / expected.sum(), 10)


def test_values_compose(fw):
    """Weights of several rewards add up: π0 exp(β1 V1 + β2 V2)."""
    logits = fw.array(np.log([BASE[()]]))
    candidates = fw.xp.top_indices(logits, TOKENS)
    v = DRAWN.normal(size=(2, TOKENS))
    rows = [fw.xp.take_along_axis(fw.array([x]), candidates, -1) for x in v]
    y = tilted(fw.xp, logits, candidates, [(1.5, rows[0]), (-2.0, rows[1])])
    expected = BASE[()] * np.exp(1.5 * v[0] - 2.0 * v[1])
    found = fw.xp.exp(y - fw.xp.logsumexp(y, -1)[:, None])
    fw.close(found, [expected / expected.sum()], 10)


def test_the_divergence_is_that_of_the_table(fw):
    p, q = rule((), 3.0), BASE[()]
    found = divergence(fw.xp, fw.array([np.log(q)]), fw.array([np.log(p) + 0.7]))
    fw.close(found, [(p * np.log(p / q)).sum()], 10)


def reached(policy):
    """How likely each of the texts is, (81,)."""
    return np.array(
        [np.prod([policy(text[:n])[text[n]] for n in range(HORIZON)]) for text in TEXTS]
    )


def test_every_beta_improves_on_the_base_and_the_kl_optimum_is_another_policy():
    """A step of policy improvement, whose reward need not rise all the way with β."""
    rewards = np.array([*REWARD.values()])
    means = [rewards @ reached(lambda p, b=beta: rule(p, b)) for beta in (0.0, 1.0, 3.0, 10.0)]
    assert means[0] == pytest.approx(value(()))
    assert min(means[1:]) > means[0]
    assert means[3] < means[2]
    beta = 3.0

    def optimal(prefix):
        after = np.array([soft_value((*prefix, a), beta) for a in range(TOKENS)])
        return BASE[prefix] * np.exp(beta * (after - soft_value(prefix, beta)))

    best = reached(lambda p: BASE[p]) * np.exp(beta * rewards)
    np.testing.assert_allclose(reached(optimal), best / best.sum(), rtol=1e-10)
    assert np.abs(optimal(()) - rule((), beta)).max() > 0.01
    last = (1, 0, 2)  # at horizon 1 the value is the reward, and both are one policy
    np.testing.assert_allclose(rule(last, beta), optimal(last), rtol=1e-12)


def test_draws_fall_as_the_table_says():
    """At a grid of uniform numbers each token's share is its probability."""
    grid, beta = np.arange(2000) / 2000, 3.0
    prefix = (2, 1)
    logits = np.log(np.tile(BASE[prefix], (2000, 1)))
    after = np.array([value((*prefix, a)) for a in range(TOKENS)])
    guided = GuidedPick(numpy_ops, 1.0, 1.0, 20, (beta,))
    tokens = guided(logits, grid, lambda candidates: [after[candidates]])
    shares = np.bincount(tokens, minlength=TOKENS) / 2000
    np.testing.assert_allclose(shares, rule(prefix, beta), atol=1e-3)
    greedy = GuidedPick(numpy_ops, 0.0, 1.0, 20, (beta,))
    assert (greedy(logits[:1], grid[:1], lambda c: [after[c]]) == rule(prefix, beta).argmax()).all()


def episodes(*sizes):
    """Sequences of prompt and completion lengths, in one padded batch."""
    prompts, lengths = (
        np.array(x, np.int32) for x in zip(*((p, p + c) for p, c in sizes), strict=True)
    )
    tokens = np.ones((len(sizes), lengths.max() + 2), np.int32)
    return Batch(tokens, prompts, lengths, np.empty(0, np.int64))


def by_recursion(values, batch, rewards, trace):
    """G_T = r, and G_i = (1 − λ) V_{i+1} + λ G_{i+1}, where V_T is r: state by state."""
    expected = np.zeros_like(values)
    for row, reward in enumerate(rewards):
        last = int(batch.lengths[row]) - 1
        following, target = reward, reward
        expected[row, last] = reward
        for i in range(last - 1, int(batch.prompt_lengths[row]) - 2, -1):
            target = (1 - trace) * following + trace * target
            expected[row, i], following = target, values[row, i]
    return expected


@pytest.mark.parametrize("trace", [0.0, 0.6, 0.95, 1.0])
def test_the_targets_are_those_of_the_recursion(fw, trace):
    batch, rewards = episodes((2, 4), (5, 1), (1, 5)), np.array([1.5, -0.5, 0.25])
    values = DRAWN.normal(size=batch.tokens.shape)
    states = state_mask(batch)
    assert states.sum(1).tolist() == [5, 2, 6]
    found = lambda_returns(fw.xp, fw.array(values), batch, rewards, trace)
    expected = by_recursion(values, batch, rewards, trace)
    targets = fw.numpy(found) * states
    np.testing.assert_allclose(targets, expected, atol=1e-6)  # λ's powers are in float32
    if trace == 1:  # Monte Carlo: the return, to the bit
        assert (targets == rewards[:, None] * states).all()
    errors = value_errors(fw.xp, fw.array(values), batch, rewards, trace).errors
    squares = (0.5 * (values - expected) ** 2 * states).sum(1)
    np.testing.assert_allclose(fw.numpy(errors), squares, rtol=1e-5)


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_no_gradient_flows_through_the_targets(name):
    fw, batch, rewards = framework(name), episodes((2, 3)), np.array([1.0])
    values = DRAWN.normal(size=batch.tokens.shape)

    def total(x):
        return value_errors(fw.xp, x, batch, rewards, 0.5).errors.sum()

    expected = (values - by_recursion(values, batch, rewards, 0.5)) * state_mask(batch)
    np.testing.assert_allclose(gradient(fw, total, values), expected, rtol=1e-4, atol=1e-6)


def test_td_finds_the_values_of_the_enumerated_model():
    """A table of V under TD(0.9) on all texts, each as often as π0 writes it: E_π0[r | s]."""
    batch = episodes(*[(1, HORIZON)] * len(TEXTS))
    chances, rewards = reached(lambda p: BASE[p]), np.array([*REWARD.values()])
    places = {
        p: i
        for i, p in enumerate(
            p for n in range(HORIZON + 1) for p in set(text[:n] for text in TEXTS)
        )
    }
    rows = np.array([[places[text[:n]] for n in range(HORIZON + 1)] for text in TEXTS])
    v = np.zeros(len(places))
    for _ in range(60):
        padded = np.pad(v[rows], ((0, 0), (0, 2)))
        targets = lambda_returns(numpy_ops, padded, batch, rewards, 0.9)[:, : HORIZON + 1]
        total, weight = np.zeros_like(v), np.zeros_like(v)
        np.add.at(total, rows, chances[:, None] * targets)
        np.add.at(weight, rows, np.broadcast_to(chances[:, None], rows.shape))
        v = total / weight
    for prefix, place in places.items():
        assert v[place] == pytest.approx(value(prefix), abs=1e-6)
