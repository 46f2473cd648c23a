"""What examples/smollm2 reaches: with the constraint, without it, and MLX against torch.

Run: python benchmarks/bench_smollm2.py [--runs fpo alpha-0 torch-20 mlx-20]

A run that is named replaces its figures in the results; the others stay.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "smollm2.json"
SCRIPT = ROOT / "examples" / "smollm2" / "run.py"
FEW = ["--iters", "20", "--max-rows", "24", "--val-pairs", "4", "--samples", "1"]
RUNS = {
    "fpo": ["--backend", "torch"],
    "alpha-0": ["--backend", "torch", "--alpha", "0"],
    "torch-20": ["--backend", "torch", *FEW],
    "mlx-20": ["--backend", "mlx", *FEW],
}
LIBRARIES = ("torch", "mlx", "mlx-lm", "transformers", "numpy")


def run(options: list[str], reference: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), "--json", *options]
        command += [] if reference is None else ["--reference", str(reference)]
        done = subprocess.run(
            [*command, "--output", folder], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        result = json.loads(done.stdout)
        log = Path(result["log"]).read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, log) if event["kind"] == "train"]
    kept = ("steps", "train_seconds", "seconds", "calibration", "constraint_ratio", "verdict")
    return {
        "command": " ".join(["python", str(SCRIPT.relative_to(ROOT)), *options]),
        "versions": {name: version(name) for name in LIBRARIES},
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs",
        **{name: result[name] for name in kept},
        "prompts": result["prompts"],
        "before": result["before"],
        "after": result["after"],
        "losses": [round(event["loss"], 6) for event in steps],
    }


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "fpo" in runs:
        after = runs["fpo"]["after"]
        found["raw_accuracy"] = after["raw_accuracy"]["value"]
        found["pairs_held_out"] = after["pairs"]
    if {"fpo", "alpha-0"} <= set(runs):
        with_it, without = (runs[name]["after"]["fpo/d_rejected"] for name in ("fpo", "alpha-0"))
        found["d_rejected_ratio"] = with_it / without
    if {"torch-20", "mlx-20"} <= set(runs):
        pairs = zip(runs["torch-20"]["losses"], runs["mlx-20"]["losses"], strict=True)
        found["largest_difference_of_losses"] = max(abs(a - b) for a, b in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--reference", type=Path, help="store that runs on torch share")
    args = parser.parse_args()
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"runs": {}}
    runs = before["runs"]
    for name in args.runs:
        shared = args.reference if "torch" in RUNS[name] else None
        runs[name] = run(RUNS[name], shared)
        ordered = {name: runs[name] for name in RUNS if name in runs}
        result = {"summary": summary(runs), "runs": ordered}
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        RESULTS.write_text(text, encoding="utf-8")
    print(json.dumps(summary(runs), indent=2))


if __name__ == "__main__":
    main()
