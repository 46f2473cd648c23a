"""The fast step: shared prompts run once, the head at scored tokens only, features streamed."""

import contextlib
import functools

import mlx.core as mx
from mlx import nn

from fpo_core.config import ObjectiveConfig, StepConfig
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.packed import score_tokens
from fpo_core.loss.packing import Row
from fpo_core.loss.scores import Scores
from fpo_core.sae.taps import Features, capture_all
from fpo_mlx import ops
from fpo_mlx.hooks import Tap
from fpo_mlx.kernels.features import pooled_features
from fpo_mlx.kernels.head import Head
from fpo_mlx.kernels.packed_attention import RowCache, RowPositions


class FastStep:
    """Scores and gradients of `fpo_core.loss.dense.score_batch`, with less work."""

    def __init__(
        self,
        model: nn.Module,
        layers: int,
        taps: list[Tap],
        features: Features | None,
        config: StepConfig,
    ) -> None:
        self._model, self._layers, self._taps, self._features = model, layers, taps, features
        self._pool = functools.partial(pooled_features, config.logits_budget)
        self._head = Head(model, config.logits_budget)
        self._positions = RowPositions(model)
        self.vocab = self._head.vocab
        self.mask_axes = 1
        """Axes for heads in a mask: models that group queries in an axis of their own want 2."""

    def score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        *,
        at_reference: contextlib.AbstractContextManager[None] | None = None,
        entropy: bool = False,
        features: bool = True,
        differentiate: bool = False,
    ) -> Scores:
        """Scores of a batch; with `at_reference`, in which the model is the reference, its KL;
        without `features`, nothing of the autoencoder.
        """
        untrained = () if self._features is None else self._features.untrained
        row = Row.of(batch, untrained)
        frozen = None
        if at_reference is not None:
            with at_reference:
                frozen = self._head.frozen(), self._states(row)[0]
        states, activations = self._states(row)
        labels = mx.array(row.scored.labels)
        terms = self._head.terms(
            states, labels, frozen, entropy=entropy, differentiate=differentiate
        )
        saes = self._features.saes if features and self._features is not None else ()
        tapped = list(zip(saes, activations, strict=True)) if saes else []
        return score_tokens(ops, row.scored, terms, tapped, self._pool, reference, objective)

    def _states(self, row: Row) -> tuple[mx.array, list[mx.array]]:
        """Final states that predict the scored tokens, (N, d), and activations on them."""
        tokens = mx.array(row.tokens)[None]
        caches = [RowCache(row, self.mask_axes)] * self._layers

        def run() -> mx.array:
            return self._head.states(lambda: self._model(tokens, cache=caches))

        with self._positions.of(row):
            states, activations = capture_all(self._taps, run)
        places = mx.array(row.scored.places)
        return states[0][mx.array(row.scored.predictors)], [h[0][places] for h in activations]
