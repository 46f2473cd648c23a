"""Is FPO worth having? Arms tuned alike on some prompts, tested on others; docs/evidence.md.

Stages, each going on where it was stopped: `tune`, `test` and `frontier` run, `sample` asks the
tested adapters at several temperatures, `collect` puts all rows among the committed results,
`check` asks how SmolLM2's judges judge, `report` writes the document. Several processes may take a
share of the arms or seeds each, by --share 0/2 and so on.

Run: python -m benchmarks.evidence STAGE [--on world|smollm2|example] [--output FOLDER]
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process per core beats a core per thread

from benchmarks.evidence import temperatures
from benchmarks.evidence.arms import ARMS, EVERY
from benchmarks.evidence.example_pairs import ExampleGround
from benchmarks.evidence.feature_control import with_styles
from benchmarks.evidence.ground import Ground
from benchmarks.evidence.judge_check import validated
from benchmarks.evidence.report import DOCUMENT, written
from benchmarks.evidence.rows import Row, read_rows, same_run, write_rows
from benchmarks.evidence.runs import ROW_FILE, Part, frontier, tested, tuned
from benchmarks.evidence.smollm2 import Smollm2Ground
from benchmarks.evidence.world import WorldGround
from benchmarks.record import write_result

STAGES = ("tune", "test", "frontier")
GROUNDS: dict[str, type[Ground]] = {
    "world": WorldGround,
    "smollm2": Smollm2Ground,
    "example": ExampleGround,
}


def collected(ground: str, output: Path) -> dict[str, list[Row]]:
    """The committed rows, and those of runs since, by stage."""
    known, parts = read_rows(ground), {}
    order = ["start", *EVERY]
    for part in STAGES:
        paths = [*(output / part).glob("start-row*.json"), *(output / part).rglob(ROW_FILE)]
        rows = [with_styles(path) for path in sorted(paths)]
        rows += [
            row for row in known.get(part, []) if not any(same_run(row, other) for other in rows)
        ]
        parts[part] = sorted(rows, key=lambda row: (order.index(row["arm"]), row["seed"]))
    parts["sample"] = temperatures.collected(output / "test") or known.get("sample", [])
    return {stage: rows for stage, rows in parts.items() if rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "sample", "collect", "check", "report"))
    parser.add_argument("--on", choices=list(GROUNDS), default="world")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--share", default="0/1", help="of the arms in tune, of the seeds in test")
    args = parser.parse_args()
    output = args.output or Path(f"fpo-evidence-{args.on}")
    place, shares = map(int, args.share.split("/"))
    names = args.arms.split(",")
    ground = GROUNDS[args.on]()
    seeds = [int(seed) for seed in args.seeds.split(",")][place::shares]
    part = Part(ground, args.stage, output, read_rows(args.on).get(args.stage, []))
    if args.stage == "tune":
        list(tuned(part, names[place::shares]))
    elif args.stage in STAGES:
        run = tested if args.stage == "test" else frontier
        list(run(part, collected(args.on, output).get("tune", []), names, seeds))
    elif args.stage == "sample":
        rows = collected(args.on, output)["test"]
        temperatures.sampled(Part(ground, "test", output), rows, names, seeds)
    elif args.stage == "collect":
        write_rows(args.on, collected(args.on, output))
    elif args.stage == "check":
        smollm2 = Smollm2Ground()
        write_result("evidence-judges", validated(smollm2.judging(output), smollm2.moods))
    else:
        DOCUMENT.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
