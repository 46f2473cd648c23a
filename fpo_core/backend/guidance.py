"""Sampling from a base model whose next tokens are weighed by values of the texts they lead to.

Value augmented sampling (arXiv 2405.06639): π(a|s) ∝ π0(a|s) exp(Σ β_i V_i(s⊕a)). The values of
the base's k likeliest tokens are asked, and their mean is taken off; all others keep their logit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.backend.draws import pick


@dataclass(frozen=True)
class Value:
    """A value function of the model, in the shape of what the policy trains."""

    weights: Mapping[str, np.ndarray]
    """Its adapter by canonical name; modules that it lacks add nothing."""
    head: np.ndarray
    """(1, d), in the reward's own unit: V = head · h up to a constant, which decoding drops."""
    beta: float


@dataclass(frozen=True)
class Guide:
    """What weighs the tokens of a sample."""

    values: tuple[Value, ...]
    top_k: int
    on_kl: Callable[[np.ndarray], None] | None = None
    """Hears of each call's completions: Σ KL(π ‖ π0) over their tokens, (n,), in nats."""


def tilted(xp: Ops, x: Array, candidates: Array, values: Sequence[tuple[float, Array]]) -> Array:
    """Logits x (n, v) plus Σ β (V − mean V) at the candidates (n, k); V (n, k) of each value."""
    added = sum(beta * (v - v.sum(-1)[:, None] / v.shape[-1]) for beta, v in values)
    there = xp.take_along_axis(x, candidates, -1)
    return xp.put_along_axis(x, candidates, there + added, -1)


def divergence(xp: Ops, x: Array, y: Array) -> Array:
    """KL(softmax y ‖ softmax x), (n,), in nats, of logits (n, v)."""
    log_p, log_q = (z - xp.logsumexp(z, -1)[:, None] for z in (y, x))
    return (xp.exp(log_p) * (log_p - log_q)).sum(-1)


@dataclass
class GuidedPick:
    """Draws tokens of some completions in turn, and keeps each step's divergence."""

    xp: Ops
    temperature: float
    top_p: float
    top_k: int
    betas: tuple[float, ...]
    divergences: list[Array] = field(default_factory=list)
    """KL(π ‖ π0) of the distribution of each step so far, (n,) in nats, before `top_p` cuts it."""

    @classmethod
    def of(cls, xp: Ops, guide: Guide, temperature: float, top_p: float) -> Self:
        """The one for samples under a guide."""
        return cls(xp, temperature, top_p, guide.top_k, tuple(v.beta for v in guide.values))

    def __call__(
        self, logits: Array, u: Array, values: Callable[[Array], Sequence[Array]]
    ) -> Array:
        """Token ids (n,) of the base's logits (n, v) at uniform numbers u (n,).

        `values` returns V (n, k) of candidates (n, k), for each of the values. The temperature is
        the base's: β stays the weight of a reward. At 0 the likeliest token of the weighed
        distribution is taken.
        """
        x = self.xp.as_float(logits) / (self.temperature or 1.0)
        candidates = self.xp.top_indices(x, min(self.top_k, x.shape[-1]))
        weighed = list(zip(self.betas, values(candidates), strict=True))
        y = tilted(self.xp, x, candidates, weighed)
        self.divergences.append(divergence(self.xp, x, y))
        if not self.temperature:
            return y.argmax(-1)
        return pick(self.xp, y, u, 1.0, self.top_p)
