"""Several autoencoders at once: D and its gradient are the mean of each one's (appendix D.2)."""

import numpy as np
import pytest

from fpo_core.config import AdapterConfig, ModelConfig, StepConfig
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features, HookedSae
from tests.backends.support import (
    HIDDEN,
    OBJECTIVE,
    UNTRAINED,
    difference,
    gradients,
    open_policy,
    reference_of,
    shaken,
)
from tests.helpers import random_batch, random_sae

TAPS = (
    HookedSae(random_sae(HIDDEN, 96), Hook.parse("blocks.1.hook_resid_post")),
    HookedSae(random_sae(HIDDEN, 64, kind="topk", seed=4), Hook.parse("blocks.1.hook_mlp_out")),
    HookedSae(random_sae(HIDDEN, 80, kind="jumprelu", seed=7), Hook.parse("blocks.2.attn.hook_z")),
)


def scored(backend, folder, taps, *, plain=False, checkpoint=False):
    """Scores and gradient of a policy that has left its reference."""
    policy = open_policy(
        backend,
        folder,
        ModelConfig(model=str(folder), device="cpu", dtype="float32"),
        AdapterConfig(),
        Features(taps, UNTRAINED),
        grad_checkpoint=checkpoint,
        step=StepConfig(plain=plain, logits_budget=1),
    )
    assert policy.info.fallback is None
    batch = random_batch(3)
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    scores = policy.score(batch, reference, OBJECTIVE)
    return scores, gradients(policy, [(batch, reference)])


@pytest.mark.parametrize(("plain", "checkpoint"), [(True, False), (False, False), (False, True)])
def test_d_is_the_mean(backend, tiny, plain, checkpoint):
    both, _ = scored(backend, tiny, TAPS, plain=plain, checkpoint=checkpoint)
    alone = [scored(backend, tiny, (tap,), plain=plain)[0] for tap in TAPS]
    assert (both.d > 1e-4).all()
    np.testing.assert_allclose(both.d, np.mean([s.d for s in alone], 0), rtol=1e-4)
    np.testing.assert_allclose(both.union, np.sum([s.union for s in alone], 0))
    pooled = np.concatenate([s.pooled for s in alone], 1)
    np.testing.assert_allclose(both.pooled, pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_fast_step_has_the_gradient_of_the_plain_one(backend, tiny, checkpoint):
    _, plain = scored(backend, tiny, TAPS, plain=True)
    _, fast = scored(backend, tiny, TAPS, checkpoint=checkpoint)
    assert difference(fast, plain) < 1e-5


def test_backends_agree(tiny):
    (one, first), (other, second) = (scored(name, tiny, TAPS) for name in ("torch", "mlx"))
    np.testing.assert_allclose(one.d, other.d, rtol=1e-4)
    assert difference(first, second) < 1e-4
