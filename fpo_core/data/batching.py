"""The order of batches, a pure function of lengths and seed.

It uses no framework and no random state: every backend sees the same batches in the same order, and
a run resumes at any (epoch, batch). Gradient accumulation takes consecutive batches of that order.
"""

from collections.abc import Sequence

import numpy as np

from fpo_core.data.batches import bucket_width
from fpo_core.data.token_store import Int64s

_BATCHES_PER_WINDOW = 64


def epoch_batches(
    lengths: Int64s | Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[Int64s]:
    """One epoch's batches of row positions: every row once, `batch_size` pairs each.

    Rows are shuffled, sorted by length within windows of 64 batches to pad little, and cut into
    batches, which are shuffled in turn. A remainder makes one smaller batch, which comes last.
    """
    lengths = np.asarray(lengths)
    # NumPy guarantees only the raw stream of a bit generator across versions, so the permutation
    # is an argsort of raw integers.
    bits = np.random.PCG64([seed, epoch])
    order = _shuffled(bits, len(lengths))
    window = batch_size * _BATCHES_PER_WINDOW
    full: list[Int64s] = []
    remainder: list[Int64s] = []
    for at in range(0, len(order), window):
        rows = order[at : at + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        for cut in range(0, len(rows), batch_size):
            batch = rows[cut : cut + batch_size]
            (full if len(batch) == batch_size else remainder).append(batch)
    return [full[i] for i in _shuffled(bits, len(full))] + remainder


def _shuffled(bits: np.random.PCG64, count: int) -> Int64s:
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)


class BatchPlan:
    """The training order over all epochs with random access; one epoch is in memory at a time."""

    def __init__(self, lengths: Int64s | Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._batches: list[Int64s] = []

    @property
    def batches_per_epoch(self) -> int:
        """Batches in each epoch, the smaller last one included."""
        return -(-len(self._lengths) // self._batch_size)

    def batch(self, epoch: int, index: int) -> Int64s:
        """Row positions of batch `index` of `epoch`, both from 0: (≤ batch_size,)."""
        if epoch != self._epoch:
            self._batches = epoch_batches(self._lengths, self._batch_size, self._seed, epoch)
            self._epoch = epoch
        return self._batches[index]

    def __getitem__(self, position: int) -> Int64s:
        """Row positions of the batch at `position`, counted from 0 over all epochs."""
        return self.batch(*divmod(position, self.batches_per_epoch))


def scoring_batches(lengths: Int64s | Sequence[int], tokens_per_batch: int) -> list[Int64s]:
    """Batches for a pass without gradients: every row once, longest first.

    A batch holds pairs of one width bucket, as many as fit 2 × pairs × width within
    `tokens_per_batch`, at least one. Each width then has at most two shapes, and the pass runs out
    of memory at its start or not at all.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    widths = np.array([bucket_width(int(n)) for n in lengths[order]], np.int64)
    batches: list[Int64s] = []
    for width in sorted(set(widths.tolist()), reverse=True):
        rows = order[widths == width]
        size = max(1, tokens_per_batch // (2 * width))
        batches += [rows[at : at + size] for at in range(0, len(rows), size)]
    return batches
