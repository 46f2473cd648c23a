"""Time and peak memory of one step: fast against plain, and by objective and backend.

Each variant runs in a process of its own; steps are taken in turn.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import alternate, ratio, serve, write_result
from benchmarks.shapes import MODELS, batch_of, build_model, random_sae
from fpo_core.config import (
    AdapterConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    StepConfig,
)
from fpo_core.feature_tap import Features
from fpo_core.sae_hook import Hook
from fpo_core.scoring import ReferenceBatch


def build_policy(options: dict[str, Any]) -> Any:
    """A policy of either backend with LoRA of rank 8 on all linear layers."""
    if options["backend"] == "mlx":
        from fpo_mlx.fast_blas import load_fast_blas

        load_fast_blas()
        from fpo_mlx.policy import MlxPolicy as Policy
    else:
        from fpo_torch.policy import TorchPolicy as Policy
    shape = MODELS[options["model"]][1]
    features = None
    if options["alpha"]:
        hook = Hook.parse(f"blocks.{shape['num_hidden_layers'] - 2}.hook_resid_post")
        features = Features.of(random_sae(shape["hidden_size"], options["d_sae"]), hook, ())
    folder = Path(options["folder"])
    return Policy(
        folder,
        ModelConfig(model=str(folder), device=options["device"], dtype=options["dtype"]),
        AdapterConfig(rank=8),
        features,
        grad_checkpoint=options["grad_checkpoint"],
        step=StepConfig(plain=options["plain"], logits_budget=options["logits_budget"]),
    )


def work(options: dict[str, Any]) -> None:
    """Take optimiser steps on one batch."""
    policy = build_policy(options)
    assert options["plain"] or policy.info.fallback is None, policy.info.fallback
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    objective = ObjectiveConfig(**options["objective"], alpha=options["alpha"])
    scores = policy.score(batch)
    truncated = None if scores.pooled is None else np.zeros(len(scores.logps), np.float32)
    reference = ReferenceBatch(scores.logps, scores.pooled, truncated)
    policy.set_reference(policy.trained())
    policy.prepare_training(OptimiserConfig())
    parts = [(batch, reference)]
    if options["one_at_a_time"]:
        parts = [_pair(batch, reference, i) for i in range(batch.pairs)]

    def step() -> None:
        for part, known in parts:
            policy.accumulate(part, known, objective, 1 / batch.pairs)
        policy.apply_gradients(1e-5, 1.0)

    on_cpu = options["backend"] == "torch" and options["device"] == "cpu"
    serve(step, None if on_cpu else policy.peak_memory)


def _pair(batch: Any, reference: ReferenceBatch, i: int) -> tuple[Any, ReferenceBatch]:
    rows = [i, batch.pairs + i]
    part = dataclasses.replace(
        batch,
        tokens=batch.tokens[rows],
        prompt_lengths=batch.prompt_lengths[rows],
        lengths=batch.lengths[rows],
        rows=batch.rows[[i]],
    )
    pooled = None if reference.pooled is None else reference.pooled[rows]
    truncated = None if reference.truncated is None else reference.truncated[rows]
    return part, ReferenceBatch(reference.logps[rows], pooled, truncated)


VARIANTS: dict[str, dict[str, Any]] = {
    "fpo": {},
    "fpo, one pair at a time": {"one_at_a_time": True},
    "alpha 0": {"alpha": 0.0},
    "simpo": {"alpha": None, "objective": {"objective": "simpo"}},
    "tdpo2": {"alpha": None, "objective": {"objective": "tdpo2"}},
    "plain": {"plain": True},
}


def command(options: dict[str, Any]) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, "-m", "benchmarks.bench_step", "--worker", json.dumps(options)]


def options_of(arguments: argparse.Namespace, folder: Path, **changes: Any) -> dict[str, Any]:
    """What a worker is to do."""
    return {
        "backend": arguments.backend,
        "model": arguments.model_shape,
        "folder": str(folder),
        "pairs": arguments.pairs,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "d_sae": arguments.d_sae,
        "grad_checkpoint": arguments.grad_checkpoint,
        "logits_budget": StepConfig().logits_budget,
        "plain": False,
        "alpha": 0.5,
        "objective": {},
        "one_at_a_time": False,
    } | changes


def parser() -> argparse.ArgumentParser:
    """Options shared by the benchmarks of a step."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--worker")
    found.add_argument("--backend", choices=["torch", "mlx"], default="torch")
    found.add_argument("--model-shape", choices=list(MODELS), default="smollm2-135m")
    found.add_argument("--pairs", default="A", help="A, M, short, long or tiny")
    found.add_argument("--device", default="cpu")
    found.add_argument("--dtype", default="float32")
    found.add_argument("--d-sae", type=int, default=4096, help="as examples/smollm2 has it")
    found.add_argument("--grad-checkpoint", action="store_true")
    found.add_argument("--steps", type=int, default=20)
    found.add_argument("--models", default=None, help="folder that keeps the random models")
    return found


def main() -> None:
    arguments = parser()
    arguments.add_argument("--variants", nargs="*", default=list(VARIANTS))
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = build_model(
            arguments.model_shape, Path(arguments.models or scratch), arguments.dtype
        )
        commands = {
            name: command(options_of(arguments, folder, **VARIANTS[name]))
            for name in arguments.variants
        }
        workers = alternate(commands, arguments.steps)
    base = workers[arguments.variants[-1]]
    rows = {
        name: {
            "seconds": float(np.median(worker.times)),
            "peak_gb": worker.report["peak"] / 1e9,
            "time_ratio": ratio(worker.times, base.times),
            "memory_ratio": worker.report["peak"] / base.report["peak"],
        }
        for name, worker in workers.items()
    }
    for name, row in rows.items():
        time_ratio = row["time_ratio"]
        print(
            f"{name:28} {row['seconds']:8.3f} s  {row['peak_gb']:6.2f} GB  "
            f"{time_ratio['median']:.3f} [{time_ratio['low']:.3f}, {time_ratio['high']:.3f}]  "
            f"memory {row['memory_ratio']:.3f}  of {base.name}"
        )
    packages = ("torch", "transformers", "peft", "mlx", "mlx-lm", "numpy")
    name = f"step-{arguments.backend}-{arguments.model_shape}-{arguments.pairs}"
    name += "-checkpoint" if arguments.grad_checkpoint else ""
    write_result(name, {"setting": vars(arguments) | {"models": None}, "rows": rows}, packages)


if __name__ == "__main__":
    main()
