"""The terms of eq. 8 and 11 by hand, and where their gradients go."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.errors import SaeError
from fpo_core.loss.links import link_loss
from fpo_core.loss.objectives import objective_losses, objective_terms
from fpo_core.loss.scores import Scores
from tests.helpers import FRAMEWORKS, framework, gradient

# Two pairs. Mean log-probabilities of the policy: chosen −2, −1; rejected −4, −3.
LOGPS, LENGTHS = np.array([-6.0, -5.0, -8.0, -12.0]), np.array([3.0, 5.0, 2.0, 4.0])
# Of the reference: chosen −3, −1.2; rejected −4, −2.
REFERENCE = np.array([-9.0, -6.0, -8.0, -8.0])
D = np.array([0.5, 1.0, 2.0, 0.25])
CONFIG = ObjectiveConfig(alpha=0.5, beta=0.1)
U = np.array([0.1 * (2 - 1 - 0.5 * (2.0 - 0.5)), 0.1 * (2 - 0.8 - 0.5 * (0.25 - 1.0))])
"""β[(m_w − m_l) − (r_w − r_l) − α(D_l − D_w)]: 0.025 and 0.1575."""


def terms(fw, config=CONFIG, **changes):
    arrays = {"logps": LOGPS, "lengths": LENGTHS, "d": D} | changes
    given = {
        k: v if v is None or not isinstance(v, np.ndarray) else fw.array(v)
        for k, v in arrays.items()
    }
    return objective_terms(fw.xp, Scores(**given), fw.array(REFERENCE), config)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_terms_and_loss_by_hand(name):
    fw = framework(name)
    found = terms(fw)
    fw.close(found.lpd, [0.2, 0.2])
    fw.close(found.margin, [0.1, 0.08])
    fw.close(found.delta, [0.075, -0.0375])
    fw.close(found.logits(), U)
    assert U.tolist() == pytest.approx([0.025, 0.1575])
    fw.close(link_loss(fw.xp, found, CONFIG), np.log1p(np.exp(-U)))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_alpha_zero_needs_no_autoencoder_and_is_normalised_dpo(name):
    fw = framework(name)
    found = terms(fw, ObjectiveConfig(alpha=0.0, beta=0.1), d=None)
    fw.close(found.delta, [0.0, 0.0])
    fw.close(found.logits(), [0.1, 0.12])


def test_alpha_without_d_is_refused():
    with pytest.raises(SaeError, match="alpha is above 0"):
        terms(framework("numpy64"), d=None)


def test_beta_scales_every_term():
    fw = framework("numpy64")
    small, large = terms(fw), terms(fw, ObjectiveConfig(alpha=0.5, beta=2.0))
    for field in dataclasses.fields(small):
        np.testing.assert_allclose(getattr(large, field.name), 20 * getattr(small, field.name))


@given(st.lists(st.floats(-400, -0.1), min_size=4, max_size=4), st.floats(0.01, 10))
def test_a_policy_equal_to_its_reference_has_loss_log_2(logps, beta):
    scores = Scores(logps=np.array(logps), lengths=LENGTHS, d=np.zeros(4))
    found = objective_losses(numpy_ops, scores, np.array(logps), ObjectiveConfig(beta=beta))
    np.testing.assert_allclose(found, math.log(2), rtol=1e-12)


def loss_of(fw, config, **changes):
    return link_loss(fw.xp, terms(fw, config, **changes), config).sum()


SIGMA = 1 / (1 + np.exp(U))
"""σ(−u), the pull that every gradient of the loss carries."""
GRADIENTS = ["torch64", "torch32", "mlx32"]


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_of_the_loss_in_d_stops_at_the_chosen_side(name):
    fw = framework(name)
    found = gradient(fw, lambda d: loss_of(fw, CONFIG, d=d), D)
    np.testing.assert_allclose(found, [0, 0, *(SIGMA * 0.5 * 0.1)], rtol=1e-5)


@pytest.mark.parametrize("name", GRADIENTS)
def test_without_stop_gradient_drift_of_the_chosen_side_is_rewarded(name):
    fw = framework(name)
    config = ObjectiveConfig(alpha=0.5, beta=0.1, stop_gradient=False)
    found = gradient(fw, lambda d: loss_of(fw, config, d=d), D)
    pull = SIGMA * 0.5 * 0.1
    np.testing.assert_allclose(found, [*(-pull), *pull], rtol=1e-5)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_of_the_loss_in_the_logps(name):
    fw = framework(name)
    found = gradient(fw, lambda logps: loss_of(fw, CONFIG, logps=logps), LOGPS)
    signed = np.array([*(-SIGMA), *SIGMA])  # up on chosen, down on rejected
    np.testing.assert_allclose(found, signed * 0.1 / LENGTHS, rtol=1e-5)


@pytest.mark.parametrize("name", GRADIENTS)
def test_no_gradient_reaches_the_reference(name):
    fw = framework(name)
    scores = Scores(logps=fw.array(LOGPS), lengths=fw.array(LENGTHS), d=fw.array(D))

    def loss(reference):
        return objective_losses(fw.xp, scores, reference, CONFIG).sum()

    assert (gradient(fw, loss, REFERENCE) == 0).all()
