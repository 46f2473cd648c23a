"""The policy on MLX: scoring, the differentiated step, and what is trained."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import utils

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
from fpo_core.errors import SaeError
from fpo_core.loss.dense import ReferenceBatch, score_batch
from fpo_core.loss.objectives import needs_kl, objective_losses, reads_d
from fpo_core.loss.packed import why_plain
from fpo_core.loss.scores import Scores
from fpo_core.sae.taps import Features, capture_all
from fpo_mlx import device as devices
from fpo_mlx import ops
from fpo_mlx.generate import generate
from fpo_mlx.hooks import ColumnCut, Switch, tap_and_checkpoint
from fpo_mlx.kernels.lora import fuse_lora
from fpo_mlx.kernels.mlp import fuse_mlps
from fpo_mlx.kernels.packed_attention import pack_attention
from fpo_mlx.models import body_of, find_blocks, hidden_size, load_model
from fpo_mlx.optimizer import Optimiser
from fpo_mlx.packed_step import FastStep
from fpo_mlx.trainable import Weights, select_trained


class MlxPolicy:
    """`fpo_core.backend.policy.Policy` on an mlx-lm model."""

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
        device = devices.select_device(model)
        step = step or StepConfig()
        devices.wire_memory(self, device)
        devices.limit_cache(self, step.cache_limit)
        if step.compile:
            devices.refuse_compiling()
        self.reset_peak_memory()
        dtype = devices.select_dtype(model, device)
        full = adapter.fine_tune_type == "full"
        # Trained weights stay float32; full training casts them inside the step.
        self.model, self._settings = load_model(folder, model, mx.float32 if full else dtype)
        mx.random.seed(model.seed)
        self.stack_path, stack = find_blocks(self.model)
        size = hidden_size(stack[0])
        parameters = _count(self.model)
        self._trained = select_trained(self.model, stack, adapter, model.seed, dtype)
        self._features = features and features.to(ops, mx.zeros(0))
        self._fused = Switch()
        if not step.plain:  # within taps and checkpoints, which come around
            with contextlib.suppress(SaeError):  # without it the fast step fails, and says so
                pack_attention(stack, keep=grad_checkpoint)
            fuse_mlps(self.model, size, self._fused)
            if adapter.dropout == 0:
                fuse_lora(self.model, self._fused)
        hooks = () if features is None else features.hooks
        self._taps = tap_and_checkpoint(stack, hooks, grad_checkpoint)
        self._cut = ColumnCut(body_of(self.model, self.stack_path))
        self._reference: Weights | None = None
        self._optimiser: Optimiser | None = None
        quantisation = self._settings.get("quantization")
        self.info = PolicyInfo(
            backend="mlx",
            device=device,
            dtype=str(dtype).removeprefix("mlx.core."),
            quantisation=None if quantisation is None else json.dumps(quantisation),
            layers=len(stack),
            hidden_size=size,
            parameters=parameters,
            trained_parameters=sum(weight.size for weight in self._trained.get().values()),
        )
        self.model.eval()
        self._fast: FastStep | None = None
        if not step.plain:
            self._try_fast_step(step)

    def _try_fast_step(self, config: StepConfig) -> None:
        """Take the fast step, unless it says something else of this model than the plain one."""
        fast = FastStep(self.model, self.info.layers, self._taps, self._features, config)

        def score_fast(batch: Batch) -> Scores:
            self._fast, self._fused.on = fast, True
            return self.score(batch)

        fallback = None
        for fast.mask_axes in (1, 2):
            self._fast, self._fused.on = None, False
            fallback = why_plain(self.score, score_fast, fast.vocab, self.info.dtype)
            if fallback is None:
                return
        self._fast, self._fused.on = None, False
        self.info = dataclasses.replace(self.info, fallback=fallback)

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
        with self._trained.swapped():
            scores = self._scores(batch, reference, objective, kl=kl, entropy=entropy)
            mx.eval(_fields(scores))
        return _to_numpy(scores)

    def _scores(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        *,
        kl: bool = False,
        entropy: bool = False,
        differentiate: bool = False,
    ) -> Scores:
        """Scores of a batch as MLX arrays, by the fast step where there is one."""
        kl = kl or needs_kl(objective)
        features = not differentiate or objective is None or reads_d(objective)
        if self._fast is not None:
            return self._fast.score(
                batch,
                reference,
                objective,
                at_reference=self._at_reference() if kl else None,
                entropy=entropy,
                features=features,
                differentiate=differentiate,
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

    @contextlib.contextmanager
    def _at_reference(self) -> Iterator[None]:
        """Within, the model is the reference, without dropout."""
        if self._reference is None:
            raise RuntimeError("KL needs set_reference first")
        training = self.model.training
        self.model.eval()
        try:
            with self._trained.swapped(self._reference):
                yield
        finally:
            self.model.train(training)

    def _reference_forward(self, batch: Batch, start: int) -> tuple[mx.array, tuple[()]]:
        with self._at_reference():
            logits, _ = self._forward(batch, start)
            mx.eval(logits)
        return logits, ()

    def _forward(self, batch: Batch, start: int) -> tuple[mx.array, tuple[mx.array, ...]]:
        """Predictions of, and activations on, the tokens from column `start` on.

        Padding is on the right of a causal model, so it needs no attention mask.
        """
        tokens = mx.array(batch.tokens)

        def run() -> mx.array:
            return self._cut.during(slice(start - 1, -1), lambda: self.model(tokens))

        logits, hidden = capture_all(self._taps, run)
        return logits, tuple(h[:, start:] for h in hidden)

    def seed(self, number: int) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        mx.random.seed(number)

    def accumulate(
        self, batch: Batch, reference: ReferenceBatch, objective: ObjectiveConfig, weight: float
    ) -> Scores:
        """See `fpo_core.backend.policy.Policy`."""

        def loss(weights: Weights) -> tuple[mx.array, Weights]:
            with self._trained.swapped(weights):
                scores = self._scores(batch, reference, objective, differentiate=True)
            logps = ops.asarray(reference.logps, scores.logps)
            losses = objective_losses(ops, scores, logps, objective)
            return losses.sum() * weight, _fields(scores)

        self.model.train()
        try:
            (_, fields), gradients = mx.value_and_grad(loss)(self._trained.get())
        finally:
            self.model.eval()
        self._training().add_gradients(gradients)
        mx.eval(fields)
        return _to_numpy(Scores(**fields))

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
        return self._trained.to_canonical(self._trained.get())

    def load_trained(self, weights: dict[str, np.ndarray]) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._trained.put(self._trained.from_canonical(weights))

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
        folder.mkdir(parents=True, exist_ok=True)
        utils.save_model(folder, self.model)
        utils.save_config(dict(self._settings), folder / "config.json")

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """See `fpo_core.backend.policy.Policy`."""
        with self._trained.swapped():
            return np.array(self.model(mx.array(tokens)).astype(mx.float32))

    def generate(self, prompts: list[np.ndarray], sampling: Sampling) -> list[np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        with self._trained.swapped():
            return generate(self.model, prompts, sampling)

    def memory_limit(self) -> int | None:
        """See `fpo_core.backend.policy.Policy`."""
        return devices.memory_limit(self.info.device)

    def peak_memory(self) -> int:
        """See `fpo_core.backend.policy.Policy`."""
        return mx.get_peak_memory()

    def reset_peak_memory(self) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        mx.clear_cache()
        mx.reset_peak_memory()

    def memory_in_use(self) -> dict[str, int]:
        """See `fpo_core.backend.policy.Policy`."""
        return {"active_memory": mx.get_active_memory(), "cache_memory": mx.get_cache_memory()}

    def _training(self) -> Optimiser:
        if self._optimiser is None:
            raise RuntimeError("call prepare_training first")
        return self._optimiser


def _count(model: nn.Module) -> int:
    leaves = (weight for _, weight in tree_flatten(model.parameters()))
    return sum(weight.size for weight in leaves if isinstance(weight, mx.array))


def _fields(scores: Scores) -> Weights:
    """The given fields as a dictionary, which MLX can differentiate past and evaluate."""
    values = {f.name: getattr(scores, f.name) for f in dataclasses.fields(scores)}
    return {name: value for name, value in values.items() if value is not None}


def _to_numpy(scores: Scores) -> Scores:
    return scores.map(lambda array: np.array(array.astype(mx.float32)))
