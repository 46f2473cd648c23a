"""The packed step that both frameworks share: shared prompts run once, the head at scored tokens
only, features streamed.

A batch becomes one `Row` of real tokens. The model's body runs over it once; of its final states
and tapped activations only those at scored tokens go on, to the head and to the autoencoders.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.packed import Pool, TokenTerms, score_tokens
from fpo_core.loss.packing import Row, Scored
from fpo_core.loss.scores import Scores
from fpo_core.sae.taps import Features, Tap, capture_all

FrozenHead = tuple[Callable[[Array], Array], Array]
"""The reference's head, (n, d) -> (n, v), and the states (N, d) that it predicts from."""


class Head(Protocol):
    """A backend's output layer."""

    def frozen(self) -> Callable[[Array], Array]:
        """The layer as it is now, (n, d) -> (n, v), whatever its weights become."""
        ...


class BasePackedStep(ABC):
    """Scores and gradients of `fpo_core.loss.dense.score_batch`, with less work."""

    ops: ClassVar[Ops]
    vocab: int
    """Tokens that the model knows."""

    def __init__(
        self, head: Head, taps: Sequence[Tap], features: Features | None, pool: Pool
    ) -> None:
        self._head, self._taps, self._features, self._pool = head, taps, features, pool
        self.virtual: Callable[[], np.ndarray] = lambda: np.zeros(0, np.int64)
        """The ids of the virtual tokens that sequences begin with now."""

    @abstractmethod
    def on(self) -> AbstractContextManager[None]:
        """Within, the model takes rows; backward must lie within it too."""

    @abstractmethod
    def _run(self, row: Row) -> Array:
        """Final states of the model's body over a row, (1, t, d)."""

    @abstractmethod
    def _gather(self, x: Array, index: Array) -> Array:
        """Rows of an array: (t, d), (N,) -> (N, d)."""

    @abstractmethod
    def _terms(
        self,
        states: Array,
        labels: Array,
        reference: FrozenHead | None,
        *,
        entropy: bool,
        differentiate: bool,
    ) -> TokenTerms:
        """Terms of N tokens from the states (N, d) that predict them, by the head."""

    def score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        *,
        at_reference: AbstractContextManager[None] | None = None,
        entropy: bool = False,
        features: bool = True,
        differentiate: bool = False,
    ) -> Scores:
        """Scores of a batch; with `at_reference`, in which the model is the reference, its KL;
        without `features`, nothing of the autoencoder.
        """
        frozen = None
        if at_reference is not None:
            with at_reference:
                frozen = self._head.frozen(), self._states(self._row(batch))[0]
        row = self._row(batch)
        states, activations = self._states(row)
        labels = self.ops.asarray(row.scored.labels, states)
        terms = self._terms(states, labels, frozen, entropy=entropy, differentiate=differentiate)
        saes = self._features.saes if features and self._features is not None else ()
        read = list(zip(saes, activations, strict=True)) if saes else []
        return score_tokens(self.ops, row.scored, terms, read, self._pool, reference, objective)

    def mean_states(self, batch: Batch) -> Array:
        """Final states averaged over each completion's tokens, (2b, d), without the head."""
        row = Row.of(batch, virtual=self.virtual())
        states = self._run(row)[0]
        h = self._gather(states, self.ops.asarray(row.scored.places, states))
        h = self.ops.as_float(h)
        return self.ops.asarray(row.scored.shares, h) @ h

    def tokens(self, batch: Batch) -> tuple[Scored, Array, list[Array]]:
        """The N scored tokens of a batch, their log π (N,), and activations on them, (N, d_in)."""
        row = self._row(batch, every=True)
        states, activations = self._states(row)
        labels = self.ops.asarray(row.scored.labels, states)
        terms = self._terms(states, labels, None, entropy=False, differentiate=False)
        return row.scored, terms.logps, activations

    def _row(self, batch: Batch, *, every: bool = False) -> Row:
        untrained = () if self._features is None else self._features.untrained
        return Row.of(batch, untrained, every=every, virtual=self.virtual())

    def _states(self, row: Row) -> tuple[Array, list[Array]]:
        """Final states that predict the scored tokens, (N, d), and activations on them."""
        states, activations = capture_all(self._taps, lambda: self._run(row))
        # A token is predicted from where its sequence stands one earlier, which after a shared
        # prompt is not one place earlier in the row.
        predictors = self.ops.asarray(row.scored.predictors, states)
        places = self.ops.asarray(row.scored.places, states)
        return self._gather(states[0], predictors), [
            self._gather(h[0], places) for h in activations
        ]
