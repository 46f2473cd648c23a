"""Writing canonical autoencoder files: tensor by tensor, hashed on the way, complete or absent."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.io.hashing import Payload, reserve
from fpo_core.sae.metadata import SaeMeta, header_sha256

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Plan:
    """A tensor to write: `chunks()` gives its rows in order, as float arrays.

    Each is done with before the next is asked for, so the same memory may hold them all.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[np.ndarray]]


def write_sae(
    path: str | Path,
    meta: SaeMeta,
    plans: Sequence[Plan],
    late: Callable[[], SaeMeta] | None = None,
    check: Callable[[Path], None] | None = None,
    beside: Executor | None = None,
) -> str:
    """Write a canonical file and return the SHA-256 of its payload.

    Chunks are asked for tensor after tensor, so a later one may depend on what an earlier one saw.
    `check` sees the temporary file, but for the hashes in its header, and may refuse it by raising;
    in `beside`, if given, while the decoder is still being written. `late`, called after that, may
    give `meta` anew with texts of the same length (hashes).
    Raises SaeError for a number that is not finite; nothing is left behind on any error.
    """
    path, entries = Path(path), _entries(plans)
    header = _header(meta, entries, _NO_HASH)
    length = _padded_length(header)
    decoder = next((i for i, plan in enumerate(plans) if plan.name == "W_dec"), len(plans))
    with replacing(path, hashed=True) as file:
        reserve(file, length + sum(_size(plan) for plan in plans))
        file.write(_encoded_header(header, length))
        payload = Payload(file)
        _write_all(plans[:decoder], payload)
        file.flush()  # for those who read it
        with _meanwhile(check and partial(check, Path(file.name)), beside):
            _write_all(plans[decoder:], payload)
            file.flush()
        meta, sha256 = late() if late else meta, payload.sha256()
        file.seek(0)
        file.write(_encoded_header(_header(meta, entries, sha256), length))
    return sha256


@contextmanager
def _meanwhile(run: Callable[[], None] | None, beside: Executor | None) -> Iterator[None]:
    """Run something in `beside` during the body, or after it; its error is raised at the end."""
    if run is None or beside is None:
        yield
        if run is not None:
            run()
        return
    future = beside.submit(run)
    try:
        yield
    except BaseException:
        future.cancel()
        wait([future])
        raise
    future.result()


def _write_all(plans: Sequence[Plan], file: Payload | BinaryIO) -> None:
    for plan in plans:
        for chunk in plan.chunks():
            file.write(encode(plan.name, chunk, plan.dtype))


def write_safetensors(path: Path, plans: Sequence[Plan]) -> None:
    """Write tensors as a plain safetensors file, complete or not at all. Raises SaeError."""
    header = _entries(plans)
    with replacing(path) as file:
        file.write(_encoded_header(header, _padded_length(header)))
        _write_all(plans, file)


def encode(name: str, chunk: np.ndarray, dtype: str) -> memoryview:
    """Numbers as little-endian bytes of a safetensors dtype. Raises SaeError unless all finite."""
    if dtype == "BF16":
        stored = _to_bfloat16(chunk)
        finite = _all_finite((stored.astype(np.uint32) << 16).view(np.float32))
    else:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(chunk, "<f4" if dtype == "F32" else "<f2")
        finite = _all_finite(stored)
    if not finite:
        cause = "cannot be held in" if np.isfinite(chunk).all() else "is not finite, before"
        raise SaeError(
            f"a number in {name} {cause} {dtype}: use a sound checkpoint, or --dtype float32"
        )
    return stored.data.cast("B")


@contextmanager
def replacing(path: Path, *, hashed: bool = False) -> Iterator[BinaryIO]:
    """A temporary file beside `path` that takes its place at the end, and vanishes on any error.

    The disk is waited for, unless the file is new and holds a hash of itself: were the power to
    fail, its first reader would find that out, and nothing older would be lost.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
    except OSError as error:
        raise SaeError(
            f"{path} cannot be written ({error.strerror}): choose another --out"
        ) from None
    try:
        with open(name, "wb") as file:
            yield file
            file.flush()
            if path.exists() or not hashed:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise SaeError(
                f"{path} cannot be written ({error.strerror}): choose another --out"
            ) from None
        raise


def _header(meta: SaeMeta, entries: dict, payload_sha256: str) -> dict:
    texts = meta.to_header() | {"payload_sha256": payload_sha256}
    header = {"__metadata__": texts} | entries
    texts["header_sha256"] = header_sha256(header)
    return header


def _size(plan: Plan) -> int:
    return prod(plan.shape) * _WIDTHS[plan.dtype]


def _entries(plans: Sequence[Plan]) -> dict:
    entries, position = {}, 0
    for plan in plans:
        end = position + _size(plan)
        entries[plan.name] = {
            "dtype": plan.dtype,
            "shape": list(plan.shape),
            "data_offsets": [position, end],
        }
        position = end
    return entries


def _padded_length(header: dict) -> int:
    return -(-(8 + len(json.dumps(header).encode())) // 64) * 64


def _encoded_header(header: dict, length: int) -> bytes:
    text = json.dumps(header).encode().ljust(length - 8)
    assert len(text) == length - 8, "texts that came late are longer than those they replace"
    return (length - 8).to_bytes(8, "little") + text


def _all_finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite; the sum of squares tells it fastest unless it overflows."""
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(array).all())


def _to_bfloat16(chunk: np.ndarray) -> np.ndarray:
    """Round to nearest, ties to even."""
    bits = np.ascontiguousarray(chunk, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isfinite(chunk), rounded, bits >> 16).astype("<u2")
