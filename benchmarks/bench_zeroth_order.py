"""What LOZO reaches and costs beside AdamW: steps, seconds and bytes; drift of the weights.

Run: python -m benchmarks.bench_zeroth_order PART, with PART one of

    world     held-out accuracy over steps, on the quickstart's world      (about 10 minutes)
    smollm2   held-out loss of LOZO on examples/smollm2, over seeds        (75 min with --iters 600)
    cost      memory and time of a step of SmolLM2-135M's shape, beside scoring the same batch
    drift     how far the way there and back leaves the weights, in float32 and bfloat16

Parts replace their own figures in the results; the others stay. Seconds are of CPU, since other
work shared the machine.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import interleave
from benchmarks.record import ROOT, read_result, run_json, write_result
from benchmarks.shapes import MODELS, batch_of, build_model, environment, mlx_on_cpu
from fpo_core.config import AdapterConfig, ModelConfig, ObjectiveConfig, OptimiserConfig
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.finite_difference import slope

NAME = "zeroth_order"
LOZO = {"optimizer": "lozo", "iters": 1000, "schedule": "constant"}
ADAMW = {"optimizer": "adamw", "iters": 100}
FULL = {"fine_tune_type": "full"}
WORLD: dict[str, dict[str, Any]] = {
    "adapters, AdamW": {**ADAMW, "learning_rate": 3e-3},
    "adapters, LOZO": {**LOZO, "learning_rate": 5e-3, "max_grad_norm": 0.5, "iters": 1700},
    "full, AdamW": {**ADAMW, **FULL, "learning_rate": 3e-4},
    "full, LOZO": {
        **LOZO,
        **FULL,
        "learning_rate": 1.5e-4,
        "schedule": "cosine",
        "max_grad_norm": 6.0,
        "iters": 5000,
    },
}
ON_WORLD = {
    "objective": "dpo-norm",
    "beta": 70.0,
    "rank": 16,
    "scale": 1.0,
    "batch_size": 8,
    "max_seq_length": 64,
    "val_pairs": 200,
    "tokens_per_batch": 4096,
    "preflight": False,
}
ON_SMOLLM2 = {
    "objective": "dpo-norm",
    "beta": 5.0,
    "num_layers": 12,
    "rank": 8,
    "batch_size": 2,
    "max_seq_length": 224,
    "val_pairs": 52,
    "tokens_per_batch": 1024,
    "preflight": False,
    "step0_pairs": 0,
    **LOZO,
    "learning_rate": 6e-4,
    "max_grad_norm": 1.0,
}


def curve(settings: dict[str, Any], places: dict[str, str], evaluations: int) -> dict[str, Any]:
    """A run of `fpo.train`: held-out loss and accuracy over steps, CPU seconds, peak bytes."""
    import fpo

    start, points, peaks = time.process_time(), [], [0]
    spent = 0.0

    def hear(event: Any) -> None:
        nonlocal start, spent
        now = time.process_time()
        if event.kind == "train":
            peaks.append(event.values["peak_memory"])
        if event.kind == "eval":
            names = {"loss": "eval_loss", "accuracy": "eval_fpo/raw_accuracy"}
            values = {name: event.values[key] for name, key in names.items()}
            points.append({"step": event.step, "cpu_seconds": spent, **values})
            print(points[-1], flush=True)
        if event.kind == "progress" and event.values["label"] == "training":
            spent += now - start
        start = now

    every = settings["iters"] // evaluations
    with tempfile.TemporaryDirectory() as folder:
        run = {**settings, **places, "output": f"{folder}/run", "save_every": 10**6}
        fpo.train(**run, steps_per_eval=every, steps_per_report=every, sink=hear)
    return {"settings": settings, "points": points, "peak_gb": max(peaks) / 1e9}


def world(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Held-out accuracy over steps of each optimizer, on adapters and on all weights."""
    from fpo.world import assets

    files = {"model": str(assets().model), "data": str(assets().pairs), "dtype": "float32"}
    for name in arguments.only or WORLD:
        with tempfile.TemporaryDirectory() as cache:
            yield name, curve(ON_WORLD | WORLD[name], _elsewhere(files, cache), 10)


def smollm2(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Held-out loss at the start and at quarters, for each seed."""
    sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
    from fetch import fetch  # pyright: ignore[reportMissingImports]

    files = fetch()
    places = {"model": str(files.model), "data": str(files.pairs), "dtype": "float32"}
    with tempfile.TemporaryDirectory() as cache:
        for seed in arguments.seeds:
            settings = ON_SMOLLM2 | {"iters": arguments.iters, "seed": seed}
            yield f"seed {seed}", curve(settings, _elsewhere(places, cache), 4)


def _elsewhere(files: dict[str, str], folder: str) -> dict[str, str]:
    """Inputs, with a cache, a reference store and one short text of a benchmark's own."""
    text = Path(folder) / "text.txt"
    text.write_text("A text of one line.\n", encoding="utf-8")
    return {**files, "cache": folder, "reference": f"{folder}/store", "text": str(text)}


def work(options: dict[str, Any]) -> None:
    """Be a worker: score one batch, or take steps on it."""
    policy, step = cost_step(options)
    if options.get("profile"):
        from benchmarks import arrays  # imports torch

        print(json.dumps(arrays.most_held(step)))
        return
    policy.reset_peak_memory()  # loading the model took more than scoring does
    memory = policy.peak_memory if options["backend"] == "mlx" else None
    interleave.serve(step, memory)


def open_policy(options: dict[str, Any]) -> Any:
    if options["backend"] == "mlx":
        mlx_on_cpu()
        from fpo_mlx.policy import MlxPolicy as Policy
    else:
        from fpo_torch.policy import TorchPolicy as Policy
    config = ModelConfig(model=options["folder"], device=options["device"], dtype=options["dtype"])
    lozo = options["optimizer"] == "lozo"
    adapter = AdapterConfig(fine_tune_type="full")
    return Policy(Path(options["folder"]), config, adapter, None, zeroth_order=lozo)


def cost_step(options: dict[str, Any]) -> tuple[Any, Callable[[], None]]:
    """A policy, and scoring of one batch or a step of full fine-tuning on it."""
    policy = open_policy(options)
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    objective = ObjectiveConfig(objective="dpo-norm")
    logps = policy.score(batch).logps
    reference = ReferenceBatch(logps)
    if options["optimizer"] == "none":
        return policy, lambda: policy.score(batch, reference, objective)
    policy.prepare_training(OptimiserConfig(optimizer=options["optimizer"]))

    def by_losses() -> None:
        sides = []
        for sign in (1, -1):
            with policy.perturbed(sign, stay=True):
                sides.append(policy.score(batch, reference, objective))
        policy.apply_slope(slope(sides[0], sides[1], logps, objective, 1e-3), 1e-6, 1.0)

    def by_gradient() -> None:
        policy.accumulate(batch, reference, objective, 1 / batch.pairs)
        policy.apply_gradients(1e-6, 1.0)

    return policy, by_losses if options["optimizer"] == "lozo" else by_gradient


def cost(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """A step of full fine-tuning beside scoring of the same batch, steps in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.models or scratch)
        model = build_model(arguments.model_shape, folder, arguments.dtype)
        options = {
            "backend": arguments.backend,
            "model": arguments.model_shape,
            "folder": str(model),
            "pairs": arguments.pairs,
            "device": arguments.device,
            "dtype": arguments.dtype,
        }
        workers = interleave.alternate(
            {name: _worker(options | {"optimizer": name}) for name in arguments.only},
            arguments.steps,
            warm_up=1,
        )
        for worker in workers.values():
            worker.times = worker.cpu_times
        scoring = workers[arguments.only[0]]
        rows = {name: interleave.compare(worker, scoring) for name, worker in workers.items()}
        for name, row in rows.items():
            interleave.show(name, row, arguments.only[0])
            if arguments.backend == "torch" and arguments.device == "cpu":
                profiled = options | {"optimizer": name, "profile": True}
                row["arrays_gb"] = run_json(_worker(profiled), environment()) / 1e9
                print(f"{name}: arrays {row['arrays_gb']:.3f} GB", flush=True)
    shape = (arguments.backend, arguments.model_shape, arguments.pairs, arguments.dtype)
    name = " ".join(shape)
    earlier = read_result(NAME).get("cost", {}).get(name, {}).get("rows", {})
    # Each row is relative to the scoring that ran beside it.
    added = {row: values | {"steps": arguments.steps} for row, values in rows.items()}
    yield name, {"rows": earlier | added}


def _worker(options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.bench_zeroth_order", "work", json.dumps(options)]


def drift(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """‖X − X₀‖ / ‖X₀‖ of all weights after steps at rate 0: what the way back leaves."""
    del arguments
    from fpo.world import assets

    for backend in ("torch", "mlx"):
        for dtype in ("float32", "bfloat16"):
            options = {"backend": backend, "folder": str(assets().model), "device": "cpu"}
            policy = open_policy(options | {"dtype": dtype, "optimizer": "lozo"})
            policy.prepare_training(OptimiserConfig(optimizer="lozo"))
            start = policy.trained()
            size = sum((w.astype(np.float64) ** 2).sum() for w in start.values())
            row = {}
            for step in range(1, 301):
                for sign in (1, -1):
                    with policy.perturbed(sign):
                        pass
                policy.apply_slope(1.0, 0.0, 1.0)
                if step in (10, 100, 300):
                    moved = policy.trained()
                    apart = sum(
                        ((moved[n] - w).astype(np.float64) ** 2).sum() for n, w in start.items()
                    )
                    row[str(step)] = float(np.sqrt(apart / size))
            print(backend, dtype, row, flush=True)
            yield f"{backend} {dtype}", row


PARTS = {"world": world, "smollm2": smollm2, "cost": cost, "drift": drift}


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        work(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--only", nargs="+", help="runs of the world, or optimizers of cost")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iters", type=int, default=40)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--backend", choices=["torch", "mlx"], default="torch")
    parser.add_argument("--model-shape", choices=list(MODELS), default="smollm2-135m")
    parser.add_argument("--pairs", default="M")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--models", help="folder in which the random models stay")
    arguments = parser.parse_args()
    if arguments.part == "cost":
        arguments.only = arguments.only or ["none", "lozo", "adamw"]
    for name, row in PARTS[arguments.part](arguments):
        values = read_result(NAME).get(arguments.part, {})
        merged = read_result(NAME) | {arguments.part: values | {name: row}}
        ordered = {part: merged[part] for part in PARTS if part in merged}
        write_result(NAME, ordered)


if __name__ == "__main__":
    main()
