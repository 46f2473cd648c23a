"""Every link as its paper writes it, for one pair in plain float64: what the core is held to."""

import math
from typing import Any


def softplus(x: float) -> float:
    """log(1 + eˣ)."""
    return math.log1p(math.exp(x))


def least(function: Any, low: float, high: float) -> tuple[float, float]:
    """Where a convex function is least on an interval, and its value there, by thirds."""
    for _ in range(300):
        third = (high - low) / 3
        if function(low + third) < function(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2, function((low + high) / 2)


def aps_of_tau(u: float, c: dict[str, float], tau: float) -> float:
    """The loss that adaptive preference scaling minimises over τ."""
    return tau * softplus(-u / tau) + (c["aps_rho"] - math.log(2)) * tau


def quadratic_of_tau(u: float, c: dict[str, float], tau: float) -> float:
    """The same of the quadratic variant."""
    return tau * softplus(-u / tau) + c["aps_rho"] * tau**2 - math.log(2) * tau


def plain_link(name: str, u: float, lpd: float, c: dict[str, float]) -> float:
    """The loss of a pair; `lpd` is the policy's part of u, `c` the link's coefficients."""
    bradley_terry, slic = softplus(-u), max(0.0, 1 - u)
    if name == "lrml":
        share = 1 / (1 + math.exp(-u / c["discopop_tau"]))
        return (1 - share) * bradley_terry + share * math.exp(-u)
    if name == "aps":
        bounds = c["aps_tau_min"], c["aps_tau_max"]
        return least(lambda tau: aps_of_tau(u, c, tau), *bounds)[1]
    if name == "aps-quadratic":
        highest = max(c["aps_tau_min"], math.log(2) / (2 * c["aps_rho"]))
        return least(lambda tau: quadratic_of_tau(u, c, tau), c["aps_tau_min"], highest)[1]
    return {
        "logistic": bradley_terry,
        "hinge": slic,
        "exponential": math.exp(-u),
        "padll": 0.9 * (1 if u >= 0 else 0.5) * bradley_terry,
        "cell": 0.5 * bradley_terry + 0.5 * math.exp(-u),
        "pfl": 0.5 * bradley_terry if lpd > 0 else 2 * slic,
    }[name]
