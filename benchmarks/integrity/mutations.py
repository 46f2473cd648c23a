"""Random damage to files: what disks, copies, editors and strangers do to them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

IN_PLACE = 4 << 20
"""Files above this many bytes are damaged where they lie, and mended afterwards."""
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 1 << 80, 1e38, float("nan"), float("inf")),
    *("", "x", "../x", "/dev/zero", "\x1b[2J", [], [0], {}, [[0, 1]], {"a": {}}),
)
Undo = Callable[[], None]


def damage(path: Path, chance: Random) -> Undo:
    """Change a file at random so that its bytes are others; what puts it back."""
    if path.stat().st_size > IN_PLACE:
        return _damage_in_place(path, chance)
    sound = path.read_bytes()
    changed = sound
    while changed == sound:
        changed = _changed(sound, path, chance)
    path.write_bytes(changed)
    return lambda: _put_back(path, sound)


def _put_back(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _changed(data: bytes, path: Path, chance: Random) -> bytes:
    if path.suffix in (".json", ".index") and data[:1] in b"{[" and chance.random() < 0.6:
        return _changed_json(data, chance)
    if path.suffix == ".safetensors" and chance.random() < 0.5:
        return _changed_header(data, chance)
    return chance.choice(_BYTES)(data, chance)


def _flip(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, chance: Random) -> bytes:
    at, count = chance.randrange(len(data)), chance.randrange(1, 17)
    return data[:at] + chance.randbytes(count)[: len(data) - at] + data[at + count :]


def _zero(data: bytes, chance: Random) -> bytes:
    at, count = chance.randrange(len(data)), chance.choice((1, 64, 4096))
    return data[:at] + bytes(min(count, len(data) - at)) + data[at + count :]


def _truncate(data: bytes, chance: Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _extend(data: bytes, chance: Random) -> bytes:
    return data + chance.choice((chance.randbytes(chance.randrange(1, 64)), bytes(8), b"\n", b" "))


def _delete(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 9) :]


def _swap(data: bytes, chance: Random) -> bytes:
    """Two blocks in each other's place: every byte is there, and the length is right."""
    size = chance.choice((1, 4, 64, 512))
    first, second = (chance.randrange(max(1, len(data) - size)) for _ in range(2))
    changed = bytearray(data)
    one, other = data[first : first + size], data[second : second + size]
    changed[first : first + len(one)] = other[: len(one)].ljust(len(one), b"\0")
    changed[second : second + len(other)] = one[: len(other)].ljust(len(other), b"\0")
    return bytes(changed[: len(data)])


def _text(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([chance.choice(b'0123456789"{}[]:,.-eE \\\xff')]) + data[at + 1 :]


_BYTES = (_flip, _flip, _flip, _overwrite, _zero, _truncate, _extend, _delete, _swap, _text)


def _changed_json(data: bytes, chance: Random) -> bytes:
    """One change to a value: still JSON, and perhaps something else."""
    try:
        value = json.loads(data)
    except ValueError:
        return _flip(data, chance)
    if chance.random() < 0.05:
        depth = chance.choice((200, 100_000))
        return b'{"a":' * depth + b"1" + b"}" * depth
    places = list(_places(value))
    if not places:
        return _flip(data, chance)
    holder, key = chance.choice(places)
    _change_at(holder, key, chance)
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    """Each (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 50))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _change_at(holder: Any, key: Any, chance: Random) -> None:
    value, choice = holder[key], chance.randrange(4)
    if choice == 0:
        del holder[key]
    elif choice == 1 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = value + chance.choice((-1, 1, 7, 0.5))
    elif choice == 2 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    else:
        holder[key] = chance.choice(_ODD)


def _changed_header(data: bytes, chance: Random) -> bytes:
    """A safetensors header with one value changed, its length told right or wrong."""
    length = int.from_bytes(data[:8], "little")
    header = _changed_json(data[8 : 8 + length], chance)
    told = length if chance.random() < 0.1 else len(header)
    return told.to_bytes(8, "little") + header + data[8 + length :]


def _damage_in_place(path: Path, chance: Random) -> Undo:
    """One bit, a block of zeros, or the end: no copy of the file is needed to mend it."""
    size, choice = path.stat().st_size, chance.randrange(10)
    count = {0: 4096, 1: chance.randrange(1, 1 << 16)}.get(choice, 1)
    at = size - count if choice == 1 else chance.randrange(size - count)
    handle = os.open(path, os.O_RDWR)
    try:
        sound = os.pread(handle, count, at)
        if choice == 1:
            os.ftruncate(handle, at)
        else:
            os.pwrite(handle, bytes(count) if choice == 0 and any(sound) else _bit(sound), at)
    finally:
        os.close(handle)
    return lambda: _mend(path, sound, at)


def _bit(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def _mend(path: Path, data: bytes, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
