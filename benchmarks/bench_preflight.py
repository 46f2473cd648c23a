"""The preflight's estimates of memory and time against the run's own: SmolLM2 of examples/smollm2.

Run: python -m benchmarks.bench_preflight [--iters 12] [--cache FOLDER] [--backend torch]

Each setting is estimated (`--dry-run`) and then run, in processes of their own. Bars: peak memory
within 10%, training time within 25%.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, run_json, write_result

SETTINGS: dict[str, list[str]] = {
    "adapters": [],
    "adapters, checkpointed": ["--grad-checkpoint"],
    "adapters, batch of 8": ["--batch-size", "8"],
}


def compare(name: str, options: list[str], folder: Path) -> dict[str, Any]:
    """Estimate and measurement of one setting, and the relative error of the estimate."""
    command = [sys.executable, "-m", "fpo_cli", "train", "--json", *options, *SETTINGS[name]]
    command += ["--output", str(folder / name.replace(" ", "-"))]
    foretold, measured = run_json([*command, "--dry-run"]), run_json(command)
    log = Path(measured["log"]).read_text(encoding="utf-8").splitlines()
    peak = max(event.get("peak_memory", 0) for event in map(json.loads, log))
    pairs = {
        "peak_memory": (foretold["peak_memory"], peak),
        "train_seconds": (
            foretold["train_seconds"] + foretold["validation_seconds"],
            measured["train_seconds"],
        ),
    }
    errors = {
        key: {"foretold": estimate, "found": value, "off": estimate / value - 1}
        for key, (estimate, value) in pairs.items()
    }
    return {"settings": name, **errors, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iters", type=int, default=12)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--cache", help="where examples/smollm2 finds its model")
    args = parser.parse_args()
    import yaml

    sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
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
    write_result("preflight", {"rows": rows})


if __name__ == "__main__":
    main()
