"""Which process wrote something, and whether it is still alive."""

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Self

_TOLERANCE = 2
"""Seconds by which two readings of one start time may differ: clocks are adjusted."""


@dataclass(frozen=True)
class Process:
    """A process by number, start time and machine; numbers are used again, pairs of both aren't."""

    pid: int
    started: int
    """Seconds since the epoch; 0 where the system doesn't say."""
    host: str

    @classmethod
    def this(cls) -> Self:
        """The process that asks."""
        return cls(os.getpid(), start_time(os.getpid()) or 0, platform.node())

    @property
    def is_gone(self) -> bool | None:
        """Whether it has ended; None for a process of another machine, which can't be asked."""
        if self.host != platform.node():
            return None
        if not _exists(self.pid):
            return True
        started = start_time(self.pid)
        if not started or not self.started:
            return False
        return abs(started - self.started) > _TOLERANCE

    @property
    def tag(self) -> str:
        """The process in the name of a file: `<pid>-<start>-<digest of the host>`."""
        return f"{self.pid}-{self.started}-{host_digest(self.host)}"

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.pid} on {self.host}" + (f", since {since}" if self.started else "")


def host_digest(host: str) -> str:
    """Eight characters that stand for a machine's name."""
    return sha256(host.encode()).hexdigest()[:8]


def start_time(pid: int) -> int | None:
    """When a process of this machine began, in seconds since the epoch; None where unknown."""
    return _own_start(pid) if pid == os.getpid() else _start(pid)


@cache
def _own_start(pid: int) -> int | None:
    return _start(pid)


def _start(pid: int) -> int | None:
    try:
        return _start_by_proc(pid) if Path("/proc/self/stat").exists() else _start_by_ps(pid)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _start_by_proc(pid: int) -> int:
    """Linux: clock ticks since boot, in field 22 of stat. A name in field 2 may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    boot = next(
        line.split()[1] for line in Path("/proc/stat").read_text().splitlines() if "btime" in line
    )
    return int(boot) + int(fields[19]) // os.sysconf("SC_CLK_TCK")


def _start_by_ps(pid: int) -> int:
    """Elsewhere: ps, in a language whose months we know."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    environment = os.environ | {"LC_ALL": "C"}
    text = subprocess.run(
        command, check=False, capture_output=True, env=environment, timeout=5
    ).stdout
    return int(time.mktime(time.strptime(text.decode().strip(), "%a %b %d %H:%M:%S %Y")))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
