"""Sharing a run between processes; here they are threads, with a policy that only pretends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpo_core.backend.process_group import (
    ALONE,
    check_same_settings,
    gather_scores,
    joined,
    only_first,
    shares,
)
from fpo_core.errors import ConfigError, LostProcessError, TrainingError, WriteError
from fpo_core.loss.scores import Scores
from tests.core.pretend import ROWS, PretendPolicy, log_of, run


class Exchange:
    """Sums for threads that meet."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.given: dict[int, np.ndarray] = {}

    def sum(self, rank: int, array: np.ndarray) -> np.ndarray:
        self.given[rank] = array
        self._meet()
        total = np.sum([self.given[rank] for rank in sorted(self.given)], axis=0)
        self._meet()
        return total

    def _meet(self) -> None:
        try:
            self.barrier.wait(20)
        except threading.BrokenBarrierError:
            raise LostProcessError("another process of this run was lost") from None


@dataclass(frozen=True)
class Thread:
    """`Group` of one thread."""

    rank: int
    size: int
    exchange: Exchange

    def sum(self, array: np.ndarray) -> np.ndarray:
        return self.exchange.sum(self.rank, np.asarray(array))

    sum_native = sum


def together(size: int, work: Any) -> list[Any]:
    """What `work(group)` returns, or raises, in each of so many threads."""
    exchange = Exchange(size)

    def one(rank: int) -> Any:
        try:
            return work(Thread(rank, size, exchange))
        except Exception as error:
            if isinstance(error, LostProcessError) or not isinstance(error, TrainingError):
                exchange.barrier.abort()
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_every_position_is_one_processes(parts: list[int], size: int) -> None:
    owned = shares(parts, size)
    seen = np.sort(np.concatenate([joined(each) for each in owned]))
    assert seen.tolist() == list(range(sum(parts)))
    ends = np.cumsum([0, *parts])
    for each in owned:
        for part, places in enumerate(each):
            assert all((ends[part] <= places) & (places < ends[part + 1]))
            assert abs(len(places) - parts[part] / size) < 1


@pytest.mark.parametrize("parts", [[4, 4], [4, 1], [1]])
def test_gathered_scores_are_those_of_one_process(parts: list[int]) -> None:
    pairs, generator = sum(parts), np.random.default_rng(0)
    vectors = generator.normal(size=(3, 2 * pairs)).astype(np.float32)
    pooled = generator.normal(size=(2 * pairs, 5)).astype(np.float32)
    whole = Scores(logps=vectors[0], lengths=vectors[1], d=vectors[2], pooled=pooled)
    owners = [joined(each) for each in shares(parts, 3)]

    def work(group: Thread) -> Scores:
        mine = owners[group.rank]
        rows = np.concatenate([mine, pairs + mine])
        return gather_scores(group, whole.map(lambda a: a[rows]) if len(mine) else None, owners)

    for found in [*together(3, work), gather_scores(ALONE, whole, [np.arange(pairs)])]:
        for name in ("logps", "lengths", "d", "pooled"):
            assert (getattr(found, name) == getattr(whole, name)).all(), name
        assert found.union is None
        assert found.kl is None


class Watched(PretendPolicy):
    """Notes which rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def accumulate(self, batch: Any, reference: Any, objective: Any, weight: float) -> Scores:
        self.seen += batch.rows.tolist()
        return super().accumulate(batch, reference, objective, weight)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_row_is_seen_once_an_epoch_and_the_log_is_one_processes(
    tmp_path: Path, size: int
) -> None:
    policies = [Watched() for _ in range(size)]
    options: dict[str, Any] = {"iters": None, "epochs": 2.0, "batch_size": 5, "save_every": 1}
    run(tmp_path, Watched(), name="alone", **options)
    results = together(
        size, lambda group: run(tmp_path, policies[group.rank], group=group, **options)
    )
    assert all(result[0].steps == 6 for result in results), results
    seen = np.concatenate([policy.seen for policy in policies])
    assert np.bincount(seen).tolist() == [2] * ROWS
    assert log_of(tmp_path / "run") == log_of(tmp_path / "alone")
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("run", "alone"))
    assert one.read_bytes() == two.read_bytes()
    if size > 1:
        assert all(len(policy.seen) < 2 * ROWS for policy in policies)
        states = [result[0].state for result in results]
        assert all(state.evals == states[0].evals for state in states)


def test_where_the_first_cannot_write_all_end(tmp_path: Path) -> None:
    def fail() -> None:
        raise WriteError(tmp_path, "No space left on device")

    first, second = together(2, lambda group: only_first(group, fail))
    assert isinstance(first, WriteError)
    assert "the first process of this run could not write" in str(second)


def test_the_end_of_one_process_ends_the_others_with_a_way_on(tmp_path: Path) -> None:
    class Dies(Watched):
        def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
            if len(self.rates) == 4:
                raise SystemError("this process is gone")
            return super().apply_gradients(learning_rate, max_norm)

    policies = [Watched(), Dies()]
    options: dict[str, Any] = {"save_every": 2, "steps_per_eval": 9}
    results = together(2, lambda group: run(tmp_path, policies[group.rank], group=group, **options))
    assert isinstance(results[0], LostProcessError), results
    assert "the checkpoint of step 4 of 6 is whole" in str(results[0])
    whole, _, _ = run(tmp_path, Watched(), name="whole", **options)
    again = run(tmp_path, Watched(), resume=True, **options)  # with one process
    assert again[0].state.evals == whole.state.evals


def test_a_wish_to_stop_in_one_process_stops_all(tmp_path: Path) -> None:
    results = together(
        2,
        lambda group: run(
            tmp_path, Watched(), group=group, stop=lambda: 15 if group.rank else None
        ),
    )
    assert all("stopped after step 1" in str(result) for result in results), results


def test_processes_with_other_settings_are_refused_in_all_of_them():
    def work(group: Any) -> str:
        settings = {"seed": group.rank // 2, "learning_rate": 1e-4, "output": "run", "sae": None}
        with pytest.raises(ConfigError) as caught:
            check_same_settings(group, settings)
        return str(caught.value)

    for rank, message in enumerate(together(3, work)):
        assert f"different settings (seed; process {rank} has {rank // 2})" in message


def test_processes_with_the_same_settings_pass():
    settings = {"seed": 3, "sae": ("a", "b"), "learning_rate": 1e-4}
    assert together(3, lambda group: check_same_settings(group, dict(settings))) == [None] * 3
    check_same_settings(ALONE, settings)
