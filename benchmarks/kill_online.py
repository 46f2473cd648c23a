"""An online run killed at random moments (kill −9) and resumed: its files are an undisturbed run's.

A run of the tests' tiny model in a forked process, so that a kill costs no new interpreter. What is
killed may be sampling, judging, a step, or the writing of a checkpoint.

Run: python -m benchmarks.kill_online [--kills 40]
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from fpo_core.errors import TrainingError
from tests.backends.runs import files_of, log_of, run_tiny, settings
from tests.backends.support import write_tiny_model

ONLINE = {
    **{"backend": "torch", "online": "dpr", "online_share": 0.7, "online_every": 4},
    **{"online_tokens": 16, "iters": 24, "save_every": 1, "steps_per_report": 1},
}


def run(tiny: Path, folder: Path, name: str) -> None:
    """Begin a run, or go on with it where there is a checkpoint."""
    resume = bool([*(folder / name / "checkpoints").glob("step-*")])
    config = settings(tiny, folder / name, **ONLINE, resume=resume)
    run_tiny(config, folder / "store")


def killed(seconds: float, *work: Any) -> bool:
    """Whether `run` was still at work after so many seconds, and was killed."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            run(*work)
        except TrainingError:  # nothing is left to do: the kill came after the last step
            os._exit(0)
        except BaseException:
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a run that went on ended with status {status}")
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    args = parser.parse_args()
    chance = random.Random(0)
    kills = runs = equal = 0
    with tempfile.TemporaryDirectory() as name:
        folder, tiny = Path(name), Path(name) / "tiny"
        write_tiny_model(tiny)
        run(tiny, folder, "whole")
        shutil.rmtree(folder / "whole")
        start = time.monotonic()  # the first run also loads the framework
        run(tiny, folder, "whole")
        seconds = time.monotonic() - start
        while kills < args.kills:
            shutil.rmtree(folder / "cut", ignore_errors=True)
            while killed(chance.uniform(0.1, 0.8) * seconds, tiny, folder, "cut"):
                kills += 1
            runs += 1
            same_files = files_of(folder / "cut") == files_of(folder / "whole")
            equal += same_files and log_of(folder / "cut") == log_of(folder / "whole")
            print(f"{kills} kills, {equal} of {runs} runs equal", flush=True)
    write_result("kill_online", {"kills": kills, "runs": runs, "equal": equal, **ONLINE})
    print(json.dumps({"kills": kills, "runs": runs, "equal": equal}))


if __name__ == "__main__":
    main()
