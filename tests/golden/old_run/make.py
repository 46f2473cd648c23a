"""Makes this folder with version 0.1.0 as it was before its core moved into packages.

Run it in a checkout of that version, with its packages on PYTHONPATH:
python tests/golden/old_run/make.py WORLD OUT, where WORLD holds the embedded model, pairs and
autoencoder, and OUT gets the files.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file, save_file

FEATURES = 48
"""Features kept of the embedded autoencoder."""
INPUTS = ["--model", "model", "--data", "pairs", "--sae", "sae.safetensors"]
RUN = [*INPUTS, "--max-seq-length", "64", "--output", "run", "--reference", "reference"]
RUN += [
    "--iters",
    "12",
    "--batch-size",
    "2",
    "--learning-rate",
    "0.02",
    "--beta",
    "10",
    "--k",
    "10",
]
RUN += [
    "--rank",
    "1",
    "--target-modules",
    "v_proj,down_proj",
    "--num-layers",
    "2",
    "--val-pairs",
    "4",
]
RUN += ["--steps-per-report", "1", "--steps-per-eval", "4", "--save-every", "4"]
BACKENDS = {"torch": [], "mlx": ["--dropout", "0.1"]}
"""Without dropout a run may go on under the other backend; with it the random state is stored."""


def main(world: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_inputs(world.resolve(), work)
        for name in ("sae.safetensors", "pairs"):
            place(work / name, out / name)
        for backend, options in BACKENDS.items():
            make_run(work, out / backend, [*RUN, *options, "--backend", backend])


def make_inputs(world: Path, work: Path) -> None:
    (work / "model").symlink_to(world / "model")
    (work / "pairs").mkdir()
    for name, count in (("train", 8), ("valid", 4)):
        lines = (world / "pairs" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (work / "pairs" / f"{name}.jsonl").write_text("".join(lines[:count]))
    (work / "source").mkdir()
    config = json.loads((world / "sae/cfg.json").read_text()) | {"d_sae": FEATURES}
    (work / "source/cfg.json").write_text(json.dumps(config))
    weights = load_file(world / "sae/sae_weights.safetensors")
    weights["W_enc"] = weights["W_enc"][:, :FEATURES].copy()
    weights["b_enc"], weights["W_dec"] = weights["b_enc"][:FEATURES], weights["W_dec"][:FEATURES]
    save_file(weights, work / "source/sae_weights.safetensors")
    fpo(work, "convert", "sae", "source", "--out", "sae.safetensors")


def make_run(work: Path, out: Path, options: list[str]) -> None:
    """A run to its end, whose result is kept, and one killed halfway, kept whole."""
    whole = fpo(work, "train", *options, "--json")
    place(work / "run/adapters.safetensors", out / "finished/adapters.safetensors")
    keys = ("before", "after", "loss_first", "loss_last", "best_step")
    result = json.loads(whole)
    (out / "finished/result.json").write_text(json.dumps({k: result[k] for k in keys}, indent=1))
    shutil.rmtree(work / "run")
    kill(work, "train", *options)
    for name in ("run", "reference"):
        place(work / name, out / name)
        shutil.rmtree(work / name)


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def command(work: Path, *arguments: str) -> dict:
    environment = os.environ | {"FPO_CACHE": str(work / "cache")}
    return {
        "args": [sys.executable, "-m", "fpo_cli", *arguments],
        "cwd": work,
        "env": environment,
        "text": True,
    }


def fpo(work: Path, *arguments: str) -> str:
    return subprocess.run(**command(work, *arguments), check=True, stdout=subprocess.PIPE).stdout


def kill(work: Path, *arguments: str) -> None:
    log = work / "run/log.jsonl"
    with subprocess.Popen(**command(work, *arguments)) as process:
        while process.poll() is None and not (log.is_file() and '"step": 6' in log.read_text()):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    steps = sorted(path.name for path in (work / "run/checkpoints").iterdir())
    assert steps[-1] == "step-00000004", steps


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
