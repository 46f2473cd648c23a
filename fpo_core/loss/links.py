"""Links: how u, the preference of a pair, becomes its loss, whatever the terms of u are.

A new link is a function and a row of `LINKS`.
"""

from collections.abc import Callable

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig

Link = Callable[[Ops, Array, ObjectiveConfig], Array]
"""(xp, u, config) -> the loss of each pair: (b,) -> (b,) in nats."""


def logistic(xp: Ops, u: Array, config: ObjectiveConfig) -> Array:
    """−log σ(u): the preference of a pair follows Bradley and Terry's model (eq. 8)."""
    del config
    return -xp.log_sigmoid(u)


def log_ratio_modulated(xp: Ops, u: Array, config: ObjectiveConfig) -> Array:
    """(1 − s)(−log σ(u)) + s e^−u with s = σ(u/τ) (Lu et al., arXiv 2406.08414, eq. 5)."""
    log_share = xp.log_sigmoid(u / config.coefficient("discopop_tau"))
    # s e^−u as one exponential: e^−u alone overflows where s is all but 0.
    return -(1 - xp.exp(log_share)) * xp.log_sigmoid(u) + xp.exp(log_share - u)


LINKS: dict[str, Link] = {
    "logistic": logistic,
    "lrml": log_ratio_modulated,
}


def link_loss(xp: Ops, u: Array, config: ObjectiveConfig) -> Array:
    """The loss of u by the objective's link: (b,) -> (b,), in nats.

    `label_smoothing` ε takes so many pairs to be labelled the wrong way, as in conservative DPO:
    (1 − ε) link(u) + ε link(−u).
    """
    link = LINKS[config.objective_entry.link]
    smoothing = config.label_smoothing
    if smoothing == 0:
        return link(xp, u, config)
    return (1 - smoothing) * link(xp, u, config) + smoothing * link(xp, -u, config)
