"""Atomic writes and fingerprints."""

import json

import pytest

from fpo_core.errors import WriteError
from fpo_core.io.atomic import write_atomically, write_json
from fpo_core.io.hashing import sampled_sha256


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
