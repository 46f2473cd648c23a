"""What FPO does, measured: runs what is left of the experiments and writes docs/evidence.md.

Run: python -m benchmarks.evidence [--seeds 0,1,2] [--smollm2 [--cache FOLDER]] [--report]
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the quickstart

from benchmarks.evidence.drift import FILE as DRIFT
from benchmarks.evidence.drift import Observer
from benchmarks.evidence.plans import ABLATION, BLOCKS, CONTROL, OBJECTIVES, World
from benchmarks.evidence.report import DOCUMENT, write_report
from benchmarks.evidence.results import FILE, Evidence, Run
from fpo.comparison.runs import START_FILE, Comparison, run_folder
from fpo.sinks import print_progress
from fpo_core.config import TrainConfig

ROOT = Path(__file__).parents[2]


def run_world(world: World, pairs: int) -> Evidence:
    """Train and observe what is missing; finished runs are read."""
    output = Path(world.config.output)
    groups = {
        OBJECTIVES: world.objectives(),
        ABLATION: world.ablations(),
        CONTROL: world.control(output / "weights"),
        BLOCKS: world.blocks(output / "saes"),
    }
    every = [run for runs in groups.values() for run in runs]
    # All train before any is observed: the observer's memory would count as that of later runs.
    start, _ = Comparison(world.config, every, world.example.judge, print_progress).results()
    folders = {
        name: [Run(run_folder(output, run)) for run in runs] for name, runs in groups.items()
    }
    evidence = Evidence(folders, world.alpha, start)
    observed = [*evidence.objectives, *evidence.ablations, *evidence.control]
    _observe(observed, every[0].config, pairs)
    evidence.write(output)
    return evidence


def _observe(runs: Sequence[Run], config: TrainConfig, pairs: int) -> None:
    """Observe the runs that were not yet, all with the k of `config`."""
    left = [run.folder for run in runs if not (run.folder / DRIFT).is_file()]
    observer = Observer(config, pairs) if left else None
    for folder in left:
        print(f"observing {folder.name}", file=sys.stderr)
        assert observer is not None
        observer.observe(folder)


def run_smollm2(output: Path, cache: str | None, pairs: int) -> Evidence:
    """Compare objectives by the example's script, then observe its runs."""
    script = ROOT / "examples" / "smollm2" / "compare.py"
    command = [sys.executable, str(script), "--output", str(output)]
    command += [] if cache is None else ["--cache", cache]
    subprocess.run(command, check=True)
    runs = [Run(folder) for folder in sorted((output / "runs").iterdir())]
    _observe(runs, TrainConfig.from_mapping(runs[0].result["config"]), pairs)
    start = json.loads((output / START_FILE).read_text(encoding="utf-8"))
    evidence = Evidence({OBJECTIVES: runs, ABLATION: [], CONTROL: [], BLOCKS: []}, None, start)
    evidence.write(output)
    return evidence


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("fpo-evidence"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pairs", type=int, default=200, help="held-out pairs observed")
    parser.add_argument("--set", action="append", default=[], help="a setting of all world runs")
    parser.add_argument("--smollm2", action="store_true", help="run the part on SmolLM2 too")
    parser.add_argument("--cache", help="where examples/smollm2 finds its model")
    parser.add_argument("--report", action="store_true", help="only write the document again")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    args = parser.parse_args()
    places = {name: args.output / name for name in ("world", "smollm2")}
    if not args.report:
        world = World.of(places["world"], args.seeds.split(","), args.set)
        run_world(world, args.pairs)
        if args.smollm2:
            run_smollm2(places["smollm2"], args.cache, args.pairs)
    evidence = {
        name: Evidence.read(place) if (place / FILE).is_file() else None
        for name, place in places.items()
    }
    write_report(args.document, evidence["world"], evidence["smollm2"])
    print(f"written: {args.document}")


if __name__ == "__main__":
    main()
