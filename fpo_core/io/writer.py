"""Writing safetensors files of any dtypes, one tensor in memory at a time."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from fpo_core.io.reader import SIZES


@dataclass(frozen=True)
class Tensor:
    """A tensor to write; `data` is asked for its bytes when its turn comes."""

    name: str
    dtype: str
    """As safetensors calls it, such as BF16."""
    shape: tuple[int, ...]
    data: Callable[[], Any]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * SIZES[self.dtype]


def write_tensors(path: Path, tensors: Sequence[Tensor]) -> None:
    """Write a safetensors file, synced to the disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        end = position + tensor.size
        entry = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [position, end]}
        header[tensor.name] = entry
        position = end
    text = json.dumps(header).encode()
    text = text.ljust(-(-(8 + len(text)) // 64) * 64 - 8)  # the payload begins at 64 · n
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(tensor.data())
        file.flush()
        os.fsync(file.fileno())
