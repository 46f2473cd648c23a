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
    lengths: Int64s | Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
    prompts: Int64s | None = None,
) -> list[Int64s]:
    """One epoch's batches of row positions: every row once, `batch_size` pairs each.

    Rows are shuffled, sorted by length within windows of 64 batches to pad little, and cut into
    batches, which are shuffled in turn. A remainder makes one smaller batch, which comes last.

    With the number of each row's prompt, `prompts` (n,), rows with the same prompt stay together,
    but where a batch is full: prompts are shuffled, and sorted by the longest of their rows.
    """
    lengths = np.asarray(lengths)
    # NumPy guarantees only the raw stream of a bit generator across versions, so the permutation
    # is an argsort of raw integers.
    bits = np.random.PCG64([seed, epoch])
    order = _shuffled(bits, len(lengths))
    places = np.zeros(len(lengths), np.int64)
    if prompts is not None:
        places = np.argsort(_shuffled(bits, int(prompts.max()) + 1))[prompts]
        order = order[np.argsort(places[order], kind="stable")]
        lengths = _longest(lengths, prompts)
    window = batch_size * _BATCHES_PER_WINDOW
    full: list[Int64s] = []
    remainder: list[Int64s] = []
    for at in range(0, len(order), window):
        rows = order[at : at + window]
        rows = rows[np.lexsort((places[rows], lengths[rows]))]
        for cut in range(0, len(rows), batch_size):
            batch = rows[cut : cut + batch_size]
            (full if len(batch) == batch_size else remainder).append(batch)
    return [full[i] for i in _shuffled(bits, len(full))] + remainder


def _shuffled(bits: np.random.PCG64, count: int) -> Int64s:
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)


def _longest(lengths: Int64s, prompts: Int64s) -> Int64s:
    """For each row, the length of the longest with its prompt: (n,), (n,) -> (n,)."""
    longest = np.zeros(int(prompts.max(initial=-1)) + 1, np.int64)
    np.maximum.at(longest, prompts, lengths)
    return longest[prompts]


class BatchPlan:
    """The training order over all epochs with random access; one epoch is in memory at a time."""

    def __init__(
        self,
        lengths: Int64s | Sequence[int],
        batch_size: int,
        seed: int,
        prompts: Int64s | None = None,
    ) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._prompts = prompts
        self._epoch = -1
        self._batches: list[Int64s] = []

    @property
    def batches_per_epoch(self) -> int:
        """Batches in each epoch, the smaller last one included."""
        return -(-len(self._lengths) // self._batch_size)

    def batch(self, epoch: int, index: int) -> Int64s:
        """Row positions of batch `index` of `epoch`, both from 0: (≤ batch_size,)."""
        if epoch != self._epoch:
            self._batches = epoch_batches(
                self._lengths, self._batch_size, self._seed, epoch, self._prompts
            )
            self._epoch = epoch
        return self._batches[index]

    def __getitem__(self, position: int) -> Int64s:
        """Row positions of the batch at `position`, counted from 0 over all epochs."""
        return self.batch(*divmod(position, self.batches_per_epoch))


def scoring_batches(
    lengths: Int64s | Sequence[int], tokens_per_batch: int, prompts: Int64s | None = None
) -> list[Int64s]:
    """Batches for a pass without gradients: every row once, longest first.

    A batch holds pairs of one width bucket, as many as fit 2 × pairs × width within
    `tokens_per_batch`, at least one. Each width then has at most two shapes, and the pass runs out
    of memory at its start or not at all.

    With the number of each row's prompt, `prompts` (n,) from 0 as they appear, rows with the same
    prompt stay together, in the place and the bucket of the longest of them.
    """
    lengths = np.asarray(lengths)
    if prompts is not None:
        lengths = _longest(lengths, prompts)
    ties = np.zeros(len(lengths), np.int64) if prompts is None else prompts
    order = np.lexsort((ties, -lengths)).astype(np.int64)
    widths = np.array([bucket_width(int(n)) for n in lengths[order]], np.int64)
    batches: list[Int64s] = []
    for width in sorted(set(widths.tolist()), reverse=True):
        rows = order[widths == width]
        size = max(1, tokens_per_batch // (2 * width))
        batches += [rows[at : at + size] for at in range(0, len(rows), size)]
    return batches
