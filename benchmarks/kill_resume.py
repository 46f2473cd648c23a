"""Kill runs at random moments, resume them, and compare the results with an uninterrupted run's.

    python benchmarks/kill_resume.py [--kills 200] [--save]

Each run is a process forked from one that has the libraries loaded. It gets SIGKILL after a random
time, in reading, training, validating or saving, and a new process resumes it, until one finishes.
Then weights, moments, scores and log must equal those of a run that was never killed. After each
kill every listed checkpoint must load.

Bar: 200 kills, no checkpoint that fails to load, no run that ends differently.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert"), str(ROOT / "cli")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fast_blas import load_fast_blas  # noqa: E402

load_fast_blas()

from safetensors.numpy import load_file  # noqa: E402

from benchmarks.record import write_result  # noqa: E402
from fpo_core.train.run_folder import checkpoints_in  # noqa: E402
from tests.backends import runs, support  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "torch lora": {"backend": "torch", "dropout": 0.2, "grad_accumulation_steps": 2},
    "mlx lora": {"backend": "mlx", "dropout": 0.2, "grad_accumulation_steps": 2},
    "torch full": {"backend": "torch", "fine_tune_type": "full", "learning_rate": 1e-4},
    "mlx full": {"backend": "mlx", "fine_tune_type": "full", "learning_rate": 1e-4},
}
CADENCE = {"save_every": 2, "steps_per_eval": 6, "steps_per_report": 5}


def fork(work: Callable[[], object], errors: Path) -> int:
    """Run `work` in a child process; its pid. Its traceback, if it fails, goes to `errors`."""
    child = os.fork()
    if child:
        return child
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        work()
        os._exit(0)
    except BaseException:
        errors.write_text(traceback.format_exc())
        os._exit(1)


def wait(child: int, seconds: float) -> int | None:
    """The exit status of a child, or None if it had to be killed after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code


def moment(output: Path) -> str:
    """What a killed run was doing, judged by its temporary files."""
    names = " ".join(path.name for path in output.rglob(".*.tmp"))
    for mark, what in ((".step-", "checkpoint"), (".best", "best"), (".result", "result")):
        if mark in names:
            return f"saving {what}"
    if not (output / "log.jsonl").exists():
        return "before the first event"
    return "elsewhere"


def bad_checkpoints(output: Path) -> list[str]:
    """Listed checkpoints that cannot be loaded."""
    checkpoints = checkpoints_in(output)
    bad: list[str] = []
    if checkpoints.steps():
        checkpoints.newest(bad.append)
    for file in checkpoints.folder.glob("step-*/*.safetensors"):
        try:
            load_file(file)
        except Exception as error:
            bad.append(f"{file}: {error}")
    return bad


class Kind:
    """Runs of one kind, killed and resumed."""

    def __init__(self, name: str, iters: int, folder: Path, model: Path) -> None:
        self.name, self.folder, self.model = name, folder, model
        self.options = KINDS[name] | CADENCE | {"iters": iters}
        self.store = folder / "store"
        whole = folder / "whole"
        # The first builds the reference store, which is none of the time that counts.
        self.seconds = [self.uncut(folder / "first"), self.uncut(whole)][1]
        self.expected = runs.files_of(whole), runs.log_of(whole)
        assert len(self.expected[0]) >= 6
        self.kills = self.runs = 0
        self.moments: Counter[str] = Counter()
        self.bad: list[str] = []
        self.different: list[str] = []

    def start(self, output: Path) -> int:
        """Start or resume a run; the pid of its process."""
        resume = bool(checkpoints_in(output).steps())
        config = runs.settings(self.model, output, resume=resume, **self.options)
        return fork(lambda: runs.run_tiny(config, self.store), self.folder / "errors")

    def uncut(self, output: Path) -> float:
        """An uninterrupted run; its seconds."""
        start = time.monotonic()
        self.check(wait(self.start(output), 600))
        return time.monotonic() - start

    def check(self, code: int | None) -> None:
        """SystemExit with the error of a run that failed by itself."""
        if code:
            raise SystemExit((self.folder / "errors").read_text())

    def chain(self, most: int, chance: random.Random) -> None:
        """One run, killed at most `most` times and then left to finish."""
        output = self.folder / f"run-{self.runs}"
        kills = 0
        while True:
            limit = chance.uniform(0, 1.1 * self.seconds) if kills < most else 600.0
            code = wait(self.start(output), limit)
            if code is not None:
                self.check(code)
                break
            kills += 1
            self.moments[moment(output)] += 1
            self.bad += bad_checkpoints(output)
        self.kills += kills
        self.runs += 1
        files, log = runs.files_of(output), runs.log_of(output)
        if files != self.expected[0]:
            self.different.append(f"{output.name}: files {files.keys() ^ self.expected[0].keys()}")
        if log != self.expected[1]:
            self.different.append(f"{output.name}: log")
        if list(output.rglob(".*.tmp")):
            self.different.append(f"{output.name}: leftovers")
        shutil.rmtree(output)

    def summary(self) -> dict[str, Any]:
        """The figures of a result."""
        return {
            "kills": self.kills,
            "runs": self.runs,
            "seconds_of_a_whole_run": round(self.seconds, 2),
            "killed_while": dict(self.moments.most_common()),
            "checkpoints_that_failed_to_load": self.bad,
            "runs_that_ended_otherwise": self.different,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--iters", type=int, default=20)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write the result file")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    kinds = args.kind or list(KINDS)
    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        child = fork(lambda: support.write_tiny_model(model), Path(temporary) / "errors")
        assert wait(child, 600) == 0
        for name in kinds:
            __import__({"torch": "peft", "mlx": "mlx_lm"}[name.split()[0]])
            __import__(f"fpo_{name.split()[0]}.policy")
            folder = Path(temporary) / name.replace(" ", "-")
            folder.mkdir()
            kind = Kind(name, args.iters, folder, model)
            wanted = -(-args.kills // len(kinds))
            while kind.kills < wanted:
                kind.chain(wanted - kind.kills, chance)
            measured[name] = kind.summary()
            print(name, json.dumps(measured[name]), flush=True)
    if args.save:
        kills = sum(m["kills"] for m in measured.values())
        write_result("kill_resume", {"kills": kills, "measured": measured})
    wrong = ("checkpoints_that_failed_to_load", "runs_that_ended_otherwise")
    sys.exit(1 if any(m[key] for m in measured.values() for key in wrong) else 0)


if __name__ == "__main__":
    main()
