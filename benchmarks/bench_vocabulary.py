"""Peak memory of the log-probabilities and their gradient at one chunk budget, by vocabulary.

Each size runs in a process of its own: states (N, d) -> log π of N tokens -> gradient of the
states. Counted are the framework's arrays less the layer's weights and the states, and no buffers
of a BLAS.
"""

import argparse
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.record import run_json, write_result
from benchmarks.shapes import environment, mlx_on_cpu
from fpo_core.config import StepConfig

SIZES = (8192, 32768, 49152, 131072, 262144)
WIDTH = 576


def torch_peak(vocab: int, tokens: int) -> int:
    """Peak bytes of torch's tensors above those alive before."""
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
    """Peak bytes of MLX's arrays above those alive before."""
    mx = mlx_on_cpu()
    from mlx import nn

    from fpo_mlx.kernels.head import Head

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

    def loss(h: Any) -> Any:
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
    return run_json([*command, "--worker", backend, str(vocab)], environment())


if __name__ == "__main__":
    main()
