"""Samples that ended, with the rewards that a judge gave them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpo_core.data.batches import Batch
from fpo_core.evaluation.texts import sequences

Ints = np.ndarray


@dataclass(frozen=True)
class Episodes:
    """n texts as token ids, each with a reward at its end."""

    prompts: list[Ints]
    completions: list[Ints]
    """With the token that ended them."""
    rewards: np.ndarray
    """(n,)."""

    def __len__(self) -> int:
        return len(self.rewards)

    def lengths(self) -> np.ndarray:
        """Tokens of prompt and completion, (n,)."""
        return np.array(
            [len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)]
        )

    def states(self, rows: Sequence[int] | Ints) -> int:
        """Places of some texts at which a value is learnt: one more than tokens of completions."""
        return sum(len(self.completions[row]) + 1 for row in rows)

    def batch(self, rows: Sequence[int] | Ints) -> Batch:
        """Some texts as a padded batch."""
        ids = [[*self.prompts[row].tolist(), *self.completions[row].tolist()] for row in rows]
        return sequences(ids, [len(self.prompts[row]) for row in rows])

    def taken(self, rows: Sequence[int] | Ints) -> "Episodes":
        """Some of the texts."""
        return Episodes(
            [self.prompts[row] for row in rows],
            [self.completions[row] for row in rows],
            self.rewards[np.asarray(rows, np.int64)],
        )
