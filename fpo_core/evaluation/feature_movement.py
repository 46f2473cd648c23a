"""Which features moved: mean activations before and after, where they fire, their part of D.

Everything is summed as completions go by; memory is a few numbers per feature, whatever their
number. Texts in which a feature is strongest are remembered by place, three per feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.sae.discrepancy import contributions

CONTEXTS = 3
"""Completions per feature that are remembered, those with its largest activation."""


@dataclass(frozen=True)
class FeatureMove:
    """A feature's means over completions, for the two sides (chosen, rejected)."""

    index: int
    """Among its autoencoder's features."""
    sae: int
    """The number of its autoencoder, from 0."""
    before: tuple[float, float]
    """Mean of c̄ under the reference."""
    after: tuple[float, float]
    """Mean of c̄ under the policy."""
    fires_before: tuple[float, float]
    """Share of completions with c̄ ≠ 0 under the reference."""
    fires_after: tuple[float, float]
    d: tuple[float, float]
    """Mean contribution to D: over all features, their sum is the mean D."""


class BeyondCap:
    """Sums, by side and feature, of what the reference's c̄ has beyond a store's `feature_cap`."""

    def __init__(self, d_sae: int) -> None:
        """Nothing, of an autoencoder, or several, with so many features."""
        self.pooled, self.fired = np.zeros((2, d_sae)), np.zeros((2, d_sae))

    def add(self, pooled: np.ndarray, stored: np.ndarray, sides: np.ndarray) -> None:
        """Add n completions: c̄ under the reference and as stored, (n, d_sae) each; their sides."""
        rest = np.where(stored == 0, pooled, 0)
        for side in (0, 1):
            self.pooled[side] += rest[sides == side].sum(0, dtype=np.float64)
            self.fired[side] += (rest[sides == side] != 0).sum(0)


class FeatureMovement:
    """Sums over completions, of two sides and every feature of one or several autoencoders."""

    def __init__(
        self,
        widths: Sequence[int],
        objective: ObjectiveConfig | None = None,
        weights: np.ndarray | None = None,
        beyond_cap: BeyondCap | None = None,
    ) -> None:
        """`widths` are the d_sae of each; without an objective nothing is compared by D.

        D is that of training, by the stored reference; means and shares add what is beyond its cap.
        """
        self._ends = np.cumsum([0, *widths])
        self._objective, self._weights = objective, weights
        size = (2, int(self._ends[-1]))
        self._before, self._after, self._d = (np.zeros(size) for _ in range(3))
        self._fired_before, self._fired_after = (np.zeros(size) for _ in range(2))
        if beyond_cap is not None:
            self._before += beyond_cap.pooled
            self._fired_before += beyond_cap.fired
        self._peaks = np.zeros((CONTEXTS, size[1]), np.float32)
        self._places = np.full((CONTEXTS, size[1]), -1, np.int64)
        self.counts = np.zeros(2, np.int64)
        """Completions of each side so far."""

    def add(
        self,
        pooled: np.ndarray,
        reference: np.ndarray,
        peaks: np.ndarray,
        sides: np.ndarray,
        places: np.ndarray,
    ) -> None:
        """Add n completions: c̄ under policy and reference and largest activations, (n, d_sae) each.

        `sides` (n,) is 0 or 1 for each, `places` (n,) are numbers to find them again by.
        """
        moved = self._contributions(pooled, reference)
        for side in (0, 1):
            rows = sides == side
            self.counts[side] += rows.sum()
            self._before[side] += reference[rows].sum(0, dtype=np.float64)
            self._after[side] += pooled[rows].sum(0, dtype=np.float64)
            self._fired_before[side] += (reference[rows] != 0).sum(0)
            self._fired_after[side] += (pooled[rows] != 0).sum(0)
            self._d[side] += moved[rows].sum(0, dtype=np.float64)
        self._remember(peaks, places)

    def _contributions(self, pooled: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """What each feature adds to each completion's D, (n, d_sae)."""
        objective = self._objective
        if objective is None:
            return np.zeros_like(pooled)
        parts = [
            contributions(
                numpy_ops,
                pooled[:, start:end],
                reference[:, start:end],
                objective.k,
                normalize=objective.normalize_d,
                weights=self._weights,
            )
            for start, end in zip(self._ends[:-1], self._ends[1:], strict=True)
        ]
        return np.concatenate(parts, 1) / len(parts)  # D is the mean over autoencoders

    def _remember(self, peaks: np.ndarray, places: np.ndarray) -> None:
        every = np.concatenate([self._peaks, peaks])
        where = np.concatenate([self._places, np.broadcast_to(places[:, None], peaks.shape)])
        # Stable, so that equal peaks leave the earlier completion in front on every backend.
        order = np.argsort(-every, axis=0, kind="stable")[:CONTEXTS]
        self._peaks = np.take_along_axis(every, order, 0)
        self._places = np.take_along_axis(where, order, 0)

    def top(self, count: int) -> np.ndarray:
        """The `count` features that add most to D; where none does, that differ most by side.

        Features that never fire are left out, so there may be fewer. Ties fall to the lower index.
        """
        score = self._d.sum(0)
        if not score.any():
            means = self._after / np.maximum(self.counts, 1)[:, None]
            score = np.abs(means[0] - means[1])
        fired: np.ndarray = (self._fired_before + self._fired_after).sum(0) > 0
        order = np.argsort(-score, kind="stable")
        return order[fired[order]][:count]

    def move(self, feature: int) -> FeatureMove:
        """A feature, by its number among all autoencoders' features."""
        counts = np.maximum(self.counts, 1)

        def means(sums: np.ndarray) -> tuple[float, float]:
            values = sums[:, feature] / counts
            return float(values[0]), float(values[1])

        sae = int(np.searchsorted(self._ends, feature, side="right")) - 1
        return FeatureMove(
            index=int(feature - self._ends[sae]),
            sae=sae,
            before=means(self._before),
            after=means(self._after),
            fires_before=means(self._fired_before),
            fires_after=means(self._fired_after),
            d=means(self._d),
        )

    def places(self, feature: int) -> list[int]:
        """Where a feature is strongest, strongest first; completions in which it fires alone."""
        fired = self._peaks[:, feature] > 0
        return self._places[fired, feature].tolist()

    @property
    def d(self) -> tuple[float, float]:
        """Mean D of either side."""
        sums = self._d.sum(1) / np.maximum(self.counts, 1)
        return float(sums[0]), float(sums[1])
