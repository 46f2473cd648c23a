"""Atomic writes and fingerprints."""

import ast
import json
from pathlib import Path

import pytest

from fpo_core.errors import ConfigError, WriteError
from fpo_core.io.atomic import (
    new_folder,
    remove_leftovers,
    write_atomically,
    write_folder,
    write_into_folder,
    write_json,
)
from fpo_core.io.hashing import sampled_sha256

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


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / ".x.1.tmp").mkdir()
    (tmp_path / ".y.1.tmp").write_text("half of")
    (tmp_path / "x").write_text("whole")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def renames(source):
    """Calls that rename a file or make a temporary one; `str.replace` takes two arguments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, count = node.func.attr, len(node.args) + len(node.keywords)
            module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            of_a_file = name == "replace" and (count == 1 or module == "os")
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
