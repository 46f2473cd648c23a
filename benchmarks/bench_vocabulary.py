"""Peak memory of the log-probabilities and their gradient at one chunk budget, by vocabulary.

Each size runs in a process of its own: states (N, d) -> log π of N tokens -> gradient of the
states. Counted are the framework's arrays, without the layer's weights and the states; what a BLAS
sets up for itself is not.
"""

import argparse
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.alternating import write_result
from benchmarks.shapes import environment
from fpo_core.config import StepConfig

SIZES = (8192, 32768, 49152, 131072, 262144)
WIDTH = 576


def torch_peak(vocab: int, tokens: int) -> int:
    """Bytes that torch's tensors held at most, above what they held before."""
    import contextlib

    import torch
    from torch import nn

    from benchmarks.arrays import most_added
    from fpo_torch.kernels.head import Head

    layer = nn.Linear(WIDTH, vocab, bias=False).requires_grad_(False)
    config = SimpleNamespace(vocab_size=vocab, get_text_config=lambda: config)
    model: Any = SimpleNamespace(config=config, get_output_embeddings=lambda: layer)
    head = Head(model, StepConfig().logits_budget, contextlib.nullcontext)
    states = torch.randn(tokens, WIDTH, requires_grad=True)
    labels = torch.randint(vocab, (tokens,))
    return most_added(lambda: head.terms(states, labels).logps.sum().backward())


def mlx_peak(vocab: int, tokens: int) -> int:
    """Bytes that MLX held at most, above what it held before."""
    from tests.fast_blas import load_fast_blas

    load_fast_blas()
    import mlx.core as mx
    from mlx import nn

    from fpo_mlx.kernels.head import Head

    mx.set_default_device(mx.cpu)
    model = nn.Module()
    model.lm_head = nn.Linear(WIDTH, vocab, bias=False)
    model.args = SimpleNamespace()
    model.freeze()
    head = Head(model, StepConfig().logits_budget)
    states = mx.random.normal((tokens, WIDTH))
    labels = mx.random.randint(0, vocab, (tokens,))
    mx.eval(model.parameters(), states, labels)
    before = mx.get_active_memory()
    mx.reset_peak_memory()

    def loss(h: mx.array) -> mx.array:
        return head.terms(h, labels, differentiate=True).logps.sum()

    mx.eval(mx.grad(loss)(states))
    return mx.get_peak_memory() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192, help="more than a chunk of each size")
    parser.add_argument("--worker", nargs=2, metavar=("BACKEND", "VOCAB"))
    arguments = parser.parse_args()
    if arguments.worker:
        backend, vocab = arguments.worker
        peak = {"torch": torch_peak, "mlx": mlx_peak}[backend](int(vocab), arguments.tokens)
        print(json.dumps(peak))
        return
    rows: dict[str, dict[str, float]] = {}
    for backend in ("torch", "mlx"):
        rows[backend] = {str(size): _peak(backend, size, arguments.tokens) / 1e6 for size in SIZES}
        values = np.array(list(rows[backend].values()))
        spread = float(np.abs(values / np.median(values) - 1).max())
        print(backend, {k: round(v) for k, v in rows[backend].items()}, f"MB, ±{spread:.1%}")
    values = {"tokens": arguments.tokens, "width": WIDTH, "peak_mb": rows}
    write_result("vocabulary", values)


def _peak(backend: str, vocab: int, tokens: int) -> int:
    command = [sys.executable, "-m", "benchmarks.bench_vocabulary", "--tokens", str(tokens)]
    command += ["--worker", backend, str(vocab)]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
