"""Arrays of which several processes hold some rows each, and files that they write together.

The file has the bytes that `fpo_core.io.writer.write_arrays` makes of the whole arrays: one process
writes header and size, then every process its rows in their place. No process holds an array whole.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from fpo_core.io.file_array import FileArray
from fpo_core.io.writer import as_bytes, laid_out


@dataclass(frozen=True, eq=False)
class Shard:
    """Rows [start, start + len(rows)) of an array of this shape."""

    rows: np.ndarray
    start: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The precision of the array."""
        return self.rows.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that are here."""
        return self.rows.nbytes


Rows = np.ndarray | FileArray | Shard
"""An array of which rows can be taken: all, or those that this process holds."""


def rows_of(array: Rows, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of an array; a `Shard` must be of these."""
    return array.rows if isinstance(array, Shard) else np.asarray(array[start:stop])


def reserve(path: Path, arrays: Mapping[str, np.ndarray | Shard]) -> None:
    """Make a file of these arrays: its header, and its size."""
    head, begins = laid_out(arrays)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(begins[""])


def fill(path: Path, arrays: Mapping[str, np.ndarray | Shard], *, first: bool) -> None:
    """Write the rows that are here into a reserved file, whole arrays in the `first` process."""
    _, begins = laid_out(arrays)
    with path.open("r+b") as file:
        for name, array in arrays.items():
            shard = array if isinstance(array, Shard) else Shard(np.asarray(array), 0, array.shape)
            if isinstance(array, Shard) or first:
                row = prod(shard.shape[1:]) * shard.dtype.itemsize
                file.seek(begins[name] + shard.start * row)
                file.write(as_bytes(shard.rows))
        file.flush()
        os.fsync(file.fileno())  # before another machine reads it
