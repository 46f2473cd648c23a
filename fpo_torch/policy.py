"""The policy on torch: scoring, the differentiated step, and what is trained."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fpo_core.backend.policy import PolicyInfo, Sampling
from fpo_core.backend.process_group import ALONE, Group
from fpo_core.config import (
    AdapterConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    StepConfig,
)
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch, score_batch
from fpo_core.loss.objectives import needs_kl, objective_losses, reads_d
from fpo_core.loss.packed import why_plain
from fpo_core.loss.scores import Scores
from fpo_core.sae.taps import Features, capture_all
from fpo_torch import device as devices
from fpo_torch import ops
from fpo_torch.generate import generate
from fpo_torch.hooks import Tap
from fpo_torch.models import find_blocks, load_model, quantisation_of, save_model
from fpo_torch.optimizer import Optimiser
from fpo_torch.packed_step import FastStep
from fpo_torch.trainable import select_trained, to_numpy


class TorchPolicy:
    """`fpo_core.backend.policy.Policy` on a transformers model; LoRA through PEFT."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        adapter: AdapterConfig,
        features: Features | None = None,
        *,
        grad_checkpoint: bool = False,
        step: StepConfig | None = None,
    ) -> None:
        self.device = devices.select_device(model)
        step = step or StepConfig()
        devices.refuse_cache_limit(step.cache_limit)
        if step.compile:
            devices.refuse_compiling(self.device)
        devices.reset_peak_memory(self.device)
        self.dtype = devices.select_dtype(model, self.device)
        full = adapter.fine_tune_type == "full"
        # Trained weights stay float32; full training computes in bfloat16 through autocast.
        self._autocast = full and self.dtype != torch.float32
        self.base = load_model(folder, model, torch.float32 if full else self.dtype)
        self.base.to(self.device)  # pyright: ignore[reportArgumentType]
        torch.manual_seed(model.seed)
        self.stack_path, stack = find_blocks(self.base)
        hooks = () if features is None else features.hooks
        self._taps = [Tap(stack[hook.layer], hook.site) for hook in hooks]
        self._features = features and features.to(ops, torch.empty(0, device=self.device))
        parameters = sum(weight.numel() for weight in self.base.parameters())
        if grad_checkpoint:
            # transformers 5.23 renamed it; the old name goes in 6.
            new = getattr(self.base, "activation_checkpointing_enable", None)
            (new or self.base.gradient_checkpointing_enable)({"use_reentrant": False})
            self.base.enable_input_require_grads()
            # Its backward pass comes at once: to forget what it needs would save nothing.
            last: Any = stack[len(stack) - 1]
            last.gradient_checkpointing = False
        self.model, self._trained = select_trained(self.base, adapter, model.seed)
        self._reference: dict[str, Tensor] | None = None
        self._optimiser: Optimiser | None = None
        self.info = PolicyInfo(
            backend="torch",
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            quantisation=quantisation_of(self.base),
            layers=len(stack),
            hidden_size=self.base.config.get_text_config().hidden_size,
            parameters=parameters,
            trained_parameters=sum(w.numel() for w in self._trained.parameters.values()),
        )
        self.model.eval()
        self._modules = list(self.model.modules())
        self._fast: FastStep | None = None
        if not step.plain:
            self._try_fast_step(step)

    def _try_fast_step(self, config: StepConfig) -> None:
        """Take the fast step, unless it says something else of this model than the plain one."""
        fast = FastStep(
            self.base, self.stack_path, self._taps, self._features, config, self._precision
        )

        def score_fast(batch: Batch) -> Scores:
            self._fast = fast
            return self.score(batch)

        vocab = self.base.config.get_text_config().vocab_size
        fallback = why_plain(self.score, score_fast, vocab, self.info.dtype)
        if fallback is not None:
            self._fast = None
            self.info = dataclasses.replace(self.info, fallback=fallback)

    @torch.no_grad()
    def score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None = None,
        objective: ObjectiveConfig | None = None,
        *,
        kl: bool = False,
        entropy: bool = False,
    ) -> Scores:
        """See `fpo_core.backend.policy.Policy`."""
        with self._stepping():
            return self._scores(batch, reference, objective, kl=kl, entropy=entropy).map(to_numpy)

    def _scores(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        *,
        kl: bool = False,
        entropy: bool = False,
        features: bool = True,
    ) -> Scores:
        """Scores of a batch as tensors, by the fast step where there is one."""
        kl = kl or needs_kl(objective)
        if self._fast is not None:
            at_reference = self._at_reference() if kl else None
            return self._fast.score(
                batch,
                reference,
                objective,
                at_reference=at_reference,
                entropy=entropy,
                features=features,
            )
        return score_batch(
            ops,
            self._forward,
            batch,
            self._features if features else None,
            reference=reference,
            objective=objective,
            reference_forward=self._reference_forward if kl else None,
            entropy=entropy,
        )

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)

    def _stepping(self) -> contextlib.AbstractContextManager[None]:
        """Scoring, and backward after it, must lie within."""
        return contextlib.nullcontext() if self._fast is None else self._fast.on()

    @contextlib.contextmanager
    def _at_reference(self) -> Iterator[None]:
        """Within, the model is the reference, without gradient or dropout."""
        if self._reference is None:
            raise RuntimeError("KL needs set_reference first")
        training = self.model.training
        self._set_training(False)
        try:
            with torch.no_grad(), self._trained.swapped(self._reference):
                yield
        finally:
            self._set_training(training)

    def _reference_forward(self, batch: Batch, start: int) -> tuple[Tensor, tuple[()]]:
        with self._at_reference():
            return self._forward(batch, start)[0], ()

    def _forward(self, batch: Batch, start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Predictions of, and activations on, the tokens from column `start` on.

        Padding is on the right of a causal model, so it needs no attention mask.
        """
        tokens = torch.from_numpy(batch.tokens).long().to(self.device)
        keep = torch.arange(start - 1, batch.width - 1, device=self.device)

        def run() -> Tensor:
            with self._precision():
                return self.model(input_ids=tokens, logits_to_keep=keep, use_cache=False).logits

        logits, hidden = capture_all(self._taps, run)
        return logits, tuple(h[:, start:] for h in hidden)

    def seed(self, number: int) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        torch.manual_seed(number)

    def accumulate(
        self, batch: Batch, reference: ReferenceBatch, objective: ObjectiveConfig, weight: float
    ) -> Scores:
        """See `fpo_core.backend.policy.Policy`."""
        self._set_training(True)
        try:
            with self._stepping():
                scores = self._scores(batch, reference, objective, features=reads_d(objective))
                logps = ops.asarray(reference.logps, scores.logps)
                losses = objective_losses(ops, scores, logps, objective)
                (losses.sum() * weight).backward()
        finally:
            self._set_training(False)
        return scores.map(to_numpy)

    def _set_training(self, on: bool) -> None:
        """As `nn.Module.train`, whose search for modules costs a tenth of a step on a GPU."""
        for module in self._modules:
            vars(module)["training"] = on

    def prepare_training(self, config: OptimiserConfig, group: Group = ALONE) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._optimiser = Optimiser(self._trained, config, group)

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.backend.policy.Policy`."""
        return self._training().step(learning_rate, max_norm)

    def drop_gradients(self) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._training().drop_gradients()

    def trained(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        return self._trained.get()

    def load_trained(self, weights: dict[str, np.ndarray]) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._trained.put(weights)

    def optimiser_state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        return self._training().state()

    def load_optimiser_state(self, state: dict[str, np.ndarray]) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._training().load_state(state)

    def set_reference(self, weights: dict[str, np.ndarray] | None) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._reference = None if weights is None else self._trained.from_canonical(weights)

    def save_model(self, folder: Path) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        save_model(self.base, folder)

    @torch.no_grad()
    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """See `fpo_core.backend.policy.Policy`."""
        ids = torch.from_numpy(tokens).long().to(self.device)
        return to_numpy(self.model(input_ids=ids, use_cache=False).logits)

    @torch.no_grad()
    def generate(self, prompts: list[np.ndarray], sampling: Sampling) -> list[np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        return generate(self.model, prompts, sampling, self.device)

    def memory_limit(self) -> int | None:
        """See `fpo_core.backend.policy.Policy`."""
        return devices.memory_limit(self.device)

    def peak_memory(self) -> int:
        """See `fpo_core.backend.policy.Policy`."""
        return devices.peak_memory(self.device)

    def reset_peak_memory(self) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        devices.reset_peak_memory(self.device)

    def memory_in_use(self) -> dict[str, int]:
        """See `fpo_core.backend.policy.Policy`."""
        return devices.memory_in_use(self.device)

    def _training(self) -> Optimiser:
        if self._optimiser is None:
            raise RuntimeError("call prepare_training first")
        return self._optimiser
