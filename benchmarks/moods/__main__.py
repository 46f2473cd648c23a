"""The experiment on SmolLM2: arms tuned alike on some prompts, then tested on others with seeds.

Finished runs are read and a stopped one goes on. Several processes may each take a share of the
runs, by --share 0/2 and so on, into one folder.

Run: python -m benchmarks.moods tune|test [--output FOLDER] [--share I/N] [--arms fpo,dpo]
"""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process per core is faster than a core per thread

from benchmarks.moods.arms import ARMS, Arm
from benchmarks.moods.data import Moods
from benchmarks.record import ROOT
from fpo.comparison.plan import Planned
from fpo.comparison.runs import Comparison
from fpo.sinks import print_progress
from fpo_core.config import CompareConfig, TrainConfig

TOKENS, TEMPERATURE = 120, 0.7
SAMPLES = {"tune": 32, "test": 132}
STEPS = 60
SHARED: dict[str, Any] = {
    **{"iters": STEPS, "steps_per_eval": STEPS, "save_every": STEPS, "val_pairs": 8},
    **{"batch_size": 4, "report": False, "backend": "torch", "device": "cpu"},
}
"""Settings of all runs, over those of the example."""


def planned(
    name: str, arm: Arm, change: dict[str, Any], seed: int, base: dict[str, Any]
) -> Planned:
    """A run of an arm. `base` holds what all runs share."""
    of_rivals = {k: v for k, v in base.items() if k not in ("alpha", "beta")}
    settings = of_rivals | dict(arm.settings) | change | {"objective": arm.objective, "seed": seed}
    config = TrainConfig.from_mapping(settings, "the experiment")
    return Planned(arm.objective, {"arm": name} | change, seed, config)


def tuning(names: list[str], base: dict[str, Any]) -> list[Planned]:
    """Every arm at every rate, one seed."""
    return [planned(n, ARMS[n], change, 0, base) for n in names for change in ARMS[n].tuned()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moods", description=__doc__)
    parser.add_argument("stage", choices=("tune", "test"))
    parser.add_argument("--output", type=Path, default=Path("fpo-moods"))
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--arms", default=",".join(ARMS))
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
    example = importlib.import_module("example").smollm2_example(None)
    moods = Moods.read(importlib.import_module("fetch").fetch().moods)
    folder = args.output / args.stage
    base = example.training(folder) | SHARED
    base |= {"data": str(moods.write(folder / "pairs", args.stage)), "output": str(folder)}
    example.convert(folder)
    runs = tuning(args.arms.split(","), base)
    place, shares = map(int, args.share.split("/"))
    samples = SAMPLES[args.stage]
    config = CompareConfig(
        **{"output": str(folder), "samples": samples, "max_tokens": TOKENS},
        **{"temperature": TEMPERATURE, "eval_pairs": samples, "objectives": ("fpo",)},
    )
    Comparison(config, runs[place::shares], None, print_progress).results()


if __name__ == "__main__":
    main()
