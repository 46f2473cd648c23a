"""The packed step on torch."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from fpo_core.backend.base_packed_step import BasePackedStep, FrozenHead
from fpo_core.config import StepConfig
from fpo_core.loss.packed import TokenTerms
from fpo_core.loss.packing import Row
from fpo_core.sae.taps import Features
from fpo_torch import ops
from fpo_torch.compiled import compiles_on
from fpo_torch.compiled_blocks import CompiledBlocks
from fpo_torch.hooks import Tap
from fpo_torch.kernels.elementwise import ElementwiseKernel
from fpo_torch.kernels.features import pooled_features
from fpo_torch.kernels.flex_row import BLOCK, FlexRow
from fpo_torch.kernels.head import Head, Precision
from fpo_torch.kernels.lora import LoraKernel
from fpo_torch.kernels.mlp import MlpKernel
from fpo_torch.kernels.packed_attention import Prefix, attention_over_runs
from fpo_torch.kernels.run_attention import RunByRun


class Kernel(Protocol):
    """Replaces the forward of some layers."""

    def on(self) -> contextlib.AbstractContextManager[None]:
        """Within, it is used; backward must lie within it too."""
        ...


class PackedStep(BasePackedStep):
    """See `BasePackedStep`."""

    ops = ops
    _head: Head

    def __init__(
        self,
        model: PreTrainedModel,
        stack_path: str,
        taps: list[Tap],
        features: Features | None,
        config: StepConfig,
        precision: Precision,
        head: Callable[..., Head] = Head,
    ) -> None:
        pool = functools.partial(pooled_features, config.logits_budget)
        super().__init__(head(model, config.logits_budget, precision), taps, features, pool)
        self.vocab = model.config.get_text_config().vocab_size
        self._model, self._precision = model, precision
        self._body = model.get_submodule(stack_path.rpartition(".")[0])
        kernels = (LoraKernel, MlpKernel, ElementwiseKernel)
        self._kernels: list[Kernel] = [kernel(model) for kernel in kernels]
        if config.compile:
            # A compiled block may lose the activation that a hook inside it stores.
            tapped = [tap.block for tap in taps if tap.inside]
            stack = model.get_submodule(stack_path).children()
            self._kernels += [CompiledBlocks(block for block in stack if block not in tapped)]
        self.prefix: Callable[[Tensor], Prefix | None] = lambda _: None
        """The prefix of a row of ids, where keys and values are trained."""
        self._flex = compiles_on(model.device)
        self._windows = {None, *_windows(model)}

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """See `BasePackedStep`."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(attention_over_runs(self._model))
            for kernel in self._kernels:
                stack.enter_context(kernel.on())
            yield

    def _run(self, row: Row) -> Tensor:
        tokens, positions = (
            ops.on_device(array, self._model.device)[None] for array in (row.tokens, row.positions)
        )
        runs = RunByRun(row.runs)
        # FlexAttention works on blocks of this many tokens: a shorter row gains nothing from it.
        if self._flex and len(row.tokens) >= BLOCK:
            runs = FlexRow(row, self._windows, tokens.device)
        prefix = self.prefix(tokens)
        options = {} if prefix is None else {"prefix": prefix}
        with self._precision():
            return self._body(
                input_ids=tokens, position_ids=positions, use_cache=False, runs=runs, **options
            ).last_hidden_state

    def _gather(self, x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(0, index)

    def _terms(
        self,
        states: Tensor,
        labels: Tensor,
        reference: FrozenHead | None,
        *,
        entropy: bool,
        differentiate: bool,
    ) -> TokenTerms:
        del differentiate  # the head reads torch's gradient mode
        return self._head.terms(states, labels, reference, entropy=entropy)


def _windows(model: nn.Module) -> set[int]:
    """The sliding windows of its blocks, in tokens."""
    windows = (getattr(module, "sliding_window", None) for module in model.modules())
    return {window for window in windows if isinstance(window, int)}
