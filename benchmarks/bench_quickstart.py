"""What the constraint does: the quickstart's default alpha against alpha 0, over seeds.

Run: python -m benchmarks.bench_quickstart [--seeds 3] [--backend torch] [--jobs 2]
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from statistics import mean
from typing import Any

from benchmarks.record import run_json, write_result

COLUMNS = ("raw", "oracle", "kl_rejected", "d_rejected", "perplexity", "entropy")


def run(alpha: float | None, seed: int, backend: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fpo_cli", "quickstart", "--json", "--seed", str(seed)]
        command += ["--backend", backend, "--output", folder]
        command += [] if alpha is None else ["--alpha", str(alpha)]
        result = run_json(command)
    after, before = result["after"], result["before"]
    return {
        "alpha": "default" if alpha is None else alpha,
        "seed": seed,
        "raw": after["raw_accuracy"]["value"],
        "raw_before": before["raw_accuracy"]["value"],
        "oracle": after["oracle"],
        "oracle_before": before["oracle"],
        "kl_rejected": after["fpo/kl_rejected"],
        "d_rejected": after["fpo/d_rejected"],
        "perplexity": after["perplexity"] / before["perplexity"],
        "entropy": after["entropy"],
        "seconds": result["seconds"],
        "calibration": result["calibration"],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    default = [row for row in rows if row["alpha"] == "default"]
    without = [row for row in rows if row["alpha"] != "default"]
    pairs = list(zip(default, without, strict=True))
    return {
        "d_rejected_ratio": mean(a["d_rejected"] for a in default)
        / mean(b["d_rejected"] for b in without),
        "kl_rejected_lower_in_every_seed": all(
            a["kl_rejected"] < b["kl_rejected"] for a, b in pairs
        ),
        "raw_difference": mean(a["raw"] - b["raw"] for a, b in pairs),
        "oracle_rise": mean(a["oracle"] - a["oracle_before"] for a in default),
        "oracle_rise_without": mean(b["oracle"] - b["oracle_before"] for b in without),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    jobs = [(alpha, seed) for alpha in (None, 0.0) for seed in range(args.seeds)]
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda job: run(*job, args.backend), jobs))
    for row in rows:
        print({name: row[name] for name in ("alpha", "seed", *COLUMNS)})
    values = {"summary": summary(rows), "runs": rows}
    print(json.dumps(values["summary"], indent=2))
    write_result("quickstart", values)


if __name__ == "__main__":
    main()
