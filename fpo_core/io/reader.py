"""Reading safetensors files strictly: every byte accounted for, tensors read by parts or mapped.

The frameworks' own readers accept overlaps, holes, trailing bytes or duplicate keys; this doesn't.
"""

import json
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import FpoError, SaeError, StoreError

MAX_HEADER = 100_000_000
CHUNK_BYTES = 2 << 20  # what a processor's own cache holds
WINDOW_BYTES = 4 << 20  # what to map at once: less costs more per byte
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
SIZES |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_STORED = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U16": "<u2", "U8": "u1"}

# A map asked for whole costs a fraction of what its pages cost one by one, where that can be had.
_ALL_PAGES_AT_ONCE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_POPULATE, "prot": mmap.PROT_READ}
    if hasattr(mmap, "MAP_POPULATE")
    else {"access": mmap.ACCESS_READ}
)

Fault = Callable[[str], FpoError]
"""The error that says what was found, with what to do put behind it."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a header; `begin` and `end` are absolute byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsFile:
    """A file whose header has been checked; `header` is the parsed JSON as it stands."""

    path: Path
    header: dict[str, Any]
    metadata: dict[str, str]
    entries: dict[str, Entry]
    payload_begin: int
    size: int

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of a tensor: F32 and F64 mapped read-only, the others as float32."""
        entry = self.entries[name]
        length = entry.shape[0] if entry.shape else 1
        stop = length if stop is None else min(stop, length)
        row = (entry.end - entry.begin) // max(length, 1)
        code = _float_code(name, entry, self.path)
        shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
        data = map_bytes(self.path, entry.begin + start * row, (stop - start) * row)
        return widen(data.view(code), entry.dtype).reshape(shape)

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor as they are, whatever its dtype."""
        entry = self.entries[name]
        count = entry.end - entry.begin
        return np.fromfile(self.path, np.uint8, count, offset=entry.begin)

    def mapped(self, name: str, pages: mmap.mmap) -> np.ndarray:
        """The tensor over `pages`: a view for F32 and F64, else a widened float32 copy."""
        entry = self.entries[name]
        code = _float_code(name, entry, self.path)
        flat = np.frombuffer(pages, code, count=prod(entry.shape), offset=entry.begin)
        return widen(flat, entry.dtype).reshape(entry.shape)

    def pages(self) -> mmap.mmap:
        """The file mapped copy-on-write: its arrays count as writable and never change the file."""
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def payload(self) -> Iterator[bytes]:
        """The bytes after the header, by chunks."""
        with self.path.open("rb") as file:
            file.seek(self.payload_begin)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def map_bytes(path: Path, begin: int, size: int) -> np.ndarray:
    """Bytes of a file, mapped for as long as the array lives: reading would copy them."""
    if size <= 0:
        return np.empty(0, np.uint8)
    skipped = begin % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < begin + size:
            raise SaeError(f"{path} became shorter while it was read: convert it again")
        pages = mmap.mmap(
            file.fileno(), skipped + size, offset=begin - skipped, **_ALL_PAGES_AT_ONCE
        )
    return np.frombuffer(pages, np.uint8, size, skipped)


def file_windows(path: Path) -> Iterator[np.ndarray]:
    """All bytes of a file, mapped piece by piece."""
    size = path.stat().st_size
    for begin in range(0, size, WINDOW_BYTES):
        yield map_bytes(path, begin, min(WINDOW_BYTES, size - begin))


def widen(flat: np.ndarray, dtype: str) -> np.ndarray:
    """Raw numbers of a safetensors dtype as float32 or float64; NumPy has no bfloat16."""
    if dtype == "BF16":
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.astype(np.float32) if dtype == "F16" else flat


def map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a store's shard as they are, mapped and read-only. Raises StoreError."""
    file = open_safetensors(path, _store_fault)
    unknown = [name for name, entry in file.entries.items() if entry.dtype not in _STORED]
    if unknown:
        raise _store_fault(f"{path} holds {unknown[0]!r} as {file.entries[unknown[0]].dtype}")
    data = np.memmap(path, np.uint8, "r")
    return {
        name: data[entry.begin : entry.end].view(_STORED[entry.dtype]).reshape(entry.shape)
        for name, entry in file.entries.items()
    }


def _store_fault(text: str) -> StoreError:
    return StoreError(f"{text}: delete the store and build it again")


def _sae_fault(text: str) -> SaeError:
    return SaeError(f"{text}: download or save it again")


def open_safetensors(path: str | Path, fault: Fault = _sae_fault) -> SafetensorsFile:
    """Parse and check the header of a safetensors file. Raises `fault` for any irregularity."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
            raw = file.read(length) if 2 <= length <= min(MAX_HEADER, size - 8) else b""
            file.seek(0)
            start = raw[:1] or file.read(64)
    except OSError as error:
        raise fault(f"{path} cannot be read ({error.strerror}), expected a file") from None
    if not start.startswith(b"{"):
        raise fault(f"{path} {_not_safetensors(start, size)}")
    header = _parse(path, raw, fault)
    metadata = header.get("__metadata__", {})
    metadata = {} if metadata is None else metadata  # MLX writes null where there is none
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise fault(f"{path} has metadata that is not a map of texts, expected a regular header")
    begin = 8 + length
    entries = {
        name: _entry(path, name, value, begin, fault)
        for name, value in header.items()
        if name != "__metadata__"
    }
    _check_cover(path, entries, begin, size, fault)
    return SafetensorsFile(path, header, metadata, entries, begin, size)


def _not_safetensors(start: bytes, size: int) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, expected the weights that `git lfs pull` fetches"
    if start.startswith((b"PK", b"\x80")):
        return "is a pickle or zip archive, expected safetensors, or --format if it is .pt"
    return f"({size} bytes) is no file with a complete safetensors header, or is truncated"


def _parse(path: Path, raw: bytes, fault: Fault) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise fault(f"{path} has an unreadable header ({error}), expected JSON") from None
    if not isinstance(header, dict):
        raise fault(f"{path} has a header that is not a JSON object")
    return header


def _entry(path: Path, name: str, value: Any, payload_begin: int, fault: Fault) -> Entry:
    def is_sizes(items: Any) -> bool:
        few = isinstance(items, list) and len(items) <= 8
        return few and all(type(i) is int and 0 <= i < 1 << 62 for i in items)

    regular = (
        isinstance(value, dict)
        and set(value) == {"dtype", "shape", "data_offsets"}
        and isinstance(value["dtype"], str)
        and is_sizes(value["shape"])
        and is_sizes(value["data_offsets"])
        and len(value["data_offsets"]) == 2
    )
    if not regular:
        raise fault(f"{path} describes tensor {name!r} irregularly")
    begin, end = value["data_offsets"]
    width = SIZES.get(value["dtype"])
    if width is None or end - begin != prod(value["shape"]) * width:
        raise fault(
            f"{path} gives {end - begin} bytes to {name!r}, which do not fit dtype "
            f"{value['dtype']} and shape {value['shape']}"
        )
    return Entry(value["dtype"], tuple(value["shape"]), payload_begin + begin, payload_begin + end)


def _check_cover(
    path: Path, entries: dict[str, Entry], begin: int, size: int, fault: Fault
) -> None:
    position = begin
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            what = (
                "overlaps another tensor" if entry.begin < position else "leaves a hole before it"
            )
            raise fault(f"{path}: tensor {name!r} {what}")
        position = entry.end
    if position != size:
        what = "truncated" if position > size else "padded with bytes of no tensor"
        raise fault(f"{path} is {what}: found {size} bytes, expected {position}")


def _float_code(name: str, entry: Entry, path: Path) -> str:
    if entry.dtype not in _FLOATS:
        raise SaeError(
            f"{path} holds {name!r} as {entry.dtype}, expected F64, F32, F16 or BF16: save it as "
            "floating point"
        )
    return _FLOATS[entry.dtype]
