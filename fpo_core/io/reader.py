"""Reading safetensors files strictly, whole or by rows.

    file = open_safetensors("sae.safetensors")
    file.entries["W_enc"].shape, file.rows("W_enc", 0, 16), file.floats("W_enc")

The safetensors library checks sizes, offsets and coverage. It accepts keys that occur twice and
fields other than dtype, shape and data_offsets, which readers may interpret differently; such a
file is refused here.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from fpo_core.errors import FpoError, SaeError
from fpo_core.io.file_array import FileArray, Version, version_of
from fpo_core.io.regular import open_regular

DTYPES: dict[str, np.dtype] = {
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")},
    **{"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2")},
    **{"U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2")},
    **{"I8": np.dtype("i1"), "U8": np.dtype("u1"), "BOOL": np.dtype("?")},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
"""NumPy's types by safetensors' codes."""
FLOAT_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""safetensors' codes of the precisions that weights are written in."""

Fault = Callable[[str], FpoError]
"""Makes the error for a damaged file from what was found; adds what to do."""


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
    entries: dict[str, Entry]
    payload_begin: int
    fault: Fault
    version: Version

    def array(self, name: str) -> FileArray:
        """A tensor in its own dtype, read where it is used."""
        entry = self.entries[name]
        dtype = self._dtype(name)
        return FileArray(
            self.path, dtype, entry.shape, entry.begin, self.fault, version=self.version
        )

    def floats(self, name: str) -> FileArray:
        """A tensor of floats, read where it is used: float64 where stored so, else float32."""
        code = self.entries[name].dtype
        if code not in ("F64", *FLOAT_CODES.values()):
            raise self.fault(f"{self.path} holds {name!r} as {code}, expected floating point")
        wide = np.dtype(np.float64 if code == "F64" else np.float32)
        return dataclasses.replace(self.array(name), dtype=wide)

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of a tensor in its own dtype; of a scalar, the scalar."""
        return self.array(name)[start:stop]

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of a tensor of floats, as `floats`."""
        return self.floats(name)[start:stop]

    def _dtype(self, name: str) -> np.dtype:
        code = self.entries[name].dtype
        if code not in DTYPES:
            raise self.fault(f"{self.path} holds {name!r} as {code}, which NumPy cannot")
        return DTYPES[code]


def _sae_fault(text: str) -> SaeError:
    return SaeError(f"{text}: download or save it again")


def open_safetensors(path: str | Path, fault: Fault = _sae_fault) -> SafetensorsFile:
    """Parse and check the header of a safetensors file. Raises `fault` for any irregularity."""
    path = Path(path)
    try:
        with open_regular(path) as file:
            head = file.read(72)
        begin = 8 + int.from_bytes(head[:8], "little")
        if head[8:9] != b"{":
            raise fault(f"{path} {_other_kind(head)}")
        with safe_open(path, "np"), path.open("rb") as file:
            header = _parse(file.read(begin)[8:])
            version = version_of(os.fstat(file.fileno()))
    except SafetensorError as error:
        raise fault(f"{path} is damaged or truncated ({_reason(error)})") from None
    except (ValueError, RecursionError) as error:
        raise fault(f"{path} has an irregular header ({error})") from None
    except OSError as error:
        raise fault(f"{path} cannot be read ({error.strerror}), expected a file") from None
    entries = {k: _entry(v, begin) for k, v in header.items() if k != "__metadata__"}
    return SafetensorsFile(path, header, entries, begin, fault, version)


def _other_kind(head: bytes) -> str:
    """What a file is in whose first bytes no safetensors header begins."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, expected the weights that `git lfs pull` fetches"
    if head.startswith((b"PK", b"\x80")):
        return "is a pickle or zip archive, expected safetensors"
    return "has no complete safetensors header: it is another kind of file, or truncated"


def _reason(error: SafetensorError) -> str:
    """The library's words on one short line: they may quote names out of the file."""
    text = str(error).removeprefix("Error while deserializing header: ")
    return text.encode("unicode_escape").decode()[:120]


def _parse(text: bytes) -> dict[str, Any]:
    """The header as JSON. Raises ValueError for what the library lets through."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    for name, value in header.items():
        if name != "__metadata__" and set(value) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r} has fields other than dtype, shape, data_offsets")
    return header


def _entry(value: dict[str, Any], payload_begin: int) -> Entry:
    begin, end = (payload_begin + offset for offset in value["data_offsets"])
    return Entry(value["dtype"], tuple(value["shape"]), begin, end)
