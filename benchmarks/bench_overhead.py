"""The Python overhead of a GPU's step, measured without a GPU: a deep, narrow model on the CPU.

Its arithmetic is negligible, so a step takes as long as launching its operations does. FPO compiles
here what it compiles on CUDA, with torch's C++ compiler; FlexAttention alone is replaced, by one
call of the CPU's attention. Expect these ratios where a GPU is fast enough to wait for Python.
"""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks.bench_peers import peer_command
from benchmarks.bench_step import (
    compare_all,
    model_folder,
    options_of,
    parser,
    policy_step,
    setting_of,
)
from benchmarks.interleave import alternate, serve
from benchmarks.record import write_result
from benchmarks.shapes import MODELS, batch_of
from fpo_core.loss.packing import Row

PEER = "TRL precomputed, compact"
VARIANTS = {"FPO": {"compile": False}, "FPO --compile": {"compile": True}}


def as_on_a_gpu() -> None:
    """Make FPO take this CPU for a CUDA device."""
    import fpo_torch.compiled
    import fpo_torch.optimizer
    import fpo_torch.packed_step
    from benchmarks.bench_kernels import OneCall

    def one_call(row: Row, windows: Iterable[int | None], device: Any) -> OneCall:
        del windows, device  # no row here is as long as a window
        return OneCall(row.runs)

    fpo_torch.compiled.compiling_devices = lambda: {"cpu"}
    vars(fpo_torch.packed_step).update(FlexRow=one_call, BLOCK=1)
    kernels = {"_fused": lambda weight: True, "_flat_gradients": lambda trainable: None}
    vars(fpo_torch.optimizer).update(kernels)


def work(options: dict[str, Any]) -> None:
    """Be a worker: take optimizer steps."""
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
    with model_folder(arguments) as folder:
        worker = [sys.executable, "-m", "benchmarks.bench_overhead", "--worker"]
        commands = {
            name: [*worker, json.dumps(options_of(arguments, folder, **changes))]
            for name, changes in VARIANTS.items()
        }
        commands[PEER] = peer_command(arguments.python, options_of(arguments, folder), PEER)
        workers = alternate(commands, arguments.steps, warm_up=4)
    values = {"rows": compare_all(workers, PEER), "peer_versions": workers[PEER].versions}
    write_result("overhead", {"setting": setting_of(arguments)} | values)


if __name__ == "__main__":
    main()
