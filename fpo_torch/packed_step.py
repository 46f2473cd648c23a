"""The fast step: shared prompts run once, the head at scored tokens only, features streamed."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fpo_core.config import ObjectiveConfig, StepConfig
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.packed import score_tokens
from fpo_core.loss.packing import Row
from fpo_core.loss.scores import Scores
from fpo_core.sae.taps import Features, capture_all
from fpo_torch import ops
from fpo_torch.compiled import compiles_on
from fpo_torch.compiled_blocks import CompiledBlocks
from fpo_torch.hooks import Tap
from fpo_torch.kernels.features import pooled_features
from fpo_torch.kernels.flex_row import BLOCK, FlexRow
from fpo_torch.kernels.head import Head, Precision
from fpo_torch.kernels.lora import FusedLora
from fpo_torch.kernels.mlp import FusedMlps
from fpo_torch.kernels.norm import FusedNorms
from fpo_torch.kernels.packed_attention import attention_over_runs
from fpo_torch.kernels.rotary import FusedRotations
from fpo_torch.kernels.run_attention import RunByRun


class Fused(Protocol):
    """Swaps the forward of some layers."""

    def on(self) -> contextlib.AbstractContextManager[None]:
        """Within, they are fused; backward must lie within it too."""
        ...


class FastStep:
    """Scores and gradients of `fpo_core.loss.dense.score_batch`, with less work."""

    def __init__(
        self,
        model: PreTrainedModel,
        stack_path: str,
        taps: list[Tap],
        features: Features | None,
        config: StepConfig,
        precision: Precision,
    ) -> None:
        self._model, self._taps, self._features = model, taps, features
        self._body = model.get_submodule(stack_path.rpartition(".")[0])
        self._pool = functools.partial(pooled_features, config.logits_budget)
        self._head = Head(model, config.logits_budget, precision)
        self._precision = precision
        self._fused: list[Fused] = [
            FusedLora(model),
            FusedMlps(model),
            FusedNorms(model),
            FusedRotations(model),
        ]
        if config.compile:
            inside = [tap.inside for tap in taps]  # what a hook keeps, a compiled block may lose
            stack = model.get_submodule(stack_path).children()
            self._fused += [CompiledBlocks(block for block in stack if block not in inside)]
        self._flex = compiles_on(model.device)
        self._windows = {None, *_windows(model)}

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Holds what scoring needs of the model; backward must lie within it too."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(attention_over_runs(self._model))
            for fused in self._fused:
                stack.enter_context(fused.on())
            yield

    def score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        *,
        at_reference: contextlib.AbstractContextManager[None] | None = None,
        entropy: bool = False,
        features: bool = True,
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
        labels = self._tensor(row.scored.labels)
        terms = self._head.terms(states, labels, frozen, entropy=entropy)
        saes = self._features.saes if features and self._features is not None else ()
        tapped = list(zip(saes, activations, strict=True)) if saes else []
        return score_tokens(ops, row.scored, terms, tapped, self._pool, reference, objective)

    def _states(self, row: Row) -> tuple[Tensor, list[Tensor]]:
        """Final states that predict the scored tokens, (N, d), and activations on them."""
        tokens, positions = self._tensor(row.tokens)[None], self._tensor(row.positions)[None]

        runs = RunByRun(row.runs)
        if self._flex and len(row.tokens) >= BLOCK:
            runs = FlexRow(row, self._windows, tokens.device)

        def run() -> Tensor:
            with self._precision():
                return self._body(
                    input_ids=tokens, position_ids=positions, use_cache=False, runs=runs
                ).last_hidden_state

        states, activations = capture_all(self._taps, run)
        states = states[0].index_select(0, self._tensor(row.scored.predictors))
        places = self._tensor(row.scored.places)
        return states, [each[0].index_select(0, places) for each in activations]

    def _tensor(self, array: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)


def _windows(model: nn.Module) -> set[int]:
    """The sliding windows of its blocks."""
    found = (getattr(module, "sliding_window", None) for module in model.modules())
    return {window for window in found if isinstance(window, int)}
