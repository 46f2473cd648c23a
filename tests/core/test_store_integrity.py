"""A damaged store is named and mended, writers share one, and a pass gives the same bits again."""

import json
import os
import shutil

import numpy as np
import pytest

from fpo_core.config import ReferenceConfig
from fpo_core.errors import LockedError, StoreError
from fpo_core.io import digests
from fpo_core.io.lock import locked
from fpo_core.loss.scores import Scores
from fpo_core.reference import writer
from fpo_core.reference.build import extend_store, missing_pairs
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter
from tests.core.pretend import PretendPolicy
from tests.core.test_reference_store import KEY, assert_holds, fill, pair_key
from tests.core.test_reference_store import writer as store_writer
from tests.helpers import random_pairs

PAIRS = random_pairs(40)
D_SAE = 30
NAMED = StoreKey("model", None, "sae", "blocks.0.hook_resid_post", "mean")


class Frozen(PretendPolicy):
    """Scores that follow from the tokens and, as rounding does, from the shape of the batch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def score(self, batch, *_, **__):
        self.batches.append(len(batch.tokens))
        rounding = 1e-3 * len(batch.tokens) + 1e-5 * batch.tokens.shape[1]
        inside = np.arange(batch.tokens.shape[1]) < np.asarray(batch.lengths)[:, None]
        logps = -(batch.tokens * inside).sum(axis=1) / 100 - rounding
        pooled = np.zeros((len(logps), D_SAE), np.float32)
        for row, tokens in zip(pooled, batch.tokens * inside, strict=True):
            np.add.at(row, tokens % D_SAE, 0.5)
        lengths = batch.completion_lengths().astype(np.float64)
        return Scores(logps=logps, lengths=lengths, pooled=pooled, feature_lengths=lengths)


def extend(folder, pairs=PAIRS, policy=None, **options):
    """The store extended by pairs, and the warnings on the way."""
    told = []
    config = ReferenceConfig(**({"rows_per_shard": 8, "tokens_per_batch": 256} | options))

    def hear(event):
        if event.kind == "warning":
            told.append(event.values["message"])

    store = extend_store(folder, NAMED, policy or Frozen(), [pairs], config, hear)
    return store, told


def numbers(store, pairs=PAIRS):
    found = store.batch(pairs.keys(), D_SAE)
    return found.logps.tobytes(), found.pooled.tobytes(), found.truncated.tobytes()


def flip(path, at=-1):
    """One bit changed, as a disk would: size and time of change may stay."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.fixture
def whole(tmp_path):
    """A store of five shards, and what it holds."""
    store, told = extend(tmp_path / "whole")
    assert told == []
    return tmp_path / "whole", numbers(store)


@pytest.mark.parametrize("shard", range(5))
@pytest.mark.parametrize("at", [100, -1, -200])
def test_one_bit_in_any_shard_is_refused_or_mended_by_name(whole, shard, at):
    folder, expected = whole
    path = folder / f"shard-{shard:05d}.safetensors"
    flip(path, at)
    with pytest.raises(StoreError, match=f"{path.name} is not what was written"):
        ReferenceStore.open(folder)
    assert sum(map(len, missing_pairs(folder, NAMED, [PAIRS]))) == 8
    store, told = extend(folder)
    assert len(told) == 1
    assert path.name in told[0]
    assert "its pairs are computed anew" in told[0]
    assert numbers(store) == expected
    assert not path.exists()
    assert extend(folder)[1] == []
    assert len(store.index) == len(PAIRS)


@pytest.mark.parametrize("kind", ["gone", "cut", "longer", "fifo"])
def test_only_the_rows_of_a_damaged_shard_are_computed_anew(whole, kind):
    folder, expected = whole
    path = folder / "shard-00002.safetensors"
    data = path.read_bytes()
    path.unlink()
    if kind in ("cut", "longer"):
        path.write_bytes(data[:-9] if kind == "cut" else data + b"x")
    elif kind == "fifo":
        os.mkfifo(path)
    others = {p.name: p.read_bytes() for p in folder.glob("shard-*") if p != path}
    store, told = extend(folder)
    assert len(told) == 1
    assert numbers(store) == expected
    left = {p.name: p.read_bytes() for p in folder.glob("shard-*")}
    assert {name: left[name] for name in others} == others
    assert len(left) == 5


def test_any_change_of_the_manifest_is_refused(whole):
    folder, _ = whole
    path = folder / "manifest.json"
    sound = json.loads(path.read_text())
    changes = [
        lambda m: m | {"feature_cap": 3},
        lambda m: m | {"made_with": m["made_with"] | {"dtype": "float16"}},
        lambda m: m | {"key": m["key"] | {"model": "other"}},
        lambda m: m | {"shards": m["shards"][1:]},
        lambda m: m | {"shards": [{"file": e["file"], "rows": e["rows"]} for e in m["shards"]]},
        lambda m: m | {"extra": 1},
    ]
    for change in changes:
        path.write_text(json.dumps(change(sound)))
        with pytest.raises(StoreError, match="is not what was written"):
            extend(folder)


def as_before(folder):
    """The manifest as version 0.1 wrote it: without hashes."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["shards"] = [{"file": e["file"], "rows": e["rows"]} for e in manifest["shards"]]
    path.write_text(json.dumps(manifest))


def test_a_store_without_hashes_opens_with_a_remark(whole):
    folder, expected = whole
    as_before(folder)
    told = []
    assert numbers(ReferenceStore.open(folder, told.append)) == expected
    assert len(told) == 1
    assert "has no hashes to check it by" in told[0]


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("offsets", lambda a: a[::-1].copy()),
        ("offsets", lambda a: a[:-1]),
        ("offsets", lambda a: a + 1),
        ("values", lambda a: a[:-1]),
        ("values", lambda a: a * np.float32(np.nan)),
        ("logps", lambda a: a.reshape(-1)),
        ("logps", lambda a: a / np.float32(0)),
        ("nonzeros", lambda a: a.astype(np.float32)),
        ("key", lambda a: a[:, :8].copy()),
        ("indices", lambda a: a.astype(np.int32) - 100),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_damage_even_without_hashes(whole, column, change):
    from safetensors.numpy import load_file, save_file

    folder, expected = whole
    path = folder / "shard-00001.safetensors"
    arrays = load_file(path)
    with np.errstate(all="ignore"):
        arrays[column] = change(arrays[column])
    save_file(arrays, path)
    as_before(folder)
    with pytest.raises(StoreError, match=r"shard-00001.safetensors (holds|has)"):
        ReferenceStore.open(folder)
    store, told = extend(folder)
    assert any(path.name in text for text in told)
    assert numbers(store) == expected


def test_a_feature_beyond_the_autoencoder_is_refused_by_number(whole):
    folder, _ = whole
    store = ReferenceStore.open(folder)
    with pytest.raises(StoreError, match=r"holds feature \d+, expected those of .* with 5"):
        store.batch(PAIRS.keys(), 5)


def test_a_store_is_hashed_once_while_it_stays_the_same(whole, monkeypatch):
    folder, expected = whole
    read = []
    real = digests.file_sha256
    monkeypatch.setattr(digests, "_known", {})
    monkeypatch.setattr(digests, "file_sha256", lambda path: read.append(path) or real(path))
    for _ in range(3):
        assert numbers(ReferenceStore.open(folder)) == expected
    assert len(read) == 5


def test_what_was_just_written_need_not_be_read_to_be_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "file_sha256", lambda path: pytest.fail(f"{path} was read"))
    store, _ = extend(tmp_path)
    assert len(store.index) == len(PAIRS)


def test_an_interrupted_pass_gives_the_same_bits(whole, tmp_path):
    _, expected = whole
    folder = tmp_path / "part"

    class StopError(Exception):
        pass

    class Interrupted(Frozen):
        def score(self, batch, *_, **__):
            if len(self.batches) == 4:
                raise StopError
            return super().score(batch)

    with pytest.raises(StopError):
        extend(folder, policy=Interrupted(), rows_per_shard=3)
    assert 0 < len(ReferenceStore.open(folder).index) < len(PAIRS)
    assert numbers(extend(folder, rows_per_shard=3)[0]) == expected


def test_pairs_that_are_stored_change_nothing_for_the_others(whole, tmp_path):
    _, expected = whole
    extend(tmp_path / "begun", PAIRS[:13])
    store, _ = extend(tmp_path / "begun")
    new = PAIRS[13:]
    alone = ReferenceStore.open(whole[0])
    assert numbers(store, new) == numbers(alone, new)
    assert numbers(alone) == expected


def test_batches_without_a_missing_pair_are_not_scored(whole):
    folder, _ = whole
    policy = Frozen()
    extend(folder, policy=policy)
    assert policy.batches == []
    flip(folder / "shard-00000.safetensors")
    extend(folder, policy=policy)
    assert 0 < sum(policy.batches) < 2 * len(PAIRS)


def test_two_writers_share_a_store_and_no_pair_is_stored_twice(tmp_path):
    first, second = (store_writer(tmp_path, rows_per_shard=2) for _ in range(2))
    fill(first, [0, 1, 2, 3], batch=2)
    fill(second, [2, 3, 4, 5, 6], batch=2)
    first.close()
    second.close()
    store = ReferenceStore.open(tmp_path)
    assert_holds(store, list(range(7)))
    assert len(store.index) == 7
    assert sorted(p.name for p in tmp_path.glob("shard-*")) == sorted(
        entry["file"] for entry in store.manifest["shards"]
    )


def test_a_writer_of_another_store_in_the_same_folder_is_refused(tmp_path):
    first = fill(store_writer(tmp_path), [0, 1, 2, 3])
    other = StoreWriter(
        tmp_path, StoreKey("other"), cap=8, dtype="float32", rows_per_shard=4, made_with={}
    )
    fill(first, [4]).close()
    with pytest.raises(StoreError, match="with another key: name another reference folder"):
        fill(other, [0, 1, 2, 3])
    assert_holds(ReferenceStore.open(tmp_path), list(range(5)))
    assert ReferenceStore.open(tmp_path).key == KEY


def test_a_writer_waits_for_another_and_says_so_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_PATIENCE", 0.05)
    made = store_writer(tmp_path)
    made.add([pair_key(0)], fill_scores())
    with locked(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        made.close()


def fill_scores():
    from tests.core.test_reference_store import scores

    return scores([0])


def test_a_copy_of_a_store_is_the_store(whole, tmp_path):
    folder, expected = whole
    shutil.copytree(folder, tmp_path / "copy")
    assert numbers(ReferenceStore.open(tmp_path / "copy")) == expected
