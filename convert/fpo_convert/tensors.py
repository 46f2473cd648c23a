"""Arrays of a source checkpoint, read by rows so that a big one never fills the memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.sae_file import CHUNK_BYTES, SafetensorsFile


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
    """An array in memory or memory-mapped; `raw` is a bfloat16 array's bits if uint16."""

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
        return part.astype(np.float32) if part.dtype == np.float16 else part


class Transposed:
    """A matrix stored the other way round, read whole at first use and until its last row."""

    def __init__(self, stored: Tensor) -> None:
        self._stored = stored
        self._whole: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return self._stored.shape[::-1]

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop), which are columns of what is stored."""
        whole = self._stored.rows() if self._whole is None else self._whole
        last = stop is None or stop >= self.shape[0]
        self._whole = None if last else whole
        return np.ascontiguousarray(whole.T[start:stop])


def chunks(tensor: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    """The tensor's rows by pieces of a few megabytes, with their position."""
    length = tensor.shape[0]
    step = max(1, CHUNK_BYTES // (4 * max(1, int(np.prod(tensor.shape[1:])))))
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(start, stop), tensor.rows(start, stop)
