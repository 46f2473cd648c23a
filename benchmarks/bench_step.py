"""Time and peak memory of one step: packed against plain, and by objective and backend.

Each variant runs in a process of its own; steps are interleaved. On a CUDA device it also reports
tokens per second, the share of the measured matmul rate, and a profile by kind of kernel; for torch
on a CPU, the peak bytes of live tensors, which process memory exceeds by the allocator's overhead.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import interleave
from benchmarks.record import ROOT, run_json, write_result
from benchmarks.shapes import MODELS, batch_of, build_model, environment, mlx_on_cpu, random_sae
from fpo_core.backend.policy import SeededBatch
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
"""Reads the peak memory in bytes; None for the resident memory of the process."""


def build_policy(options: dict[str, Any]) -> Any:
    """A policy of either backend with LoRA of rank 8 on all linear layers, or `full`."""
    if options["backend"] == "mlx":
        mlx_on_cpu()
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
        AdapterConfig(rank=8, fine_tune_type="full" if options.get("full") else "lora"),
        features,
        grad_checkpoint=options["grad_checkpoint"],
        step=StepConfig(
            plain=options["plain"],
            logits_budget=options["logits_budget"],
            compile=options["compile"] and not options["plain"],
        ),
    )


def work(options: dict[str, Any]) -> None:
    """Be a worker: take optimizer steps on one batch, or profile them."""
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    if options["backend"] == "mlx":
        interleave.serve(*policy_step(options, batch))
        return
    from benchmarks import arrays, gpu  # both import torch

    if options["bare"]:
        step, peak = gpu.bare_step(options, batch), peak_of(options)
    else:
        step, peak = policy_step(options, batch)
    on_gpu = options["device"] == "cuda"
    if options["profile"]:
        print(json.dumps(gpu.profile(step) if on_gpu else arrays.most_held(step)))
    else:
        interleave.serve(gpu.synchronised(step) if on_gpu else step, peak)


def peak_of(options: dict[str, Any]) -> Peak:
    """Reads torch's peak memory from now on: the device's, or None for the process's."""
    if options["device"] == "cpu":
        return None
    import torch

    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated


def policy_step(options: dict[str, Any], batch: Batch) -> tuple[Step, Peak]:
    """An optimizer step of FPO, or of another objective, on one batch."""
    policy = build_policy(options)
    assert options["plain"] or policy.info.fallback is None, policy.info.fallback
    objective = ObjectiveConfig(**options["objective"], alpha=options["alpha"])
    scores = policy.score(batch)
    truncated = None if scores.pooled is None else np.zeros(len(scores.logps), np.float32)
    reference = ReferenceBatch(scores.logps, scores.pooled, truncated)
    policy.set_reference(policy.trained())
    policy.prepare_training(OptimiserConfig())

    def step() -> None:
        policy.accumulate_all([SeededBatch(0, batch, reference)], objective, 1 / batch.pairs)
        policy.apply_gradients(1e-5, 1.0)

    if options["backend"] == "torch":
        return step, peak_of(options)
    import mlx.core as mx

    def finished() -> None:
        step()
        mx.synchronize()

    return finished, policy.peak_memory


VARIANTS: dict[str, dict[str, Any]] = {
    "fpo": {},
    "alpha 0": {"alpha": 0.0},
    "simpo": {"alpha": None, "objective": {"objective": "simpo"}},
    "dpo": {"alpha": None, "objective": {"objective": "dpo"}},
    "tdpo2": {"alpha": None, "objective": {"objective": "tdpo2"}},
    "plain": {"plain": True},
}
BARE = "bare transformers"


def command(options: dict[str, Any]) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, "-m", "benchmarks.bench_step", "--worker", json.dumps(options)]


def options_of(arguments: argparse.Namespace, folder: Path, **changes: Any) -> dict[str, Any]:
    """A worker's options, with some changed."""
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
        "full": arguments.full,
        "plain": False,
        "alpha": 0.5,
        "objective": {},
        "bare": False,
        "profile": False,
    } | changes


def setting_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that a result records: all but folders of this machine."""
    hidden = ("models", "python", "worker", "peer")
    return {name: value for name, value in vars(arguments).items() if name not in hidden}


def result_name(kind: str, arguments: argparse.Namespace, *marks: str) -> str:
    """The name of a result file, such as step-torch-smollm2-135m-M-checkpoint-slices."""
    words = [kind, arguments.backend, arguments.model_shape, arguments.pairs]
    words += [arguments.activation] * (arguments.activation != "relu")
    words += ["full"] * arguments.full
    words += ["checkpoint"] * arguments.grad_checkpoint
    words += marks
    words += ["compiled"] * arguments.compile + ["cuda"] * (arguments.device == "cuda")
    return "-".join(words)


def parser() -> argparse.ArgumentParser:
    """Options shared by the benchmarks of a step."""
    shared = argparse.ArgumentParser(description=__doc__)
    shared.add_argument("--worker")
    shared.add_argument("--backend", choices=["torch", "mlx"], default="torch")
    shared.add_argument("--model-shape", choices=list(MODELS), default="smollm2-135m")
    shared.add_argument("--pairs", default="A", help="A, M, short, long or tiny")
    shared.add_argument("--device", default="cpu")
    shared.add_argument("--dtype", default="float32")
    shared.add_argument("--d-sae", type=int, default=4096, help="as in examples/smollm2")
    shared.add_argument("--activation", choices=["relu", "jumprelu", "topk"], default="relu")
    shared.add_argument("--grad-checkpoint", action="store_true")
    shared.add_argument("--full", action="store_true", help="train the weights themselves")
    shared.add_argument("--compile", action="store_true", help="whole blocks, on CUDA")
    shared.add_argument("--steps", type=int, default=20)
    shared.add_argument("--models", help="folder in which the random models stay")
    return shared


@contextlib.contextmanager
def model_folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """The folder of a model of the shape and dtype asked for, built where it is missing."""
    device = "cuda" if arguments.backend == "torch" and arguments.device == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.models or scratch)
        yield build_model(arguments.model_shape, folder, arguments.dtype, device)


@contextlib.contextmanager
def tree_of(commit: str | None) -> Iterator[Path | None]:
    """The files of a commit of this repository; None for none."""
    if commit is None:
        yield None
        return
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def within(tree: Path, command: list[str]) -> list[str]:
    """The command on the code of another tree."""
    paths = ":".join(map(str, (tree, tree / "convert", tree / "cli")))
    return ["env", "-C", str(tree), f"PYTHONPATH={paths}", *command]


def main() -> None:
    arguments = parser()
    arguments.add_argument("--variants", nargs="*", default=None)
    arguments.add_argument(
        "--slices", action="store_true", help="share a core by the millisecond: less noise"
    )
    arguments.add_argument("--mark", default="", help="added to the result's name")
    arguments.add_argument("--beside", help="a commit whose step of the first variant comes last")
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    on_gpu = arguments.backend == "torch" and arguments.device == "cuda"
    variants = VARIANTS | ({BARE: {"bare": True}} if on_gpu else {})
    names = arguments.variants or list(variants)
    with model_folder(arguments) as folder, tree_of(arguments.beside) as tree:
        settings = {name: options_of(arguments, folder, **variants[name]) for name in names}
        commands = {name: command(options) for name, options in settings.items()}
        if tree is not None:
            commands[f"{names[0]} at {arguments.beside}"] = within(tree, commands[names[0]])
        take = interleave.slice_cores if arguments.slices else interleave.alternate
        workers = take(commands, arguments.steps)
        values = {"rows": compare_all(workers, list(commands)[-1])}
        if on_gpu:
            values |= _on_gpu(settings, values["rows"])
        elif arguments.backend == "torch" and tree is None:
            _add_arrays(settings, values["rows"], names[-1])
    marks = ["slices"] * arguments.slices + ["beside"] * bool(arguments.beside)
    marks += [arguments.mark] * bool(arguments.mark)
    name = result_name("step", arguments, *marks)
    write_result(name, {"setting": setting_of(arguments)} | values)


def compare_all(workers: dict[str, interleave.Worker], base: str) -> dict[str, Any]:
    """A row for each worker, against the one named `base`; printed too."""
    rows = {name: interleave.compare(worker, workers[base]) for name, worker in workers.items()}
    for name, row in rows.items():
        interleave.show(name, row, base)
    return rows


def _add_arrays(settings: dict[str, Any], rows: dict[str, Any], base: str) -> None:
    """Add the peak bytes of live tensors of each variant."""
    for name, row in rows.items():
        row["arrays_gb"] = _profile(settings[name]) / 1e9
    for name, row in rows.items():
        row["arrays_ratio"] = row["arrays_gb"] / rows[base]["arrays_gb"]
        print(f"{name:28} arrays {row['arrays_gb']:.3f} GB, {row['arrays_ratio']:.3f} of {base}")


def _profile(settings: dict[str, Any]) -> Any:
    return run_json(command(settings | {"profile": True}), environment())


def _on_gpu(settings: dict[str, dict[str, Any]], rows: dict[str, Any]) -> dict[str, Any]:
    """Add tokens per second and the share of the matmul rate; profile the first variant."""
    import torch

    from benchmarks import gpu

    first = next(iter(settings.values()))
    batch = batch_of(first["pairs"], MODELS[first["model"]][1]["vocab_size"])
    rate = gpu.matmul_rate(getattr(torch, first["dtype"]))
    for name, row in rows.items():
        whole = settings[name]["plain"] or settings[name]["bare"]
        flops = gpu.work_of(first["model"], batch, shared=not whole)
        row["tokens_per_second"] = float(batch.lengths.sum()) / row["seconds"]
        row["share_of_matmul_rate"] = flops / row["seconds"] / rate
        print(
            f"{name:28} {row['tokens_per_second']:9.0f} tokens/s  "
            f"{row['share_of_matmul_rate']:.3f} of {rate / 1e12:.0f} TFLOP/s"
        )
    profile = _profile(first)
    print(json.dumps(profile, indent=1))
    return {"device": torch.cuda.get_device_name(), "matmul_rate": rate, "profile": profile}


if __name__ == "__main__":
    main()
