"""Time and peak memory of one step: fast against plain, and by objective and backend.

Each variant runs in a process of its own; steps are taken in turn. On a CUDA device it also says
tokens per second, the share of the measured rate of matrix products, and where the time goes; of
torch on a CPU, the most bytes of arrays that a step holds, which the memory of a process exceeds by
what its allocator makes of them.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import Worker, alternate, ratio, serve, slice_cores, write_result
from benchmarks.shapes import MODELS, batch_of, build_model, environment, random_sae
from fpo_core.config import (
    AdapterConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    StepConfig,
)
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features

Step = Callable[[], None]
Peak = Callable[[], int] | None
"""What tells the peak of memory, None for the process's own."""


def build_policy(options: dict[str, Any]) -> Any:
    """A policy of either backend with LoRA of rank 8 on all linear layers."""
    if options["backend"] == "mlx":
        from tests.fast_blas import load_fast_blas

        load_fast_blas()
        from fpo_mlx.policy import MlxPolicy as Policy
    else:
        from fpo_torch.policy import TorchPolicy as Policy
    shape = MODELS[options["model"]][1]
    features = None
    if options["alpha"]:
        hook = Hook.parse(f"blocks.{shape['num_hidden_layers'] - 2}.hook_resid_post")
        sae = random_sae(shape["hidden_size"], options["d_sae"], architecture=options["activation"])
        features = Features.of(sae, hook, ())
    folder = Path(options["folder"])
    return Policy(
        folder,
        ModelConfig(model=str(folder), device=options["device"], dtype=options["dtype"]),
        AdapterConfig(rank=8),
        features,
        grad_checkpoint=options["grad_checkpoint"],
        step=StepConfig(
            plain=options["plain"],
            logits_budget=options["logits_budget"],
            compile=options["compile"] and not options["plain"],
        ),
    )


def work(options: dict[str, Any]) -> None:
    """Take optimiser steps on one batch."""
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    step, peak = (_bare if options["bare"] else policy_step)(options, batch)
    on_gpu = options["device"] == "cuda" and options["backend"] == "torch"
    if options["profile"]:
        if on_gpu:
            from benchmarks.gpu import profile
        else:
            from benchmarks.arrays import most_held as profile
        print(json.dumps(profile(step)))
        return
    if on_gpu:
        from benchmarks.gpu import synchronised

        step = synchronised(step)
    serve(step, peak)


def _bare(options: dict[str, Any], batch: Batch) -> tuple[Step, Peak]:
    from benchmarks import gpu

    return gpu.bare_step(options, batch), peak_of(options)


def peak_of(options: dict[str, Any]) -> Peak:
    """What tells the peak of torch's memory from now on: a device's, or None for the process's."""
    if options["device"] == "cpu":
        return None
    import torch

    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated


def policy_step(options: dict[str, Any], batch: Batch) -> tuple[Step, Peak]:
    """An optimiser step of FPO, or of another objective, on one batch."""
    policy = build_policy(options)
    assert options["plain"] or policy.info.fallback is None, policy.info.fallback
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

    if options["backend"] == "torch":
        return step, peak_of(options)
    return step, policy.peak_memory


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
BARE = "bare transformers"


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
        "activation": arguments.activation,
        "grad_checkpoint": arguments.grad_checkpoint,
        "logits_budget": StepConfig().logits_budget,
        "compile": arguments.compile,
        "plain": False,
        "alpha": 0.5,
        "objective": {},
        "one_at_a_time": False,
        "bare": False,
        "profile": False,
    } | changes


def setting_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a result says was asked for, without the folders of this machine."""
    hidden = ("models", "python", "worker", "peer")
    return {name: value for name, value in vars(arguments).items() if name not in hidden}


def result_name(kind: str, arguments: argparse.Namespace, *marks: str) -> str:
    """The name of a result: its kind, what ran, and what sets it apart."""
    words = [kind, arguments.backend, arguments.model_shape, arguments.pairs]
    words += [arguments.activation] * (arguments.activation != "relu")
    words += ["checkpoint"] * arguments.grad_checkpoint
    words += marks
    words += ["compiled"] * arguments.compile + ["cuda"] * (arguments.device == "cuda")
    return "-".join(words)


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
    found.add_argument("--activation", choices=["relu", "jumprelu", "topk"], default="relu")
    found.add_argument("--grad-checkpoint", action="store_true")
    found.add_argument("--compile", action="store_true", help="blocks whole, on CUDA")
    found.add_argument("--steps", type=int, default=20)
    found.add_argument("--models", default=None, help="folder that keeps the random models")
    return found


def main() -> None:
    arguments = parser()
    arguments.add_argument("--variants", nargs="*", default=None)
    arguments.add_argument(
        "--slices", action="store_true", help="in turn by milliseconds, by CPU time: less noise"
    )
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    on_gpu = arguments.backend == "torch" and arguments.device == "cuda"
    variants = VARIANTS | ({BARE: {"bare": True}} if on_gpu else {})
    names = arguments.variants or list(variants)
    with tempfile.TemporaryDirectory() as scratch:
        folder = build_model(
            arguments.model_shape,
            Path(arguments.models or scratch),
            arguments.dtype,
            "cuda" if on_gpu else "cpu",
        )
        settings = {name: options_of(arguments, folder, **variants[name]) for name in names}
        take = slice_cores if arguments.slices else alternate
        workers = take({name: command(each) for name, each in settings.items()}, arguments.steps)
        values = {"rows": beside(workers, names[-1])}
        if on_gpu:
            values |= _on_gpu(settings, values["rows"])
        elif arguments.backend == "torch":
            _add_arrays(settings, values["rows"], names[-1])
    name = result_name("step", arguments, *["slices"] * arguments.slices)
    write_result(name, {"setting": setting_of(arguments)} | values)


def beside(workers: dict[str, Worker], last: str) -> dict[str, Any]:
    """What each variant took, beside the last one: printed, and as rows of a result."""
    base = workers[last]
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
            f"memory {row['memory_ratio']:.3f}  of {last}"
        )
    return rows


def _add_arrays(settings: dict[str, Any], rows: dict[str, Any], last: str) -> None:
    """Add what the arrays of each variant take at most."""
    for name, row in rows.items():
        row["arrays_gb"] = _profile(settings[name]) / 1e9
    for name, row in rows.items():
        row["arrays_ratio"] = row["arrays_gb"] / rows[last]["arrays_gb"]
        print(f"{name:28} arrays {row['arrays_gb']:.3f} GB, {row['arrays_ratio']:.3f} of {last}")


def _profile(settings: dict[str, Any]) -> Any:
    done = subprocess.run(
        command(settings | {"profile": True}),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode:
        raise SystemExit(f"the profile failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _on_gpu(settings: dict[str, dict[str, Any]], rows: dict[str, Any]) -> dict[str, Any]:
    """Add tokens per second and the share of the device's rate; profile the first variant."""
    import torch

    from benchmarks import gpu

    first = next(iter(settings.values()))
    batch = batch_of(first["pairs"], MODELS[first["model"]][1]["vocab_size"])
    rate = gpu.matmul_rate(getattr(torch, first["dtype"]))
    for name, row in rows.items():
        whole = settings[name]["plain"] or settings[name]["bare"]
        work = gpu.work_of(first["model"], batch, shared=not whole)
        row["tokens_per_second"] = float(batch.lengths.sum()) / row["seconds"]
        row["share_of_matmul_rate"] = work / row["seconds"] / rate
        print(
            f"{name:28} {row['tokens_per_second']:9.0f} tokens/s  "
            f"{row['share_of_matmul_rate']:.3f} of {rate / 1e12:.0f} TFLOP/s"
        )
    found = _profile(first)
    print(json.dumps({k: v for k, v in found.items() if k != "top"}))
    for kernel in found["top"]:
        print(f"{kernel['ms']:8.3f} ms {kernel['count']:5} {kernel['name']}")
    return {"device": torch.cuda.get_device_name(), "matmul_rate": rate, "profile": found}


if __name__ == "__main__":
    main()
