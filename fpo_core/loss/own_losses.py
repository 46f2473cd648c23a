"""Losses that are no function of u: those on the odds of a completion, ASFT and ORPO.

A new one is a row of `OWN_LOSSES`, named by its objective's row in `fpo_core.config`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.scores import Scores, chosen, rejected

POLE = -1e-6
"""Nats a token above which a mean log-probability counts as this: its odds would be infinite."""


@dataclass(frozen=True)
class OwnLoss:
    """A loss and its rewards, in place of a link's."""

    losses: Callable[[Ops, Scores, Array, ObjectiveConfig], Array]
    """(xp, scores of b pairs, (2b,) summed reference logps, config) -> (b,) in nats."""
    rewards: Callable[[Ops, Scores, ObjectiveConfig], Array] | None = None
    """What it compares per sequence, (2b,); by default the rewards of a loss on u."""


def log_odds(xp: Ops, scores: Scores, config: ObjectiveConfig) -> Array:
    """β log(p / (1 − p)) of p = e^m, the length-normalised probability: (2b,)."""
    m = scores.mean_logps
    m = xp.where(m < POLE, m, POLE)
    return (m - xp.log1mexp(m)) * config.coefficients.get("beta", 1.0)


def asft(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Array:
    """−m_w − λ[log σ(βs_w) + log σ(−βs_l)], s the log odds (arXiv 2409.10571, 2502.01237).

    At β = 1 it is −(1 + λ)m_w − λ log(1 − e^m_l): each side is pulled for itself.
    """
    del reference_logps
    s = log_odds(xp, scores, config)
    align = -xp.log_sigmoid(chosen(s)) - xp.log_sigmoid(-rejected(s))
    return config.coefficient("odds_lambda") * align - chosen(scores.mean_logps)


def orpo(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Array:
    """−m_w − λ log σ(s_w − s_l), s the log odds (Hong et al., arXiv 2403.07691, eq. 6 and 7)."""
    del reference_logps
    s = log_odds(xp, scores, config)
    ratio = -xp.log_sigmoid(chosen(s) - rejected(s))
    return config.coefficient("odds_lambda") * ratio - chosen(scores.mean_logps)


OWN_LOSSES = {"asft": OwnLoss(asft, log_odds), "orpo": OwnLoss(orpo, log_odds)}
