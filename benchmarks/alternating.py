"""Steps of several programs in turn, each in a process of its own, and ratios with intervals.

Either a whole step at a time (`alternate`), or some milliseconds at a time (`slice_cores`).
"""

import contextlib
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes import environment

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    *("numpy", "safetensors", "transformers"),
    *("torch", "triton", "peft", "trl"),
    *("mlx", "mlx-lm", "mlx-lm-lora"),
)


class Worker:
    """A process that takes one step whenever it is told to, on one core where that is given."""

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
        """Wait until it is ready, and hear what it runs on."""
        self.versions = self._answer()

    def step(self, count: bool = True) -> None:
        """Take a step; its time is kept unless it only warms up."""
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        self.report = self._answer()
        if count:
            self.times.append(self.report["seconds"])
            self.cpu_times.append(self.report["cpu_seconds"])

    def add(self, other: "Worker") -> None:
        """Count what another process of the same program took, and the larger of their peaks."""
        self.times += other.times
        self.cpu_times += other.cpu_times
        self.report = max(self.report, other.report, key=lambda report: report["peak"])

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(step: Callable[[], None], memory: Callable[[], int] | None = None) -> None:
    """The other side of `Worker`: say what it runs on, then answer each line with a step's cost."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed must not end up among the answers
    print(json.dumps(versions()), file=out, flush=True)
    for _ in sys.stdin:
        start, busy = time.perf_counter(), time.process_time()
        step()
        seconds = time.perf_counter() - start
        report = {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - busy,
            "peak": resident() if memory is None else memory(),
        }
        print(json.dumps(report), file=out, flush=True)


def resident() -> int:
    """Most bytes that this process held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alternate(commands: dict[str, list[str]], steps: int, warm_up: int = 2) -> dict[str, Worker]:
    """Steps of every command in turn, the order turned round each time."""
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


def slice_cores(commands: dict[str, list[str]], steps: int, warm_up: int = 2) -> dict[str, Worker]:
    """Steps of every command at once, all on one core, which Linux gives to each in turn for some
    milliseconds; so on every core, two at most. Their times are CPU time, one thread's.

    What neighbours take from a core, whose speed changes by the second, falls on all alike.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    groups = [[Worker(name, command, core) for name, command in commands.items()] for core in cores]
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
    """Median of the ratios of steps taken side by side, with a 95% bootstrap interval."""
    ratios = np.array(ours) / np.array(theirs)
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(ratios, (4000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def write_result(name: str, values: dict[str, Any]) -> Path:
    """Write results/<name>.json with what it ran on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    setting = {
        "command": _command(),
        "versions": versions(),
        "hardware": hardware(),
    }
    path.write_text(json.dumps(setting | values, indent=2) + "\n", encoding="utf-8")
    return path


def _command() -> str:
    """What was called, without the folders of this machine."""
    names = [word for word in sys.argv[1:] if not word.startswith("/")]
    names = [name for name in names if name not in ("--python", "--models")]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *names])


def versions() -> dict[str, str]:
    """What this interpreter has of the packages that are measured."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def hardware() -> dict[str, Any]:
    """The machine, and how busy it was."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }
