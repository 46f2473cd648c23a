"""`fpo sae train` killed at random moments and resumed, until it ends: is the file bit-equal?

    python -m benchmarks.kill_sae_training --kills 40 [--backend mlx]

Each try is a process of its own, killed (SIGKILL) after a random part of the time that a whole run
takes; the next one resumes where there is something to go on from. The run is small: what is tested
is every moment of a checkpoint's writing, not the mathematics.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import fpo
from benchmarks.kills import killed_until_done, loaded, undisturbed
from fpo.world import assets

RESULTS = Path(__file__).parent / "results"


def settings(backend: str, folder: Path) -> dict[str, Any]:
    """A small run on the world's model; a buffer that is filled several times."""
    return {
        "model": str(assets().model),
        "data": str(assets().pairs),
        "max_rows": 60,
        "max_seq_length": 48,
        "layer": ("1", "2"),
        "d_sae": 128,
        "k": 8,
        "tokens": 12_000,
        "batch_tokens": 200,
        "memory": 1,
        "save_every": 3,
        "tokens_per_batch": 512,
        "steps_per_report": 10,
        "backend": backend,
        "device": "cpu",
        "output": str(folder / "sae.safetensors"),
    }


def digest(folder: Path) -> str:
    """A hash of the two files that a run leaves."""
    files = sorted(folder.glob("sae-*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def child(backend: str, folder: Path) -> None:
    """Say when everything is loaded, then start or resume."""
    fpo.forecast_sae(**settings(backend, folder / "forecast"))
    loaded()
    resume = (folder / "sae-run" / "state").is_dir()
    fpo.train_sae(**settings(backend, folder), resume=resume)


def main() -> None:
    """Kill, resume, compare; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help="be one of the processes, in this folder")
    args = parser.parse_args()
    if args.child:
        child(args.backend, args.child)
        return
    rng = random.Random(args.seed)
    kills = runs = equal = 0
    program = [sys.executable, "-m", "benchmarks.kill_sae_training", "--backend", args.backend]
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        seconds = undisturbed([*program, "--child", whole])
        while kills < args.kills:
            folder = Path(temporary) / f"run-{runs}"
            command = [*program, "--child", folder]
            kills += killed_until_done(command, lambda: rng.uniform(0.1, 1.3) * seconds)
            runs += 1
            equal += digest(folder) == digest(whole)
            print(f"{kills} kills, {runs} runs, {equal} bit-equal", flush=True)
    result = {"backend": args.backend, "kills": kills, "runs": runs, "bit_equal": equal}
    out = RESULTS / f"kill-sae-training-{args.backend}.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
