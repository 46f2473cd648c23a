"""One writer to a folder: who holds it is told, who died is no longer in the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fpo_core.errors import LockedError, WriteError
from fpo_core.io.lock import LOCK_FILE, holder, locked
from fpo_core.io.processes import Process, start_time

HOLD = """
import sys, time
from pathlib import Path
from fpo_core.io.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, other):
    with pytest.raises(LockedError) as caught, locked(tmp_path, "reference"):
        pass
    assert str(caught.value).startswith(f"reference is {tmp_path}, where process {other.pid} on ")
    found = holder(tmp_path)
    assert found is not None
    assert (found.pid, found.started) == (other.pid, start_time(other.pid))


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK_FILE).exists()
    assert holder(tmp_path) is None
    with locked(tmp_path):
        held = json.loads((tmp_path / LOCK_FILE).read_text())
        assert held["pid"] == os.getpid()


def test_nothing_is_left_after_the_body_or_an_error_in_it(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "deep" / "new"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "new"):
        (tmp_path / "new" / "result").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result"]


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path):
    again = pytest.raises(LockedError, match=f"process {os.getpid()} ")
    with locked(tmp_path), again, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path):
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom fpo_core.io.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    if not os.fork(): print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_where_the_disk_has_no_such_locks_a_living_holder_counts(tmp_path, monkeypatch):
    def unsupported(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    this = Process.this()
    path = tmp_path / LOCK_FILE
    path.write_text(json.dumps(vars(this)))
    with pytest.raises(LockedError), locked(tmp_path):
        pass
    # The number is in use again: the process that has it now began at another time.
    path.write_text(json.dumps(vars(this) | {"started": this.started - 3600}))
    with locked(tmp_path):
        pass


def test_a_link_under_the_name_of_the_lock_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / LOCK_FILE).symlink_to(target)
    with pytest.raises(WriteError), locked(tmp_path):
        pass
    assert target.read_text() == "mine"


def test_processes_are_told_apart_by_number_start_and_machine():
    this = Process.this()
    assert this.is_gone is False
    assert abs(this.started - time.time()) < 3600
    assert Process(this.pid, this.started - 60, this.host).is_gone is True
    assert Process(this.pid, this.started, "elsewhere").is_gone is None
    assert Process(2**22 + 1, 1, this.host).is_gone is True


def test_start_times_by_ps_are_those_of_proc(monkeypatch):
    if not Path("/proc/self/stat").exists():
        pytest.skip("there is only ps here")
    from fpo_core.io import processes

    clock = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(1_700_000_000))
    result = subprocess.CompletedProcess([], 0, f"{clock}\n".encode())
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: result)
    assert processes._start_by_ps(1) == 1_700_000_000
