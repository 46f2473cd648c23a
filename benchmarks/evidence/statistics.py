"""Intervals and contrasts over seeds and prompts, resampled together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4000
"""Resamples of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, and how often resamples lie on either side of 0."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided: twice the smaller share of resamples beyond 0, at least 1/`DRAWS`."""

    def text(self, digits: int = 3) -> str:
        """The mean and its interval."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """Of values (seeds, prompts): both are resampled, a prompt with all of its seeds."""
    values = np.asarray(values, np.float64)
    return _resampled(lambda rows, columns: values[rows][:, columns].mean(), values.shape, seed)


def best_less_best(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Estimate:
    """How far the best of our settings is ahead of the best of theirs, (settings, seeds, prompts).

    The best is chosen anew in every resample, so that the interval holds the choice.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)

    def lead(rows: np.ndarray, columns: np.ndarray) -> float:
        best, other = (v[:, rows][:, :, columns].mean((1, 2)).max() for v in (ours, theirs))
        return best - other

    return _resampled(lead, ours.shape[1:], seed)


def _resampled(
    statistic: Callable[[np.ndarray, np.ndarray], float], shape: tuple[int, ...], seed: int
) -> Estimate:
    """A statistic of chosen seeds and prompts, over all and over resamples of both."""
    generator = np.random.default_rng(seed)
    runs, prompts = shape
    rows = generator.integers(runs, size=(DRAWS, runs))
    columns = generator.integers(prompts, size=(DRAWS, prompts))
    means = np.array([statistic(r, c) for r, c in zip(rows, columns, strict=True)])
    low, high = np.percentile(means, (2.5, 97.5))
    beyond = min(float((means <= 0).mean()), float((means >= 0).mean()))
    value = statistic(np.arange(runs), np.arange(prompts))
    return Estimate(float(value), float(low), float(high), min(1.0, max(2 * beyond, 1 / DRAWS)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjustment of several tests' p."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


def detectable(values: np.ndarray) -> float:
    """The mean that 80% of such experiments would tell from 0, of differences (seeds, prompts).

    2.8 standard errors of the mean, those of seeds and of prompts added.
    """
    values = np.asarray(values, np.float64)
    runs, prompts = values.shape
    by_prompt = values.mean(0).var(ddof=1) / prompts
    by_seed = values.mean(1).var(ddof=1) / runs if runs > 1 else 0.0
    return float(2.8 * np.sqrt(by_prompt + by_seed))
