"""What a step of torch asks of a GPU, counted on the CPU: its operations, and reads waited for.

The model is that of `bench_overhead`, on the CPU as on a GPU, less compilation. Allocations count,
views do not. `--before` names a checkout of an earlier version to count as well.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bench_overhead import as_on_a_gpu
from benchmarks.bench_step import model_folder, options_of, parser, policy_step
from benchmarks.record import run_json, write_result
from benchmarks.shapes import MODELS, batch_of

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora, checkpointing": {"grad_checkpoint": True},
    "lora, no constraint": {"alpha": 0.0},
}


class Launches(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation unless it is a view, and run it."""
        del types
        results = [result.alias_info for result in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in results):
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count(options: dict[str, Any]) -> dict[str, Any]:
    """Operations and reads of the third step."""
    as_on_a_gpu()
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    step, _ = policy_step(options, batch)
    step()
    step()
    reads, read = [], torch.Tensor.numpy
    torch.Tensor.numpy = lambda *args, **more: reads.append(1) or read(*args, **more)
    with Launches() as launches:
        step()
    counts = launches.counts
    waits = len(reads) + counts.pop("_local_scalar_dense", 0)
    return {
        "launches": counts.total(),
        "reads": waits,
        "most": dict(counts.most_common(12)),
    }


def count_in(checkout: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The same by the code of a checkout, in a process of its own."""
    paths = os.pathsep.join(str(checkout / part) for part in ("", "convert", "cli"))
    words = [sys.executable, __file__, "--worker", json.dumps(options)]
    return run_json(["env", "-C", str(checkout), f"PYTHONPATH={paths}", *words])


def main() -> None:
    arguments: argparse.ArgumentParser | argparse.Namespace = parser()
    arguments.add_argument("--before", help="checkout of the version to compare with")
    arguments.set_defaults(model_shape="gemma-2-narrow", pairs="tiny", d_sae=64)
    arguments = arguments.parse_args()
    if arguments.worker:
        print(json.dumps(count(json.loads(arguments.worker))))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = {"now": here} | ({"before": Path(arguments.before)} if arguments.before else {})
    rows: dict[str, Any] = {}
    with model_folder(arguments) as folder:
        for kind, changes in KINDS.items():
            options = options_of(arguments, folder, **changes)
            rows[kind] = {name: count_in(place, options) for name, place in checkouts.items()}
            counts = {name: (row["launches"], row["reads"]) for name, row in rows[kind].items()}
            print(kind, counts)
    write_result("launches", {"rows": rows})


if __name__ == "__main__":
    main()
