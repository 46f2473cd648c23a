"""Features ranked by how they differ between two sets of texts, for feature control (§5.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.evaluation.texts import score_texts


@dataclass(frozen=True)
class Contrast:
    """How a feature differs between two sets of texts."""

    index: int
    positive: float
    """Mean over the positive texts of its mean over their tokens."""
    negative: float
    effect: float
    """Difference of the two in units of their pooled standard deviation (Cohen's d)."""

    @property
    def difference(self) -> float:
        """How much more it fires on the positive texts."""
        return self.positive - self.negative


def pooled_features(
    policy: Policy, tokenizer: Any, texts: Sequence[str], tokens_per_batch: int, width: int
) -> np.ndarray:
    """c̄ of each text, (n, d_sae), longest first; a text's first token is left out."""
    parts = score_texts(policy, tokenizer, texts, tokens_per_batch, width)
    return np.concatenate([np.asarray(scores.pooled) for scores in parts])


def contrast(
    positive: np.ndarray, negative: np.ndarray, top: int, *, absolute: bool = False
) -> list[Contrast]:
    """The `top` features by difference of means, (n, d_sae) x 2, largest first.

    With `absolute`, by its size. Features that differ nowhere, or in the wrong direction, are left
    out, so there may be fewer.
    """
    means = positive.mean(0), negative.mean(0)
    difference = means[0] - means[1]
    spread = np.sqrt((positive.var(0) + negative.var(0)) / 2)
    rank = np.abs(difference) if absolute else difference
    order = np.argsort(-rank, kind="stable")[:top]
    return [
        Contrast(
            int(i),
            float(means[0][i]),
            float(means[1][i]),
            float(difference[i] / spread[i])
            if spread[i] > 0
            else float(np.copysign(np.inf, difference[i])),
        )
        for i in order
        if rank[i] > 0
    ]
