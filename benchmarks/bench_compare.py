"""What `fpo compare` costs beyond the steps of its runs: all objectives on the quickstart's world.

Run: python -m benchmarks.bench_compare [--backend torch] [--times 2]

Bar: the whole command within 1.2 times the summed steps and one reference pass.
"""

import argparse
import json
import sys
import tempfile
from typing import Any

from benchmarks.record import run_json, write_result


def compare(backend: str) -> dict[str, Any]:
    """The cost of comparing the objectives with one seed, as the command reports it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fpo_cli", "compare", "--json", "--seeds", "0"]
        result = run_json([*command, "--backend", backend, "--output", folder])
    cost = result["cost"]
    needed = cost["step_seconds"] + cost["reference_seconds"]
    return cost | {"ratio": cost["seconds"] / needed, "objectives": len(result["runs"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--times", type=int, default=2)
    args = parser.parse_args()
    rows = []
    for _ in range(args.times):
        rows.append(compare(args.backend))
        print(json.dumps(rows[-1]), flush=True)
    write_result(f"compare-{args.backend}", {"bar": 1.2, "runs": rows})


if __name__ == "__main__":
    main()
