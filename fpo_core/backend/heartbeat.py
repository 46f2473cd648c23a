"""A sign of life between the processes of a run, in files of the folder that they share.

A process that was stopped, or hangs in its driver, answers no sum and raises nothing: the others
would wait for ever. A killed one is noticed by the frameworks, which sum with it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fpo_core.backend.process_group import Group

_BEATS = 10
"""Beats within the time after which a process counts as lost."""


def _file(folder: Path, rank: int) -> Path:
    return folder / f".fpo.alive-{rank}"


class _Watch:
    """When the file of another process last changed, by this one's own clock."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, None
        self._since = time.monotonic()

    def silent_for(self) -> float:
        """Seconds without a beat; 0 before the first, and after the file is gone with its end."""
        now = time.monotonic()
        try:
            stamp = self._path.stat().st_mtime_ns
        except OSError:
            self._seen = None
            return 0.0
        if stamp != self._seen:
            self._seen, self._since = stamp, now
        return now - self._since


@contextlib.contextmanager
def heartbeat(
    group: Group, folder: Path, seconds: float, lost: Callable[[int], None]
) -> Iterator[None]:
    """Beat during the body, and call `lost` with the rank of a process that does not for so long.

    It is called from another thread, since this one may be waiting in a sum that never ends.
    """
    if group.size == 1:
        yield
        return
    own, over = _file(folder, group.rank), threading.Event()
    others = {rank: _Watch(_file(folder, rank)) for rank in range(group.size) if rank != group.rank}

    def beat() -> None:
        while not over.wait(seconds / _BEATS):
            with contextlib.suppress(OSError):
                own.touch()
            for rank, watch in others.items():
                if watch.silent_for() > seconds:
                    lost(rank)
                    return

    own.touch()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        own.unlink(missing_ok=True)
