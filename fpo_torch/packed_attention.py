"""Attention over one row of runs: completions see their prompt and themselves, nothing else."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from fpo_core.packing import Run

NAME = "fpo_runs"
_IGNORED = {"position_ids", "cache_position"}
"""Tensors that models hand to attention functions which need none of them."""


@contextlib.contextmanager
def attention_over_runs(model: PreTrainedModel) -> Iterator[None]:
    """Within, forward and backward passes take `runs`, the layout of their one row.

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
    runs: Sequence[Run],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, heads, t, d) each -> (1, t, heads, d), as transformers' attention functions."""
    del attention_mask
    unknown = {name for name, value in others.items() if isinstance(value, Tensor)} - _IGNORED
    if dropout or unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'dropout'}")
    groups = query.shape[1] // key.shape[1]
    settings = _Settings(scaling, sliding_window, softcap, groups)
    # One split and one cat: a slice's backward would write the whole row each time.
    sizes = [size for run in runs for size in run.parts]
    parts = iter(zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True))
    out: list[Tensor] = []
    for run in runs:
        prompt = next(parts) if run.prompt else None
        if prompt is not None:
            out.append(settings.attend(*prompt))
        for q, k, v in itertools.islice(parts, len(run.completions)):
            if prompt is None:
                out.append(settings.attend(q, k, v))
            else:
                joined = torch.cat([prompt[1], k], 2), torch.cat([prompt[2], v], 2)
                out.append(settings.attend(q, *joined))
    return torch.cat(out, 2).transpose(1, 2), None


class _Settings:
    def __init__(
        self, scaling: float | None, window: int | None, softcap: float | None, groups: int
    ) -> None:
        self.scaling, self.window, self.softcap, self.groups = scaling, window, softcap, groups

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries are the last of the keys' tokens: (1, h, q, d), (1, g, k, d) -> (1, h, q, d)."""
        behind, ahead = query.shape[2], key.shape[2]
        windowed = self.window is not None and ahead > self.window
        if self.softcap is not None:
            return self._soft_capped(query, key, value)
        if behind == ahead and not windowed:
            return scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=self.scaling, enable_gqa=self.groups > 1
            )
        mask = self._mask(behind, ahead, query.device)
        grouped = query.device.type == "cpu"  # elsewhere groups and a mask together run slowly
        if not grouped:
            key, value = (x.repeat_interleave(self.groups, 1) for x in (key, value))
        return scaled_dot_product_attention(
            query, key, value, mask, scale=self.scaling, enable_gqa=grouped and self.groups > 1
        )

    def _mask(self, behind: int, ahead: int, device: torch.device) -> Tensor:
        keys = torch.arange(ahead, device=device)
        distance = keys[ahead - behind :, None] - keys
        seen = distance >= 0
        return seen if self.window is None else seen & (distance < self.window)

    def _soft_capped(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        assert self.softcap is not None
        assert self.scaling is not None
        key, value = (x.repeat_interleave(self.groups, 1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * self.scaling
        scores = torch.tanh(scores / self.softcap) * self.softcap
        mask = self._mask(query.shape[2], key.shape[2], query.device)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32)
        return weights.to(query.dtype) @ value


AttentionInterface.register(NAME, _attend)
