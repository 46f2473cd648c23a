"""Losses and rewards of pairs, by the rows of `fpo_core.config.OBJECTIVES` (eq. 8, table 1).

loss = link(u),   u = LPD − margin − δ
"""

import dataclasses
from typing import Literal

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.links import link_loss
from fpo_core.loss.online import OnlineTerms, online_losses
from fpo_core.loss.own_losses import OWN_LOSSES
from fpo_core.loss.scores import Scores, chosen, rejected
from fpo_core.loss.terms import Terms

Part = Literal["preference", "constraint"]
"""A part of the loss's gradient; both add up to the whole."""


def isolated(xp: Ops, scores: Scores, part: Part | None) -> Scores:
    """The same scores, with gradients through one part of u alone: all parts keep their values.

    So the gradient of the loss is that part's share of it, at the loss's own slope in u.
    """
    if part is None:
        return scores
    names = ("logps", "degree") if part == "constraint" else ("d", "kl")
    stopped = {name: getattr(scores, name) for name in names}
    return dataclasses.replace(
        scores, **{k: None if v is None else xp.stop_gradient(v) for k, v in stopped.items()}
    )


def rewards(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Array:
    """What the loss compares per sequence, (2b,): chosen less rejected is LPD, less γ_ref if any.

    β(log π − log π_ref), or the same of means over tokens; β · mean log π where γ is a constant.
    """
    special = OWN_LOSSES.get(config.objective_entry.losses or "")
    if special is not None and special.rewards is not None:
        return special.rewards(xp, scores, config)
    values = _scaled(scores.logps, scores, config)
    if not config.objective_entry.referenced:
        return values
    return values - _scaled(xp.stop_gradient(reference_logps), scores, config)


def objective_terms(
    xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig
) -> Terms:
    """LPD, margin and δ (table 1): scores of b pairs, (2b,) summed reference logps -> (b,) each.

    Raises SaeError where FPO's α is above 0 and the scores hold no D.
    """
    values = _scaled(scores.logps, scores, config)
    lpd = chosen(values) - rejected(values)
    zero = xp.stop_gradient(lpd) * 0
    if config.objective_entry.referenced:
        reference = _scaled(xp.stop_gradient(reference_logps), scores, config)
        margin = chosen(reference) - rejected(reference)
    else:
        margin = zero + config.coefficient("gamma")
    weight = config.constraint_weight
    return Terms(lpd, margin, zero if weight == 0 else weight * _constraint(xp, scores, config))


def _scaled(logps: Array, scores: Scores, config: ObjectiveConfig) -> Array:
    """β times summed log-probabilities, or times their means over tokens: (2b,) -> (2b,)."""
    values = logps / scores.lengths if config.objective_entry.mean else logps
    return config.coefficient("beta") * values


def _constraint(xp: Ops, scores: Scores, config: ObjectiveConfig) -> Array:
    objective = config.objective_entry
    assert objective.drift is not None, "an objective without constraint has no weight for it"
    drift = config.coefficient("beta") * objective.drift(scores)
    drift_chosen = chosen(drift)
    # Without sg, u would hold +αβ·drift_w: the loss would reward the chosen side for drifting.
    if config.stop_gradient and not objective.symmetric:
        drift_chosen = xp.stop_gradient(drift_chosen)
    return rejected(drift) - drift_chosen


def objective_losses(
    xp: Ops,
    scores: Scores,
    reference_logps: Array,
    config: ObjectiveConfig,
    online: OnlineTerms | None = None,
) -> Array:
    """The loss per pair: scores of b pairs, (2b,) reference logps -> (b,), in nats (table 1).

    `rpo_alpha` adds the chosen side's −log π / |y|, each pair counting alike (Pang et al.,
    arXiv 2404.19733), whatever the objective makes of lengths. `degree_weight` is SPO's γ, on the
    loss of both sides' degrees where the scores hold them; `online` adds SAIL's terms.
    """
    name = config.objective_entry.losses
    special = _linked if name is None else OWN_LOSSES[name].losses
    losses = special(xp, scores, reference_logps, config)
    if online is not None:
        losses = losses + online_losses(xp, -losses, scores, online)
    if config.rpo_alpha != 0:
        losses = losses - config.rpo_alpha * chosen(scores.mean_logps)
    if scores.degree is None:
        return losses
    return losses + config.degree_weight * (chosen(scores.degree) + rejected(scores.degree))


def _linked(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Array:
    return link_loss(xp, objective_terms(xp, scores, reference_logps, config), config)
