"""Interleaved timing: steps of several programs in turn, and ratios with confidence intervals.

Each program is a process of its own, which takes a step when told to. They take turns step by step
(`alternate`) or, sharing one core, every few milliseconds (`slice_cores`).
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.record import versions
from benchmarks.shapes import environment


class Worker:
    """A process that takes one step whenever it is told to; pinned to `core` if there is one."""

    def __init__(self, name: str, command: list[str], core: int | None = None) -> None:
        self.name = name
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        self.report: dict[str, Any] = {}
        self.versions: dict[str, str] = {}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if os.environ.get("BENCH_QUIET", "1") == "1" else None,
            text=True,
            env=environment() | ({} if core is None else {"OMP_NUM_THREADS": "1"}),
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise SystemExit(f"{self.name} ended early:\n{(errors or '')[-3000:]}")
        return json.loads(line)

    def start(self) -> None:
        """Wait until it is ready; it then reports its package versions."""
        self.versions = self._answer()

    def step(self, count: bool = True) -> None:
        """Take a step; record its time unless it is warm-up."""
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        self.report = self._answer()
        if count:
            self.times.append(self.report["seconds"])
            self.cpu_times.append(self.report["cpu_seconds"])

    def add(self, other: "Worker") -> None:
        """Pool the times of another process of the same program; the larger peak counts."""
        self.times += other.times
        self.cpu_times += other.cpu_times
        self.report = max(self.report, other.report, key=lambda report: report["peak"])

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(step: Callable[[], Any], memory: Callable[[], int] | None = None) -> None:
    """The worker's side of `Worker`: report versions, then take a step per line read."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the protocol owns stdout: what libraries print goes to stderr
    print(json.dumps(versions()), file=out, flush=True)
    for _ in sys.stdin:
        start, busy = time.perf_counter(), time.process_time()
        step()
        seconds = time.perf_counter() - start
        report = {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - busy,
            "peak": peak_resident() if memory is None else memory(),
        }
        print(json.dumps(report), file=out, flush=True)


def peak_resident() -> int:
    """Peak resident bytes of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alternate(commands: dict[str, list[str]], steps: int, warm_up: int = 2) -> dict[str, Worker]:
    """Whole steps of every command in turn; every other round in reverse order."""
    workers = {name: Worker(name, command) for name, command in commands.items()}
    for worker in workers.values():
        worker.start()
    order = list(workers.values())
    for number in range(warm_up + steps):
        for worker in order if number % 2 else reversed(order):
            worker.step(number >= warm_up)
    for worker in order:
        worker.stop()
    return workers


def slice_cores(
    commands: dict[str, list[str]], steps: int, warm_up: int = 2, cores: int = 2
) -> dict[str, Worker]:
    """Steps of every command at once on one core, single-threaded; repeated on up to `cores` cores.

    Times are CPU times. The scheduler switches between them every few milliseconds, so whatever
    slows the core (its clock, neighbours of a virtual machine) slows all of them alike.
    """
    pinned = sorted(os.sched_getaffinity(0))[:cores]
    groups = [
        [Worker(name, command, core) for name, command in commands.items()] for core in pinned
    ]
    workers = [worker for group in groups for worker in group]
    for worker in workers:
        worker.start()

    def run(group: list[Worker]) -> None:
        with ThreadPoolExecutor(len(group)) as pool:
            for number in range(warm_up + steps):
                list(pool.map(lambda worker, count=number >= warm_up: worker.step(count), group))

    with ThreadPoolExecutor(len(groups)) as pool:
        list(pool.map(run, groups))
    for worker in workers:
        worker.stop()
        worker.times = list(worker.cpu_times)
    for group in groups[1:]:
        for worker, other in zip(groups[0], group, strict=True):
            worker.add(other)
    return {worker.name: worker for worker in groups[0]}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median of the ratios of paired steps, with its 95% bootstrap interval."""
    ratios = np.array(ours) / np.array(theirs)
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(ratios, (4000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def compare(ours: Worker, theirs: Worker) -> dict[str, Any]:
    """Seconds and GB of `ours`, and its time and memory over those of `theirs`."""
    return {
        "seconds": float(np.median(ours.times)),
        "peak_gb": ours.report["peak"] / 1e9,
        "time_ratio": ratio(ours.times, theirs.times),
        "memory_ratio": ours.report["peak"] / theirs.report["peak"],
    }


def show(name: str, row: dict[str, Any], base: str) -> None:
    """Print a row of `compare`."""
    time_ratio = row["time_ratio"]
    print(
        f"{name:28} {row['seconds']:8.3f} s  {row['peak_gb']:6.2f} GB  "
        f"{time_ratio['median']:.3f} [{time_ratio['low']:.3f}, {time_ratio['high']:.3f}]  "
        f"memory {row['memory_ratio']:.3f}  of {base}",
        flush=True,
    )
