"""What MLX can use on this machine, and what runs the self-test on it."""

import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from fpo_core.backend.precision import Products, cpu_rates
from fpo_core.backend.selftest import Calculator
from fpo_core.config import BackendConfig
from fpo_mlx.device import select_device
from fpo_mlx.selftest_autodiff import MlxCalculator

_SLOW_GFLOPS = 20.0
"""A CPU product slower than this comes from the reference BLAS."""


def describe() -> dict[str, Any]:
    """Devices, the GPU where there is one, and else how fast the CPU multiplies matrices."""
    if mx.is_available(mx.gpu):
        return {"devices": ["gpu", "cpu"], "gpu": dict(mx.device_info(mx.gpu))}
    gflops = _cpu_gflops()
    # MLX leaves the number of threads to its BLAS, which reads it once.
    rates = [cpu_rates(products, None)]
    values: dict[str, Any] = {"devices": ["cpu"], "cpu_gflops": gflops, "cpu_rates": rates}
    if sys.platform == "linux" and gflops < _SLOW_GFLOPS:
        values["note"] = (
            "MLX's Linux build multiplies matrices with the reference BLAS: right, but slow"
        )
    return values


def products(rows: int, inner: int, outer: int) -> Products:
    """A linear layer's products, forward and backward: (rows, inner) by (outer, inner)."""

    def of(dtype: mx.Dtype) -> Callable[[], None]:
        x, weight = mx.ones((rows, inner), dtype), mx.ones((outer, inner), dtype)
        return lambda: mx.eval((x @ weight.T) @ weight)

    return {"float32": of(mx.float32), "bfloat16": of(mx.bfloat16)}


def calculator(config: BackendConfig) -> tuple[Calculator, str]:
    """What computes the self-test on the configured device, and the device's name."""
    return MlxCalculator(), select_device(config)


def _cpu_gflops(size: int = 512) -> float:
    a = mx.random.normal((size, size))
    mx.eval(a @ a)  # the first product pays for loading the library
    start = time.perf_counter()
    mx.eval(a @ a)
    return 2 * size**3 / max(time.perf_counter() - start, 1e-9) / 1e9
