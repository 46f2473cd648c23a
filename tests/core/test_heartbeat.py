"""A process that stands still is noticed by the others; one that ends, or works long, is not."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from fpo_core.backend.heartbeat import heartbeat

BEAT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from fpo_core.backend.heartbeat import heartbeat
group = SimpleNamespace(rank=int(sys.argv[2]), size=2)
with heartbeat(group, Path(sys.argv[1]), 2.0, lambda rank: print("lost", rank, flush=True)):
    print("begun", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@contextlib.contextmanager
def process(folder, rank, seconds):
    command = [sys.executable, "-c", BEAT, folder, str(rank), str(seconds)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    try:
        yield child, child.stdout
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_process_that_stands_still_is_named(tmp_path):
    with process(tmp_path, 0, 60) as (_, said), process(tmp_path, 1, 60) as (second, _):
        time.sleep(0.5)
        second.send_signal(signal.SIGSTOP)
        assert said.readline() == "lost 1\n"


def test_processes_that_work_and_end_are_not(tmp_path):
    with process(tmp_path, 0, 6) as (_, first), process(tmp_path, 1, 1) as (_, second):
        assert second.read() == first.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_one_process_alone_leaves_no_file(tmp_path):
    from fpo_core.backend.process_group import ALONE

    with heartbeat(ALONE, tmp_path, 1.0, lambda rank: pytest.fail(f"lost {rank}")):
        assert list(tmp_path.iterdir()) == []
