"""`fpo sae train` killed at random moments and resumed, until it ends: is the file bit-equal?

    python benchmarks/kill_sae_training.py --kills 40 [--backend mlx]

A process is forked for each try and killed (SIGKILL) after a random part of the time that a whole
run takes; the next one resumes where there is something to go on from. The run is small: what is
tested is every moment of a checkpoint's writing, not the mathematics.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import fpo
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


def child(backend: str, folder: Path) -> int:
    """Start or resume in a new process; its id."""
    process = os.fork()
    if process:
        return process
    try:
        resume = (folder / "sae-run" / "state").is_dir()
        fpo.train_sae(**settings(backend, folder), resume=resume)
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)


def main() -> None:
    """Kill, resume, compare; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        fpo.train_sae(**settings(args.backend, Path(temporary) / "warm"))  # imports take seconds
        begun = time.monotonic()
        fpo.train_sae(**settings(args.backend, whole))
        seconds, expected = time.monotonic() - begun, digest(whole)
        kills, runs, equal, number = 0, 0, 0, 0
        while kills < args.kills:
            folder, number = Path(temporary) / f"run-{number}", number + 1
            while True:
                process = child(args.backend, folder)
                ended = _wait(process, rng.uniform(0.1, 0.7) * seconds)
                if ended is not None:
                    assert ended == 0, f"a resumed run failed with {ended}"
                    break
                kills += 1
            runs += 1
            equal += digest(folder) == expected
            print(f"{kills} kills, {runs} runs, {equal} bit-equal", flush=True)
    result = {"backend": args.backend, "kills": kills, "runs": runs, "bit_equal": equal}
    out = RESULTS / f"kill-sae-training-{args.backend}.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _wait(process: int, seconds: float) -> int | None:
    """The exit code of a process within some seconds; after that it is killed, and None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


if __name__ == "__main__":
    main()
