"""What the preflight foretells of a run beside what the run takes: SmolLM2 of examples/smollm2.

Run: python benchmarks/bench_preflight.py [--iters 12] [--cache FOLDER] [--backend torch]

Each setting is tried alone (`--dry-run`) and then run, in processes of their own. Bars: peak memory
within 10%, training time within 25%.
"""

import argparse
import importlib
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
sys.path[:0] = [str(ROOT / name) for name in (".", "convert", "cli", "examples/smollm2")]
RESULTS = ROOT / "benchmarks" / "results" / "preflight.json"
SETTINGS: dict[str, list[str]] = {
    "adapters": [],
    "adapters, checkpointed": ["--grad-checkpoint"],
    "adapters, batch of 8": ["--batch-size", "8"],
}


def fpo_train(options: list[str]) -> dict[str, Any]:
    """`fpo train`'s JSON object."""
    done = subprocess.run(
        [sys.executable, "-m", "fpo_cli", "train", "--json", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:3])},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def compare(name: str, options: list[str], folder: Path) -> dict[str, Any]:
    """Foretold and found, and by how much the first is off."""
    output = ["--output", str(folder / name.replace(" ", "-"))]
    foretold = fpo_train([*options, *SETTINGS[name], *output, "--dry-run"])
    found = fpo_train([*options, *SETTINGS[name], *output])
    log = Path(found["log"]).read_text(encoding="utf-8").splitlines()
    peak = max(event.get("peak_memory", 0) for event in map(json.loads, log))
    row = {
        "settings": name,
        "peak_memory": {"foretold": foretold["peak_memory"], "found": peak},
        "train_seconds": {"foretold": foretold["train_seconds"], "found": found["train_seconds"]},
        "load": os.getloadavg()[0],
    }
    for pair in (row["peak_memory"], row["train_seconds"]):
        pair["off"] = pair["foretold"] / pair["found"] - 1
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iters", type=int, default=12)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--cache", help="where examples/smollm2 finds its model")
    args = parser.parse_args()
    import yaml

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example = importlib.import_module("example").smollm2_example(args.cache)
        example.convert(folder)
        settings = folder / "settings.yaml"
        settings.write_text(yaml.safe_dump(example.training(folder)), encoding="utf-8")
        options = ["-c", str(settings), "--backend", args.backend, "--iters", str(args.iters)]
        options += ["--reference", str(folder / "reference")]
        for setting in SETTINGS:
            rows.append(compare(setting, options, folder))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": "python benchmarks/bench_preflight.py "
        f"--iters {args.iters} --backend {args.backend}",
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs",
        "versions": {name: version(name) for name in ("torch", "mlx", "transformers", "numpy")},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
