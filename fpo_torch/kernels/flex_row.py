"""Attention over a whole row in one kernel, on GPUs: FlexAttention skips what nobody sees."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from fpo_core.loss.packing import Row
from fpo_torch.compiled import any_length
from fpo_torch.kernels.packed_attention import Settings

BLOCK = 128
"""Tokens that a kernel takes at once: shorter rows are better off without it."""
Blocks = dict[str, Any]
"""What a `BlockMask` is made of, by its constructor's names, but for its lengths."""


class FlexRow:
    """`Attention` of a row whose blocks have these windows."""

    def __init__(self, row: Row, windows: Iterable[int | None], device: torch.device) -> None:
        run, part = row.members()
        members = (torch.from_numpy(each).int().to(device) for each in (run, part, row.positions))
        self._run, self._part, self._position = (any_length(each, 0) for each in members)
        longest = int(row.positions.max()) + 1
        whole = self._mask(None)
        self._masks = {
            window: whole if window is None or window >= longest else self._mask(window)
            for window in windows
        }

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.kernels.packed_attention.Attention`."""
        softcap = settings.softcap or 1.0

        def bend(score: Tensor, *place: Tensor) -> Tensor:
            return torch.tanh(score / softcap) * softcap

        attend = _attend  # within a block that is compiled whole, one of its kernels
        if not torch.compiler.is_compiling():
            attend = _compiled()
            for each in (query, key, value):
                any_length(each, 2)
        return attend(
            query,
            key,
            value,
            self._masks[settings.window],
            score_mod=None if settings.softcap is None else bend,
            scale=settings.scaling,
            enable_gqa=settings.groups > 1,
        )

    def _mask(self, window: int | None) -> Blocks:
        """A prompt sees itself, a completion its prompt and itself, both back to the window."""
        run, part, position = self._run, self._part, self._position
        first = torch.full_like(position, -1) if window is None else position - window
        any_length(first, 0)

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            del batch, head
            own = (part[key] == 0) | (part[key] == part[query])
            before = (position[key] <= position[query]) & (position[key] > first[query])
            return (run[key] == run[query]) & own & before

        return _blocks(sees, len(position), position.device)


def _blocks(sees: Callable[..., Tensor], count: int, device: torch.device) -> Blocks:
    """Which squares of `BLOCK` queries and keys are seen in part, and which as a whole.

    What `create_block_mask` finds by some 400 small kernels, which wait for Python.
    """
    place = torch.arange(count, device=device)
    short = -count % BLOCK
    seen = nn.functional.pad(sees(None, None, place[:, None], place), (0, short, 0, short))
    squares = len(seen) // BLOCK
    found = seen.view(squares, BLOCK, squares, BLOCK).sum((1, 3))[None, None]
    whole = found == BLOCK**2
    mask = BlockMask.from_kv_blocks(
        *_in_front((found > 0) & ~whole), *_in_front(whole), BLOCK_SIZE=BLOCK, mask_mod=sees
    )
    blocks = {name: each for name, each in vars(mask).items() if name != "seq_lengths"}
    for each in blocks.values():
        if isinstance(each, Tensor):  # (1, 1, squares) or (1, 1, squares, squares)
            any_length(each, *range(2, each.ndim))
    return blocks


def _in_front(squares: Tensor) -> tuple[Tensor, Tensor]:
    """How many of each row are true, and the columns of these before all others."""
    columns = squares.int().argsort(dim=-1, descending=True, stable=True)
    return squares.sum(-1).int(), columns.int()


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Blocks, **how: Any) -> Any:
    # Lengths read off the tensors may be any; given as numbers they were constants.
    lengths = query.shape[2], key.shape[2]
    return flex_attention(query, key, value, block_mask=BlockMask(lengths, **mask), **how)


@functools.cache
def _compiled() -> Any:
    return torch.compile(_attend)
