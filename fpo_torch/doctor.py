"""What torch can use on this machine, and what runs the self-test on it."""

import time
from collections.abc import Callable
from typing import Any

import torch

from fpo_core.backend.precision import Products, cpu_rates
from fpo_core.backend.selftest import Calculator
from fpo_core.config import BackendConfig
from fpo_core.io.processors import usable_cpus
from fpo_torch.device import select_device
from fpo_torch.selftest_autodiff import TorchCalculator


def describe() -> dict[str, Any]:
    """Devices, the GPU where there is one, and how fast the CPU multiplies matrices."""
    devices = ["cpu"]
    values: dict[str, Any] = {"threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        devices.insert(0, "cuda")
        values["gpu"] = {
            "name": torch.cuda.get_device_name(0),
            "memory": torch.cuda.get_device_properties(0).total_memory,
        }
    if torch.backends.mps.is_available():
        devices.append("mps")
    rates = [_rates(threads) for threads in sorted({1, usable_cpus()})]
    return values | {"devices": devices, "cpu_gflops": _cpu_gflops(), "cpu_rates": rates}


def products(rows: int, inner: int, outer: int) -> Products:
    """A linear layer's products, forward and backward: (rows, inner) by (outer, inner)."""

    def of(dtype: torch.dtype) -> Callable[[], None]:
        x, weight = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)

        def run() -> None:
            torch.matmul(torch.nn.functional.linear(x, weight), weight)

        return run

    return {"float32": of(torch.float32), "bfloat16": of(torch.bfloat16)}


def _rates(threads: int) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return cpu_rates(products, threads)
    finally:
        torch.set_num_threads(before)


def calculator(config: BackendConfig) -> tuple[Calculator, str]:
    """What computes the self-test on the configured device, and the device's name."""
    device = select_device(config)
    return TorchCalculator(device), str(device)


def _cpu_gflops(size: int = 512) -> float:
    a = torch.randn(size, size)
    torch.matmul(a, a)  # the first product pays for starting the threads
    start = time.perf_counter()
    torch.matmul(a, a)
    return 2 * size**3 / max(time.perf_counter() - start, 1e-9) / 1e9
