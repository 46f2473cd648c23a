"""Atomic writes and fingerprints."""

import ast
import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from fpo_core.errors import ConfigError, WriteError
from fpo_core.io.atomic import (
    new_folder,
    write_atomically,
    write_folder,
    write_into_folder,
    write_json,
)
from fpo_core.io.digests import sampled_sha256
from fpo_core.io.processes import Process

ROOT = Path(__file__).parents[2]


def test_json_is_for_people_too(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_text() == '{\n  "b": 1,\n  "a": "é"\n}\n'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)

    def fail(temporary):
        temporary.write_text("half of")
        raise OSError("disk full")

    with pytest.raises(WriteError, match=r"a.json cannot be written \(disk full\): free"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_the_fingerprint_sees_names_sizes_and_any_sampled_byte(tmp_path):
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    first.write_bytes(bytes(100_000))
    second.write_bytes(b"xyz")
    seen = {sampled_sha256([first, second])}
    assert sampled_sha256([second, first]) in seen  # the order given does not matter

    second.write_bytes(b"xyZ")
    seen.add(sampled_sha256([first, second]))
    first.write_bytes(bytes(100_001))
    seen.add(sampled_sha256([first, second]))
    moved = bytearray(100_001)
    moved[-1] = 1
    first.write_bytes(moved)
    seen.add(sampled_sha256([first, second]))
    assert len(seen) == 4


def test_a_large_file_is_sampled_to_its_very_end(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1000))
    before = sampled_sha256([path], samples=4, chunk=50)
    data = bytearray(1000)
    data[999] = 1
    path.write_bytes(data)
    assert sampled_sha256([path], samples=4, chunk=50) != before
    data[999], data[500] = 0, 1  # between the samples: this is what sampling gives up
    path.write_bytes(data)
    assert sampled_sha256([path], samples=4, chunk=50) == before


def fill(text):
    return lambda folder: (folder / "a").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "folder"
    write_folder(path, fill("old"))
    (path / "b").write_text("of the old one")
    write_folder(path, fill("new"))
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "new"}
    assert list(path.parent.iterdir()) == [path]


def test_a_file_replaces_no_folder(tmp_path):
    write_folder(tmp_path / "x", fill("old"))
    with pytest.raises(WriteError):
        write_atomically(tmp_path / "x", lambda path: path.write_text("new"))
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    write_folder(tmp_path / "x", fill("old"))

    def fail(folder):
        fill("new")(folder)
        raise OSError(28, "No space left on device")

    for write in (write_folder, write_into_folder):
        with pytest.raises(WriteError, match="No space left on device"):
            write(tmp_path / "x", fail)
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "a"]


def test_files_move_into_a_folder_that_holds_others(tmp_path):
    (tmp_path / "other").write_text("stays")
    write_into_folder(tmp_path, fill("new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "other"]


def test_a_new_folder_takes_an_empty_one_and_no_other(tmp_path):
    (tmp_path / "x").mkdir()
    with new_folder(tmp_path / "x") as folder:
        fill("new")(folder)
    with pytest.raises(ConfigError, match="not an empty folder"), new_folder(tmp_path / "x"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "a"]


def renames(source):
    """Calls that rename a file or make a temporary one; `str.replace` takes two arguments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, alone = node.func.attr, len(node.args) == 1 and not node.keywords
            module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            of_a_file = name == "replace" and (alone or module == "os")
            if of_a_file or name in ("rename", "renames", "mkstemp", "mkdtemp"):
                yield name


def test_only_one_module_renames():
    """So that syncing, cleaning up and the errors of a full disk are in one place."""
    planted = "a.replace(b); os.replace(a, b); a.rename(b); s.replace('a', 'b')"
    assert list(renames(planted)) == ["replace", "replace", "rename"]
    packages = ("fpo", "fpo_core", "fpo_mlx", "fpo_torch", "convert", "cli")
    files = [file for name in packages for file in (ROOT / name).rglob("*.py")]
    found = {file.name for file in files if list(renames(file.read_text(encoding="utf-8")))}
    assert found == {"atomic.py"}


def test_a_folder_that_appeared_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    refused = pytest.raises(WriteError, match="something else was written there meanwhile")
    with refused, new_folder(out) as folder:
        (folder / "result").touch()
        out.mkdir()
        (out / "theirs").touch()
    assert [path.name for path in out.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target = tmp_path / "target"
    target.write_text("theirs")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_json(link, {})
    assert not link.is_symlink()
    assert target.read_text() == "theirs"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    link.unlink()
    link.symlink_to(folder)
    write_folder(link, lambda path: (path / "new").touch())
    assert [path.name for path in link.iterdir()] == ["new"]
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.ENOENT, "its folder is gone"),
        (errno.EACCES, "check the folder's permissions"),
        (errno.ENOTEMPTY, "something else was written there meanwhile"),
    ],
)
def test_an_error_of_writing_gives_the_advice_for_its_reason(tmp_path, code, advice):
    def fail(_):
        raise OSError(code, os.strerror(code))

    with pytest.raises(WriteError, match=advice) as caught:
        write_folder(tmp_path / "x", fail)
    assert ("free some space" in str(caught.value)) == (code == errno.ENOSPC)


def test_what_a_dead_writer_left_goes_with_the_next_one(tmp_path):
    dead = dataclasses.replace(Process.this(), started=1).tag
    (tmp_path / f".model.{dead}.tmp").mkdir()
    (tmp_path / ".notes.tmp").touch()
    write_json(tmp_path / "x", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.tmp", "x"]
