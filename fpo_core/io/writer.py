"""Writing safetensors files piece by piece: one piece of one tensor is in memory at a time.

The library's own `save_file`, which wants every tensor at once, serves where all are small.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.io.digests import remember
from fpo_core.io.reader import DTYPES

Header = dict[str, Any]
FileHash = dict[str, Any]
"""A file's `size` in bytes and its `sha256`."""
NO_HASH = "0" * 64


@dataclass(frozen=True)
class Tensor:
    """A tensor to write; `pieces()` gives its rows in order, in its dtype, when its turn comes."""

    name: str
    dtype: str
    """As safetensors calls it, such as BF16."""
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


def float_tensor(
    name: str, dtype: str, shape: tuple[int, ...], pieces: Callable[[], Iterable[np.ndarray]]
) -> Tensor:
    """A tensor cast to `dtype`. Writing it raises SaeError unless all numbers are finite."""
    return Tensor(name, dtype, shape, lambda: (finite(name, piece, dtype) for piece in pieces()))


def finite(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers cast to a safetensors dtype, to nearest even. Raises SaeError unless all finite."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, DTYPES[dtype])
    if not np.isfinite(stored).all():
        cause = "cannot be held in" if np.isfinite(array).all() else "is not finite, before"
        raise SaeError(
            f"a number in {name} {cause} {dtype}: use a sound checkpoint, or dtype float32"
        )
    return stored


def write_tensors(
    path: Path,
    tensors: Sequence[Tensor],
    metadata: dict[str, str],
    seal: Callable[[Header, str], Header] = lambda header, payload_sha256: header,
) -> str:
    """Write a safetensors file and return the SHA-256 of its payload, all bytes after the header.

    `seal` may put that hash into the header; texts it returns have the same length for any hash.
    """
    digest = hashlib.sha256()
    header = {"__metadata__": metadata} | _entries(tensors)
    with path.open("wb") as file:
        file.write(_encoded(seal(header, NO_HASH)))
        for tensor in tensors:
            for piece in tensor.pieces():
                data = as_bytes(np.asarray(piece, DTYPES[tensor.dtype]))
                digest.update(data)
                file.write(data)
        # The hash is known now that the payload has passed: the header is written over.
        file.seek(0)
        file.write(_encoded(seal(header, digest.hexdigest())))
    return digest.hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: str = "pt") -> FileHash:
    """Write arrays in their own dtypes, hashing the whole file on the way.

    The file's size and hash are as a manifest (`fpo_core.io.digests`) keeps them.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    head, _ = laid_out(arrays, metadata)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for data in (head, *map(as_bytes, arrays.values())):
            digest.update(data)
            size += file.write(data)
    remember(path, digest.hexdigest())
    return {"size": size, "sha256": digest.hexdigest()}


class Shaped(Protocol):
    """What the header of a file says of an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Its precision."""
        ...


def laid_out(arrays: Mapping[str, Shaped], metadata: str = "pt") -> tuple[bytes, dict[str, int]]:
    """The header of a file of arrays in their own dtypes, and the byte at which each begins.

    The end of the file stands under the empty name.
    """
    tensors = [
        Tensor(name, _code(array.dtype), array.shape, list) for name, array in arrays.items()
    ]
    head = _encoded({"__metadata__": {"format": metadata}} | _entries(tensors))
    ends = np.cumsum([len(head), *(tensor.size for tensor in tensors)])
    return head, dict(zip([*arrays, ""], map(int, ends), strict=True))


def _code(dtype: np.dtype) -> str:
    return next(code for code, known in DTYPES.items() if known == dtype)


def as_bytes(array: np.ndarray) -> memoryview:
    """The numbers of an array in order; the buffer protocol itself knows no bfloat16."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _entries(tensors: Sequence[Tensor]) -> Header:
    entries, position = {}, 0
    for tensor in tensors:
        offsets = [position, position + tensor.size]
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape}
        entries[tensor.name]["data_offsets"] = offsets
        position = offsets[1]
    return entries


def _encoded(header: Header) -> bytes:
    """Length and text of a header, padded so that the payload begins at a multiple of 64 bytes."""
    text = json.dumps(header).encode()
    text = text.ljust(-(-(8 + len(text)) // 64) * 64 - 8)
    return len(text).to_bytes(8, "little") + text
