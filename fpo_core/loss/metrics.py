"""Metrics of scored pairs, under TRL's names and ours, which begin with `fpo/`."""

import math

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.links import TEMPERATURES
from fpo_core.loss.objectives import objective_losses, objective_terms, rewards
from fpo_core.loss.scores import Scores, chosen, rejected
from fpo_core.loss.terms import Terms

WEAK_CONSTRAINT = 0.01
"""Median of `fpo/constraint_ratio` under which the constraint is as good as absent."""

WEAK_SHARE = 0.05
"""Share of the gradient under which the constraint turns a step by less than 3 degrees."""
ABOVE_FLOOR = 4.0
"""How many times its floor D must be before anything is said of its gradient: a choice, which
benchmarks/drift_floor.py is there to check."""

WORSE_TEXT = 0.10
"""Relative rise of perplexity that counts as harm."""

Z_95 = 1.959964
"""Two-sided 95% point of the normal distribution."""


def is_below_floor(d: float | None, floor: float | None) -> bool:
    """Whether a D of rejected completions is too near that of the reference itself to mean more."""
    return d is not None and floor is not None and d <= ABOVE_FLOOR * floor


def pair_losses(scores: Scores, reference_logps: np.ndarray, config: ObjectiveConfig) -> np.ndarray:
    """The loss of each pair, (b,), in float64."""
    logps = reference_logps.astype(np.float64)
    return objective_losses(numpy_ops, scores.astype(np.float64), logps, config)


def losses_at_reference(scores: Scores, logps: np.ndarray, config: ObjectiveConfig) -> np.ndarray:
    """`pair_losses` of a policy equal to its reference, from (2b,) logps: mostly log 2."""
    zeros = np.zeros(len(logps))
    start = Scores(logps=logps, lengths=scores.lengths, d=zeros, kl=zeros, degree=scores.degree)
    return pair_losses(start, logps, config)


def preference_metrics(
    scores: Scores, reference_logps: np.ndarray, config: ObjectiveConfig
) -> dict[str, float]:
    """Means over b pairs of what a run logs, from NumPy scores and the (2b,) stored logps.

    Rewards are the terms that the loss uses (`objectives.rewards`). `fpo/constraint_ratio` is
    αβ·drift_l / |LPD − margin|, the constraint on the rejected side relative to the preference.
    """
    scores, reference_logps = scores.astype(np.float64), reference_logps.astype(np.float64)
    values = rewards(numpy_ops, scores, reference_logps, config)
    result = {
        "loss": pair_losses(scores, reference_logps, config).mean(),
        "logps/chosen": chosen(scores.logps).mean(),
        "logps/rejected": rejected(scores.logps).mean(),
        "rewards/chosen": chosen(values).mean(),
        "rewards/rejected": rejected(values).mean(),
        "rewards/margins": (chosen(values) - rejected(values)).mean(),
        "rewards/accuracies": share_above(chosen(values), rejected(values)),
        "fpo/raw_accuracy": raw_accuracy(scores),
    }
    if config.objective_entry.losses is None:
        result |= _term_means(scores, reference_logps, config)
    result |= _drift_means(scores)
    return {name: float(value) for name, value in result.items()}


def _term_means(
    scores: Scores, reference_logps: np.ndarray, config: ObjectiveConfig
) -> dict[str, np.ndarray]:
    """Of an objective that has a u: means of its terms, and the ratio of δ to the preference."""
    terms = objective_terms(numpy_ops, scores, reference_logps, config)
    objective, weight = config.objective_entry, config.constraint_weight
    result = {"fpo/delta": terms.delta.mean()} | _temperatures(terms, config)
    if objective.referenced:
        result["fpo/ref_margin"] = terms.margin.mean()
    if objective.drift is not None and weight > 0:
        constraint = config.coefficient("beta") * weight * objective.drift(scores)
        moved = np.maximum(np.abs(terms.lpd - terms.margin), 1e-12)
        # The median: a pair whose margin has hardly moved has a ratio without bounds.
        result["fpo/constraint_ratio"] = np.median(rejected(constraint) / moved)
    return result


def _temperatures(terms: Terms, config: ObjectiveConfig) -> dict[str, np.ndarray]:
    """Where pairs have a temperature τ* each: its median, and shares of pairs at its bounds."""
    temperature = TEMPERATURES.get(config.link_name or "")
    if temperature is None:
        return {}
    tau = temperature(numpy_ops, terms, config)
    result = {"fpo/tau": np.median(tau)}
    for end, name in {"min": "aps_tau_min", "max": "aps_tau_max"}.items():
        if name in config.coefficients:
            result[f"fpo/tau_at_{end}"] = (tau == config.coefficients[name]).mean()
    return result


def _drift_means(scores: Scores) -> dict[str, np.ndarray]:
    """D, KL, what D compared, and degrees: those that the scores hold."""
    result = {}
    for name in ("d", "kl"):
        values = getattr(scores, name)
        if values is not None:
            sides = chosen(values).mean(), rejected(values).mean()
            result |= {f"fpo/{name}_chosen": sides[0], f"fpo/{name}_rejected": sides[1]}
            result[f"fpo/{name}_margin"] = sides[1] - sides[0]
    for name in ("union", "outside_cap", "degree", "degree_hit"):
        if getattr(scores, name) is not None:
            result[f"fpo/{name}"] = getattr(scores, name).mean()
    return result


def raw_accuracy(scores: Scores) -> float:
    """Share of pairs whose chosen completion has the higher mean log-probability."""
    logps = scores.mean_logps
    return share_above(chosen(logps), rejected(logps))


def reference_accuracy(scores: Scores, reference_logps: np.ndarray) -> float:
    """Share of pairs whose mean log-probability rose more on the chosen side, for any objective."""
    gain = (scores.logps - reference_logps) / scores.lengths
    return share_above(chosen(gain), rejected(gain))


def share_above(left: np.ndarray, right: np.ndarray) -> float:
    """Share of pairs with left > right; a tie counts as half, so equal models read 0.5."""
    return float(((left > right) + 0.5 * (left == right)).mean())


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95% interval of a share seen in `count` trials (Wilson 1927), inside [0, 1]."""
    if count == 0:
        return 0.0, 1.0
    z2 = Z_95**2 / count
    middle = share + z2 / 2
    spread = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max(0.0, (middle - spread) / (1 + z2)), min(1.0, (middle + spread) / (1 + z2))
