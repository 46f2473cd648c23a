"""Objectives on the KL: the reference runs in every step, by swapped weights."""

import numpy as np
import pytest

from fpo_core.config import ObjectiveConfig, OptimiserConfig, TrainConfig
from fpo_core.loss.metrics import pair_losses
from fpo_core.train.kl_reference import hold_reference
from tests.backends.support import difference, gradients, reference_of, shaken
from tests.helpers import BACKENDS, random_batch

SYMMETRIC = ObjectiveConfig(objective="tdpo1", beta=0.5)


def moved(policy):
    """A batch, its reference, and the policy moved away from that, which it keeps in memory."""
    batch = random_batch(4)
    reference = reference_of(policy, batch)
    policy.set_reference(policy.trained())
    policy.load_trained(shaken(policy.trained()))
    return batch, reference


@pytest.mark.parametrize("name", ["tdpo1", "tdpo2", "simpo-kl"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_backends_agree_on_the_gradient(make_policy, kind, name):
    objective = ObjectiveConfig(objective=name)
    found = []
    for backend in BACKENDS:
        policy = make_policy(backend, sae=None, fine_tune_type=kind)
        found.append(gradients(policy, [moved(policy)], objective))
    assert difference(*found) < 1e-4


def test_the_gradient_is_that_of_the_loss(backend, make_policy):
    """Along itself, by central differences: tdpo1 stops no gradient."""
    policy = make_policy(backend, sae=None)
    batch, reference = moved(policy)
    start = policy.trained()
    gradient = gradients(policy, [(batch, reference)], SYMMETRIC, weight=1.0)
    size = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))

    def loss(step):
        policy.load_trained({n: start[n] + step * gradient[n] / size for n in start})
        return pair_losses(policy.score(batch, reference, SYMMETRIC), reference.logps, SYMMETRIC)

    step = 2e-3
    slope = (loss(step).sum() - loss(-step).sum()) / (2 * step)
    assert slope == pytest.approx(size, rel=1e-2)


def test_checkpointing_changes_no_gradient(backend, make_policy):
    found = []
    for checkpoint in (False, True):
        policy = make_policy(backend, sae=None, grad_checkpoint=checkpoint)
        found.append(gradients(policy, [moved(policy)], SYMMETRIC))
    assert difference(*found) < 1e-5


def test_the_reference_has_no_dropout(backend, make_policy):
    """An adapter at its start adds nothing, dropped or not; the reference's adapter would."""
    policy = make_policy(backend, sae=None, dropout=0.5)
    batch = random_batch(4)
    reference = reference_of(policy, batch)
    policy.set_reference(shaken(policy.trained()))
    policy.prepare_training(OptimiserConfig())
    expected = policy.score(batch, kl=True).kl
    found = policy.accumulate(batch, reference, SYMMETRIC, 1.0).kl
    assert expected.min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_frozen_copy_is_announced(backend, make_policy):
    said = []
    for kind in ("lora", "full"):
        policy = make_policy(backend, sae=None, fine_tune_type=kind)
        names = {"model": "m", "data": "d", "output": "o", "fine_tune_type": kind}
        hold_reference(policy, TrainConfig(**names, objective="tdpo2"), said.append)
        assert (policy.score(random_batch(2), kl=True).kl < 1e-4).all()
    assert [event.kind for event in said] == ["warning"]
    assert "frozen copy" in said[0].values["message"]
