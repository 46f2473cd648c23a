"""An advisory lock on a folder, so that two runs never write into one at once.

The kernel's lock on an open file decides, and is gone with its process: a killed run leaves nothing
to clear up. What is written inside is for the message, and decides only on file systems without
such locks.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fpo_core.errors import LockedError, WriteError
from fpo_core.io.processes import Process

LOCK_FILE = ".fpo.lock"
_PAUSE = 0.02
"""Seconds between two looks at a lock that another process holds."""
_open_locks: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path, setting: str = "output", wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is absent; see `locked_by`."""
    with locked_by(folder / LOCK_FILE, setting, wait):
        yield


@contextlib.contextmanager
def locked_by(path: Path, setting: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock that lies at `path`, in a folder that is made where it is absent.

    Folders made for it that stay empty are removed with it. Waits so many seconds for another
    holder, then raises LockedError naming it and the `setting` that chose the folder; WriteError
    where the folder can't be written.
    """
    until = time.monotonic() + wait
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while (handle := _take(path)) is None and time.monotonic() < until:
            time.sleep(_PAUSE)
    except OSError as error:
        raise WriteError(path, error.strerror or str(error)) from None
    if handle is None:
        raise LockedError(path.parent, setting, _holder(path))
    _open_locks.add(handle)
    try:
        yield
    finally:
        _open_locks.discard(handle)
        # Removed while it is held: whoever opened it meanwhile sees that the name is gone.
        path.unlink(missing_ok=True)
        os.close(handle)
        for folder in new:  # where nothing came of it, as after a refusal
            with contextlib.suppress(OSError):
                folder.rmdir()


def holder(folder: Path) -> Process | None:
    """Who holds the lock of a folder now; None where nobody does."""
    path = folder / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return None if _is_free(handle, path) else _holder(path)
    finally:
        os.close(handle)


def _take(path: Path) -> int | None:
    """A descriptor that holds the lock; None where another process does."""
    while True:
        # Never through a link: what it points to would be overwritten.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            if not _is_free(handle, path):
                os.close(handle)
                return None
            if _is_at(handle, path):
                _write_holder(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed the name just now: try with the file that is new


def _is_free(handle: int, path: Path) -> bool:
    """Lock an open file where nobody has; it stays so until it is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no such locks on this file system: believe what is written inside
        process = _holder(path)
        return process is None or process.is_gone is True
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _write_holder(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(vars(Process.this())).encode(), 0)


def _holder(path: Path) -> Process | None:
    """Who wrote the lock; None where that can't be read, as in the moment before it is written."""
    try:
        values = json.loads(path.read_bytes()[:4096])
        return Process(int(values["pid"]), int(values["started"]), str(values["host"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _close_in_child() -> None:
    """A fork shares its parent's open files: it would hold the lock after the parent's end."""
    for handle in _open_locks:
        with contextlib.suppress(OSError):
            os.close(handle)
    _open_locks.clear()


os.register_at_fork(after_in_child=_close_in_child)
