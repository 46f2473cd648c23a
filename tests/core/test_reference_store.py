"""The reference store: what goes in comes out, crashes cost a shard, damage is refused."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fpo_core.errors import StoreError
from fpo_core.io.reader import open_safetensors
from fpo_core.loss.scores import Scores
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter

D_SAE = 12
KEY = StoreKey(model="m" * 64, sae="s" * 64, hook="blocks.1.hook_resid_post", pooling="id:0")


def pair_key(i):
    return bytes([i]) * 16


def scores(numbers, d_sae=D_SAE):
    """Scores whose every number tells its pair and side: side w of pair 3 has logp −3.25."""
    rows = [(i, side) for side in (0, 1) for i in numbers]
    pooled = np.zeros((len(rows), d_sae), np.float32)
    for row, (i, side) in zip(pooled, rows, strict=True):
        row[i % d_sae], row[(i + 1 + side) % d_sae] = 1 + i, -(2 + i)
    values = np.array([-i - 0.25 - 0.5 * side for i, side in rows], np.float32)
    lengths = np.array([i + 1 + side for i, side in rows], np.float32)
    return Scores(logps=values, lengths=lengths, pooled=pooled, feature_lengths=lengths - 1)


def writer(folder, rows_per_shard=4, cap=8, dtype="float32", **more):
    options = {"cap": cap, "dtype": dtype, "rows_per_shard": rows_per_shard, "made_with": {"a": 1}}
    return StoreWriter(folder, KEY, **(options | more))


def fill(made, numbers, batch=3):
    for start in range(0, len(numbers), batch):
        part = numbers[start : start + batch]
        made.add([pair_key(i) for i in part], scores(part))
    return made


def assert_holds(store, numbers):
    expected = scores(numbers)
    found = store.batch([pair_key(i) for i in numbers], D_SAE)
    assert found.logps.tolist() == expected.logps.tolist()
    assert (found.pooled == expected.pooled).all()
    assert found.truncated.tolist() == [0] * (2 * len(numbers))


def test_round_trip_in_any_order(tmp_path):
    fill(writer(tmp_path), list(range(10))).close()
    store = ReferenceStore.open(tmp_path)
    assert store.key == KEY
    assert store.manifest["made_with"] == {"a": 1}
    assert [entry["rows"] for entry in store.manifest["shards"]] == [4, 4, 2]
    assert_holds(store, [9, 0, 4, 3])
    assert_holds(store, list(range(10)))
    assert store.batch([pair_key(2)], None).pooled is None


def test_missing_keys_are_listed_once_and_extra_rows_ignored(tmp_path):
    fill(writer(tmp_path), [0, 1, 2]).close()
    store = ReferenceStore.open(tmp_path)
    assert store.missing([pair_key(i) for i in (5, 1, 6, 5)]) == [0, 2]
    assert store.missing([pair_key(1)]) == []
    with pytest.raises(StoreError, match=r"lacks a pair of this data"):
        store.batch([pair_key(7)], D_SAE)


def test_at_most_one_shard_is_held_in_memory(tmp_path):
    made = writer(tmp_path, rows_per_shard=4)
    for i in range(11):
        made.add([pair_key(i)], scores([i]))
        assert len(list(tmp_path.glob("shard-*"))) == (i + 1) // 4
        assert len(made._rows) < 4
        manifest = tmp_path / "manifest.json"
        assert not manifest.exists() or len(json.loads(manifest.read_text())["shards"]) > 0
    made.close()
    assert len(list(tmp_path.glob("shard-*"))) == 3


def test_a_pass_goes_on_after_a_crash_between_shards(tmp_path):
    made = fill(writer(tmp_path), list(range(6)))  # rows 4 and 5 are still in memory: lost
    del made
    # the crash came after the next shard's file and before the manifest that lists it
    save_file({"key": np.zeros((1, 16), np.uint8)}, tmp_path / "shard-00001.safetensors")
    store = ReferenceStore.open(tmp_path)
    missing = store.missing([pair_key(i) for i in range(10)])
    assert missing == [4, 5, 6, 7, 8, 9]
    again = writer(tmp_path, shards=store.manifest["shards"])
    del store  # its maps must not be needed any more
    fill(again, missing).close()
    assert_holds(ReferenceStore.open(tmp_path), list(range(10)))
    assert not list(tmp_path.glob(".*"))


def test_a_store_without_rows_exists(tmp_path):
    assert not ReferenceStore.exists(tmp_path)
    writer(tmp_path).close()
    assert ReferenceStore.exists(tmp_path)
    assert len(ReferenceStore.open(tmp_path).index) == 0


def test_features_are_stored_largest_first_up_to_the_cap(tmp_path):
    pooled = np.array([[1, 0, -9, 3, 3, 0.5], [0, 0, 2, 0, 0, 0]], np.float32)
    given = Scores(
        logps=np.zeros(2), lengths=np.ones(2), pooled=pooled, feature_lengths=np.array([5, 0])
    )
    made = writer(tmp_path, cap=2)
    made.add([pair_key(0)], given)
    made.close()
    store = ReferenceStore.open(tmp_path)
    shard = store.shards[0]
    assert shard["indices"][:].tolist() == [2, 3, 2]  # by magnitude; of the equal 3s, the first
    assert shard["nonzeros"].tolist() == [[5, 1]]
    found = store.batch([pair_key(0)], 6)
    assert found.pooled.tolist() == [[0, 0, -9, 3, 0, 0], [0, 0, 2, 0, 0, 0]]
    assert found.truncated.tolist() == [1, 0]


def test_each_autoencoder_has_the_cap_to_itself(tmp_path):
    pooled = np.array([[100, 200, 300, 3, 1, 2], [0, 0, 0, 0, 0, 4]], np.float32)
    given = Scores(np.zeros(2), np.ones(2), pooled=pooled, feature_lengths=np.ones(2))
    made = writer(tmp_path, cap=2, widths=(3, 3))
    made.add([pair_key(0)], given)
    made.close()
    found = ReferenceStore.open(tmp_path).batch([pair_key(0)], 6)
    assert found.pooled.tolist() == [[0, 200, 300, 3, 0, 2], [0, 0, 0, 0, 0, 4]]
    assert found.truncated.tolist() == [1, 0]


def test_half_precision_is_kept_as_such_and_overflow_is_refused(tmp_path):
    made = writer(tmp_path, dtype="float16")
    made.add([pair_key(1)], scores([1]))
    too_large = scores([2])
    too_large.pooled[0, 0] = 7e4
    with pytest.raises(StoreError, match="overflows float16: set feature_dtype to float32"):
        made.add([pair_key(2)], too_large)
    made.close()
    store = ReferenceStore.open(tmp_path)
    assert store.shards[0]["values"].dtype == np.float16
    assert_holds(store, [1])


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    bad = scores([1])
    bad.logps[1] = np.nan
    with pytest.raises(StoreError, match="log-probability that is not finite"):
        writer(tmp_path).add([pair_key(1)], bad)
    bad = scores([1])
    bad.pooled[1, 1] = np.inf
    with pytest.raises(StoreError, match="reference feature overflows"):
        writer(tmp_path).add([pair_key(1)], bad)


def test_a_foreign_store_is_refused_with_every_difference(tmp_path):
    other = StoreKey(model="n" * 64, sae="s" * 64, hook="blocks.2.hook_resid_post", pooling="id:0")
    with pytest.raises(StoreError) as caught:
        other.check(KEY, tmp_path)
    text = str(caught.value)
    assert "model: the store has mmmmmmmmmmmm…, this run has nnnnnnnnnnnn…" in text
    assert "hook: the store has blocks.1.hook_resid_post, this run has blocks.2" in text
    assert "sae:" not in text
    assert "pooling:" not in text
    KEY.check(KEY, tmp_path)


def test_a_run_without_features_may_use_a_store_with_them_but_not_the_other_way():
    plain = StoreKey(model="m" * 64)
    assert plain.differences(KEY) == []
    assert len(KEY.differences(plain)) == 3
    assert len(plain.differences(StoreKey(model="m" * 64, adapter="a"))) == 1


SHARD, MANIFEST = "shard-00000.safetensors", "manifest.json"


def in_bytes(change):
    """Damage to the shard's bytes."""
    return lambda folder: (folder / SHARD).write_bytes(change((folder / SHARD).read_bytes()))


def in_manifest(change):
    """Damage to the manifest's values."""

    def apply(folder):
        path = folder / MANIFEST
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return apply


def without(column):
    """A shard that lacks a column."""

    def apply(folder):
        arrays = load_file(folder / SHARD)
        del arrays[column]
        save_file(arrays, folder / SHARD)

    return apply


DAMAGES = {
    "cut": in_bytes(lambda data: data[:-20]),
    "longer": in_bytes(lambda data: data + b"1234"),
    "empty": in_bytes(lambda data: b""),
    "header": in_bytes(lambda data: data[:8] + b"garbage!" + data[16:]),
    "header size": in_bytes(lambda data: b"\xff" * 8 + data[8:]),
    "header type": in_bytes(lambda data: struct.pack("<Q", 2) + b"[]" + data),
    "gone": lambda folder: (folder / SHARD).unlink(),
    "no offsets": without("offsets"),
    "no key": without("key"),
    "other rows": in_manifest(lambda m: m | {"shards": [{"file": SHARD, "rows": 99}]}),
    "not json": lambda folder: (folder / MANIFEST).write_text("{"),
    "not text": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"),
    "a list": in_manifest(lambda m: []),
    "other version": in_manifest(lambda m: m | {"version": 99}),
    "no shards": in_manifest(lambda m: {k: v for k, v in m.items() if k != "shards"}),
    "odd shards": in_manifest(lambda m: m | {"shards": [1]}),
    "odd key": in_manifest(lambda m: m | {"key": {"colour": "red"}}),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_refused_in_one_sentence(tmp_path, kind):
    fill(writer(tmp_path), [0, 1, 2]).close()
    DAMAGES[kind](tmp_path)
    with pytest.raises(StoreError, match=r"build (it|the store) again") as caught:
        ReferenceStore.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_absent_store_says_how_to_build_one(tmp_path):
    with pytest.raises(StoreError, match="holds no reference store: build the reference first"):
        ReferenceStore.open(tmp_path)


def test_arrays_are_read_by_parts_and_whole(tmp_path):
    arrays = {
        "a": np.arange(5, dtype=np.uint8),
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "c": np.arange(3, dtype=np.int64),
        "d": np.arange(3, dtype=np.float16),
        "e": np.zeros((0, 4), np.int32),
    }
    path = tmp_path / "x.safetensors"
    save_file(arrays, path)
    file = open_safetensors(path)
    for name, array in arrays.items():
        found = file.array(name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        for part in (slice(None), slice(1, 2), slice(-1, None), slice(3, 1)):
            np.testing.assert_array_equal(found[part], array[part])


def test_a_shard_that_is_cut_short_under_a_run_is_an_error(tmp_path):
    """A memory map would end the process."""
    fill(writer(tmp_path), [0]).close()
    store = ReferenceStore.open(tmp_path)
    shard = next(tmp_path.glob("shard-*"))
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(StoreError, match=f"{shard.name} was changed or cut short while it was in"):
        store.batch([pair_key(0)], D_SAE)
