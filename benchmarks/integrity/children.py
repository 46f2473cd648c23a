"""Work in forked children of a process that has the libraries loaded: what came of it, and when.

Time is a child's own, not the clock's: on a machine with other work a child that waits for a
processor is slow and hangs on nothing.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class End:
    """How a child ended; exactly one field is set."""

    value: Any = None
    refused: str | None = None
    traceback: str | None = None
    hang: bool = False


def ended(work: Callable[[], Any], answer: Path, seconds: float = 20.0) -> End:
    """What `work` returns (JSON values) or raises in a child, which is killed after `seconds` of
    computing, or of waiting for something that does not come.
    """
    answer.unlink(missing_ok=True)
    code = wait(start(lambda: _answer(work, answer), answer.with_suffix(".log")), seconds)
    if code is None:
        return End(hang=True)
    if code or not answer.exists():
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return End(traceback=f"the process ended by {name}")
    return End(**json.loads(answer.read_text()))


def _answer(work: Callable[[], Any], answer: Path) -> None:
    from fpo_core.errors import FpoError

    try:
        found = {"value": work()}
    except FpoError as error:
        found = {"refused": str(error)}
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = {"traceback": f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"}
    answer.write_text(json.dumps(found))


def start(work: Callable[[], object], output: Path) -> int:
    """The number of a child that does `work`; what it prints goes to `output`."""
    child = os.fork()
    if child:
        return child
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def wait(child: int, seconds: float, standing: float | None = None) -> int | None:
    """The exit status of a child, negative for a signal; None where it was killed.

    It is after `seconds` of computing, or of `standing` (by default as many) without any.
    """
    standing = seconds if standing is None else standing
    computed, since, pause = 0.0, time.monotonic(), 0.0005
    while computed < seconds and time.monotonic() - since < standing:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(pause * 1.2, 0.02)
        now, waits = _progress(child)
        if now > computed or not waits:
            computed, since = now, time.monotonic()
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code


def _progress(child: int) -> tuple[float, bool]:
    """Seconds that a child has computed, and whether no thread of it wants processor or disk."""
    states: set[str] = set()
    for path in Path(f"/proc/{child}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            states.add(fields[0])
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), not states & {"R", "D"}


def computed_by_children() -> float:
    """Seconds that all children so far have computed, those that were waited for."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
