"""Arrays of a source checkpoint, read by rows so that a big one never fills the memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.io.reader import SafetensorsFile

_CHUNK_BYTES = 2 << 20
_MOST_ROWS = 1024


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
    """A tensor that can only be loaded whole: held from the first request for rows to the last."""

    def __init__(self, shape: tuple[int, ...], load: Callable[[], np.ndarray]) -> None:
        self.shape = shape
        self._load = load
        self._whole: np.ndarray | None = None

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop)."""
        whole = self._load() if self._whole is None else self._whole
        # After the last row the array is let go: two whole matrices must not be in memory at once.
        last = not self.shape or stop is None or stop >= self.shape[0]
        self._whole = None if last else whole
        return ArrayTensor(whole).rows(start, stop)


def transposed(stored: Tensor) -> WholeTensor:
    """A matrix that is stored transposed: rows would be strided columns, so it is read whole."""
    return WholeTensor(stored.shape[::-1], lambda: stored.rows().T)


def scalar(tensor: Tensor) -> float:
    """The one number of a 0-d or 1-element tensor."""
    return float(tensor.rows().reshape(-1)[0])


def chunks(tensor: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """The tensor's rows by pieces of about 2 MB, with their position.

    Pieces have few enough rows for a sum over them in float32.
    """
    length, row_bytes = tensor.shape[0], 4 * max(1, prod(tensor.shape[1:]))
    step = min(_MOST_ROWS, max(1, _CHUNK_BYTES // row_bytes))
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(start, stop), tensor.rows(start, stop)


def product(left: np.ndarray, tensor: Tensor) -> np.ndarray:
    """(t, n) float64 times a tensor (n, m), read piece by piece -> (t, m) float64.

    Sums within a piece are in the tensor's own precision; pieces are added up in float64.
    """
    total = np.zeros((len(left), tensor.shape[1]))
    for part, rows in chunks(tensor):
        total += left[:, part].astype(rows.dtype) @ rows
    return total
