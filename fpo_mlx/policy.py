"""The policy on MLX: an mlx-lm model, run and differentiated."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import utils

from fpo_core.adapters.virtual_tokens import VIRTUAL_ID
from fpo_core.backend.base_policy import BasePolicy, Loss, ScoresT
from fpo_core.backend.parts import Setup
from fpo_core.backend.policy import OnTokens, Sampling
from fpo_core.backend.process_group import Group
from fpo_core.config import OptimiserConfig
from fpo_core.data.batches import Batch
from fpo_core.errors import SaeError
from fpo_mlx import device, ops
from fpo_mlx.generate import generate
from fpo_mlx.guided import ValueReader
from fpo_mlx.hooks import ColumnCut, tap_and_checkpoint
from fpo_mlx.kernels.head import find_head
from fpo_mlx.kernels.mlp import FusedMlps
from fpo_mlx.kernels.packed_attention import pack_attention
from fpo_mlx.models import (
    body_of,
    check_states,
    final_norm,
    find_blocks,
    hidden_size,
    load_model,
)
from fpo_mlx.optimizer import Optimizer
from fpo_mlx.packed_step import PackedStep
from fpo_mlx.trainable import Trainable, Weights, select_trainable
from fpo_mlx.virtual_tokens import Prefixes, add_virtual_tokens


class MlxPolicy(BasePolicy):
    """`fpo_core.backend.policy.Policy` on an mlx-lm model."""

    ops, devices = ops, device
    model: nn.Module
    _trainable: Trainable
    _optimizer: Optimizer | None

    def _build(self, setup: Setup) -> Iterable[PackedStep]:
        # Full training casts its float32 weights inside the step.
        precision = mx.float32 if setup.float32_weights else self.dtype
        loaded = load_model(setup.folder, setup.model, precision)
        self.model, self._settings = loaded.model, loaded.settings
        self.seed(setup.model.seed)
        path, stack = find_blocks(self.model)
        width = hidden_size(stack[0])
        leaves = [leaf for _, leaf in tree_flatten(self.model.parameters())]
        parameters = sum(leaf.size for leaf in leaves if isinstance(leaf, mx.array))
        self._prefixes = Prefixes(())
        if setup.adapter.virtual:
            virtual = add_virtual_tokens(self.model, stack, setup, self.dtype)
            self._trainable, self._prefixes = virtual
        else:
            self._trainable = select_trainable(
                self.model, stack, setup.adapter, setup.model.seed, self.dtype
            )
        for name, rows in setup.heads.items():
            self._trainable.add_head(name, rows, width)
        self._features = setup.features and setup.features.to(ops, mx.zeros(0))
        mlps = None
        if not setup.step.plain:
            # Before taps and checkpoints, which wrap whatever a module calls by then. Where a
            # block's attention is unknown the packed step fails when it is tried, and says so.
            with contextlib.suppress(SaeError):
                pack_attention(stack, loaded.attention and loaded.attention.windows)
            mlps = FusedMlps(self.model, width)
        self._taps = tap_and_checkpoint(stack, setup.hooks, setup.grad_checkpoint)
        body = body_of(self.model, path)
        self._body, self._cut, self._norm = body, ColumnCut(body), final_norm(body)
        quantization = self._settings.get("quantization")
        self.info = self._describe(
            "mlx",
            quantisation=None if quantization is None else json.dumps(quantization),
            layers=len(stack),
            hidden_size=width,
            parameters=parameters,
        )
        self.model.eval()
        if mlps is None:
            return ()
        options = self._taps, self._features, setup.step, mlps, self._prefixes
        packed = PackedStep(self.model, len(stack), *options)
        return packed.variants()

    def _predict(self, batch: Batch, start: int) -> mx.array:
        tokens = mx.array(batch.tokens)
        options = self._prefixes.options()
        return self._cut.during(slice(start - 1, -1), lambda: self.model(tokens, **options))

    def _final_states(self, batch: Batch) -> mx.array:
        states = self._body(mx.array(batch.tokens), **self._prefixes.options())
        return check_states(states, self.info.hidden_size)

    def _inference(self) -> AbstractContextManager[None]:
        # Full training in bfloat16 computes with casts of its float32 weights.
        return self._trainable.swapped()

    def _set_training(self, on: bool) -> None:
        self.model.train(on)

    def _to_numpy(self, scores: ScoresT) -> ScoresT:
        mx.eval(_fields(scores))
        return scores.map(self._on_host)

    def _on_host(self, array: mx.array) -> np.ndarray:
        return np.array(array.astype(mx.float32))

    def _differentiate(self, loss: Loss[ScoresT]) -> ScoresT:
        kind: list[type[ScoresT]] = []

        def of_weights(weights: Weights) -> tuple[mx.array, Weights]:
            with self._trainable.swapped(self._trainable.trained(weights)):
                total, scores = loss()
            kind[:] = [type(scores)]
            # MLX passes a dictionary of arrays through, but no dataclass.
            return total, _fields(scores)

        gradient: Callable[..., tuple] = mx.value_and_grad(of_weights)
        (_, fields), gradients = gradient(self._trainable.get())
        # Evaluated without waiting, or the graph of every batch would live until the step. First
        # the gradients, whose order frees activations soonest.
        mx.async_eval(self._prepared().add_gradients(gradients))
        mx.async_eval(fields)
        return kind[0](**fields)

    def _make_optimizer(self, config: OptimiserConfig, group: Group) -> Optimizer:
        return Optimizer(self._trainable, config, group)

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        logits = self.model(mx.array(tokens), **self._prefixes.options())
        return np.array(logits.astype(mx.float32))

    def _unembed(self, states: np.ndarray) -> mx.array:
        module, method = find_head(self.model)
        h = mx.array(states).astype(self.dtype)
        return getattr(module, method)(h if self._norm is None else self._norm(h))

    def _generate(
        self,
        prompts: list[np.ndarray],
        sampling: Sampling,
        draws: np.ndarray,
        on_tokens: OnTokens | None,
    ) -> list[np.ndarray]:
        guide, model, body = sampling.guide, self.model, self._body

        def readers() -> list[ValueReader]:
            placed = () if guide is None else map(self._placed, guide.values)
            return [ValueReader(model, body, *parts) for parts in placed]

        filled = self._prefixes.filled(model)
        if filled is not None:  # the ids of virtual tokens give way to what they stand for
            prompts = [prompt[prompt < VIRTUAL_ID] for prompt in prompts]
        return generate(model, prompts, sampling, draws, on_tokens, filled, readers)

    def save_model(self, folder: Path) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        folder.mkdir(parents=True, exist_ok=True)
        utils.save_model(folder, self.model)
        utils.save_config(dict(self._settings), folder / "config.json")


def _fields(scores: Any) -> Weights:
    """The fields that are set, by name."""
    values = {f.name: getattr(scores, f.name) for f in dataclasses.fields(scores)}
    return {name: value for name, value in values.items() if value is not None}
