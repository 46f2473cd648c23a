"""The links, a row each: the coefficients that a map from u to a loss has.

`fpo_core.loss.links` holds the maps. A new link is a row here and a function there; a new
coefficient also a setting of `ObjectiveConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

LinkCoefficient = Literal["discopop_tau", "aps_rho", "aps_tau_min", "aps_tau_max"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """How u becomes a loss, whatever the terms of u are."""

    coefficients: Mapping[LinkCoefficient, float] = field(default_factory=dict)
    """Those that it has, with their defaults."""
    smoothed: bool = True
    """Whether `label_smoothing` applies."""
    jumps: bool = False
    """Whether the loss has a step, on whose sides rounding may put what is one u."""


LINKS: dict[str, Link] = {
    "logistic": Link(),
    "hinge": Link(),
    "exponential": Link(),
    "lrml": Link(coefficients={"discopop_tau": 0.05}, smoothed=False),
    # ρ and the bounds are those of the paper's best run on TL;DR.
    "aps": Link(coefficients={"aps_rho": 0.1, "aps_tau_min": 0.1, "aps_tau_max": 4.0}),
    "aps-quadratic": Link(coefficients={"aps_rho": 0.1, "aps_tau_min": 0.1}),
    "padll": Link(smoothed=False, jumps=True),
    "cell": Link(smoothed=False),
    "pfl": Link(smoothed=False, jumps=True),
}

if TYPE_CHECKING:
    LinkName = str
else:
    LinkName = Literal[tuple(LINKS)]
