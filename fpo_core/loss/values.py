"""The loss of a value function: what reward a text will end with, told from each of its tokens.

Value augmented sampling (arXiv 2405.06639). The states of a sequence are the last token of its
prompt and every token of its completion; V of a state is the reward that the base model is expected
to reach from there. The reward of an ended text is known: it is the value of its last state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.data.batches import Batch

VALUE_HEAD = "value_head.weight"
"""Canonical name of the head among the trained weights, (1, d)."""


@dataclass(frozen=True)
class ValueScores:
    """What a step on values computes of its sequences, in the framework's arrays."""

    errors: Array
    """(n,) Σ ½ (V − G)² over the states of each."""

    def map(self, convert: Callable[[Array], Array]) -> Self:
        """The same passed through `convert`."""
        return type(self)(convert(self.errors))


def state_mask(batch: Batch) -> np.ndarray:
    """1 at the states of each sequence, else 0: (n, t)."""
    places = np.arange(batch.width)
    begun = places >= batch.prompt_lengths[:, None] - 1
    return (begun & (places < batch.lengths[:, None])).astype(np.float32)


def lambda_returns(
    xp: Ops, values: Array, batch: Batch, rewards: np.ndarray, trace: float
) -> Array:
    """TD(λ)'s targets G (n, t) of values V (n, t) at the states; 0 or idle at other places.

    G_T = r at the last state, G_i = Σ_{j>i} λ^(j−i−1) x_j before it, where x_T = r and
    x_j = (1 − λ) V_j: no discount, r (n,) comes at the end. λ = 1 is Monte Carlo, G_i = r.
    No gradient flows through G.
    """
    places = np.arange(batch.width)
    last = (places == batch.lengths[:, None] - 1).astype(np.float32)
    inner = state_mask(batch) - last
    ahead = places[:, None] - places - 1  # steps from a state (column) to a later one (row)
    decay = np.where(ahead >= 0, float(trace) ** np.maximum(ahead, 0), 0).astype(np.float32)
    values = xp.stop_gradient(values)
    zero = 0 * values[:1]  # torch multiplies matrices of one precision alone
    known = xp.asarray(last * rewards[:, None].astype(np.float32), values) + zero
    guessed = (1 - trace) * values * xp.asarray(inner, values)
    return (known + guessed) @ (xp.asarray(decay, values) + zero) + known


def value_errors(
    xp: Ops, values: Array, batch: Batch, rewards: np.ndarray, trace: float
) -> ValueScores:
    """Σ ½ (V − G)² over the states of each sequence, for rewards (n,) and λ = `trace`."""
    errors = values - lambda_returns(xp, values, batch, rewards, trace)
    return ValueScores((0.5 * errors**2 * xp.asarray(state_mask(batch), values)).sum(-1))
