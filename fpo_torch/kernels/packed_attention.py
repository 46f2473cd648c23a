"""Attention over one row of runs: completions see their prompt and themselves, nothing else."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "fpo_runs"
_IGNORED = {"position_ids", "cache_position"}
"""Tensors that models hand to attention functions which need none of them."""


@dataclass(frozen=True)
class Settings:
    """How a block attends."""

    scaling: float | None
    """Factor on the scores; None for 1 / √d."""
    window: int | None
    """Tokens seen, up to and including itself; None for all."""
    softcap: float | None
    """Scores are bent into ± this before the softmax."""
    groups: int
    """Query heads for each head of keys and values."""


Attention = Callable[[Tensor, Tensor, Tensor, Settings], Tensor]
"""(1, h, t, d) queries, (1, g, t, d) keys and values -> (1, h, t, d), knowing the row's layout."""


@contextlib.contextmanager
def attention_over_runs(model: PreTrainedModel) -> Iterator[None]:
    """Within, forward and backward passes take `runs`, an `Attention` over their one row.

    transformers makes no mask for an attention function that registers none.
    """
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    runs: Attention,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, heads, t, d) each -> (1, t, heads, d), as transformers' attention functions."""
    del module, attention_mask
    unknown = {name for name, value in others.items() if isinstance(value, Tensor)} - _IGNORED
    if dropout or unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'dropout'}")
    settings = Settings(scaling, sliding_window, softcap, query.shape[1] // key.shape[1])
    return runs(query, key, value, settings).transpose(1, 2), None


AttentionInterface.register(NAME, _attend)
