"""Random directions of zeroth-order steps, by (seed, step, name of the weight) alone.

Philox (Salmon et al., SC 2011) is counter-based: any part of a stream is had without what comes
before it, so a direction is drawn anew wherever it is needed and a resumed run stores none. Drawn
here, in NumPy, it is the same on every framework.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

LEFT, RIGHT, ROUNDING = range(3)
"""Streams of a weight: U or z, V, and the seeds of stochastic rounding."""
_BLOCK_ELEMENTS = 2**21
"""Most elements of a weight that are computed at once."""


@dataclass(frozen=True)
class Stream:
    """Numbers that belong to a seed, a name, a number such as the step, and a kind."""

    seed: int
    name: str
    number: int
    kind: int

    def raw(self, start: int, count: int) -> np.ndarray:
        """64-bit integers `start` to `start + count`; `start` is a multiple of 4, as Philox is."""
        name = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "little")
        key = np.array([self.seed, name], np.uint64)
        counter = np.array([start // 4, 0, self.number, self.kind], np.uint64)
        # NumPy keeps the raw stream of a bit generator for ever, not that of its distributions.
        return np.random.Philox(counter=counter, key=key).random_raw(count)

    def normals(self, start: int, count: int) -> np.ndarray:
        """Standard normals `start` to `start + count`, (count,) float32 (Box and Muller, 1958)."""
        first = start // 8 * 8  # two normals an integer, four integers a block of Philox
        integers = self.raw(first // 2, -(-(start + count - first) // 2))
        # In float64, so that the last digit of a machine's log and cos is rounded away.
        radius = np.sqrt(-2 * np.log((np.right_shift(integers, 32) + 1.0) * 2.0**-32))
        angle = (integers & 0xFFFFFFFF) * (2 * np.pi * 2.0**-32)
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).astype(np.float32)
        return pairs.reshape(-1)[start - first : start - first + count]


@dataclass(frozen=True)
class LowRank:
    """The direction left rightᵀ, of rank r."""

    left: np.ndarray
    """(m, r) float32."""
    right: np.ndarray
    """(n, r) float32."""


@dataclass(frozen=True)
class Dense:
    """A direction of full rank, computed a few rows at a time."""

    rows: Callable[[int, int], np.ndarray]
    """Rows `start` to `stop`, (stop − start, n) float32."""


Direction = LowRank | Dense
"""A direction of a weight seen as the matrix of `matrix_shape`."""


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """A weight as a matrix (m, n): its leading axes as one, a vector as a row."""
    return prod(shape[:-1]), shape[-1]


def row_blocks(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """First and last row of the parts in which a matrix is moved, to hold little at once."""
    step = max(1, _BLOCK_ELEMENTS // max(1, shape[1]))
    return ((start, min(start + step, shape[0])) for start in range(0, shape[0], step))
