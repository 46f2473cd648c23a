"""Temporary files and folders: named so that whoever comes later knows which are leftovers."""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from fpo_core.io.processes import Process, host_digest

_NAME = re.compile(
    r"^\.(?P<of>.+)\.(?P<pid>\d{1,10})-(?P<start>\d{1,12})-(?P<host>[0-9a-f]{8})\.tmp$"
)
_DAYS_ELSEWHERE = 7
"""Age after which a temporary of another machine counts as left behind."""


@dataclass(frozen=True)
class Leftover:
    """A temporary of a process that has ended."""

    path: Path
    bytes: int


def temporary_beside(path: Path) -> Path:
    """The name under which this process prepares what will be called `path`."""
    return path.with_name(f".{path.name}.{Process.this().tag}.tmp")


def leftovers(folder: Path, *, deep: bool = False) -> list[Leftover]:
    """Temporaries in a folder whose process is gone, with their sizes; `deep` looks below too.

    Names that this program does not give are never among them.
    """
    if not folder.is_dir():
        return []
    paths = folder.rglob(".*.tmp") if deep else folder.glob(".*.tmp")
    return [Leftover(path, _size(path)) for path in sorted(paths) if _is_leftover(path)]


def remove_leftovers(folder: Path, *, locked: bool = False, deep: bool = False) -> list[Leftover]:
    """Remove and return what `leftovers` lists.

    Where the caller holds the folder's lock, temporaries of other machines go too: no one else
    writes there.
    """
    found = leftovers(folder, deep=deep)
    if locked:
        known = {each.path for each in found}
        elsewhere = (path for path in folder.glob(".*.tmp") if _of_other_machine(path))
        found += [Leftover(path, _size(path)) for path in elsewhere if path not in known]
    for each in found:
        remove(each.path)
    return found


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link, never what a link points to. Missing ones are fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    match = _NAME.match(path.name)
    if match is None:
        return False
    if _of_other_machine(path):
        return _age(path) > _DAYS_ELSEWHERE * 86_400
    process = Process(int(match["pid"]), int(match["start"]), Process.this().host)
    return process.is_gone is True


def _of_other_machine(path: Path) -> bool:
    match = _NAME.match(path.name)
    return match is not None and match["host"] != host_digest(Process.this().host)


def _age(path: Path) -> float:
    """Seconds since anything in it changed."""
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return time.time() - max(file.lstat().st_mtime for file in files)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
