"""An online run killed at random moments (kill −9) and resumed: its files are an undisturbed run's.

A run of the tests' tiny model in a process of its own, which says when everything is loaded. What
is killed may be sampling, judging, a step, or the writing of a checkpoint.

Run: python -m benchmarks.kill_online [--kills 40] [--backend mlx]
"""

import argparse
import importlib
import json
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.kills import killed_until_done, loaded, undisturbed
from benchmarks.record import read_result, write_result
from fpo_core.errors import TrainingError
from tests.backends.runs import files_of, log_of, run_tiny, settings
from tests.backends.support import write_tiny_model

NAME = "kill_online"
ONLINE = {
    **{"online": "dpr", "online_share": 0.7, "online_every": 4},
    **{"online_tokens": 16, "iters": 24, "save_every": 1, "steps_per_report": 1},
}


def child(tiny: Path, folder: Path, backend: str) -> None:
    """Begin a run, or go on with it where there is a checkpoint."""
    resume = bool([*(folder / "checkpoints").glob("step-*")])
    config = settings(tiny, folder, **ONLINE, backend=backend, resume=resume)
    importlib.import_module(f"fpo_{backend}.policy")
    loaded()
    try:
        run_tiny(config, folder.parent / "store")
    except TrainingError as error:
        if "nothing is left" not in str(error):  # the kill came after the last step
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--child", nargs=3, help="be a run: model, output, backend")
    args = parser.parse_args()
    if args.child:
        child(Path(args.child[0]), Path(args.child[1]), args.child[2])
        return
    chance = random.Random(0)
    kills = runs = equal = 0
    program = [sys.executable, "-m", "benchmarks.kill_online", "--child"]
    with tempfile.TemporaryDirectory() as name:
        folder, tiny = Path(name), Path(name) / "tiny"
        whole = folder / "whole"
        write_tiny_model(tiny)
        seconds = undisturbed([*program, tiny, whole, args.backend])
        while kills < args.kills:
            cut = folder / f"cut-{runs}"
            command = [*program, tiny, cut, args.backend]
            kills += killed_until_done(command, lambda: chance.uniform(0.1, 0.8) * seconds)
            runs += 1
            equal += files_of(cut) == files_of(whole) and log_of(cut) == log_of(whole)
            print(f"{kills} kills, {equal} of {runs} runs equal", flush=True)
    result = {"kills": kills, "runs": runs, "equal": equal}
    earlier = read_result(NAME).get("backends", {})
    write_result(NAME, {**ONLINE, "backends": earlier | {args.backend: result}})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
