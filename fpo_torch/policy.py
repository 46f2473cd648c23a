"""The policy on torch: a transformers model, run and differentiated; LoRA through PEFT."""

import contextlib
import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fpo_core.backend.base_policy import BasePolicy, Loss, ResultT, ScoresT
from fpo_core.backend.parts import Setup
from fpo_core.backend.policy import OnTokens, Sampling
from fpo_core.backend.process_group import Group
from fpo_core.config import OptimiserConfig
from fpo_core.data.batches import Batch
from fpo_core.io.shards import Shard
from fpo_torch import device, ops
from fpo_torch.generate import generate
from fpo_torch.guided import ValueReader
from fpo_torch.hooks import Tap
from fpo_torch.kernels.head import Head
from fpo_torch.models import (
    empty_model,
    final_norm,
    find_blocks,
    load_model,
    placed,
    quantisation_of,
    save_configuration,
    save_model,
)
from fpo_torch.optimizer import Optimizer
from fpo_torch.packed_step import PackedStep
from fpo_torch.sharded.head import ShardedHead
from fpo_torch.sharded.model import Sharding
from fpo_torch.sharded.trainable import ShardedOptimizer, ShardedTrainable
from fpo_torch.trainable import Trainable, adapted, select_trainable, to_numpy
from fpo_torch.virtual_tokens import VirtualPasses, add_virtual_tokens

_SAME_IN_TRAINING = {nn.Linear, nn.Embedding, nn.Identity, nn.ModuleDict, nn.ModuleList}
"""Modules, most of an adapted model's, that no switch to training changes."""


class TorchPolicy(BasePolicy):
    """`fpo_core.backend.policy.Policy` on a transformers model."""

    ops, devices = ops, device
    device: torch.device
    dtype: torch.dtype
    _trainable: Trainable

    def _build(self, setup: Setup) -> Iterable[PackedStep]:
        # Full training in bfloat16 computes by autocast on its float32 weights.
        self._autocast = setup.float32_weights and self.dtype != torch.float32
        precision = torch.float32 if setup.float32_weights else self.dtype
        if setup.shard is None:
            self.base = placed(load_model(setup.folder, setup.model, precision), self.device)
        else:
            self.base = empty_model(setup.folder, setup.model, precision)
        self.seed(setup.model.seed)
        path, stack = find_blocks(self.base)
        self._norm = final_norm(self.base, path)
        self._taps = [Tap(stack[hook.layer], hook.site) for hook in setup.hooks]
        like = torch.empty(0, device=self.device)
        self._features = setup.features and setup.features.to(ops, like)
        parameters = sum(weight.numel() for weight in self.base.parameters())
        if setup.grad_checkpoint:
            self._checkpoint_blocks(stack)
        self._sharding: Sharding | None = None
        if setup.adapter.virtual:
            self.model, self._trainable = self.base, add_virtual_tokens(self.base, setup)
        else:
            self.model = adapted(self.base, setup.adapter)
            kind: Callable[..., Trainable] = Trainable
            if setup.shard is not None:
                self._sharding = Sharding(self.base, (*stack, self._norm), self.device, setup)
                kind = functools.partial(ShardedTrainable, self._sharding)
            self._trainable = select_trainable(
                self.model, setup.adapter, stack, setup.model.seed, kind
            )
        self._passes = VirtualPasses(self.base, self._trainable, setup)
        hidden_size = self.base.config.get_text_config().hidden_size
        for name, rows in setup.heads.items():
            self._trainable.add_head(name, rows, hidden_size)
        self.info = self._describe(
            "torch",
            quantisation=quantisation_of(self.base),
            layers=len(stack),
            hidden_size=hidden_size,
            parameters=parameters,
            sharded=self._sharding is not None,
        )
        self.model.eval()
        modules = (m for m in self.model.modules() if type(m) not in _SAME_IN_TRAINING)
        self._modules = [vars(module) for module in modules]
        self._body = self.base.get_submodule(path.rpartition(".")[0])
        if setup.step.plain:
            return ()
        head: Callable[..., Head] = Head
        if self._sharding is not None:
            head = functools.partial(ShardedHead, self._sharding.vocabulary)
        step = PackedStep(
            self.base, path, self._taps, self._features, setup.step, self._precision, head
        )
        step.prefix = self._passes.prefix
        return (step,)

    def _within_model(self, call: Callable[[], ResultT]) -> ResultT:
        return call() if self._sharding is None else self._sharding.run(call)

    def _checkpoint_blocks(self, stack: Any) -> None:
        # transformers 5.23 renamed it; the old name goes in 6.
        enable = getattr(self.base, "activation_checkpointing_enable", None)
        (enable or self.base.gradient_checkpointing_enable)({"use_reentrant": False})
        self.base.enable_input_require_grads()
        # The last block's backward pass comes at once: recomputing it would save nothing.
        stack[-1].gradient_checkpointing = False

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)

    def _inputs(self, tokens: np.ndarray) -> dict[str, Any]:
        ids = torch.from_numpy(tokens).long().to(self.device)
        return {"input_ids": ids, "use_cache": False, **self._passes.options(ids)}

    def _predict(self, batch: Batch, start: int) -> Tensor:
        columns = torch.arange(start - 1, batch.width - 1, device=self.device)
        with self._precision():
            # Not by the model's hooks: those of a sharded one are at work already.
            inputs = self._inputs(batch.tokens)
            return self.model.forward(**inputs, logits_to_keep=columns).logits

    def _final_states(self, batch: Batch) -> Tensor:
        with self._precision():
            return self._body(**self._inputs(batch.tokens)).last_hidden_state

    def _inference(self) -> AbstractContextManager[Any]:
        return torch.no_grad()

    def _set_training(self, on: bool) -> None:
        # Not `nn.Module.train`, whose search for modules costs a tenth of a step on a GPU.
        for attributes in self._modules:
            attributes["training"] = on

    def _to_numpy(self, scores: ScoresT) -> ScoresT:
        return scores.map(to_numpy)

    def _on_host(self, array: Tensor) -> np.ndarray:
        return to_numpy(array)

    def _differentiate(self, loss: Loss[ScoresT]) -> ScoresT:
        total, scores = self._within_model(loss)
        with self._sharding.watching() if self._sharding else contextlib.nullcontext():
            total.backward()
        return scores.map(Tensor.detach)

    def _make_optimizer(self, config: OptimiserConfig, group: Group) -> Optimizer:
        if isinstance(self._trainable, ShardedTrainable):
            return ShardedOptimizer(self._trainable, config)
        return Optimizer(self._trainable, config, group)

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        return to_numpy(self.model.forward(**self._inputs(tokens)).logits)

    def _unembed(self, states: np.ndarray) -> Tensor:
        head: Any = self.base.get_output_embeddings()
        h = torch.from_numpy(states).to(self.device, head.weight.dtype)
        with self._precision():
            return head(h if self._norm is None else self._norm(h))

    def _generate(
        self,
        prompts: list[np.ndarray],
        sampling: Sampling,
        draws: np.ndarray,
        on_tokens: OnTokens | None,
    ) -> list[np.ndarray]:
        guide, body, options = sampling.guide, self._body, self._passes.options

        def readers(mask: Tensor) -> list[ValueReader]:
            placed = () if guide is None else map(self._placed, guide.values)
            return [ValueReader(body, *parts, mask) for parts in placed]

        return generate(
            self.model, prompts, sampling, draws, self.device, on_tokens, options, readers
        )

    def save_model(self, folder: Path) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        (save_model if self._sharding is None else save_configuration)(self.base, folder)

    def model_shards(self) -> dict[str, Shard]:
        """See `fpo_core.backend.policy.Policy`."""
        return super().model_shards() if self._sharding is None else self._sharding.shards()
