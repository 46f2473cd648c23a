"""Writing files and folders so that a crash leaves the old or the new, never half of one."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fpo_core.errors import ConfigError, WriteError
from fpo_core.io.leftovers import remove, remove_leftovers, temporary_beside


@contextlib.contextmanager
def replacing(path: Path, *, folders: bool = True) -> Iterator[Path]:
    """The one rename over `path`, of a file or folder that the body creates and fills.

    Unless `folders` may be replaced too, WriteError where one that holds something is there.
    """
    with _temporary(path) as temporary:
        yield temporary
        _sync_all(temporary)
        with _aside(path) if folders else contextlib.nullcontext():
            temporary.replace(path)
        # Without this the data is safe, but after a power cut the new name may be missing.
        sync(path.parent)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, sync it, then rename it to `path`.

    Raises WriteError, with nothing left behind, where that fails, as over a folder with content.
    """
    with replacing(path, folders=False) as temporary:
        write(temporary)


def write_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary folder, sync it, then put it in the place of `path`.

    Where there was no `path`, it appears whole or not at all. Raises WriteError as above.
    """
    with replacing(path) as temporary:
        temporary.mkdir()
        write(temporary)


def write_into_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary folder, sync it, then move its files into `path` one by one.

    Other files of `path` stay. Raises WriteError as above.
    """
    with _temporary(path / "result") as temporary:
        temporary.mkdir()
        write(temporary)
        _sync_all(temporary)
        for file in sorted(temporary.iterdir()):
            file.replace(path / file.name)
        sync(path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` at the end, and vanishes on any error.

    Raises ConfigError where something other than an empty folder is there, WriteError as above.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there and not an empty folder: name a new one")
    # Another process may have put its result there since: it is not replaced.
    with replacing(path, folders=False) as temporary:
        temporary.mkdir()
        yield temporary


def move_into(folder: Path, path: Path) -> None:
    """Move a file into a folder that one of these functions is about to put in place."""
    path.replace(folder / path.name)


def remove_folder(path: Path) -> None:
    """Remove a folder under another name, so that half of it is never found under its own."""
    with _aside(path):
        pass


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[None]:
    """A folder, or a link to one, goes to another name for the body, and then for good.

    A rename can replace a file or any other link, but no folder that holds something.
    """
    doomed = temporary_beside(path.with_name(f"{path.name}.old"))
    if path.is_dir():
        path.rename(doomed)
    yield
    remove(doomed)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A free name in the folder of `path`; nothing is left there unless the body renamed it.

    In the same folder, because a rename is atomic only within one file system. What writers that
    were killed left there goes first.
    """
    temporary = temporary_beside(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        remove(temporary)
        try:
            yield temporary
        finally:
            remove(temporary)


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


def _sync_all(path: Path) -> None:
    for file in [*path.rglob("*"), path]:
        sync(file)


def sync(path: Path) -> None:
    """Ask for the bytes of a file, or the names in a folder, to be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs alike: indented, in order, ending in a newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
