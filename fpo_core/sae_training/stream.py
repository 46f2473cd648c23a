"""Activations of a frozen model, a forward batch at a time; cached on disk where asked for."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import ml_dtypes
import numpy as np

from fpo_core.arrays.ops import Array
from fpo_core.backend.process_group import ALONE, Group
from fpo_core.errors import SaeError
from fpo_core.io.atomic import write_atomically
from fpo_core.io.reader import open_safetensors
from fpo_core.io.writer import write_arrays
from fpo_core.sae.explained_variance import ActivationReader
from fpo_core.sae_training.rows import ForwardBatch

BF16 = np.dtype(ml_dtypes.bfloat16)
Block = list[np.ndarray]
"""Activations at the read tokens of one forward batch, (n, d_in) in bfloat16, of each hook."""


class ActivationStream:
    """The activations of forward batches, in any order, at the hooks of a reader.

    Several processes share the forward passes: each runs every size-th batch that is asked for.
    """

    def __init__(
        self,
        batches: Sequence[ForwardBatch],
        build: Callable[[], ActivationReader],
        widths: Sequence[int],
        group: Group = ALONE,
        cache: Path | None = None,
    ) -> None:
        """`build` makes the reader when the first batch is not in the folder `cache`; `widths` are
        d_in of its hooks.
        """
        self.batches, self.widths = batches, tuple(widths)
        self._build, self._group, self._cache = build, group, cache
        self.counts = [batch.count for batch in batches]

    @cached_property
    def reader(self) -> ActivationReader:
        """The model, loaded."""
        return self._build()

    @property
    def processes(self) -> int:
        """How many batches `read` takes at once."""
        return self._group.size

    def read(self, numbers: Sequence[int]) -> list[Block]:
        """The blocks of at most `processes` batches."""
        rank = self._group.rank
        block = self._block(numbers[rank]) if rank < len(numbers) else None
        if self._group.size == 1:
            return [] if block is None else [block]
        return self._exchange(numbers, block)

    def _exchange(self, numbers: Sequence[int], block: Block | None) -> list[Block]:
        """Every process's block, to all: a sum of tables that are 0 but for one's own."""
        sizes = [self.counts[number] for number in numbers]
        table = np.zeros((len(numbers), max(sizes), sum(self.widths)), np.float32)
        if block is not None:
            joined = np.concatenate(block, 1).astype(np.float32)
            table[self._group.rank, : len(joined)] = joined
        table = self._group.sum(table)
        cuts = np.cumsum(self.widths)[:-1]
        return [
            [part.astype(BF16) for part in np.split(rows[:size], cuts, 1)]
            for rows, size in zip(table, sizes, strict=True)
        ]

    def _block(self, number: int) -> Block:
        path = None if self._cache is None else self._cache / f"{number:06d}.safetensors"
        if path is not None and path.is_file():
            file = open_safetensors(path)
            return [file.stored(name) for name in sorted(file.entries)]
        batch = self.batches[number]
        block = [_rows(self.reader, h, batch.read) for h in self.reader.read(batch.tokens)]
        if path is not None:
            arrays = {f"hook{i:03d}": array for i, array in enumerate(block)}
            write_atomically(path, lambda temporary: write_arrays(temporary, arrays))
        return block


def _rows(reader: ActivationReader, h: Array, read: np.ndarray) -> np.ndarray:
    rows = reader.numpy(h)[read]
    if not np.isfinite(rows).all():
        raise SaeError(
            "the model's activations are not finite at the hook: load it with dtype float32"
        )
    return rows.astype(BF16)
