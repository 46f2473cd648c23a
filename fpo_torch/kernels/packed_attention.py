"""How the layout of a packed row reaches the attention of every transformers model.

A batch runs as one row (`fpo_core.loss.packing.Row`): prompt, chosen, rejected, next prompt and so
on, each prompt once. To a model it is one sequence with position ids, which restart; only attention
must know that a completion sees its prompt and itself and nothing else.

transformers looks its attention function up by a name in the model's config, and hands it every
keyword of the forward call that it does not know itself. So the packed step registers one function,
sets its name for the length of a `with`, and passes `runs=`, an `Attention` that knows the row.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "fpo_runs"
_IGNORED = {"position_ids", "cache_position"}
"""Tensors that models hand to attention functions, none of which needs them."""


@dataclass(frozen=True)
class Settings:
    """How a block attends."""

    scaling: float | None
    """Factor on the scores; None for 1 / √d."""
    window: int | None
    """Tokens seen, up to and including itself; None for all."""
    softcap: float | None
    """Scores s become softcap · tanh(s / softcap) before the softmax."""
    groups: int
    """Query heads for each head of keys and values."""


Attention = Callable[[Tensor, Tensor, Tensor, Settings], Tensor]
"""(1, h, t, d) queries, (1, g, t, d) keys and values -> (1, h, t, d), for the row it was made for.

`run_attention.RunByRun`, `flex_row.FlexRow`.
"""


class Prefix(Protocol):
    """Trained keys and values of virtual tokens (`fpo_torch.virtual_tokens`)."""

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (1, g, t, d) of a block, with the trained ones at virtual tokens."""
        ...


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
    prefix: Prefix | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, heads, t, d) each -> (1, t, heads, d), with the signature of transformers' own.

    Raises NotImplementedError on dropout or on a tensor it does not know, such as an attention
    bias: the packed step then gives way to the plain one.
    """
    del attention_mask
    if prefix is not None:
        key, value = prefix.put(int(module.layer_idx), key, value)  # pyright: ignore[reportArgumentType]
    unknown = {name for name, value in others.items() if isinstance(value, Tensor)} - _IGNORED
    if dropout or unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'dropout'}")
    settings = Settings(scaling, sliding_window, softcap, query.shape[1] // key.shape[1])
    return runs(query, key, value, settings).transpose(1, 2), None


AttentionInterface.register(NAME, _attend)
