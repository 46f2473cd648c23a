"""A value function's gradient: both backends alike, and that of its loss."""

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.config import OptimiserConfig
from fpo_core.evaluation.texts import sequences
from fpo_core.loss.values import VALUE_HEAD, state_mask, value_errors
from tests.backends.support import difference, shaken
from tests.helpers import BACKENDS

BATCH = sequences([[7, 9, 11, 30, 31], [8, 5, 6], [30, 31, 32, 33, 34, 35, 2]], [2, 1, 4])
REWARDS = np.array([1.0, -0.5, 0.25])


def opened(make_policy, backend):
    policy = make_policy(backend, sae=None, value_head=True)
    policy.load_trained(shaken(policy.trained(), 0.1))
    return policy


def gradient_of(policy, trace):
    policy.prepare_training(OptimiserConfig())
    errors = policy.accumulate_values(BATCH, REWARDS, trace, 0.5)
    policy.apply_gradients(0.0, 1e9)
    state = policy.optimizer_state()
    return errors, {n.removesuffix(".m"): 10 * v for n, v in state.items() if n.endswith(".m")}


def test_backends_agree(make_policy):
    found = [gradient_of(opened(make_policy, backend), 0.9) for backend in BACKENDS]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    assert VALUE_HEAD in found[0][1]
    assert difference(found[0][1], found[1][1]) < 1e-4


def test_the_gradient_is_that_of_the_loss(backend, make_policy):
    """Along itself, by central differences; at λ = 1 the targets do not move with the weights."""
    policy = opened(make_policy, backend)
    start = policy.trained()
    errors, gradient = gradient_of(policy, 1.0)
    values = policy.values(BATCH).astype(np.float64)
    states = state_mask(BATCH)
    by_hand = (0.5 * (values - REWARDS[:, None]) ** 2 * states).sum(1)
    np.testing.assert_allclose(errors, by_hand, rtol=1e-4)
    size = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))

    def loss(step):
        policy.load_trained({n: start[n] + step * gradient[n] / size for n in start})
        values = policy.values(BATCH).astype(np.float64)
        return 0.5 * value_errors(numpy_ops, values, BATCH, REWARDS, 1.0).errors.sum()

    step = 2e-3
    assert (loss(step) - loss(-step)) / (2 * step) == pytest.approx(size, rel=1e-2)
