"""Attention over a whole row in one kernel, on GPUs: FlexAttention skips what nobody sees."""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from fpo_core.packing import Row
from fpo_torch.packed_attention import Settings

BLOCK = 128
"""Tokens that a kernel takes at once: shorter rows are better off without it."""


class FlexRow:
    """`Attention` of a row whose blocks have these windows."""

    def __init__(self, row: Row, windows: Iterable[int | None], device: torch.device) -> None:
        run, part = row.members()
        members = (torch.from_numpy(each).int().to(device) for each in (run, part, row.positions))
        self._run, self._part, self._position = members
        self._masks = {window: self._mask(window) for window in windows}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.packed_attention.Attention`."""
        softcap = settings.softcap or 1.0

        def bend(score: Tensor, *place: Tensor) -> Tensor:
            return torch.tanh(score / softcap) * softcap

        # Within a block that is compiled whole it is one of its kernels.
        attend = flex_attention if torch.compiler.is_compiling() else _compiled()
        return attend(
            query,
            key,
            value,
            score_mod=None if settings.softcap is None else bend,
            block_mask=self._masks[settings.window],
            scale=settings.scaling,
            enable_gqa=settings.groups > 1,
        )

    def _mask(self, window: int | None) -> BlockMask:
        """A prompt sees itself, a completion its prompt and itself, both back to the window."""
        run, part, position = self._run, self._part, self._position
        first = torch.full_like(position, -1) if window is None else position - window

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            del batch, head
            own = (part[key] == 0) | (part[key] == part[query])
            before = (position[key] <= position[query]) & (position[key] > first[query])
            return (run[key] == run[query]) & own & before

        count = len(position)
        return create_block_mask(sees, None, None, count, count, device=str(position.device))


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention)
