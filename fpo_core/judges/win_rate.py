"""Win rates from preferences, with and without what length explains, and their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpo_core.judges.logistic import fit_weighted, sigmoid

DRAWS = 2000
"""Resamples of an interval."""
_PENALTY = 0.05
"""Ridge penalty of the length regression: a prior of deviation 4.5 on its logits, which decides
only where the data are separable."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class WinRate:
    """How often the first of two answers was preferred."""

    rate: Rate | None
    """Mean preference; None where there is no verdict."""
    controlled: Rate | None
    """The same were both answers equally long (AlpacaEval 2's length-controlled win rate)."""
    pairs: int
    no_verdict: int
    """Pairs that count nowhere above."""

    def to_mapping(self) -> dict[str, Any]:
        """The rates as JSON values."""
        return {
            "win_rate": self.rate and vars(self.rate),
            "length_controlled": self.controlled and vars(self.controlled),
            "pairs": self.pairs,
            "no_verdict": self.no_verdict,
        }


def win_rate(
    prompts: Sequence[str],
    preferences: Sequence[float],
    lengths: Sequence[tuple[int, int]],
    seed: int = 0,
) -> WinRate:
    """Win rates of the first answers from preferences in [0, 1], NaN for no verdict.

    `lengths` are characters of both answers. Intervals are percentiles of a bootstrap over prompts,
    each with all of its pairs. The controlled rate is that of Dubois et al. (arXiv 2404.04475):
    logit q = θ + φ tanh(Δ/s), Δ the difference of lengths and s its deviation, read at Δ = 0. Their
    term for the difficulty of a prompt, fitted on a leaderboard of models, is left out.
    """
    y = np.asarray(preferences, float)
    judged = ~np.isnan(y)
    absent = int((~judged).sum())
    if not judged.any():
        return WinRate(None, None, len(y), absent)
    y = y[judged]
    clusters = np.unique(np.asarray(prompts, object)[judged].astype(str), return_inverse=True)[1]
    weights = _resampled(clusters, seed)
    sizes = np.asarray(lengths, float).reshape(-1, 2)[judged]
    x = np.stack([np.ones(len(y)), _length_term(sizes[:, 0] - sizes[:, 1])], 1)
    rate = _interval(y.mean(), (weights @ y) / weights.sum(1))
    fitted = sigmoid(fit_weighted(x, y, np.vstack([np.ones(len(y)), weights]), _PENALTY)[:, 0])
    return WinRate(rate, _interval(fitted[0], fitted[1:]), len(preferences), absent)


def mean_with_interval(
    prompts: Sequence[str], scores: Sequence[float], seed: int = 0
) -> Rate | None:
    """Mean of scores and its interval over prompts; NaN scores, of no verdict, are left out.

    None where there is no other.
    """
    y = np.asarray(scores, float)
    judged = ~np.isnan(y)
    if not judged.any():
        return None
    clusters = np.unique(np.asarray(prompts, object)[judged].astype(str), return_inverse=True)[1]
    weights = _resampled(clusters, seed)
    return _interval(y[judged].mean(), (weights @ y[judged]) / weights.sum(1))


def _length_term(difference: np.ndarray) -> np.ndarray:
    scale = difference.std()
    return np.tanh(difference / scale) if scale > 0 else 0 * difference


def _resampled(clusters: np.ndarray, seed: int) -> np.ndarray:
    """How often each row counts in each resample of its clusters: (draws, n)."""
    count = int(clusters.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return drawn[:, clusters].astype(float)


def _interval(value: float, draws: np.ndarray) -> Rate:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Rate(float(value), float(low), float(high))
