"""What examples/smollm2 reaches, and MLX against torch.

Run: python -m benchmarks.bench_smollm2 [--runs fpo torch-20 mlx-20]

The runs named replace their figures in the results; the others stay.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pages import fill
from benchmarks.record import ROOT, hardware, read_result, run_json, versions, write_result
from fpo_core.io.foreign_text import for_markdown, one_line

BEGIN, END = "<!-- smollm2: python -m benchmarks.bench_smollm2 --readme -->", "<!-- end -->"
SCRIPT = ROOT / "examples" / "smollm2" / "run.py"
FEW = ["--iters", "20", "--max-rows", "24", "--val-pairs", "4", "--samples", "1"]
RUNS = {
    "fpo": ["--backend", "torch"],
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
    if {"torch-20", "mlx-20"} <= set(runs):
        pairs = zip(runs["torch-20"]["losses"], runs["mlx-20"]["losses"], strict=True)
        figures["largest_difference_of_losses"] = max(abs(a - b) for a, b in pairs)
    return figures


def shown(run: dict[str, Any], count: int = 2) -> str:
    """A run's measurements and its first samples as Markdown, for the README."""
    before, after = run["before"], run["after"]
    rows = [
        (
            "raw accuracy, held out",
            *(f"{side['raw_accuracy']['value']:.3f}" for side in (before, after)),
        ),
        (
            "perplexity of ordinary English",
            *(f"{side['perplexity']:.1f}" for side in (before, after)),
        ),
        (
            "general questions answered right",
            *(f"{side['facts']:.0f} of {side['questions']}" for side in (before, after)),
        ),
        ("reward of chosen, rejected", "0", _rewards(after)),
    ]
    lines = ["| | before | after |", "|---|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    samples = zip(run["prompts"], before["completions"], after["completions"], strict=True)
    for prompt, *sides in list(samples)[:count]:
        asked = prompt.rpartition("user\n")[2].partition("\n")[0]
        lines += ["", f"> **{for_markdown(asked)}**"]
        for name, text in zip(("before", "after"), sides, strict=True):
            lines += [">", f"> *{name}:* {for_markdown(_cut(one_line(text)))}"]
    return "\n".join(lines)


def _rewards(side: dict[str, Any]) -> str:
    return f"{side['rewards/chosen']:+.2f}, {side['rewards/rejected']:+.2f}"


def _cut(text: str, most: int = 280) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--readme", action="store_true", help="only write the README's part")
    parser.add_argument("--reference", type=Path, help="store that runs on torch share")
    args = parser.parse_args()
    runs = read_result("smollm2").get("runs", {})
    if args.readme:
        fill(ROOT / "README.md", BEGIN, END, shown(runs["fpo"]))
        return
    for name in args.runs:
        runs[name] = run(RUNS[name], args.reference if "torch" in RUNS[name] else None)
        ordered = {name: runs[name] for name in RUNS if name in runs}
        write_result("smollm2", {"summary": summary(runs), "runs": ordered})
    print(json.dumps(summary(runs), indent=2))


if __name__ == "__main__":
    main()
