"""SHA-256 of whole files, and manifests of what a folder should hold."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fpo_core.io.regular import open_regular

_PIECE = 1 << 20
"""Bytes read at once: a processor's cache holds them."""
_Identity = tuple[str, int, int, int]
_remembered: dict[_Identity, str] = {}


@dataclass(frozen=True)
class Damage:
    """A file that is not what a manifest says."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


def file_sha256(path: Path) -> str:
    """SHA-256 of all bytes of a file, in hexadecimal, read in pieces.

    Within a process a file is read once, until its size, time of change or inode is another.
    Raises OSError where it can't be read or is no regular file.
    """
    with open_regular(path) as file:
        identity = _identity(path, os.fstat(file.fileno()))
        if identity not in _remembered:
            _remembered[identity] = _digest(file)
        return _remembered[identity]


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def remember(path: Path, sha256: str) -> None:
    """Take over the hash of a file that was computed while it was written."""
    _remembered[_identity(path, path.stat())] = sha256


def _identity(path: Path, stat: os.stat_result) -> _Identity:
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino


def describe(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its size in bytes and its SHA-256."""
    return {"size": path.stat().st_size, "sha256": file_sha256(path)}


def damages(folder: Path, files: Mapping[str, Any]) -> list[Damage]:
    """The files of a folder that are missing or other than `files` (as `describe`) says.

    Sizes are compared first, which costs nothing; hashes on as many threads as there are cores,
    since hashing lets other threads run.
    """
    return [found for found in _map(lambda item: _damage(folder, *item), files.items()) if found]


def _map(function: Any, items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(function, items))


def _damage(folder: Path, name: str, expected: Any) -> Damage | None:
    if not is_plain_name(name):
        return Damage(repr(name), "is no name of a file in this folder")
    try:
        reason = _difference(folder / name, expected)
    except FileNotFoundError:
        reason = "is missing"
    except (KeyError, TypeError):
        reason = "has no size and SHA-256 in the manifest"
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
    return None if reason is None else Damage(name, reason)


def _difference(path: Path, expected: Mapping[str, Any]) -> str | None:
    size, sha256 = expected["size"], expected["sha256"]
    there = path.stat().st_size
    if there != size:
        return f"has {there} bytes, expected {size}"
    return None if file_sha256(path) == sha256 else "is not what was written (SHA-256 differs)"


def is_plain_name(name: Any) -> bool:
    """Whether a name read from a file stays within its folder."""
    odd = ("", ".", "..")
    return isinstance(name, str) and name not in odd and not {"/", "\\", "\0"} & set(name)


def text_sha256(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
