"""Metrics of scored pairs: TRL's names, ours under `fpo/` beside them."""

import math

import numpy as np

from fpo_core import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.objectives import fpo_losses, fpo_terms, preference_loss
from fpo_core.scores import Scores, chosen, rejected

WEAK_CONSTRAINT = 0.01
"""Median of `fpo/constraint_ratio` under which the constraint is as good as absent."""

Z_95 = 1.959964
"""Two-sided 95% point of the normal distribution."""


def pair_losses(scores: Scores, reference_logps: np.ndarray, config: ObjectiveConfig) -> np.ndarray:
    """−log σ(u) of each pair, (b,), in float64."""
    logps = reference_logps.astype(np.float64)
    return fpo_losses(numpy_ops, scores.astype(np.float64), logps, config)


def preference_metrics(
    scores: Scores, reference_logps: np.ndarray, config: ObjectiveConfig
) -> dict[str, float]:
    """Means over b pairs of what a run logs, from NumPy scores and the (2b,) stored logps.

    Rewards are the terms that the loss uses, β(m − r) with mean log-probabilities m and r;
    `fpo/constraint_ratio` is αD_l / |Δm − Δr|, the constraint beside the preference.
    """
    scores, reference_logps = scores.astype(np.float64), reference_logps.astype(np.float64)
    terms = fpo_terms(numpy_ops, scores, reference_logps, config)
    rewards = config.beta * (scores.mean_logps - reference_logps / scores.lengths)
    logps = scores.mean_logps
    result = {
        "loss": preference_loss(numpy_ops, terms).mean(),
        "logps/chosen": chosen(scores.logps).mean(),
        "logps/rejected": rejected(scores.logps).mean(),
        "rewards/chosen": chosen(rewards).mean(),
        "rewards/rejected": rejected(rewards).mean(),
        "rewards/margins": (chosen(rewards) - rejected(rewards)).mean(),
        "rewards/accuracies": share_above(chosen(rewards), rejected(rewards)),
        "fpo/raw_accuracy": share_above(chosen(logps), rejected(logps)),
        "fpo/ref_margin": terms.margin.mean(),
        "fpo/delta": terms.delta.mean(),
    }
    if scores.d is not None:
        moved = np.abs(terms.lpd - terms.margin) / config.beta
        ratio = config.alpha * rejected(scores.d) / np.maximum(moved, 1e-12)
        result |= {
            "fpo/d_chosen": chosen(scores.d).mean(),
            "fpo/d_rejected": rejected(scores.d).mean(),
            "fpo/constraint_ratio": np.median(ratio),
        }
    for name in ("union", "outside_cap"):
        if getattr(scores, name) is not None:
            result[f"fpo/{name}"] = getattr(scores, name).mean()
    if scores.kl is not None:
        result["fpo/kl_chosen"] = chosen(scores.kl).mean()
        result["fpo/kl_rejected"] = rejected(scores.kl).mean()
    return {name: float(value) for name, value in result.items()}


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
