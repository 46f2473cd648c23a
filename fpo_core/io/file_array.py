"""Arrays whose numbers stay in their file until they are asked for.

    array = FileArray(path, np.dtype("<i4"), (1000,), begin=0, fault=DataError)
    array[3:8], np.asarray(array)

Not a memory map: where a file is cut short under one, the system ends the process (SIGBUS), and
where it is changed, other numbers come in silence.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import FpoError
from fpo_core.io.regular import open_regular

Version = tuple[int, int, int]
"""What tells a file from another one, or from itself after a change: inode, size, time."""


def version_of(stat: os.stat_result) -> Version:
    """The version of a file by what the system says of it."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, eq=False)
class FileArray:
    """An array at byte `begin` of a file, as it was when this object was made."""

    path: Path
    stored: np.dtype
    shape: tuple[int, ...]
    begin: int
    fault: Callable[[str], FpoError]
    dtype: np.dtype = None  # pyright: ignore[reportAssignmentType]
    """What it is read as; by default as it is stored."""
    version: Version = field(default=None, repr=False)  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.dtype or self.stored)
        object.__setattr__(self, "version", self.version or version_of(self.path.stat()))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0] if self.shape else 1)
        row = prod(self.shape[1:])
        count = max(0, stop - start)
        flat = self._read(count * row, self.begin + start * row * self.stored.itemsize)
        return flat.reshape((count, *self.shape[1:]) if self.shape else ())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # every reading is one
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def _read(self, count: int, begin: int) -> np.ndarray:
        try:
            with open_regular(self.path) as file:
                version = version_of(os.fstat(file.fileno()))
                array = np.fromfile(file, self.stored, count, offset=begin)
        except OSError as error:
            raise self.fault(f"{self.path} cannot be read ({error.strerror})") from None
        if version != self.version or len(array) < count:
            raise self.fault(f"{self.path} was changed or cut short while it was in use")
        return array.astype(self.dtype, copy=False)
