"""What each kernel of `fpo_torch.kernels` brings: a step with it, beside a step without it.

Run: python -m benchmarks.bench_kernels [--model-shape gemma-2-narrow] [--device cuda]

Without its kernel a part of the step is computed as transformers, PEFT or a plain reading of the
formula does. Steps with and without are taken in slices of one core (`interleave.slice_cores`), or
whole in turn on a GPU. Memory is the most bytes of arrays alive at once, weights included.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench_step import model_folder, options_of, parser, policy_step, setting_of
from benchmarks.interleave import alternate, compare, serve, show, slice_cores
from benchmarks.record import read_result, write_result
from benchmarks.shapes import MODELS, batch_of
from fpo_core.loss.packed import TokenTerms
from fpo_core.loss.packing import Run
from fpo_core.sae.sae import Sae
from fpo_torch import ops, packed_step
from fpo_torch.kernels import features, head, lora, mlp, norm, rotary
from fpo_torch.kernels.packed_attention import Settings


class OneCall:
    """`RunByRun` as one call over the whole row, whose mask hides what a token does not see."""

    def __init__(self, runs: Sequence[Run]) -> None:
        sizes = [run.parts for run in runs]
        run = np.repeat(np.arange(len(runs)), [sum(each) for each in sizes])
        part = np.concatenate([np.repeat(np.arange(len(each)), each) for each in sizes])
        root = np.array([bool(each.prompt) for each in runs])[run] & (part == 0)
        place = np.arange(len(run))
        same = (run == run[:, None]) & ((part == part[:, None]) | root)
        self._seen = torch.from_numpy(same & (place <= place[:, None]))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.kernels.packed_attention.Attention`; knows no windows and soft caps."""
        return torch.nn.functional.scaled_dot_product_attention(
            *(query, key, value, self._seen.to(query.device)),
            scale=settings.scaling,
            enable_gqa=settings.groups > 1,
        )


class DensePool:
    """Pooled features of all tokens at once, differentiated by torch."""

    @staticmethod
    def apply(h: Tensor, sae: Sae, shares: Tensor, *others: Any) -> Tensor:
        """c̄ (n, d_sae) of activations h (N, d_in) and shares (n, N)."""
        del others
        return shares @ sae.encode(ops, h)


def _whole_head(
    self: head.Head, h: Tensor, labels: Tensor, reference: Any = None, *, entropy: bool = False
) -> TokenTerms:
    """`Head.terms` from the logits of all tokens at once, differentiated by torch."""
    frozen = None if reference is None else reference[0](reference[1])
    return TokenTerms.of(ops, self.logits(h), labels, frozen, entropy=entropy)


def _off(kernel: type[Any]) -> Callable[[], None]:
    return lambda: setattr(kernel, "on", lambda self: contextlib.nullcontext())


WITHOUT: dict[str, Callable[[], None]] = {
    "norm": _off(norm.FusedNorms),
    "rotary": _off(rotary.FusedRotations),
    "mlp": _off(mlp.FusedMlps),
    "lora": _off(lora.FusedLora),
    "head": lambda: setattr(head.Head, "terms", _whole_head),
    "features": lambda: setattr(features, "_Pooled", DensePool),
    "run_attention": lambda: setattr(packed_step, "RunByRun", OneCall),
    "flex_row": lambda: setattr(packed_step, "BLOCK", sys.maxsize),
}
"""How to switch off each kernel of this process."""
LAYERS = "norm rotary mlp lora"


def work(options: dict[str, Any]) -> None:
    """Take steps without some kernels; the memory it reports is that of one step, taken first."""
    for name in options["without"].split():
        WITHOUT[name]()
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    step, peak = policy_step(options, batch)
    if peak is None:
        from benchmarks.arrays import most_held

        most = most_held(step)
        serve(step, lambda: most)
    else:
        from benchmarks.gpu import synchronised

        serve(synchronised(step), peak)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A row for each kernel: time and memory with it over those without it.

    Few processes run at once, for memory: each group has its own steps with all kernels.
    """
    rows: dict[str, Any] = {}
    module = [sys.executable, "-m", "benchmarks.bench_kernels", "--worker"]
    on_gpu = arguments.device == "cuda"
    names = [name for name in WITHOUT if name != ("run_attention" if on_gpu else "flex_row")]
    names.append(LAYERS)
    while names:
        group, names = names[: arguments.at_once], names[arguments.at_once :]
        commands = {
            name: [*module, json.dumps(options_of(arguments, folder, without=name))]
            for name in ("", *group)
        }
        if on_gpu:
            workers = alternate(commands, arguments.steps)
        else:
            workers = slice_cores(commands, arguments.steps, warm_up=0, cores=1)
        base = workers.pop("")
        for name, worker in workers.items():
            rows[name] = compare(base, worker) | {
                "seconds_without": float(np.median(worker.times)),
                "peak_gb_without": worker.report["peak"] / 1e9,
            }
            show("with", rows[name], f"a step without {name}")
    return rows


def main() -> None:
    arguments = parser()
    arguments.add_argument("--at-once", type=int, default=3, help="kernels switched off at once")
    arguments.set_defaults(pairs="M", steps=5)
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    with model_folder(arguments) as folder:
        rows = measure(arguments, folder)
    name = "-".join([arguments.model_shape, arguments.pairs, arguments.dtype, arguments.device])
    shapes = read_result("kernels-torch").get("shapes", {})
    shapes[name] = {"setting": setting_of(arguments), "rows": rows}
    write_result("kernels-torch", {"shapes": shapes})


if __name__ == "__main__":
    main()
