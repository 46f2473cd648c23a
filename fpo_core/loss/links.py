"""Links: how u, the preference of a pair, becomes its loss, whatever the terms of u are.

A new link is a function and a row of `LINK_LOSSES`, and a row of `fpo_core.config.link_table`. All
are functions of a single pair: a loss that reads the batch's mean would change with its size.
"""

import functools
import math
from collections.abc import Callable

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.terms import Terms

LinkLoss = Callable[[Ops, Terms, ObjectiveConfig], Array]
"""(xp, terms of b pairs, config) -> the loss of each, (b,), in nats."""


def logistic(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """−log σ(u): the preference of a pair follows Bradley and Terry's model (eq. 8)."""
    del config
    return -xp.log_sigmoid(terms.logits())


def hinge(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """max(0, 1 − u) (SLiC, Zhao et al., arXiv 2305.10425)."""
    del config
    return xp.relu(1 - terms.logits())


def exponential(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """e^−u (Tang et al., arXiv 2402.05749)."""
    del config
    return xp.exp(-terms.logits())


def log_ratio_modulated(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """(1 − s)(−log σ(u)) + s e^−u with s = σ(u/τ) (Lu et al., arXiv 2406.08414, eq. 5)."""
    u = terms.logits()
    log_share = xp.log_sigmoid(u / config.coefficient("discopop_tau"))
    # s e^−u as one exponential: e^−u alone overflows where s is all but 0.
    return -(1 - xp.exp(log_share)) * xp.log_sigmoid(u) + xp.exp(log_share - u)


def adaptive(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """min over τ of −τ log σ(u/τ) + (ρ − log 2)τ (Ada-DPO, Hong et al., arXiv 2406.02764)."""
    tau = aps_tau(xp, terms, config)
    return _tempered(xp, terms, tau) + (config.coefficient("aps_rho") - math.log(2)) * tau


def adaptive_quadratic(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """min over τ of −τ log σ(u/τ) + ρτ² − τ log 2, the same paper's variant."""
    tau = aps_quadratic_tau(xp, terms, config)
    return _tempered(xp, terms, tau) + config.coefficient("aps_rho") * tau**2 - math.log(2) * tau


def performance_adaptive(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """PADLL, 0.9(1 − ½[u < 0])(−log σ(u)) (arXiv 2406.08414, appendix E)."""
    losses = logistic(xp, terms, config)
    return 0.9 * xp.where(terms.logits() < 0, 0.5 * losses, losses)


def combined(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """CELL, ½(−log σ(u)) + ½e^−u (arXiv 2406.08414, appendix E)."""
    return 0.5 * logistic(xp, terms, config) + 0.5 * exponential(xp, terms, config)


def policy_focused(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """PFL, ½(−log σ(u)) where the policy ranks the pair rightly, else 2 max(0, 1 − u).

    As the repository of arXiv 2406.08414 corrected it; the paper's eq. 29 has u/β for u.
    """
    right = 0.5 * logistic(xp, terms, config)
    return xp.where(terms.lpd > 0, right, 2 * hinge(xp, terms, config))


def _tempered(xp: Ops, terms: Terms, tau: Array) -> Array:
    # τ minimises the loss, so by the envelope theorem its own gradient adds nothing.
    return -tau * xp.log_sigmoid(terms.logits() / tau)


def aps_tau(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """τ* = clip(|u|/a, τ_min, τ_max) without gradient, (b,): the minimum in closed form.

    The loss has the slope H(σ(u/τ)) − (log 2 − ρ) in τ, H the entropy in nats, which rises with τ.
    """
    tau = abs(xp.stop_gradient(terms.logits())) / aps_root(config.coefficient("aps_rho"))
    most = config.coefficient("aps_tau_max")
    return _at_least(xp, xp.where(tau < most, tau, most), config.coefficient("aps_tau_min"))


def aps_quadratic_tau(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """max(τ_min, root of H(σ(u/τ)) + 2ρτ = log 2) without gradient, (b,), by bisection."""
    u, rho = abs(xp.stop_gradient(terms.logits())), config.coefficient("aps_rho")
    low = u * 0
    high = low + math.log(2) / (2 * rho)
    for _ in range(_HALVINGS):
        tau = (low + high) / 2
        # H(σ(x)) = −log σ(x) + xσ(−x), for x ≥ 0 without overflow.
        x = u / tau
        slope = x * xp.exp(xp.log_sigmoid(-x)) - xp.log_sigmoid(x) + 2 * rho * tau - math.log(2)
        low, high = xp.where(slope < 0, tau, low), xp.where(slope < 0, high, tau)
    return _at_least(xp, (low + high) / 2, config.coefficient("aps_tau_min"))


def _at_least(xp: Ops, tau: Array, least: float) -> Array:
    return xp.where(tau > least, tau, least)


_HALVINGS = 40


@functools.cache
def aps_root(rho: float) -> float:
    """The a > 0 with H(σ(a)) = log 2 − ρ; infinite from ρ = log 2 on, where τ* is the least."""
    if rho >= math.log(2):
        return math.inf
    low, high = 0.0, 800.0
    for _ in range(100):
        a = (low + high) / 2
        tail = math.exp(-a)
        entropy = math.log1p(tail) + a * tail / (1 + tail)
        low, high = (a, high) if entropy > math.log(2) - rho else (low, a)
    return (low + high) / 2


LINK_LOSSES: dict[str, LinkLoss] = {
    "logistic": logistic,
    "hinge": hinge,
    "exponential": exponential,
    "lrml": log_ratio_modulated,
    "aps": adaptive,
    "aps-quadratic": adaptive_quadratic,
    "padll": performance_adaptive,
    "cell": combined,
    "pfl": policy_focused,
}
TEMPERATURES: dict[str, LinkLoss] = {"aps": aps_tau, "aps-quadratic": aps_quadratic_tau}
"""The links whose pairs have a temperature of their own: (xp, terms, config) -> τ*, (b,)."""


def link_loss(xp: Ops, terms: Terms, config: ObjectiveConfig) -> Array:
    """The loss of each pair by the link in force: terms of b pairs -> (b,), in nats.

    `label_smoothing` ε takes so many pairs to be labelled the wrong way, as in conservative DPO:
    (1 − ε) link(u) + ε link(−u).
    """
    assert config.link_name is not None, "a loss of its own has no link"
    link = LINK_LOSSES[config.link_name]
    smoothing = config.label_smoothing
    if smoothing == 0:
        return link(xp, terms, config)
    losses, wrong = link(xp, terms, config), link(xp, terms.swapped(), config)
    return (1 - smoothing) * losses + smoothing * wrong
