"""Every bit of a file counts, and a manifest names the file and the reason."""

import hashlib
import json
import os

import pytest

from fpo_core.io import digests
from fpo_core.io.digests import damages, describe, known_sha256, remember, seal_holds, sealed


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Each test begins as a new process does."""
    monkeypatch.setattr(digests, "_known", {})


def test_the_hash_is_of_all_bytes(tmp_path):
    path = tmp_path / "file"
    data = os.urandom((3 << 20) + 17)  # some pieces and a part of one
    path.write_bytes(data)
    assert known_sha256(path) == hashlib.sha256(data).hexdigest()


def test_any_flipped_bit_is_named(tmp_path):
    path = tmp_path / "weights"
    data = bytearray(os.urandom((5 << 20) + 3))
    path.write_bytes(data)
    manifest = {"weights": describe(path)}
    assert damages(tmp_path, manifest) == []
    for place in (0, 70_000, len(data) // 2 + 1, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        os.utime(path, ns=(0, place))
        [damage] = damages(tmp_path, manifest)
        assert str(damage) == "weights is not what was written (SHA-256 differs)"


def test_a_hash_stays_with_a_renamed_file_and_not_with_its_name(tmp_path):
    (tmp_path / "new").write_bytes(b"two")
    remember(tmp_path / "new", "known")
    (tmp_path / "new").rename(tmp_path / "file")
    assert known_sha256(tmp_path / "file") == "known"
    (tmp_path / "new").write_bytes(b"two")
    assert known_sha256(tmp_path / "new") == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("value", [{}, {"b": [1, 2.5, None, float("inf")], "a": {"x": "ü"}}])
def test_a_sealed_object_tells_any_change(value):
    whole = json.loads(json.dumps(sealed(value), indent=3))
    assert seal_holds(whole) is True
    assert seal_holds(dict(reversed(whole.items()))) is True
    assert seal_holds(whole | {"c": 1}) is False
    assert seal_holds(whole | {"a": {"x": "u"}}) is False
    assert seal_holds(value) is None
    assert sealed(whole) == whole


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = known_sha256(path)
    monkeypatch.setattr(digests, "file_sha256", lambda _: "read again")
    assert known_sha256(path) == first
    os.utime(path, ns=(0, 1))
    assert known_sha256(path) == "read again"


def test_a_hash_computed_while_writing_is_taken_over(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    remember(path, "known")
    monkeypatch.setattr(digests, "file_sha256", lambda _: pytest.fail("the file was read"))
    assert known_sha256(path) == "known"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "file is missing"),
        (lambda path: path.write_bytes(b"longer"), "file has 6 bytes, expected 3"),
        (lambda path: path.write_bytes(b"two"), "file is not what was written (SHA-256 differs)"),
        (
            lambda path: (path.unlink(), path.mkdir()),
            "file has",
        ),
    ],
)
def test_damage_is_told_in_words(tmp_path, change, reason):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    manifest = {"file": describe(path)}
    change(path)
    digests._known.clear()
    [damage] = damages(tmp_path, manifest)
    assert str(damage).startswith(reason)


@pytest.mark.parametrize("name", ["../file", "/etc/passwd", "a/b", "", "..", "a\\b", "a\0b"])
def test_a_manifest_names_only_files_of_its_folder(tmp_path, name):
    [damage] = damages(tmp_path, {name: {"size": 1, "sha256": ""}})
    assert damage.reason == "is no name of a file in this folder"


@pytest.mark.parametrize("entry", [None, 3, {}, {"size": 1}, "abc", []])
def test_an_entry_without_size_and_hash_is_damage(tmp_path, entry):
    (tmp_path / "file").write_bytes(b"one")
    [damage] = damages(tmp_path, {"file": entry})
    assert damage.reason == "has no size and SHA-256 in the manifest"


def test_a_fifo_under_the_name_of_a_file_is_damage_and_no_wait(tmp_path):
    os.mkfifo(tmp_path / "file")
    [damage] = damages(tmp_path, {"file": {"size": 0, "sha256": ""}})
    assert "a FIFO" in damage.reason
