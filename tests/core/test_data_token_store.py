import hashlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpo_core.data.token_store import RowWriter, TokenisedPairs, pack, row_key
from fpo_core.errors import DataError

PAIRS = [([1, 2], [3], [4, 5]), ([7], [8, 9, 10], [11]), ([12, 13, 14], [15], [16])]

ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6)


def write(folder, pairs, at=1):
    """Append the pairs in two goes, numbered from 1."""
    rows = [(i, *pair) for i, pair in enumerate(pairs, start=1)]
    with RowWriter(folder, "train") as writer:
        writer.append(pack(rows[:at]))
        writer.append(pack([]))
        writer.append(pack(rows[at:]))


def lists(pairs):
    return [(p.prompt.tolist(), p.chosen.tolist(), p.rejected.tolist()) for p in pairs]


def test_what_is_written_is_read(tmp_path):
    write(tmp_path, PAIRS)
    pairs = TokenisedPairs.open(tmp_path, "train")
    assert lists(pairs) == PAIRS
    assert len(pairs) == 3
    assert pairs.lengths().tolist() == [4, 4, 4]
    assert pairs.source_rows().tolist() == [1, 2, 3]
    assert pairs.keys() == [pair.key for pair in pairs]
    assert lists(pairs[1:]) == PAIRS[1:]
    with pytest.raises(IndexError):
        pairs[3]


def test_files_are_plain_little_endian_and_do_not_depend_on_the_chunks(tmp_path):
    (tmp_path / "other").mkdir()
    write(tmp_path, PAIRS, at=1)
    write(tmp_path / "other", PAIRS, at=2)
    content = (tmp_path / "train.tokens").read_bytes()
    assert content == struct.pack("<15i", *[x for pair in PAIRS for side in pair for x in side])
    for name in ("train.tokens", "train.index"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_file_that_is_cut_short_under_a_run_is_an_error(tmp_path):
    """A memory map would end the process."""
    write(tmp_path, PAIRS)
    pairs = TokenisedPairs.open(tmp_path, "train")
    os.truncate(tmp_path / "train.tokens", 8)
    with pytest.raises(DataError, match=r"train\.tokens was changed or cut short while it was in"):
        pairs[0]
    (tmp_path / "train.tokens").unlink()
    with pytest.raises(DataError, match=r"train\.tokens cannot be read \(No such file"):
        pairs.token_outside(9)


def test_prompts_are_numbered_as_they_appear(tmp_path):
    lists = [([1, 2], [3], [4]), ([1], [2, 3], [4]), ([1, 2], [5], [6]), ([], [1], [2])]
    pairs = TokenisedPairs.from_lists(lists)
    assert pairs.prompts().tolist() == [0, 1, 0, 2]
    assert pairs.prompts(np.array([1, 3, 1])).tolist() == [0, 1, 0]
    with RowWriter(tmp_path, "train") as writer:
        writer.append(pack((row, *pair) for row, pair in enumerate(lists, 1)))
    assert TokenisedPairs.open(tmp_path, "train").prompts().tolist() == [0, 1, 0, 2]


def test_key_is_a_hash_of_lengths_and_ids():
    key = TokenisedPairs.from_lists(PAIRS)[0].key
    packed = struct.pack("<2i", 2, 1) + struct.pack("<5i", 1, 2, 3, 4, 5)
    assert key == hashlib.blake2b(packed, digest_size=16).digest()


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
def test_key_tells_pairs_apart(one, other):
    keys = TokenisedPairs.from_lists([one, other]).keys()
    assert (keys[0] == keys[1]) == (one == other)


def test_key_sees_the_mask():
    body = np.arange(6, dtype=np.int32)
    assert len({row_key(body, p, c) for p in (1, 2) for c in (1, 2)}) == 4


@pytest.mark.parametrize("damage", ["cut", "index", "missing", "empty"])
def test_damage_is_noticed(tmp_path, damage):
    write(tmp_path, PAIRS)
    tokens, index = tmp_path / "train.tokens", tmp_path / "train.index"
    content = tokens.read_bytes()
    if damage == "cut":
        tokens.write_bytes(content[:-4])
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:-1])
    elif damage == "missing":
        index.unlink()
    else:
        tokens.write_bytes(b"")
    with pytest.raises(DataError, match="train"):
        TokenisedPairs.open(tmp_path, "train")


def test_an_index_short_of_a_record_is_noticed(tmp_path):
    write(tmp_path, PAIRS)
    index = tmp_path / "train.index"
    content = index.read_bytes()
    index.write_bytes(content[: len(content) // 3 * 2])
    with pytest.raises(DataError, match="damaged"):
        TokenisedPairs.open(tmp_path, "train")
