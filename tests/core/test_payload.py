"""The bytes behind a header: hashed while they are written."""

import hashlib
import os
from pathlib import Path

import pytest

from fpo_core.errors import SaeError
from fpo_core.io.hashing import Payload, reserve
from fpo_core.io.reader import map_bytes


def _written(path: Path, pieces: list[bytes], size: int) -> str:
    with path.open("wb") as file:
        reserve(file, size)
        file.write(b"head")
        payload = Payload(file)
        for piece in pieces:
            payload.write(memoryview(piece))
        return payload.sha256()


@pytest.mark.parametrize("length", [0, 1, 5, 3 << 20, 20 << 20])
def test_the_hash_is_that_of_what_follows_the_header(tmp_path, length):
    data = bytes(range(251)) * (length // 251 + 1)
    pieces = [data[:length], b"", data[:7]]
    found = _written(tmp_path / "x", pieces, 4 + length + 7)
    assert found == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert (tmp_path / "x").read_bytes() == b"head" + b"".join(pieces)


def test_memory_may_be_used_again_once_written(tmp_path):
    digest, room = hashlib.sha256(), bytearray(1 << 20)
    with (tmp_path / "x").open("wb") as file:
        payload = Payload(file)
        for value in range(30):
            room[:] = bytes([value]) * len(room)
            digest.update(room)
            payload.write(memoryview(room))
        assert payload.sha256() == digest.hexdigest()
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() == digest.hexdigest()


def test_a_file_cut_short_meanwhile_is_an_error(tmp_path):
    """Reading beyond the end of a map would kill the process."""
    (tmp_path / "x").write_bytes(bytes(10))
    assert map_bytes(tmp_path / "x", 2, 8).size == 8
    with pytest.raises(SaeError, match="shorter"):
        map_bytes(tmp_path / "x", 2, 9)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a call of Linux's")
def test_only_a_full_disk_refuses_room(tmp_path, monkeypatch):
    def fail(number: int):
        def call(*_: int) -> None:
            raise OSError(number, "")

        monkeypatch.setattr(os, "posix_fallocate", call)

    with (tmp_path / "x").open("wb") as file:
        fail(95)
        reserve(file, 10)
        fail(28)
        with pytest.raises(OSError, match="28"):
            reserve(file, 10)
