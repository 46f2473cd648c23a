"""Preference objectives in one form (eq. 8): loss = −log σ(u), u = LPD − margin − δ."""

from dataclasses import dataclass

from fpo_core.config import ObjectiveConfig
from fpo_core.errors import SaeError
from fpo_core.ops import Array, Ops
from fpo_core.scores import Scores, chosen, rejected


@dataclass(frozen=True)
class Terms:
    """The parts of u for b pairs, each (b,), with β already in them."""

    lpd: Array
    """β(m_w − m_l), the policy's margin."""
    margin: Array
    """β(r_w − r_l), the reference's margin (γ_ref-LN)."""
    delta: Array
    """The constraint δ."""

    def logits(self) -> Array:
        """u = LPD − margin − δ."""
        return self.lpd - self.margin - self.delta


def fpo_terms(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Terms:
    """LPD, γ_ref-LN and δ of FPO (eq. 11): scores of b pairs, (2b,) reference logps -> (b,) each.

    m and r are mean log-probabilities under policy and reference; δ = αβ(D_l − sg(D_w)).
    Raises SaeError where α > 0 and the scores hold no D.
    """
    policy = scores.mean_logps
    reference = xp.stop_gradient(reference_logps / scores.lengths)
    lpd = config.beta * (chosen(policy) - rejected(policy))
    margin = config.beta * (chosen(reference) - rejected(reference))
    return Terms(lpd, margin, _constraint(xp, scores, config, like=lpd))


def _constraint(xp: Ops, scores: Scores, config: ObjectiveConfig, like: Array) -> Array:
    if config.alpha == 0:
        return xp.stop_gradient(like) * 0
    if scores.d is None:
        raise SaeError("alpha is above 0 but the scores hold no D: give an autoencoder, or alpha 0")
    d_chosen = chosen(scores.d)
    if config.stop_gradient:
        d_chosen = xp.stop_gradient(d_chosen)
    return config.alpha * config.beta * (rejected(scores.d) - d_chosen)


def fpo_losses(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Array:
    """FPO's loss per pair: scores of b pairs, (2b,) reference logps -> (b,), nats (eq. 11)."""
    return preference_loss(xp, fpo_terms(xp, scores, reference_logps, config))


def preference_loss(xp: Ops, terms: Terms) -> Array:
    """−log σ(u) per pair: (b,) -> (b,), in nats; log 2 where policy and reference agree (eq. 8)."""
    return -xp.log_sigmoid(terms.logits())
