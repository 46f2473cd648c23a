"""What Python costs in a step on a GPU, told without one: a deep, narrow model on the CPU.

Its arithmetic takes next to no time, so a step lasts as long as its calls. FPO compiles here what
it compiles on CUDA, by torch's C++ compiler; only attention over a row, there one kernel, is one
call of the CPU's own. Where a GPU is fast enough to wait for Python, expect these ratios.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.alternating import alternate, serve, write_result
from benchmarks.bench_peers import peer_command
from benchmarks.bench_step import beside, options_of, parser, policy_step, setting_of
from benchmarks.shapes import MODELS, batch_of, build_model
from fpo_core.loss.packing import Row

PEER = "TRL precomputed, compact"
VARIANTS = {"FPO": {"compile": False}, "FPO --compile": {"compile": True}}


def as_on_a_gpu() -> None:
    """Have FPO take this CPU for a CUDA device, from here on."""
    import torch

    import fpo_torch.optimizer
    import fpo_torch.packed_step
    import fpo_torch.policy  # and with it every module that asks where it runs

    class OneCall:
        """Stands in for `fpo_torch.kernels.flex_row.FlexRow`."""

        def __init__(self, row: Row, windows: Iterable[int | None], device: torch.device) -> None:
            del windows, device  # no row here is as long as a window
            run, part = (torch.from_numpy(each) for each in row.members())
            place = torch.from_numpy(row.positions)
            seen = (part == 0) | (part == part[:, None])
            self._seen = seen & (run == run[:, None]) & (place <= place[:, None])

        def __call__(self, query: Any, key: Any, value: Any, settings: Any) -> Any:
            groups = settings.groups > 1
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, self._seen, scale=settings.scaling, enable_gqa=groups
            )

    for name, module in sys.modules.items():
        if name.startswith("fpo_torch") and hasattr(module, "compiles_on"):
            vars(module)["compiles_on"] = lambda device: True
    vars(fpo_torch.packed_step).update(FlexRow=OneCall, BLOCK=1)
    own = {"_fused": lambda weight: True, "_flat_gradients": lambda trainable: None}
    vars(fpo_torch.optimizer).update(own)


def work(options: dict[str, Any]) -> None:
    """Take optimiser steps."""
    as_on_a_gpu()
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    step, _ = policy_step(options, batch)
    serve(step)


def main() -> None:
    arguments = parser()
    arguments.add_argument("--python", default=sys.executable, help="an interpreter that has TRL")
    arguments.set_defaults(model_shape="gemma-2-narrow", pairs="tiny", d_sae=64)
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = build_model(arguments.model_shape, Path(arguments.models or scratch))
        worker = [sys.executable, "-m", "benchmarks.bench_overhead", "--worker"]
        commands = {
            name: [*worker, json.dumps(options_of(arguments, folder, **changes))]
            for name, changes in VARIANTS.items()
        }
        options = options_of(arguments, folder)
        commands[PEER] = peer_command(arguments.python, options, PEER)
        workers = alternate(commands, arguments.steps, warm_up=4)
    rows = beside(workers, PEER)
    values = {"rows": rows, "peer_versions": workers[PEER].versions}
    write_result("overhead", {"setting": setting_of(arguments)} | values)


if __name__ == "__main__":
    main()
