"""ASFT and ORPO: their numbers by hand, what relates them, and the pole at certainty."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpo_core.arrays import numpy_ops
from fpo_core.config import OBJECTIVES, ObjectiveConfig
from fpo_core.errors import ConfigError
from fpo_core.loss.metrics import preference_metrics
from fpo_core.loss.objectives import objective_losses
from fpo_core.loss.own_losses import OWN_LOSSES
from fpo_core.loss.scores import Scores
from tests.core.pretend import PretendPolicy, run
from tests.helpers import FRAMEWORKS, framework, gradient

MEANS = np.array([-0.1, -1.0, -3.0, -0.2, -0.9, -5.0])
"""m_w of three pairs, then m_l."""
LENGTHS = np.array([2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


def losses(fw, name, logps, **settings):
    scores = Scores(logps=logps, lengths=fw.array(LENGTHS))
    config = ObjectiveConfig(objective=name, **settings)
    return objective_losses(fw.xp, scores, fw.array(LENGTHS) * 0, config)


def test_every_loss_of_its_own_has_a_row():
    assert {row.losses for row in OBJECTIVES.values()} - {None} == set(OWN_LOSSES)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_three_values_of_l_align(name):
    """−m_w − log(1 − e^m_l): 1.8077718, 1.5218354, 3.0067608."""
    fw = framework(name)
    logps = fw.array(MEANS * LENGTHS)
    align = (losses(fw, "asft", logps) + fw.array(MEANS[:3])) / 1.0
    np.testing.assert_allclose(fw.numpy(align), [1.8077718, 1.5218354, 3.0067608], atol=1e-6)
    doubled = losses(fw, "asft", logps, odds_lambda=2.0) + fw.array(MEANS[:3])
    np.testing.assert_allclose(fw.numpy(doubled), 2 * fw.numpy(align), rtol=1e-5)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_two_forms_agree(name):
    """By odds and by −(1 + λ)m_w − λ log(1 − e^m_l)."""
    fw = framework(name)
    found = losses(fw, "asft", fw.array(MEANS * LENGTHS), odds_lambda=0.3)
    expected = -1.3 * MEANS[:3] - 0.3 * np.log1p(-np.exp(MEANS[3:]))
    np.testing.assert_allclose(fw.numpy(found), expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["torch64", "torch32", "mlx32"])
def test_the_gradient_of_asft_by_hand(name):
    """∂/∂m_w = −(1 + λ), ∂/∂m_l = λ p_l / (1 − p_l)."""
    fw = framework(name)
    found = gradient(fw, lambda x: losses(fw, "asft", x, odds_lambda=0.5).sum(), MEANS * LENGTHS)
    p = np.exp(MEANS[3:])
    np.testing.assert_allclose(found * LENGTHS, [-1.5] * 3 + [*(0.5 * p / (1 - p))], rtol=1e-5)


@given(st.floats(-30, -1e-4), st.floats(-30, -1e-4), st.floats(0.01, 2))
def test_orpo_is_never_above_asft(chosen, rejected, weight):
    """L_ORPO = L_ASFT + λ log(p_w(1 − p_l) + p_l(1 − p_w))."""
    scores = Scores(logps=np.array([chosen, rejected]), lengths=np.ones(2))
    asft, orpo = (
        objective_losses(
            numpy_ops, scores, np.zeros(2), ObjectiveConfig(objective=name, odds_lambda=weight)
        )[0]
        for name in ("asft", "orpo")
    )
    w, r = math.exp(chosen), math.exp(rejected)
    assert orpo <= asft + 1e-12
    between = math.log(w * (1 - r) + r * (1 - w))
    assert orpo - asft == pytest.approx(weight * between, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("objective", ["asft", "orpo"])
@pytest.mark.parametrize("name", ["torch32", "mlx32"])
def test_certainty_stays_finite(name, objective):
    """The odds of p = 1 are infinite: m = −1e-9 and 0 count as −1e-6, on either side."""
    fw = framework(name)
    for means in ([-1.0, -1.0, -1.0, -1e-9, 0.0, -1e-6], [0.0, -1e-9, -1e-6, -1.0, -2.0, 0.0]):
        logps = np.array(means) * LENGTHS
        assert np.isfinite(fw.numpy(losses(fw, objective, fw.array(logps)))).all()
        found = gradient(fw, lambda x: losses(fw, objective, x).sum(), logps)
        assert np.isfinite(found).all()


def test_rewards_are_log_odds():
    scores = Scores(logps=MEANS * LENGTHS, lengths=LENGTHS)
    odds = np.log(np.exp(MEANS) / (1 - np.exp(MEANS)))
    for name, beta in (("asft", 0.5), ("orpo", 1.0)):
        settings = {"beta": beta} if name == "asft" else {}
        config = ObjectiveConfig(objective=name, **settings)
        found = preference_metrics(scores, np.zeros(6), config)
        assert found["rewards/chosen"] == pytest.approx(beta * odds[:3].mean())
        assert found["rewards/margins"] == pytest.approx(beta * (odds[:3] - odds[3:]).mean())
        assert found["rewards/accuracies"] == pytest.approx(2 / 3)
        assert "fpo/delta" not in found


def test_orpo_has_no_beta():
    """TRL calls λ so: 0.1 there would be taken for a temperature here."""
    with pytest.raises(ConfigError, match="beta is set, but the objective orpo has none"):
        ObjectiveConfig(objective="orpo", beta=0.1)


@pytest.mark.parametrize(
    "settings", [{"objective": "asft"}, {"objective": "orpo"}, {"objective": "dpo", "link": "aps"}]
)
def test_the_first_check_is_on_the_loss_of_the_run(tmp_path, settings):
    """On the stored reference: means of −1 nat a token on both sides, u = 0."""
    _, events, config = run(tmp_path, PretendPolicy(), alpha=None, **settings)
    told = next(event for event in events if event.kind == "step0").values
    by_hand = {
        "asft": 2.0 - math.log1p(-math.exp(-1)),
        "orpo": 1.0 + 0.1 * math.log(2),
        "dpo": 0.1 * 0.1,  # ρτ_min
    }
    assert told["expected_loss"] == pytest.approx(by_hand[config.objective], rel=1e-6)
    assert told["failed"] == 0


def test_a_link_with_a_step_is_checked_by_the_logistic_one(tmp_path):
    """padll halves the loss from u = 0 on down, where rounding puts a start."""
    policy = PretendPolicy(shift=-1e-6)
    _, events, _ = run(tmp_path, policy, objective="dpo", alpha=None, link="padll")
    told = next(event for event in events if event.kind == "step0").values
    assert told["expected_loss"] == pytest.approx(0.9 * math.log(2))
    assert told["failed"] == 0
