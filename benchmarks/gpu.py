"""Matmul rate of a CUDA device, FLOPs and profile of a step, and transformers' own step."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.scale import Sizes
from benchmarks.shapes import LINEAR, MODELS
from fpo_core.data.batches import Batch
from fpo_core.loss.packing import Row

KINDS = {
    "matrix products": ("gemm", "nvjet", "cutlass", "splitk"),
    "attention": ("flex", "fmha", "flash", "softmax"),
    "compiled": ("triton",),
    "optimizer": ("multi_tensor", "adam"),
    "copies": ("memcpy", "memset", "catarraybatched", "copy"),
}
"""Words in the names of CUDA kernels; a kernel is of the first kind with one in its name."""


def matmul_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """FLOP/s of a large product on random data: the median of ten."""
    a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 / statistics.median(timed(lambda: a @ b) for _ in range(10))


def timed(action: Callable[[], Any]) -> float:
    """Seconds on the device, between two CUDA events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def synchronised(step: Callable[[], None]) -> Callable[[], None]:
    """The step, and a wait until the device is done."""

    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def work_of(model: str, batch: Batch, *, shared: bool) -> int:
    """FLOPs of a step's products with frozen weights: 4 per weight and token.

    `shared`: prompts run once and the head at scored tokens, else every sequence as a whole.
    """
    sizes = Sizes.of(MODELS[model][1])
    row = Row.of(batch)
    whole = int(batch.lengths.sum())
    tokens, scored = (len(row.tokens), len(row.scored.labels)) if shared else (whole, whole)
    return 4 * sizes.products(tokens, scored)


def bare_step(options: dict[str, Any], batch: Batch) -> Callable[[], None]:
    """The forward and backward pass of transformers over every sequence, adapters by PEFT.

    With `full` the gradient of every weight, and no optimizer.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, options["dtype"])
    base = AutoModelForCausalLM.from_pretrained(options["folder"], dtype=dtype)
    base.to(options["device"])
    if options["grad_checkpoint"]:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    model: Any = base
    if not options.get("full"):
        model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR))
    model.train()
    tokens = torch.from_numpy(batch.tokens).long().to(options["device"])

    def step() -> None:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)

    return step


def profile(step: Callable[[], None], steps: int = 3) -> dict[str, Any]:
    """Milliseconds of a step by kind of kernel, the device's busy ms, and the costliest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    activities = [ProfilerActivity.CUDA, ProfilerActivity.CPU]
    with record(activities=activities) as recorded:
        elapsed = timed(lambda: [step() for _ in range(steps)]) * 1e3 / steps
    kernels = [
        (event.key, event.self_device_time_total / 1e3 / steps, event.count // steps)
        for event in recorded.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA and event.self_device_time_total
    ]
    kinds: dict[str, float] = {}
    for name, time, _ in kernels:
        matches = (k for k, words in KINDS.items() if any(word in name.lower() for word in words))
        kind = next(matches, "other")
        kinds[kind] = kinds.get(kind, 0.0) + time
    busy = sum(kinds.values())
    top = sorted(kernels, key=lambda kernel: -kernel[1])[:25]
    return {
        "kinds_ms": {k: round(v, 3) for k, v in sorted(kinds.items(), key=lambda kv: -kv[1])},
        "busy_ms": busy,
        "elapsed_ms_while_profiled": elapsed,
        "kernels": sum(count for *_, count in kernels),
        "top": [{"name": n[:90], "ms": round(t, 3), "count": c} for n, t, c in top],
    }
