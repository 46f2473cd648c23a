"""A run that is killed (SIGKILL) at random moments and gone on with until it ends.

Each try is a process of its own, which calls `loaded` before its work and goes on where there is
something to go on from.
"""

import subprocess
import time
from collections.abc import Callable, Sequence

_LOADED = "loaded"


def loaded() -> None:
    """Say that all modules are imported: the work begins."""
    print(_LOADED, flush=True)


def _start(command: Sequence[object]) -> subprocess.Popen[str]:
    """A process that is about to begin or go on."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{_LOADED}\n"
    return process


def undisturbed(command: Sequence[object]) -> float:
    """Seconds of the work that nothing kills."""
    process, begun = _start(command), time.monotonic()
    assert process.wait() == 0
    return time.monotonic() - begun


def killed_until_done(command: Sequence[object], patience: Callable[[], float]) -> int:
    """How often it was killed, each time after so many seconds, before it ended."""
    kills = 0
    while True:
        process = _start(command)
        try:
            code = process.wait(patience())
            assert code == 0, f"a run that went on ended with status {code}"
            return kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
