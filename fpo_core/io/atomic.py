"""Writing files and folders so that a crash leaves the old or the new, never half of one."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fpo_core.errors import ConfigError, WriteError

_TEMPORARY = ".tmp"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, then rename it over `path`.

    Raises WriteError, with nothing left behind, where that fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, sync it, then put it in the place of `path`.

    Where there was no `path`, it appears whole or not at all. Raises WriteError as above.
    """
    with _prepared(path, write) as new:
        old = path.with_name(f".{path.name}.old{_TEMPORARY}")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        new.rename(path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def write_into_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, sync it, then move its files into `path` one by one.

    Other files of `path` stay. Raises WriteError as above.
    """
    with _prepared(path / "result", write) as new:
        for file in sorted(new.iterdir()):
            file.replace(path / file.name)
        sync(path)


def remove_folder(path: Path) -> None:
    """Remove a folder under another name, so that half of it is never found under its own."""
    doomed = path.with_name(f".{path.name}.old{_TEMPORARY}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left in a folder."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _prepared(path: Path, write: Callable[[Path], None]) -> Iterator[Path]:
    """A filled and synced folder beside `path`, gone afterwards unless it was moved."""
    new = path.with_name(f".{path.name}.new{_TEMPORARY}")
    with writing(path):
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(parents=True)
            write(new)
            for file in [*new.rglob("*"), new]:
                sync(file)
            yield new
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures of the disk, which libraries report each in its own way, as a WriteError."""
    try:
        yield
    except WriteError as error:
        raise WriteError(path, error.reason) from None
    except OSError as error:
        raise WriteError(path, error.strerror or str(error)) from None
    except SafetensorError as error:
        raise WriteError(path, str(error).rpartition("I/O error: ")[2]) from None
    except RuntimeError as error:  # MLX's own writer
        if "write" not in str(error):
            raise
        raise WriteError(path, str(error)) from None


def sync(path: Path) -> None:
    """Ask for the bytes of a file, or the names in a folder, to be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place at the end, and vanishes on any error.

    Raises ConfigError where something other than an empty folder is there, WriteError as above.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there and not an empty folder: name a new one")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            yield temporary
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs alike: indented, sorted as given, ending in a newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


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
