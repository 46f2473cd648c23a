"""SAIL's terms (arXiv 2406.15567) for pairs that depend on the policy: a loss whose gradient is
that of the expectation over them.

J(θ) = E over y₁, y₂ ~ π and a label of F = log σ(u). Its gradient is E[∇F], and
  + E[F ∇F] where the policy's own preference σ(u) drew the label,
  + E[F (∇log π(y_w) + ∇log π(y_l))] where the policy drew the completions.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.loss.scores import Scores, chosen, rejected


@dataclass(frozen=True)
class OnlineTerms:
    """The weights of the terms for b pairs, 0 for those of fixed data."""

    own_labels: Array
    """(b,) weight of the term of labels that the policy drew."""
    own_samples: Array
    """(b,) weight of the term of completions that the policy drew."""
    baseline: float = 0.0
    """What F is compared with in that term, from earlier steps: less variance, the same mean."""

    def astype(self, xp: Ops, like: Array) -> "OnlineTerms":
        """The same terms as arrays of the framework that `like` belongs to."""
        labels, samples = (
            xp.asarray(np.asarray(array, np.float32), like)
            for array in (self.own_labels, self.own_samples)
        )
        return dataclasses.replace(self, own_labels=labels, own_samples=samples)


def online_losses(xp: Ops, f: Array, scores: Scores, online: OnlineTerms) -> Array:
    """What is added to the loss −F of each pair, (b,): −(w/2) F² − w sg(F − b) Σ log π.

    Below F = −1/w the first term would outweigh −F, and reward a pair for being wrong: F is held
    there, so that such a pair has plain DPO's gradient. That bound, and b, are ours.
    """
    w = online.own_labels
    least = -1 / xp.where(w > 0, w, 1.0)
    held = xp.where(w * f > -1, f, least)
    drawn = chosen(scores.logps) + rejected(scores.logps)
    score_term = online.own_samples * xp.stop_gradient(f - online.baseline) * drawn
    return -0.5 * w * held**2 - score_term
