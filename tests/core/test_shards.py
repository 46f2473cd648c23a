"""Files whose rows several processes write have the bytes of one that a process writes alone."""

from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Thread

import ml_dtypes
import numpy as np
import pytest

from fpo_core.backend.sharded_files import gathered, prepared, told_by_first
from fpo_core.config import TrainConfig
from fpo_core.errors import ConfigError, FpoError, TrainingError, WriteError
from fpo_core.io.reader import open_safetensors
from fpo_core.io.shards import Shard, fill, reserve, rows_of
from fpo_core.io.writer import write_arrays

ARRAYS = {
    "wide": np.arange(35, dtype=np.float32).reshape(5, 7),
    "narrow": np.arange(6, dtype=np.float32).reshape(3, 2).astype(ml_dtypes.bfloat16),
    "vector": np.arange(9, dtype=np.float32),
    "step": np.array(3, np.int64),
}


def parts(rank: int, size: int) -> dict[str, np.ndarray | Shard]:
    """What a process of a sharded run holds of the arrays: the last one perhaps no row."""

    def part(array: np.ndarray) -> np.ndarray | Shard:
        if not array.ndim:
            return array
        count = -(-len(array) // size)
        start = min(rank * count, len(array))
        return Shard(array[start : start + count], start, array.shape)

    return {name: part(array) for name, array in ARRAYS.items()}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_bytes_are_those_of_whole_arrays(tmp_path, size):
    write_arrays(tmp_path / "whole", ARRAYS)
    reserve(tmp_path / "parts", parts(0, size))
    for rank in reversed(range(size)):
        fill(tmp_path / "parts", parts(rank, size), first=not rank)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_come_from_arrays_files_and_shards(tmp_path):
    write_arrays(tmp_path / "file", ARRAYS)
    in_file = open_safetensors(tmp_path / "file").array("wide")
    for array in (ARRAYS["wide"], in_file, Shard(ARRAYS["wide"][2:4], 2, (5, 7))):
        np.testing.assert_array_equal(rows_of(array, 2, 4), ARRAYS["wide"][2:4])


@dataclass
class Threads:
    """The processes of a run as threads: a sum is of what each has put on the table."""

    rank: int
    size: int
    barrier: Barrier
    table: dict[int, np.ndarray] = field(default_factory=dict)

    def sum(self, array: np.ndarray) -> np.ndarray:
        self.table[self.rank] = array
        self.barrier.wait()
        total = np.sum([self.table[rank] for rank in range(self.size)], axis=0, dtype=np.float32)
        self.barrier.wait()
        return total

    sum_native = sum


def together(size: int, work) -> list[object]:
    """What each process returns or raises."""
    barrier, table, ends = Barrier(size, timeout=20), {}, [None] * size

    def run(rank: int) -> None:
        try:
            ends[rank] = work(Threads(rank, size, barrier, table))
        except FpoError as error:
            ends[rank] = error

    threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_the_first_process_puts_in_place_what_all_wrote(tmp_path):
    (tmp_path / "there").mkdir()

    def work(group):
        with prepared(group, tmp_path / "there", {"a": parts(group.rank, 3)}) as files:
            group.sum(np.zeros(1))
            return None if group.rank else files.place(tmp_path / "there")

    described = together(3, work)[0]
    assert described == {"a": write_arrays(tmp_path / "whole", ARRAYS)}
    assert (tmp_path / "there" / "a").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "whole"]


def test_a_process_that_cannot_write_is_heard_by_all(tmp_path, monkeypatch):
    def full(path: Path, arrays, *, first: bool) -> None:
        if not first:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("fpo_core.backend.sharded_files.fill", full)

    def work(group):
        with prepared(group, tmp_path / "there", {"a": parts(group.rank, 2)}):
            pass

    first, second = together(2, work)
    assert isinstance(first, TrainingError)
    assert "another process" in str(first)
    assert isinstance(second, WriteError)
    assert "No space left" in str(second)
    assert list(tmp_path.iterdir()) == []


def test_adapters_are_whole_in_every_process():
    def work(group):
        return told_by_first(group, f"näme {group.rank}"), gathered(
            group, {k: v for k, v in parts(group.rank, 4).items() if k != "narrow"}
        )

    for name, arrays in together(4, work):
        assert name == "näme 0"
        np.testing.assert_array_equal(arrays["wide"], ARRAYS["wide"])
        np.testing.assert_array_equal(arrays["vector"], ARRAYS["vector"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizer": "adafactor"}, "optimizer is adafactor"),
        ({"fine_tune_type": "dora"}, "fine_tune_type is dora"),
        ({"online": "dpr", "judge": "longer"}, "online is set"),
        ({"degree_weight": 0.1}, "degree_weight is set"),
        ({"compile": True}, "compile is set"),
        ({"objective": "tdpo1", "fine_tune_type": "full"}, "objective tdpo1 on the KL"),
    ],
)
def test_what_a_sharded_model_does_not_do_is_refused(changes, reason):
    with pytest.raises(ConfigError, match=f"shard is set, but {reason}"):
        TrainConfig(model="m", data="d", sae=("s",), output="o", shard=True, **changes)


def test_offloading_needs_a_sharded_model():
    with pytest.raises(ConfigError, match="cpu_offload is set while shard is not: set shard too"):
        TrainConfig(model="m", data="d", sae=("s",), output="o", cpu_offload=True)
