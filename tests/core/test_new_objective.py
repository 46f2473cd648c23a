"""An objective is one row, a link one function: what is registered here needs no other change."""

import math
from typing import Literal

import numpy as np
import pytest

from fpo_core.config import LINKS, OBJECTIVES, Link, Objective, ObjectiveConfig
from fpo_core.errors import ConfigError
from fpo_core.loss.links import LINK_LOSSES
from fpo_core.loss.metrics import losses_at_reference, preference_metrics
from fpo_core.loss.objectives import objective_losses
from fpo_core.loss.own_losses import OWN_LOSSES, OwnLoss
from fpo_core.loss.scores import Scores, chosen, rejected
from tests.core.pretend import PretendPolicy, run
from tests.helpers import FRAMEWORKS, framework, gradient

# Mean log-probabilities: chosen −0.5, −1; rejected −2, −0.25.
LENGTHS = np.array([2.0, 3.0, 4.0, 1.0])
LOGPS = np.array([-1.0, -3.0, -8.0, -0.25])
REFERENCE = np.zeros(4)


def two_sided(xp, scores, reference_logps, config):
    """−log σ(βm_w) − log σ(−βm_l): each side by itself, so there is no u."""
    del reference_logps
    values = config.coefficient("beta") * scores.mean_logps
    return -xp.log_sigmoid(chosen(values)) - xp.log_sigmoid(-rejected(values))


def by_hand(beta):
    means = [(-0.5, -2.0), (-1.0, -0.25)]
    return [math.log1p(math.exp(-beta * w)) + math.log1p(math.exp(beta * r)) for w, r in means]


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """The table with two more rows, and the settings that take their names."""
    linked = Objective(coefficients={"beta": 1.0}, mean=True, referenced=False, link="square")
    own = Objective(coefficients={"beta": 3.0}, mean=True, referenced=False, losses="two-sided")
    monkeypatch.setitem(LINKS, "square", Link())
    monkeypatch.setitem(LINK_LOSSES, "square", lambda xp, terms, config: (1 - terms.logits()) ** 2)
    monkeypatch.setitem(OWN_LOSSES, "two-sided", OwnLoss(two_sided))
    monkeypatch.setitem(OBJECTIVES, "margin", linked)
    monkeypatch.setitem(OBJECTIVES, "two-sided", own)
    names = Literal[tuple(OBJECTIVES)]  # pyright: ignore[reportInvalidTypeForm]
    monkeypatch.setitem(ObjectiveConfig.__annotations__, "objective", names)


def losses(fw, config, logps):
    scores = Scores(logps=logps, lengths=fw.array(LENGTHS))
    return objective_losses(fw.xp, scores, fw.array(REFERENCE), config)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_loss_of_its_own(name):
    fw, config = framework(name), ObjectiveConfig(objective="two-sided")
    fw.close(losses(fw, config, fw.array(LOGPS)), by_hand(3.0))
    added = ObjectiveConfig(objective="two-sided", beta=0.5, rpo_alpha=2.0)
    expected = np.array(by_hand(0.5)) + 2.0 * np.array([0.5, 1.0])
    fw.close(losses(fw, added, fw.array(LOGPS)), expected)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_link(name):
    """u is m_w − m_l: 1.5 and −0.75."""
    fw, config = framework(name), ObjectiveConfig(objective="margin")
    fw.close(losses(fw, config, fw.array(LOGPS)), [0.25, 1.75**2])
    smoothed = ObjectiveConfig(objective="margin", label_smoothing=0.1)
    fw.close(
        losses(fw, smoothed, fw.array(LOGPS)),
        [0.9 * 0.25 + 0.1 * 2.5**2, 0.9 * 1.75**2 + 0.1 * 0.25**2],
    )


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_gradients_reach_both(name):
    fw = framework(name)
    config = ObjectiveConfig(objective="margin")
    found = gradient(fw, lambda leaf: losses(fw, config, leaf).sum(), LOGPS)
    np.testing.assert_allclose(found, [0.5, -3.5 / 3, -0.25, 3.5], rtol=1e-6)
    config = ObjectiveConfig(objective="two-sided", beta=1.0)
    found = gradient(fw, lambda leaf: losses(fw, config, leaf).sum(), LOGPS)
    means = LOGPS / LENGTHS
    slopes = [*(-1 / (1 + np.exp(means[:2]))), *(1 / (1 + np.exp(-means[2:])))]
    np.testing.assert_allclose(found, slopes / LENGTHS, rtol=1e-6)


def test_metrics_leave_out_the_terms_of_a_u_that_is_not_there():
    scores = Scores(logps=LOGPS, lengths=LENGTHS)
    found = preference_metrics(scores, REFERENCE, ObjectiveConfig(objective="two-sided"))
    assert found["loss"] == pytest.approx(np.mean(by_hand(3.0)))
    assert found["rewards/chosen"] == pytest.approx(3.0 * -0.75)  # β · mean of m_w
    assert {name for name in found if name.startswith("fpo/")} == {"fpo/raw_accuracy"}
    assert "fpo/delta" in preference_metrics(scores, REFERENCE, ObjectiveConfig(objective="margin"))


def test_settings_know_what_it_has():
    config = ObjectiveConfig(objective="two-sided")
    assert (config.coefficient("beta"), config.constraint_weight) == (3.0, 0.0)
    assert not config.needs_features
    assert not config.needs_kl
    for setting in ("alpha", "gamma", "label_smoothing"):
        with pytest.raises(ConfigError, match=f"{setting} is set, but the objective two-sided has"):
            ObjectiveConfig(objective="two-sided", **{setting: 0.25})


@pytest.mark.parametrize("objective", ["two-sided", "margin"])
def test_a_run_from_its_first_check_to_its_last_step(tmp_path, objective):
    policy = PretendPolicy()
    result, _, config = run(tmp_path, policy, objective=objective, alpha=None)
    scores = Scores(logps=np.array([-3.0, -2.0]), lengths=np.array([3.0, 2.0]))
    start = losses_at_reference(scores, scores.logps, config)
    assert result.state.first["loss"] == pytest.approx(start.mean(), rel=1e-6)
    assert result.state.last["loss"] < result.state.first["loss"]
