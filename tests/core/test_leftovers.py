"""Temporaries of dead processes go; those of living ones, and everybody else's files, stay."""

import os
import subprocess
import sys

import pytest

from fpo_core.io.leftovers import leftovers, remove_leftovers, temporary_beside
from fpo_core.io.processes import Process, host_digest


def name(of="model", *, pid, started=1, host=None):
    host = Process.this().host if host is None else host
    return f".{of}.{pid}-{started}-{host_digest(host)}.tmp"


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_temporaries_of_dead_processes_are_removed(tmp_path, dead):
    gone = tmp_path / name(pid=dead)
    gone.mkdir()
    (gone / "weights").write_bytes(bytes(1000))
    reused = tmp_path / name("card", pid=os.getpid(), started=1)
    reused.write_bytes(bytes(10))
    stay = [
        temporary_beside(tmp_path / "model"),
        tmp_path / ".notes.tmp",
        tmp_path / ".model.12.tmp",
        tmp_path / name(pid=dead, host="elsewhere"),
        tmp_path / "model",
    ]
    for path in stay:
        path.write_text("x")
    assert {(each.path, each.bytes) for each in leftovers(tmp_path)} == {(gone, 1000), (reused, 10)}
    assert len(remove_leftovers(tmp_path)) == 2
    assert sorted(tmp_path.iterdir()) == sorted(stay)
    assert remove_leftovers(tmp_path) == []


def test_under_the_lock_those_of_other_machines_go_too(tmp_path):
    path = tmp_path / name(pid=1, host="elsewhere")
    path.write_text("x")
    assert remove_leftovers(tmp_path) == []
    assert [each.path for each in remove_leftovers(tmp_path, locked=True)] == [path]
    assert not path.exists()


def test_those_of_other_machines_count_after_a_week(tmp_path):
    path = tmp_path / name(pid=1, host="elsewhere")
    path.write_text("x")
    os.utime(path, (0, 0))
    assert [each.path for each in leftovers(tmp_path)] == [path]


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path, dead):
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").write_text("x")
    (tmp_path / name(pid=dead)).symlink_to(target)
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "file").exists()


def test_folders_below_are_searched_on_demand(tmp_path, dead):
    below = tmp_path / "pairs"
    below.mkdir()
    (below / name(pid=dead)).write_text("x")
    assert leftovers(tmp_path) == []
    assert len(leftovers(tmp_path, deep=True)) == 1
    assert leftovers(tmp_path / "absent") == []
