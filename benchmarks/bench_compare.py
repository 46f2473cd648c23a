"""What `fpo compare` costs beyond the steps of its runs: all objectives on the quickstart's world.

Run: python -m benchmarks.bench_compare [--backend torch] [--times 2]

Bar: the whole command within 1.2 times the summed steps and one reference pass.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.alternating import write_result


def compare(backend: str) -> dict[str, Any]:
    """The cost that one comparison of one seed reports of itself."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fpo_cli", "compare", "--json", "--seeds", "0"]
        command += ["--backend", backend, "--output", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    result = json.loads(done.stdout)
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
