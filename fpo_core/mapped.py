"""Memory-mapped safetensors: arrays that cost no memory until they are read."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import StoreError

_DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}


def map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a store's shard as read-only memory maps; StoreError where it is damaged."""
    try:
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            if header_size > path.stat().st_size:
                raise ValueError("header longer than the file")
            header = json.loads(file.read(header_size))
        if not isinstance(header, dict):
            raise ValueError("the header is no table of tensors")
        data = np.memmap(path, np.uint8, "r", offset=8 + header_size)
        header.pop("__metadata__", None)
        arrays = {name: _view(data, entry) for name, entry in header.items()}
        if sum(array.nbytes for array in arrays.values()) != data.nbytes:
            raise ValueError("tensors do not fill the file")
        return arrays
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): delete the store and build it again"
        ) from None


def _view(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    start, end = entry["data_offsets"]
    dtype = _DTYPES[entry["dtype"]]
    if not 0 <= start <= end <= data.nbytes:
        raise ValueError("tensor outside the file")
    return data[start:end].view(dtype).reshape(entry["shape"])
