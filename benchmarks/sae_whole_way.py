"""A model without a published autoencoder, as a new user goes: train one, check it, train with it.

Run: python -m benchmarks.sae_whole_way [--keep FOLDER], where an interrupted one goes on

SmolLM2 on `own_pairs` and docstrings of Python's standard library. Each command runs on a
pseudo-terminal; of each are recorded its seconds, on the wall and of the processors, and what the
terminal showed at the end, which docs/sae-training.md shows.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.newcomer import Watched
from benchmarks.own_pairs import write_own_pairs
from benchmarks.record import ROOT, write_result

DOCSTRINGS = 100
STEPS = {
    "get": "python {root}/examples/smollm2/get.py smollm2",
    "sae train": "fpo sae train --model smollm2/model --data pairs.jsonl --text texts.jsonl "
    "--output sae.safetensors",
    "sae check": "fpo sae check sae.safetensors --model smollm2/model --data pairs.jsonl",
    "train": "fpo train --model smollm2/model --data pairs.jsonl --sae sae.safetensors "
    "--output run --lr 3e-4 --iters 6",
    "eval": "fpo eval --model smollm2/model --adapter run --data pairs.jsonl --sae sae.safetensors",
}


def run(name: str, folder: Path, environment: dict[str, str]) -> dict[str, object]:
    """What a step came to, or did in an earlier sitting in this folder."""
    record = folder / f"{name}.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
    watched = Watched(STEPS[name].format(root=ROOT), folder, environment)
    code, rows = watched.follow(), [row.rstrip() for row in watched.screen.rows()]
    if code:
        raise SystemExit("\n".join(rows[-30:]) + f"\n{name} ended with {code}")
    step = {
        "step": name,
        "command": STEPS[name].format(root="."),
        "seconds": round(watched.seconds, 1),
        "cpu_seconds": round(watched.cpu, 1),
        "load": os.getloadavg()[0],
        "rows": rows,
    }
    record.write_text(json.dumps(step), encoding="utf-8")
    return step


def main() -> None:
    """Go the way; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    parser.add_argument("--only", choices=STEPS, nargs="+", default=[*STEPS])
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
    from build_sae import write_docstrings

    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)).absolute()
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        write_own_pairs(folder / "pairs.jsonl")
        write_docstrings(folder / "texts.jsonl", DOCSTRINGS, 0)
        command = folder / "bin" / "fpo"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fpo_cli "$@"\n')
        command.chmod(0o755)
        places = [ROOT, ROOT / "convert", ROOT / "cli"]
        environment = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "TERM": "xterm-256color",
        }
        steps = []
        for name in args.only:
            steps.append(run(name, folder, environment))
            print(json.dumps(steps[-1] | {"rows": None}), file=sys.stderr, flush=True)
    minutes = {key: sum(step[f"{key}seconds"] for step in steps) / 60 for key in ("", "cpu_")}
    summary = {"minutes": minutes[""], "cpu_minutes": minutes["cpu_"]}
    write_result("sae-whole-way", {"summary": summary, "steps": steps})
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
