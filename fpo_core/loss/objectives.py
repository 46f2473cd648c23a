"""Preference objectives in one form (eq. 8, table 1): loss = −log σ(u), u = LPD − margin − δ."""

from collections.abc import Callable
from dataclasses import dataclass

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig, ObjectiveName
from fpo_core.errors import SaeError
from fpo_core.loss.scores import Scores, chosen, rejected


@dataclass(frozen=True)
class Objective:
    """A row of table 1."""

    mean: bool = False
    """Whether log-probabilities are means over tokens, not sums."""
    referenced: bool = True
    """Whether the margin is the reference's own LPD; else it is the constant γ."""
    drift: Callable[[Scores], Array] | None = None
    """What δ = αβ(drift_l − sg(drift_w)) constrains, of 2b sequences."""
    needs_kl: bool = False
    """Whether `drift` reads the KL, which takes a pass of the reference in every step."""
    symmetric: bool = False
    """Whether δ takes both sides as they are: α = 1 and no stop-gradient."""


def _discrepancy(scores: Scores) -> Array:
    if scores.d is None:
        raise SaeError("alpha is above 0 but the scores hold no D: give an autoencoder, or alpha 0")
    return scores.d


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "fpo": Objective(mean=True, drift=_discrepancy),
    "dpo-norm": Objective(mean=True),
    "dpo": Objective(),
    "simpo": Objective(mean=True, referenced=False),
    "simpo-kl": Objective(
        mean=True, referenced=False, drift=lambda scores: scores.kl / scores.lengths, needs_kl=True
    ),
    "tdpo1": Objective(drift=lambda scores: scores.kl, needs_kl=True, symmetric=True),
    "tdpo2": Objective(drift=lambda scores: scores.kl, needs_kl=True),
    "discopop": Objective(),
}
"""`simpo-kl` is our reading of appendix D.1, `discopop` is `dpo` with a loss of its own."""


@dataclass(frozen=True)
class Terms:
    """The parts of u for b pairs, each (b,), with β already in them."""

    lpd: Array
    """The policy's margin, such as β(m_w − m_l)."""
    margin: Array
    """The reference's margin, such as β(r_w − r_l), or γ."""
    delta: Array
    """The constraint δ."""

    def logits(self) -> Array:
        """u = LPD − margin − δ."""
        return self.lpd - self.margin - self.delta


def needs_kl(config: ObjectiveConfig | None) -> bool:
    """Whether the loss reads the sequential KL, hence the reference's whole distribution."""
    return config is not None and OBJECTIVES[config.objective].needs_kl


def reads_d(config: ObjectiveConfig) -> bool:
    """Whether the loss reads D, so that a step needs features."""
    return OBJECTIVES[config.objective].drift is _discrepancy and constraint_weight(config) > 0


def constraint_weight(config: ObjectiveConfig) -> float:
    """α in force: 0 where the objective has no constraint, 1 for tdpo1."""
    return 1.0 if OBJECTIVES[config.objective].symmetric else config.coefficient("alpha")


def rewards(xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig) -> Array:
    """What the loss compares per sequence, (2b,): chosen less rejected is LPD, less γ_ref if any.

    β(log π − log π_ref), or the same of means over tokens; β · mean log π where γ is a constant.
    """
    values = _scaled(scores.logps, scores, config)
    if not OBJECTIVES[config.objective].referenced:
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
    if OBJECTIVES[config.objective].referenced:
        reference = _scaled(xp.stop_gradient(reference_logps), scores, config)
        margin = chosen(reference) - rejected(reference)
    else:
        margin = zero + config.coefficient("gamma")
    weight = constraint_weight(config)
    return Terms(lpd, margin, zero if weight == 0 else weight * _constraint(xp, scores, config))


def _scaled(logps: Array, scores: Scores, config: ObjectiveConfig) -> Array:
    """β times summed log-probabilities, or times their means over tokens: (2b,) -> (2b,)."""
    values = logps / scores.lengths if OBJECTIVES[config.objective].mean else logps
    return config.coefficient("beta") * values


def _constraint(xp: Ops, scores: Scores, config: ObjectiveConfig) -> Array:
    objective = OBJECTIVES[config.objective]
    assert objective.drift is not None, "an objective without constraint has no weight for it"
    drift = config.coefficient("beta") * objective.drift(scores)
    drift_chosen = chosen(drift)
    if config.stop_gradient and not objective.symmetric:
        drift_chosen = xp.stop_gradient(drift_chosen)
    return rejected(drift) - drift_chosen


def objective_losses(
    xp: Ops, scores: Scores, reference_logps: Array, config: ObjectiveConfig
) -> Array:
    """The loss per pair: scores of b pairs, (2b,) reference logps -> (b,), in nats (table 1).

    `rpo_alpha` adds the chosen side's −log π / |y|, each pair counting alike (Pang et al.,
    arXiv 2404.19733), whatever the objective makes of lengths.
    """
    losses = preference_loss(xp, objective_terms(xp, scores, reference_logps, config), config)
    if config.rpo_alpha == 0:
        return losses
    return losses - config.rpo_alpha * chosen(scores.mean_logps)


def preference_loss(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """−log σ(u) per pair, its label smoothed, or DiscoPOP's blend: (b,) -> (b,), in nats."""
    u = terms.logits()
    if config.objective == "discopop":
        return _log_ratio_modulated(xp, u, config.coefficient("discopop_tau"))
    if config.label_smoothing == 0:
        return -xp.log_sigmoid(u)
    smoothing = config.label_smoothing
    return -(1 - smoothing) * xp.log_sigmoid(u) - smoothing * xp.log_sigmoid(-u)


def _log_ratio_modulated(xp: Ops, u: Array, tau: float) -> Array:
    """(1 − s)(−log σ(u)) + s e^−u with s = σ(u/τ) (Lu et al., arXiv 2406.08414, eq. 5)."""
    log_share = xp.log_sigmoid(u / tau)
    # s e^−u as one exponential: e^−u alone overflows where s is all but 0.
    return -(1 - xp.exp(log_share)) * xp.log_sigmoid(u) + xp.exp(log_share - u)
