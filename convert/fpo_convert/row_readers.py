"""Arrays of a source checkpoint, read by rows so that a big one never fills the memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.io.reader import CHUNK_BYTES, WINDOW_BYTES, SafetensorsFile

_MOST_ROWS = 1024
_UNTHREADED = 1 << 18  # numbers in a matrix that OpenBLAS multiplies without threads


class Tensor(Protocol):
    """A source array; rows come as float32, or float64 where the source holds that."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        ...

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) along the first axis; of a scalar, the scalar."""
        ...


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a safetensors file."""

    file: SafetensorsFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return self.file.entries[self.name].shape

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop), read from the file."""
        return self.file.rows(self.name, start, stop)


@dataclass(frozen=True)
class ArrayTensor:
    """An array in memory or memory-mapped."""

    array: np.ndarray

    def __post_init__(self) -> None:
        if self.array.dtype not in (np.float64, np.float32, np.float16):
            raise SaeError(
                f"a weight has dtype {self.array.dtype}, expected floating point: save it as such"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return self.array.shape

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop), float16 widened."""
        part = self.array[start:stop] if self.array.ndim else self.array
        wide = np.float32 if part.dtype == np.float16 else part.dtype
        return np.asarray(part, wide, order="C")


class WholeTensor:
    """A tensor that can only be loaded whole: kept from its first row asked for until its last."""

    def __init__(self, shape: tuple[int, ...], load: Callable[[], np.ndarray]) -> None:
        self.shape = shape
        self._load = load
        self._whole: np.ndarray | None = None

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop)."""
        whole = self._load() if self._whole is None else self._whole
        last = not self.shape or stop is None or stop >= self.shape[0]
        self._whole = None if last else whole
        return ArrayTensor(whole).rows(start, stop)


def transposed(stored: Tensor) -> WholeTensor:
    """A matrix that is stored the other way round."""
    return WholeTensor(stored.shape[::-1], lambda: stored.rows().T)


def windows(tensor: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """The tensor's rows by pieces that are cheap to map, with their position."""
    length, step = tensor.shape[0], _rows(tensor, WINDOW_BYTES)
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(start, stop), tensor.rows(start, stop)


def chunks(tensor: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """The tensor's rows by smaller pieces, which stay in a cache from one step to the next."""
    step = _rows(tensor, CHUNK_BYTES)
    for window, rows in windows(tensor):
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            yield slice(window.start + start, window.start + start + len(part)), part


def _rows(tensor: Tensor, size: int) -> int:
    """How many rows are about `size` bytes, few enough for a sum over them in float32."""
    return min(_MOST_ROWS, max(1, size // (4 * max(1, int(np.prod(tensor.shape[1:]))))))


def product(left: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(t, r) times rows (r, n), in the rows' own precision.

    By columns so few that BLAS starts no threads, which would take the processors from hashing, and
    token by token, since rearranging the rows for a matrix product costs more.
    """
    left, step = left.astype(rows.dtype), max(1, _UNTHREADED // len(rows))
    tiles = (rows[:, start : start + step] for start in range(0, rows.shape[1], step))
    return np.concatenate([[token @ tile for token in left] for tile in tiles], axis=1)


class Scratch:
    """Memory for the result of one chunk after the other, each over the one before."""

    def __init__(self) -> None:
        self._flat = np.empty(0, np.float32)

    def like(self, rows: np.ndarray) -> np.ndarray:
        """An array of that shape and dtype, with whatever is in it."""
        if self._flat.dtype != rows.dtype or self._flat.size < rows.size:
            self._flat = np.empty(rows.size, rows.dtype)
        return self._flat[: rows.size].reshape(rows.shape)
