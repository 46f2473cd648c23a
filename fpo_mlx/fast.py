"""The fast step: shared prompts run once, the head at scored tokens only, features streamed."""

import contextlib
import functools
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn

from fpo_core.config import ObjectiveConfig, StepConfig
from fpo_core.data.batches import Batch
from fpo_core.fast import score_tokens
from fpo_core.feature_tap import Features, watch_all
from fpo_core.packing import Scored, Split
from fpo_core.scores import Scores
from fpo_core.scoring import ReferenceBatch
from fpo_mlx import ops
from fpo_mlx.fused_features import pooled_features
from fpo_mlx.fused_head import Head
from fpo_mlx.hooks import Tap
from fpo_mlx.split_cache import CompletionCache, PromptCache

States = tuple[mx.array, tuple[mx.array, ...]]


class FastStep:
    """Scores batches as `fpo_core.scoring.score_batch` does, gradients included, with less work."""

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
        split = Split.of(batch, untrained)
        scored = Scored.in_rectangle(batch, untrained) if split is None else split.scored

        def states() -> States:
            return self._whole(batch, scored) if split is None else self._shared(split)

        frozen = None
        if at_reference is not None:
            with at_reference:
                frozen = self._head.frozen(), states()[0]
        hidden, activations = states()
        labels = mx.array(scored.labels)
        terms = self._head.terms(
            hidden, labels, frozen, entropy=entropy, differentiate=differentiate
        )
        saes = self._features.saes if features and self._features is not None else ()
        tapped = list(zip(saes, activations, strict=True)) if saes else []
        return score_tokens(ops, scored, terms, tapped, self._pool, reference, objective)

    def _whole(self, batch: Batch, scored: Scored) -> States:
        """States and activations of sequences that share nothing."""
        return _at_tokens([self._run(batch.tokens)], scored)

    def _shared(self, split: Split) -> States:
        """The same of pairs: prompts in one pass, completions that go on from them in another."""
        prompts = [PromptCache() for _ in range(self._layers)]
        first = self._run(split.prompts, prompts)
        completions = [CompletionCache(cache, split, self.mask_axes) for cache in prompts]
        return _at_tokens([first, self._run(split.completions, completions)], split.scored)

    def _run(self, tokens: npt.NDArray[np.int32], caches: list[Any] | None = None) -> States:
        """Final states (n, t, d), and activations at each hook."""

        def run() -> mx.array:
            return self._head.states(lambda: self._model(mx.array(tokens), cache=caches))

        return watch_all(self._taps, run)


def _at_tokens(passes: list[States], scored: Scored) -> States:
    """What several passes say of the scored tokens: (N, d) states and activations."""
    states = _gather([state for state, _ in passes], scored.predictors)
    hooks = zip(*(tapped for _, tapped in passes), strict=True)
    return states, tuple(_gather(list(parts), scored.places) for parts in hooks)


def _gather(parts: list[mx.array], indices: npt.NDArray[np.int64]) -> mx.array:
    flat = mx.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
    return flat[mx.array(indices)]
