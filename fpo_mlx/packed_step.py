"""The packed step on MLX."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Self

import mlx.core as mx
from mlx import nn

from fpo_core.backend.base_packed_step import BasePackedStep
from fpo_core.config import StepConfig
from fpo_core.loss.packed import TokenTerms
from fpo_core.loss.packing import Row
from fpo_core.sae.taps import Features
from fpo_mlx import ops
from fpo_mlx.hooks import Tap
from fpo_mlx.kernels.features import pooled_features
from fpo_mlx.kernels.head import Head
from fpo_mlx.kernels.mlp import FusedMlps
from fpo_mlx.kernels.packed_attention import RowCache, RowPositions
from fpo_mlx.virtual_tokens import Prefixes


class PackedStep(BasePackedStep):
    """See `BasePackedStep`; the blocks' attention must be packed (`pack_attention`)."""

    ops = ops
    _head: Head

    def __init__(
        self,
        model: nn.Module,
        layers: int,
        taps: list[Tap],
        features: Features | None,
        config: StepConfig,
        mlps: FusedMlps,
        prefixes: Prefixes,
    ) -> None:
        pool = functools.partial(pooled_features, config.logits_budget)
        super().__init__(Head(model, config.logits_budget), taps, features, pool)
        self._model, self._layers, self._mlps, self._prefixes = model, layers, mlps, prefixes
        self._positions = RowPositions(model)
        self.vocab = self._head.vocab
        self._mask_axes = 1

    def variants(self) -> Iterator[Self]:
        """This step with either shape of mask: models that group queries in an axis of their own
        want two axes for heads.
        """
        for self._mask_axes in (1, 2):
            yield self

    def on(self) -> AbstractContextManager[None]:
        """See `BasePackedStep`."""
        return self._mlps.on()

    def _run(self, row: Row) -> mx.array:
        tokens = mx.array(row.tokens)[None]
        cache = RowCache(row, self._mask_axes, self._prefixes.of)
        caches = [cache] * self._layers
        with self._positions.of(row):
            return self._head.states(lambda: self._model(tokens, cache=caches))

    def _gather(self, x: mx.array, index: mx.array) -> mx.array:
        return x[index]

    def _terms(self, *args: Any, **options: Any) -> TokenTerms:
        return self._head.terms(*args, **options)
