"""The objectives, a row each: coefficients, terms or a loss of their own, and what they need.

Settings read the coefficients and needs, `fpo_core.loss.objectives` computes what a row says. A new
objective is a row here; a new coefficient also a setting of `ObjectiveConfig`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fpo_core.arrays.ops import Array
from fpo_core.config.link_table import LINKS, LinkCoefficient
from fpo_core.errors import SaeError

Coefficient = Literal["alpha", "beta", "gamma", "odds_lambda", LinkCoefficient]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """loss = link(u) with u = LPD − margin − δ (eq. 8, table 1), or a loss of its own."""

    coefficients: Mapping[Coefficient, float]
    """Those that it has, with their defaults."""
    mean: bool = False
    """Whether log-probabilities are means over tokens, not sums."""
    referenced: bool = True
    """Whether the margin is the reference's own LPD; else it is the constant γ."""
    needs: Literal["features", "kl"] | None = None
    """What a step computes besides log-probabilities: D, or the sequential KL, for which the
    reference runs in every step."""
    drift: Callable[[Any], Array] | None = None
    """What δ = αβ(drift_l − sg(drift_w)) constrains: `Scores` of b pairs -> (2b,)."""
    symmetric: bool = False
    """Whether δ takes both sides as they are: α = 1 and no stop-gradient."""
    link: str | None = None
    """How u becomes a loss, where that is part of the objective's name: a key of `LINKS`."""
    reading: str = ""
    """Where its formula is not its authors' own text: what it rests on, in a sentence."""
    losses: str | None = None
    """A loss that is no function of u: a key of `fpo_core.loss.own_losses.OWN_LOSSES`."""


def _feature_discrepancy(scores: Any) -> Array:
    if scores.d is None:
        raise SaeError("alpha is above 0 but the scores hold no D: give an autoencoder, or alpha 0")
    return scores.d


OBJECTIVES: dict[str, Objective] = {
    "fpo": Objective(
        coefficients={"beta": 2.0, "alpha": 5.0},
        mean=True,
        needs="features",
        drift=_feature_discrepancy,
    ),
    "dpo-norm": Objective(coefficients={"beta": 2.0}, mean=True),
    "dpo": Objective(coefficients={"beta": 0.1}),
    "simpo": Objective(coefficients={"beta": 2.0, "gamma": 0.5}, mean=True, referenced=False),
    "simpo-kl": Objective(
        reading="simpo-kl is our reading of the FPO paper's appendix D.1, which has no formula.",
        coefficients={"beta": 2.0, "gamma": 0.5, "alpha": 0.5},
        mean=True,
        referenced=False,
        needs="kl",
        drift=lambda scores: scores.kl / scores.lengths,
    ),
    "tdpo1": Objective(
        coefficients={"beta": 0.1}, needs="kl", drift=lambda scores: scores.kl, symmetric=True
    ),
    "tdpo2": Objective(
        coefficients={"beta": 0.1, "alpha": 0.5}, needs="kl", drift=lambda scores: scores.kl
    ),
    "discopop": Objective(coefficients={"beta": 0.05}, link="lrml"),
    "asft": Objective(
        coefficients={"beta": 1.0, "odds_lambda": 1.0},
        mean=True,
        referenced=False,
        losses="asft",
        reading="asft is second-hand, from arXiv 2502.01237; its odds_lambda of 1 is our choice.",
    ),
    "orpo": Objective(
        coefficients={"odds_lambda": 0.1}, mean=True, referenced=False, losses="orpo"
    ),
}
"""Defaults are those of the papers, but for the first two, whose are from experiments
(docs/choosing.md); `paper` among the presets has its own."""

if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]


def takers(coefficient: Coefficient) -> dict[str, float]:
    """The objectives and links that have a coefficient, with its default for each."""
    rows = [*OBJECTIVES.items(), *((f"the link {name}", row) for name, row in LINKS.items())]
    return {
        name: row.coefficients[coefficient] for name, row in rows if coefficient in row.coefficients
    }
