"""Attention over a packed row as one FlexAttention call, on CUDA.

Shapes: queries (1, h, t, d), keys and values (1, g, t, d) of a row of t tokens -> (1, h, t, d).

The kernel cuts the t × t scores into squares of 128 by 128. A square is seen in part (`sees` is
evaluated for each score), as a whole (no mask is needed) or not at all (it is skipped). A
`BlockMask` lists, for each row of squares, the columns of the first two kinds. FlexAttention saves
for backward the queries, keys, values, output and one number per query.

It exists because `run_attention` launches a kernel for each part of the row, some 30 a block, and a
GPU is faster than the Python that launches them.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from fpo_core.loss.packing import Row
from fpo_torch.compiled import any_length
from fpo_torch.kernels.packed_attention import Settings
from fpo_torch.ops import on_device

BLOCK = 128
"""Side of a square, in tokens. Rows shorter than one are faster by `run_attention`."""
BlockMaskFields = dict[str, Any]
"""Arguments of `BlockMask` by name, without the lengths."""


class FlexRow:
    """`Attention` over a row, for blocks with any of these sliding windows."""

    def __init__(self, row: Row, windows: Iterable[int | None], device: torch.device) -> None:
        run, part = row.members()
        members = (on_device(x.astype("int32"), device) for x in (run, part, row.positions))
        self._run, self._part, self._position = (any_length(x, 0) for x in members)
        longest = int(row.positions.max()) + 1
        unlimited = self._mask(None)
        # A window at least as long as the longest sequence hides nothing: it shares that mask.
        self._masks = {
            window: unlimited if window is None or window >= longest else self._mask(window)
            for window in windows
        }

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.kernels.packed_attention.Attention`."""
        softcap = settings.softcap or 1.0

        def cap(score: Tensor, *position: Tensor) -> Tensor:
            return torch.tanh(score / softcap) * softcap

        attend = _attend  # inside a compiled block it becomes one of the block's kernels
        if not torch.compiler.is_compiling():
            attend = _compiled()
            for x in (query, key, value):
                any_length(x, 2)
        return attend(
            query,
            key,
            value,
            self._masks[settings.window],
            score_mod=None if settings.softcap is None else cap,
            scale=settings.scaling,
            enable_gqa=settings.groups > 1,
        )

    def _mask(self, window: int | None) -> BlockMaskFields:
        """A prompt sees itself, a completion its prompt and itself; both back to the window."""
        run, part, position = self._run, self._part, self._position
        # The position before the first that each token sees. A tensor even without a window, so
        # that `sees` is one code object, compiled once.
        before_window = torch.full_like(position, -1) if window is None else position - window
        any_length(before_window, 0)

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            """Whether the token at index `query` of the row attends to the one at `key`."""
            del batch, head
            # Part 0 is the prompt, visible to all of its run; other parts see only themselves.
            same_part = (part[key] == 0) | (part[key] == part[query])
            in_time = (position[key] <= position[query]) & (position[key] > before_window[query])
            return (run[key] == run[query]) & same_part & in_time

        return _block_mask(sees, len(position), position.device)


def _block_mask(sees: Callable[..., Tensor], count: int, device: torch.device) -> BlockMaskFields:
    """The block mask of a row of `count` tokens.

    torch's `create_block_mask` computes the same by some 400 small kernels, launched one by one
    from Python for every batch; this is a dozen. A row is short enough for a count × count array.
    """
    index = torch.arange(count, device=device)
    padding = -count % BLOCK
    seen = nn.functional.pad(sees(None, None, index[:, None], index), (0, padding, 0, padding))
    squares = len(seen) // BLOCK
    # (1, 1, squares, squares): pairs of tokens seen within each square.
    pairs = seen.view(squares, BLOCK, squares, BLOCK).sum((1, 3))[None, None]
    whole = pairs == BLOCK**2
    mask = BlockMask.from_kv_blocks(
        *_listed((pairs > 0) & ~whole), *_listed(whole), BLOCK_SIZE=BLOCK, mask_mod=sees
    )
    fields = {name: value for name, value in vars(mask).items() if name != "seq_lengths"}
    for value in fields.values():
        if isinstance(value, Tensor):  # (1, 1, squares) or (1, 1, squares, squares)
            any_length(value, *range(2, value.ndim))
    return fields


def _listed(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of (1, 1, s, s) booleans: how many are true, and all columns, true ones first."""
    columns = squares.int().argsort(dim=-1, descending=True, stable=True)
    return squares.sum(-1).int(), columns.int()


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMaskFields, **options: Any
) -> Any:
    # Take lengths from tensor shapes, so that dynamo keeps them symbolic. A BlockMask made outside
    # would bring them as plain integers, and a compilation for each.
    lengths = query.shape[2], key.shape[2]
    return flex_attention(query, key, value, block_mask=BlockMask(lengths, **mask), **options)


@functools.cache
def _compiled() -> Any:
    return torch.compile(_attend)
