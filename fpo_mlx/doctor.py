"""What MLX can use on this machine, and what runs the self-test on it."""

import sys
import time
from typing import Any

import mlx.core as mx

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
    values: dict[str, Any] = {"devices": ["cpu"], "cpu_gflops": gflops}
    if sys.platform == "linux" and gflops < _SLOW_GFLOPS:
        values["note"] = (
            "MLX's Linux build multiplies matrices with the reference BLAS: right, but slow"
        )
    return values


def calculator(config: BackendConfig) -> tuple[Calculator, str]:
    """What computes the self-test on the configured device, and the device's name."""
    return MlxCalculator(), select_device(config)


def _cpu_gflops(size: int = 512) -> float:
    a = mx.random.normal((size, size))
    mx.eval(a @ a)  # the first product pays for loading the library
    start = time.perf_counter()
    mx.eval(a @ a)
    return 2 * size**3 / max(time.perf_counter() - start, 1e-9) / 1e9
