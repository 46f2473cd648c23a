"""The policy on torch: scoring, the differentiated step, and what is trained."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fpo_core.adapters import check_weights
from fpo_core.config import AdapterConfig, ModelConfig, ObjectiveConfig, OptimiserConfig
from fpo_core.data.batches import Batch
from fpo_core.objectives import fpo_terms, preference_loss
from fpo_core.policy import FeatureTap, PolicyInfo, Sampling
from fpo_core.scores import Scores
from fpo_core.scoring import Outputs, ReferenceBatch, Targets, score
from fpo_torch import device as devices
from fpo_torch import ops
from fpo_torch.generate import generate
from fpo_torch.hooks import Tap
from fpo_torch.lora import add_lora, lora_weights
from fpo_torch.models import find_blocks, load_model


class TorchPolicy:
    """`fpo_core.policy.Policy` on a transformers model; LoRA through PEFT."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        adapter: AdapterConfig,
        features: FeatureTap | None = None,
        *,
        grad_checkpoint: bool = False,
    ) -> None:
        self.device = devices.select_device(model)
        self.dtype = devices.select_dtype(model, self.device)
        full = adapter.fine_tune_type == "full"
        # Trained weights stay float32; full training computes in bfloat16 through autocast.
        self._autocast = full and self.dtype != torch.float32
        base = load_model(folder, model, torch.float32 if full else self.dtype).to(self.device)
        torch.manual_seed(model.seed)
        self._stack_path, stack = find_blocks(base)
        self._features = features
        self._tap = (
            None if features is None else Tap(stack[features.hook.layer], features.hook.site)
        )
        self._sae = None if features is None else features.sae.to(ops, _probe(self.device))
        if grad_checkpoint:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        blocks = list(range(len(stack)))[0 if adapter.num_layers < 0 else -adapter.num_layers :]
        if full:
            self.model: nn.Module = base
            self._trained = _unfreeze(base, self._stack_path, blocks, adapter.num_layers < 0)
        else:
            self.model = add_lora(base, adapter, blocks, model.seed)
            self._trained = dict(lora_weights(self.model))
        self.base, self._stack = base, stack
        self._reference: dict[str, Tensor] | None = None
        self._optimiser: torch.optim.AdamW | None = None
        self.info = self._describe(len(stack))
        self.model.eval()

    def _describe(self, layers: int) -> PolicyInfo:
        trained = sum(weight.numel() for weight in self._trained.values())
        return PolicyInfo(
            backend="torch",
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            quantisation=None,
            layers=layers,
            hidden_size=self.base.config.get_text_config().hidden_size,
            parameters=sum(weight.numel() for weight in self.base.parameters()),
            trained_parameters=trained,
        )

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
        """See `fpo_core.policy.Policy`."""
        reference_logits = None
        if kl:
            with self._as_reference():
                reference_logits = self._forward(batch, Targets.of(batch, ())[1])[0]
        scores = self._score(batch, reference, objective, reference_logits, entropy)
        return _to_numpy(scores)

    def _score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        reference_logits: Tensor | None = None,
        entropy: bool = False,
    ) -> Scores:
        untrained = () if self._features is None else self._features.untrained
        targets, start = Targets.of(batch, untrained)
        logits, hidden = self._forward(batch, start)
        return score(
            ops,
            Outputs(logits, hidden, reference_logits),
            targets.astype(ops, logits),
            sae=self._sae,
            reference=None if reference is None else reference.astype(ops, logits),
            objective=objective,
            entropy=entropy,
        )

    def _forward(self, batch: Batch, start: int) -> tuple[Tensor, Tensor | None]:
        """Predictions of, and activations on, the tokens from column `start` on.

        Padding is on the right of a causal model, so it needs no attention mask.
        """
        tokens = torch.from_numpy(batch.tokens).long().to(self.device)
        keep = torch.arange(start - 1, batch.width - 1, device=self.device)

        def run() -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                return self.model(input_ids=tokens, logits_to_keep=keep, use_cache=False).logits

        if self._tap is None:
            return run(), None
        logits, hidden = self._tap.watch(run)
        return logits, hidden[:, start:]

    def accumulate(
        self, batch: Batch, reference: ReferenceBatch, objective: ObjectiveConfig, weight: float
    ) -> Scores:
        """See `fpo_core.policy.Policy`."""
        self.model.train()
        try:
            scores = self._score(batch, reference, objective)
            logps = ops.asarray(reference.logps, scores.logps)
            losses = preference_loss(ops, fpo_terms(ops, scores, logps, objective))
            (losses.sum() * weight).backward()
        finally:
            self.model.eval()
        return _to_numpy(scores)

    def prepare_training(self, config: OptimiserConfig) -> None:
        """See `fpo_core.policy.Policy`."""
        self._optimiser = torch.optim.AdamW(
            self._trained.values(), lr=0.0, weight_decay=config.weight_decay
        )

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.policy.Policy`."""
        optimiser = self._training_optimiser()
        norm = float(nn.utils.clip_grad_norm_(list(self._trained.values()), max_norm))
        if np.isfinite(norm):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            optimiser.step()
        self.drop_gradients()
        return norm

    def drop_gradients(self) -> None:
        """See `fpo_core.policy.Policy`."""
        for weight in self._trained.values():
            weight.grad = None

    def trained(self) -> dict[str, np.ndarray]:
        """See `fpo_core.policy.Policy`."""
        return {
            name: weight.detach().float().cpu().numpy().copy()
            for name, weight in self._trained.items()
        }

    @torch.no_grad()
    def load_trained(self, weights: dict[str, np.ndarray]) -> None:
        """See `fpo_core.policy.Policy`."""
        check_weights(weights, self._trained)
        for name, weight in self._trained.items():
            weight.copy_(torch.from_numpy(weights[name]))

    def optimiser_state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.policy.Policy`."""
        state = self._training_optimiser().state
        arrays: dict[str, np.ndarray] = {}
        step = 0
        for name, weight in self._trained.items():
            if weight in state:
                step = int(state[weight]["step"])
                arrays[f"{name}.m"] = state[weight]["exp_avg"].cpu().numpy().copy()
                arrays[f"{name}.v"] = state[weight]["exp_avg_sq"].cpu().numpy().copy()
        return arrays | {"step": np.array(step, np.int64)}

    def load_optimiser_state(self, state: dict[str, np.ndarray]) -> None:
        """See `fpo_core.policy.Policy`."""
        optimiser = self._training_optimiser()
        for name, weight in self._trained.items():
            if f"{name}.m" in state:
                optimiser.state[weight] = {
                    "step": torch.tensor(float(state["step"])),
                    "exp_avg": torch.from_numpy(state[f"{name}.m"]).to(weight.device),
                    "exp_avg_sq": torch.from_numpy(state[f"{name}.v"]).to(weight.device),
                }

    def set_reference(self, weights: dict[str, np.ndarray] | None) -> None:
        """See `fpo_core.policy.Policy`."""
        if weights is None:
            self._reference = None
            return
        check_weights(weights, self._trained)
        self._reference = {
            name: torch.from_numpy(weights[name]).to(self.device) for name in self._trained
        }

    def save_model(self, folder: Path) -> None:
        """See `fpo_core.policy.Policy`."""
        self.base.save_pretrained(folder, safe_serialization=True)

    @torch.no_grad()
    def generate(self, prompts: list[np.ndarray], sampling: Sampling) -> list[np.ndarray]:
        """See `fpo_core.policy.Policy`."""
        return generate(self.model, prompts, sampling, self.device)

    def peak_memory(self) -> int:
        """See `fpo_core.policy.Policy`."""
        return devices.peak_memory(self.device)

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[None]:
        if self._reference is None:
            raise RuntimeError("score(kl=True) needs set_reference first")
        mine = {name: weight.data for name, weight in self._trained.items()}
        try:
            for name, weight in self._trained.items():
                weight.data = self._reference[name]
            yield
        finally:
            for name, weight in self._trained.items():
                weight.data = mine[name]

    def _training_optimiser(self) -> torch.optim.AdamW:
        if self._optimiser is None:
            raise RuntimeError("call prepare_training first")
        return self._optimiser


def _unfreeze(
    model: nn.Module, stack: str, blocks: list[int], everything: bool
) -> dict[str, nn.Parameter]:
    """Train all weights, or those of the chosen blocks alone; the trained ones by name."""
    starts = tuple(f"{stack}.{block}." for block in blocks)
    for name, weight in model.named_parameters():
        weight.requires_grad_(everything or name.startswith(starts))
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _to_numpy(scores: Scores) -> Scores:
    return scores.map(lambda tensor: tensor.detach().float().cpu().numpy())


def _probe(device: torch.device) -> Tensor:
    return torch.empty(0, device=device)
