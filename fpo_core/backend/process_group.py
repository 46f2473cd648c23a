"""The processes that share one run: `Group`, one process alone, and what the loop asks of them.

Each process holds the whole model and a share of the pairs of every step. What must agree (metrics,
gradients, a request to stop) is summed, so every process takes the same decisions, and only the
first one writes.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from fpo_core.arrays.ops import Array
from fpo_core.data.token_store import Int64s
from fpo_core.errors import ConfigError, FpoError, LostProcessError, TrainingError
from fpo_core.loss.scores import Scores, join


class Group(Protocol):
    """The processes of a run, numbered from 0. The first one reports and writes.

    A sum waits for all processes; LostProcessError where one is lost.
    """

    @property
    def rank(self) -> int:
        """The number of this process."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of every process's float32 array."""
        ...

    def sum_native(self, array: Array) -> Array:
        """The same for an array of the framework, on any device."""
        ...


@dataclass(frozen=True)
class Alone:
    """The one process of an ordinary run."""

    rank: int = 0
    size: int = 1

    def sum(self, array: np.ndarray) -> np.ndarray:
        """See `Group`."""
        return array

    def sum_native(self, array: Array) -> Array:
        """See `Group`."""
        return array


ALONE: Group = Alone()


def lost_process(error: Exception) -> LostProcessError:
    """The error for a sum that failed: to the others, a process that ended looks like that."""
    reason = " ".join(str(error).split())[:120]
    return LostProcessError(f"another process of this run was lost ({reason})")


def wait(group: Group) -> None:
    """Wait until every process is here."""
    group.sum(np.zeros(1, np.float32))


def any_of(group: Group, flag: bool) -> bool:
    """Whether any process says so."""
    return bool(group.sum(np.array([flag], np.float32))[0])


@contextlib.contextmanager
def first_before_others(group: Group) -> Iterator[None]:
    """Runs its body in the first process, then in the others, which so find the files it wrote."""
    if group.rank:
        wait(group)
    try:
        yield
    finally:
        if not group.rank:
            wait(group)


def only_first(group: Group, work: Callable[[], object]) -> None:
    """Run `work` in the first process while the others wait; where it fails, all raise."""
    all_or_none(group, (lambda: None) if group.rank else work, "the first process")


def all_or_none(group: Group, work: Callable[[], object], others: str = "another process") -> None:
    """Run `work` in every process; where it fails in one, all raise."""
    failure: FpoError | None = None
    try:
        work()
    except FpoError as error:
        failure = error
    # The others must hear of it, or they would wait in their next sum for ever.
    failed = any_of(group, failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise TrainingError(f"{others} of this run could not write, and says why")


def check_same_settings(group: Group, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError, in every process, where one was started with other settings.

    Ranks that differ in a seed or a learning rate would train on to a result that is nobody's.
    """
    if group.size == 1:
        return
    names = sorted(settings)
    # Sums are of float32, which holds whole numbers up to 2^24 exactly: three bytes of a hash.
    own = np.array([_three_bytes(settings[name]) for name in names], np.float32)
    of_first = group.sum(own if not group.rank else np.zeros_like(own))
    differs = group.sum((own != of_first).astype(np.float32))
    found = [name for name, count in zip(names, differs, strict=True) if count]
    if found:
        raise ConfigError(
            f"the processes of this run were started with different settings ({', '.join(found)}; "
            f"process {group.rank} has {', '.join(str(settings[name]) for name in found)}): start "
            "all with the same"
        )


def _three_bytes(value: Any) -> int:
    return int.from_bytes(sha256(json.dumps(value, default=str).encode()).digest()[:3], "big")


def joined(positions: Sequence[Int64s]) -> Int64s:
    """Positions as one array, perhaps an empty one."""
    return np.concatenate([np.zeros(0, np.int64), *positions])


def shares(parts: Sequence[int], size: int) -> list[list[Int64s]]:
    """Which positions of consecutive parts, such as batches of these lengths, each process takes.

    Of every part it is each size-th one, from its rank on: no position twice and none left out.
    """
    ends = np.cumsum([0, *parts])
    return [
        [np.arange(start + rank, end, size) for start, end in pairwise(ends)]
        for rank in range(size)
    ]


def scored_together(
    group: Group,
    plan: Sequence[Int64s],
    score: Callable[[Int64s], Scores],
    done: Callable[[int, int], None] = lambda number, count: None,
    *,
    even: bool = False,
) -> Scores:
    """The scores of all pairs of a plan's batches, of which each process scores every size-th one.

    `score` gives the scores of the pairs at a batch's positions; `done` hears of each batch of this
    process, by its number and of how many. Where they must be `even`, as over a sharded model, a
    process that has one batch less scores the last one once more.
    """
    batches = plan[group.rank :: group.size]
    parts: list[Scores] = []
    for number, positions in enumerate(batches, 1):
        parts.append(score(positions))
        done(number, len(batches))
    if even and len(batches) < -(-len(plan) // group.size):
        score(plan[-1])
    owners = [joined(plan[rank :: group.size]) for rank in range(group.size)]
    return gather_scores(group, join(parts) if parts else None, owners)


def gather_scores(group: Group, local: Scores | None, owners: Sequence[Int64s]) -> Scores:
    """The scores of all pairs, by position, from the local scores of each process.

    `owners[rank]` are the positions of that process's pairs, in the order of its scores; a process
    without any passes None. Float32 values come out as they went in.
    """
    names = [field.name for field in fields(Scores)]
    arrays = [None if local is None else getattr(local, name) for name in names]
    widths = [0 if array is None else _columns(array) for array in arrays]
    # A process without pairs knows no widths: those that have some agree, so the mean is theirs.
    totals = group.sum(np.array([local is not None, *widths], np.float32))
    widths = (totals[1:] / totals[0]).astype(int)
    # A sum is the one exchange that a group has. Each process fills the rows of its pairs in a
    # table of zeros, (pairs, 2 sides, columns of all fields), and the sum is every row once.
    table = np.zeros((sum(map(len, owners)), 2, widths.sum()), np.float32)
    starts = np.cumsum([0, *widths])
    for array, start, width in zip(arrays, starts, widths, strict=False):
        if array is not None:
            sides = np.asarray(array).reshape(2, -1, width)
            table[owners[group.rank], :, start : start + width] = sides.transpose(1, 0, 2)
    table = group.sum(table)
    gathered: dict[str, Any] = {}
    for name, start, width in zip(names, starts, widths, strict=False):
        if width:
            values = table[:, :, start : start + width].transpose(1, 0, 2).reshape(-1, width)
            gathered[name] = values if name == "pooled" else values[:, 0]
    return Scores(**gathered)


def _columns(array: np.ndarray) -> int:
    return 1 if array.ndim == 1 else array.shape[1]
