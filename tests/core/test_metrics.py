"""Metrics of two pairs, worked out by hand."""

import math

import numpy as np
import pytest

from fpo_core.config import ObjectiveConfig
from fpo_core.loss.metrics import pair_losses, preference_metrics, share_above, wilson_interval
from fpo_core.loss.scores import Scores

# Means: chosen −2, −4; rejected −3, −3. Of the reference: chosen −2, −5; rejected −2, −3.
SCORES = Scores(
    logps=np.array([-4.0, -12.0, -9.0, -3.0], np.float32),
    lengths=np.array([2.0, 3.0, 3.0, 1.0], np.float32),
    d=np.array([0.1, 0.2, 0.4, 0.6], np.float32),
    union=np.array([5, 6, 7, 8.0]),
    outside_cap=np.array([0, 0, 2.0, 0]),
    kl=np.array([1.0, 2, 3, 5]),
)
REFERENCE = np.array([-4.0, -15.0, -6.0, -3.0], np.float32)
CONFIG = ObjectiveConfig(alpha=0.5, beta=0.2)


def test_metrics_by_hand():
    found = preference_metrics(SCORES, REFERENCE, CONFIG)
    u = 0.2 * np.array([1 - 0 - 0.5 * 0.3, -1 + 2 - 0.5 * 0.4])
    expected = {
        "loss": np.log1p(np.exp(-u)).mean(),
        "logps/chosen": -8.0,
        "logps/rejected": -6.0,
        "rewards/chosen": 0.2 * (0 + 1) / 2,
        "rewards/rejected": 0.2 * (-1 + 0) / 2,
        "rewards/margins": 0.2 * (1 + 1) / 2,
        "rewards/accuracies": 1.0,
        "fpo/raw_accuracy": 0.5,
        "fpo/ref_margin": 0.2 * (0 - 2) / 2,
        "fpo/delta": 0.5 * 0.2 * (0.3 + 0.4) / 2,
        "fpo/d_chosen": 0.15,
        "fpo/d_rejected": 0.5,
        "fpo/d_margin": 0.35,
        "fpo/constraint_ratio": (0.5 * 0.4 / 1 + 0.5 * 0.6 / 1) / 2,
        "fpo/union": 6.5,
        "fpo/outside_cap": 0.5,
        "fpo/kl_chosen": 1.5,
        "fpo/kl_rejected": 4.0,
        "fpo/kl_margin": 2.5,
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_loss_per_pair_is_the_mean_in_the_metrics():
    losses = pair_losses(SCORES, REFERENCE, CONFIG)
    assert losses.shape == (2,)
    assert losses.dtype == np.float64
    assert losses.mean() == preference_metrics(SCORES, REFERENCE, CONFIG)["loss"]


def test_without_features_or_kl_there_are_no_such_metrics():
    plain = Scores(SCORES.logps, SCORES.lengths)
    found = preference_metrics(plain, REFERENCE, ObjectiveConfig(alpha=0.0))
    assert {name for name in found if name.startswith("fpo/")} == {
        "fpo/raw_accuracy",
        "fpo/ref_margin",
        "fpo/delta",
    }


def test_at_the_start_loss_is_log_2_and_accuracy_a_half():
    logps = np.array([-4.0, -12.0, -9.0, -3.0])
    scores = Scores(logps, SCORES.lengths, d=np.zeros(4))
    found = preference_metrics(scores, logps, CONFIG)
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert found["rewards/accuracies"] == 0.5
    assert math.isfinite(found["fpo/constraint_ratio"])


def test_ties_count_half():
    assert share_above(np.array([2.0, 1, 0, 5]), np.array([1.0, 1, 1, 1])) == 0.625


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.8, 10, 0.4902, 0.9433), (0.5, 100, 0.4038, 0.5962), (0.0, 10, 0.0, 0.2775)],
)
def test_wilson_interval_of_the_tables(share, count, low, high):
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_without_trials_says_nothing():
    assert wilson_interval(0.0, 0) == (0.0, 1.0)
