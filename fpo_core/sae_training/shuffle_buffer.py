"""A bounded buffer that mixes the activations of many texts, so that a batch is of many.

It fills up, serves half of what it holds in random order, and fills up again. What fits whole is
read once and served in a new order each time. The order depends on the seed and on how often it
was filled alone, so a run goes on from the contents and three numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fpo_core.errors import DataError
from fpo_core.sae.explained_variance import OUTLIER
from fpo_core.sae_training.learner import Scaling
from fpo_core.sae_training.stream import BF16, Block

_SAMPLE, _SAMPLE_BYTES = 100_000, 256 << 20
"""Tokens of the first filling that scaling and the bound on norms are taken from, at most."""
_PIECE = 8192


class ShuffleBuffer:
    """Batches of activations from a stream of blocks."""

    def __init__(
        self,
        counts: Sequence[int],
        read: Callable[[Sequence[int]], list[Block]],
        widths: Sequence[int],
        *,
        capacity: int,
        seed: int,
        at_once: int = 1,
        on_block: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """`counts` are the tokens of each block, `read` reads at most `at_once` of them.

        `capacity` is in tokens; it is raised to what two of the largest blocks take. `on_block`
        hears how many tokens of a filling are there.
        """
        self._counts, self._read, self._at_once = counts, read, at_once
        self._seed, self._on_block = seed, on_block
        self.resident = sum(counts) <= capacity
        """Whether all blocks fit, so that each is read once."""
        size = sum(counts) if self.resident else max(capacity, 2 * max(counts))
        self.arrays = [np.zeros((size, width), BF16) for width in widths]
        self.order = np.zeros(0, np.int64)
        """Slots that are filled, in the order in which they are served."""
        self.position = self.fills = self.passes = self.next_block = 0
        self.scalings: list[Scaling] = []

    @property
    def size(self) -> int:
        """Tokens that it can hold."""
        return len(self.arrays[0])

    def batch(self, tokens: int) -> list[np.ndarray]:
        """The next activations of each hook, (tokens, d_in) in float32; all see the same tokens."""
        reserve = 0 if self.resident else self.size // 2
        if self.position + tokens > len(self.order) - reserve:
            self.fill()
        slots = self.order[self.position : self.position + tokens]
        self.position += tokens
        return [array[slots].astype(np.float32) for array in self.arrays]

    def fill(self) -> None:
        """Read as many blocks as fit, and put all that waits in a new order."""
        rng = np.random.default_rng((self._seed, self.fills))
        waiting = self.order[self.position :]
        if not self.resident or not self.fills:
            free = np.setdiff1d(np.arange(self.size), waiting)
            waiting = np.concatenate([waiting, self._read_into(free)])
        else:
            waiting = self.order
        if not len(waiting):
            raise DataError("no token is left to train on: give longer texts")
        self.order, self.position = rng.permutation(waiting), 0
        self.fills += 1

    def _read_into(self, free: np.ndarray) -> np.ndarray:
        """Fill free slots with as many blocks as fit; the slots that hold tokens to train on."""
        taken, filled = 0, []
        numbers = self._next_blocks(len(free))
        total = sum(self._counts[number] for number in numbers)
        for at in range(0, len(numbers), self._at_once):
            for block in self._read(numbers[at : at + self._at_once]):
                slots = free[taken : taken + len(block[0])]
                for array, rows in zip(self.arrays, block, strict=True):
                    array[slots] = rows
                taken += len(slots)
                filled.append(slots)
            self._on_block(taken, total)
        slots = np.concatenate([np.zeros(0, np.int64), *filled])
        if not self.scalings:
            self.scalings = [scaling_of(array, slots) for array in self.arrays]
        norms = [self._norms(array, slots) for array in self.arrays]
        limits = [scaling.limit for scaling in self.scalings]
        inside = np.all([n <= limit for n, limit in zip(norms, limits, strict=True)], axis=0)
        return slots[inside]

    def _next_blocks(self, room: int) -> list[int]:
        """As many blocks as there is room for, in tokens, in an order that each pass has anew."""
        numbers: list[int] = []
        while True:
            rng = np.random.default_rng((self._seed, 1, self.passes))
            number = int(rng.permutation(len(self._counts))[self.next_block])
            if self._counts[number] > room:
                return numbers
            numbers.append(number)
            room -= self._counts[number]
            self.next_block += 1
            if self.next_block == len(self._counts):
                self.passes, self.next_block = self.passes + 1, 0
                if self.resident:
                    return numbers

    @staticmethod
    def _norms(array: np.ndarray, slots: np.ndarray) -> np.ndarray:
        pieces = [slots[at : at + _PIECE] for at in range(0, len(slots), _PIECE)]
        norms = [np.linalg.norm(array[piece].astype(np.float32), axis=1) for piece in pieces]
        return np.concatenate([np.zeros(0, np.float32), *norms])

    def numbers(self) -> dict[str, Any]:
        """Where it stands, besides `arrays` and `order`, as JSON values."""
        names = ("position", "fills", "passes", "next_block")
        scalings = [{"factor": s.factor, "limit": s.limit} for s in self.scalings]
        return {name: getattr(self, name) for name in names} | {"scalings": scalings}

    def restore(
        self,
        numbers: Mapping[str, Any],
        arrays: Sequence[np.ndarray],
        order: np.ndarray,
        centres: Sequence[np.ndarray],
    ) -> None:
        """Go on from where it stood."""
        for name in ("position", "fills", "passes", "next_block"):
            setattr(self, name, int(numbers[name]))
        self.order = order
        for array, stored in zip(self.arrays, arrays, strict=True):
            array[:] = stored
        self.scalings = [
            Scaling(centre, scaling["factor"], scaling["limit"])
            for centre, scaling in zip(centres, numbers["scalings"], strict=True)
        ]


def scaling_of(array: np.ndarray, slots: np.ndarray) -> Scaling:
    """Centre, factor and bound on norms from the first tokens of a filling."""
    count = min(_SAMPLE, _SAMPLE_BYTES // (4 * array.shape[1]))
    sample = array[slots[:count]].astype(np.float32)
    if not len(sample):
        raise DataError("no token can be read of these texts: give longer ones")
    norms = np.linalg.norm(sample, axis=1)
    limit = OUTLIER * float(np.median(norms))
    inliers = sample[norms <= limit]
    centre = inliers.mean(0, dtype=np.float64).astype(np.float32)
    mean_norm = float(np.linalg.norm(inliers - centre, axis=1).mean(dtype=np.float64))
    return Scaling(centre, array.shape[1] ** 0.5 / max(mean_norm, 1e-12), limit)
