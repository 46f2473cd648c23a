"""What examples/smollm2 reaches: with the constraint, without it, and MLX against torch.

Run: python -m benchmarks.bench_smollm2 [--runs fpo alpha-0 torch-20 mlx-20]

The runs named replace their figures in the results; the others stay.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, hardware, read_result, run_json, versions, write_result

SCRIPT = ROOT / "examples" / "smollm2" / "run.py"
FEW = ["--iters", "20", "--max-rows", "24", "--val-pairs", "4", "--samples", "1"]
RUNS = {
    "fpo": ["--backend", "torch"],
    "alpha-0": ["--backend", "torch", "--alpha", "0"],
    "torch-20": ["--backend", "torch", *FEW],
    "mlx-20": ["--backend", "mlx", *FEW],
}


def run(options: list[str], reference: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), "--json", *options, "--output", folder]
        command += [] if reference is None else ["--reference", str(reference)]
        result = run_json(command)
        log = Path(result["log"]).read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, log) if event["kind"] == "train"]
    copied = ("steps", "train_seconds", "seconds", "calibration", "constraint_ratio", "verdict")
    return {
        "command": " ".join(["python", str(SCRIPT.relative_to(ROOT)), *options]),
        "versions": versions(),
        "hardware": hardware(),
        **{name: result[name] for name in (*copied, "prompts", "before", "after")},
        "losses": [round(event["loss"], 6) for event in steps],
    }


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if "fpo" in runs:
        after = runs["fpo"]["after"]
        figures["raw_accuracy"] = after["raw_accuracy"]["value"]
        figures["pairs_held_out"] = after["pairs"]
    if {"fpo", "alpha-0"} <= set(runs):
        with_it, without = (runs[name]["after"]["fpo/d_rejected"] for name in ("fpo", "alpha-0"))
        figures["d_rejected_ratio"] = with_it / without
    if {"torch-20", "mlx-20"} <= set(runs):
        pairs = zip(runs["torch-20"]["losses"], runs["mlx-20"]["losses"], strict=True)
        figures["largest_difference_of_losses"] = max(abs(a - b) for a, b in pairs)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--reference", type=Path, help="store that runs on torch share")
    args = parser.parse_args()
    runs = read_result("smollm2").get("runs", {})
    for name in args.runs:
        runs[name] = run(RUNS[name], args.reference if "torch" in RUNS[name] else None)
        ordered = {name: runs[name] for name in RUNS if name in runs}
        write_result("smollm2", {"summary": summary(runs), "runs": ordered})
    print(json.dumps(summary(runs), indent=2))


if __name__ == "__main__":
    main()
