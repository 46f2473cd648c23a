"""SHA-256 of files, whole or by samples, and manifests of what a folder should hold."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.io.regular import open_regular

_PIECE = 1 << 20
"""Bytes read at once: a processor's cache holds them."""
SEAL = "sha256"
"""The key under which a JSON object holds the hash of its other keys."""
_Identity = tuple[int, int, int, int]
_known: dict[_Identity, str] = {}


@dataclass(frozen=True)
class Damage:
    """A file that is not what a manifest says."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


def file_sha256(path: Path, begin: int = 0) -> str:
    """SHA-256 of a file's bytes from `begin` on, in hexadecimal; OSError unless it is regular."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        file.seek(begin)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def known_sha256(path: Path) -> str:
    """SHA-256 of all bytes of a file, which are read once in the life of a process.

    They are read again when device, inode, size or time of change is another. Raises OSError where
    the file can't be read or is no regular one.
    """
    identity = _identity(path)
    if identity not in _known:
        _known[identity] = file_sha256(path)
    return _known[identity]


def remember(path: Path, sha256: str) -> None:
    """Take over the hash of a file that was computed while it was written; renames keep it."""
    _known[_identity(path)] = sha256


def _identity(path: Path) -> _Identity:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def sampled_sha256(paths: list[Path], samples: int = 64, chunk: int = 1 << 16) -> str:
    """SHA-256 over names, sizes and evenly spaced pieces of files: fast on gigabytes of weights.

    Small files enter whole. Training moves every piece of a weight file, so a changed model shows.
    """
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            if size <= samples * chunk:
                digest.update(file.read())
                continue
            for i in range(samples):
                file.seek(i * (size - chunk) // (samples - 1))
                digest.update(file.read(chunk))
    return digest.hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its size in bytes and its SHA-256."""
    return {"size": path.stat().st_size, "sha256": known_sha256(path)}


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
    return None if known_sha256(path) == sha256 else "is not what was written (SHA-256 differs)"


def is_plain_name(name: Any) -> bool:
    """Whether a name read from a file stays within its folder."""
    odd = ("", ".", "..")
    return isinstance(name, str) and name not in odd and not {"/", "\\", "\0"} & set(name)


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the hash of all its other keys, whatever their order and spacing."""
    others = {key: value for key, value in values.items() if key != SEAL}
    return others | {SEAL: _json_sha256(others)}


def seal_holds(values: Mapping[str, Any]) -> bool | None:
    """Whether a JSON object is as `sealed` left it; None where it was never sealed."""
    return None if SEAL not in values else values[SEAL] == sealed(values)[SEAL]


def _json_sha256(values: Mapping[str, Any]) -> str:
    # Through JSON once more: tuples and keys that are numbers come back as lists and texts.
    plain = json.loads(json.dumps(values))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
