"""What each kernel of `fpo_torch.kernels` brings: a step with all of them against one without it.

Run: python -m benchmarks.bench_kernels [--pairs M] [--model-shape gemma-2-narrow] [--device cuda]

Without its kernel, a part of the step is computed as transformers and PEFT do, or as the formula
reads. Steps share a core by the millisecond (`interleave.slice_cores`); on a GPU whole steps
alternate. Memory is the peak of live tensors, weights included. Rows of other shapes, and with
--kernels of other kernels, stay in the result file.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
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
from fpo_torch.kernels import features
from fpo_torch.kernels.elementwise import ElementwiseKernel
from fpo_torch.kernels.head import Head
from fpo_torch.kernels.lora import LoraKernel
from fpo_torch.kernels.mlp import MlpKernel
from fpo_torch.kernels.packed_attention import Settings


class OneCall:
    """Attention over a row as one call, whose mask hides what a token does not see."""

    def __init__(self, runs: Sequence[Run]) -> None:
        sizes = [run.parts for run in runs]
        run = np.repeat(np.arange(len(runs)), [sum(parts) for parts in sizes])
        part = np.concatenate([np.repeat(np.arange(len(parts)), parts) for parts in sizes])
        in_prompt = np.array([run.prompt > 0 for run in runs])[run] & (part == 0)
        index = np.arange(len(run))
        same = (run == run[:, None]) & ((part == part[:, None]) | in_prompt)
        self._seen = torch.from_numpy(same & (index <= index[:, None]))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.kernels.packed_attention.Attention`; ignores windows and soft caps."""
        return torch.nn.functional.scaled_dot_product_attention(
            *(query, key, value, self._seen.to(query.device)),
            scale=settings.scaling,
            enable_gqa=settings.groups > 1,
        )


class DensePool:
    """`pooled_features` of all tokens at once, differentiated by torch."""

    @staticmethod
    def apply(h: Tensor, sae: Sae, shares: Tensor, *others: Any) -> Tensor:
        """h (N, d_in), shares (n, N) -> c̄ (n, d_sae)."""
        del others
        return shares @ sae.encode(ops, h)


def _whole_head(
    self: Head, h: Tensor, labels: Tensor, reference: Any = None, *, entropy: bool = False
) -> TokenTerms:
    """`Head.terms` from the logits of all tokens at once, differentiated by torch."""
    frozen = None if reference is None else reference[0](reference[1])
    return TokenTerms.of(ops, self.logits(h), labels, frozen, entropy=entropy)


def _off(self: Any) -> contextlib.AbstractContextManager[None]:
    del self
    return contextlib.nullcontext()


WITHOUT: dict[str, tuple[Any, str, Any]] = {
    "lora": (LoraKernel, "on", _off),
    "mlp": (MlpKernel, "on", _off),
    "norm and rotary": (ElementwiseKernel, "on", _off),
    "head": (Head, "terms", _whole_head),
    "features": (features, "_Pooled", DensePool),
    "run_attention": (packed_step, "RunByRun", OneCall),
    "flex_row": (packed_step, "BLOCK", sys.maxsize),
}
"""What to replace, where, to switch off each kernel."""


def work(options: dict[str, Any]) -> None:
    """Be a worker: take steps without some kernels. On a CPU the first step measures memory."""
    for name in filter(None, options["without"].split(", ")):
        setattr(*WITHOUT[name])
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    step, peak = policy_step(options, batch)
    if options["device"] == "cuda":
        from benchmarks.gpu import synchronised

        serve(synchronised(step), peak)
    else:
        from benchmarks.arrays import most_held

        most = most_held(step)
        serve(step, lambda: most)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A row for each kernel: time and memory with it over those without it.

    Kernels go in groups of `--at-once`, as each process has a model; a group has its own baseline.
    """
    rows: dict[str, Any] = {}
    module = [sys.executable, "-m", "benchmarks.bench_kernels", "--worker"]
    on_gpu = arguments.device == "cuda"
    names = [name for name in WITHOUT if name != ("run_attention" if on_gpu else "flex_row")]
    names = arguments.kernels or [*names, "lora, mlp"]
    for at in range(0, len(names), arguments.at_once):
        commands = {
            name: [*module, json.dumps(options_of(arguments, folder, without=name))]
            for name in ("", *names[at : at + arguments.at_once])
        }
        if on_gpu:
            workers = alternate(commands, arguments.steps)
        else:
            workers = slice_cores(commands, arguments.steps, warm_up=0, cores=1)
        base = workers.pop("")
        for name, worker in workers.items():
            rows[name] = compare(base, worker) | {
                "steps": arguments.steps,
                "seconds_without": float(np.median(worker.times)),
                "peak_gb_without": worker.report["peak"] / 1e9,
            }
            show("with", rows[name], f"a step without {name}")
    return rows


def main() -> None:
    arguments = parser()
    arguments.add_argument("--kernels", nargs="*", help="some of them, 'lora, mlp' for two at once")
    arguments.add_argument("--at-once", type=int, default=3, help="processes beside the baseline")
    arguments.set_defaults(pairs="M", steps=5)
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    with model_folder(arguments) as folder:
        rows = measure(arguments, folder)
    words = (arguments.model_shape, arguments.pairs, arguments.dtype, arguments.device)
    name = "-".join([*words, str(arguments.d_sae)])
    shapes = read_result("kernels-torch").get("shapes", {})
    earlier = shapes.get(name, {}).get("rows", {}) if arguments.kernels else {}
    # The setting is what all rows of a shape share.
    setting = {k: v for k, v in setting_of(arguments).items() if k not in ("steps", "kernels")}
    shapes[name] = {"setting": setting, "rows": earlier | rows}
    write_result("kernels-torch", {"shapes": shapes})


if __name__ == "__main__":
    main()
