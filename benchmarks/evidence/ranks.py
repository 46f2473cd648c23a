"""Rank correlation, and intervals by resampling."""

from collections.abc import Callable

import numpy as np

Statistic = Callable[..., float]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 of (n,) values; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's ρ of (n,) pairs; NaN where either side is constant."""
    a, b = ranks(x) - (len(x) + 1) / 2, ranks(y) - (len(y) + 1) / 2
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else float("nan")


def interval(
    statistic: Statistic, *columns: np.ndarray, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95% of the statistic over rows drawn again with replacement (percentile bootstrap)."""
    generator, count = np.random.default_rng(seed), len(columns[0])
    rows = generator.integers(0, count, (draws, count))
    resampled = [statistic(*(column[row] for column in columns)) for row in rows]
    return float(np.nanpercentile(resampled, 2.5)), float(np.nanpercentile(resampled, 97.5))
