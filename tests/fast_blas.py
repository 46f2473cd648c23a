"""A fast BLAS for MLX's Linux CPU build, for tests and benchmarks alone."""

import ctypes
import importlib.util
import sys
from pathlib import Path

_LIBRARIES = ("libc10.so", "libtorch_cpu.so")


def load_fast_blas() -> str | None:
    """Let MLX's CPU build use torch's matrix products; call it before anything imports mlx.

    MLX's Linux wheel is linked to the reference BLAS (3–5 GFLOPS). Its calls to `cblas_sgemm` bind
    to whatever the process loaded first for everyone to see (RTLD_GLOBAL), and torch's library
    exports MKL's or OpenBLAS's: 15 to 100 times faster. torch itself is not imported.
    Returns the library that now serves MLX, or None where nothing was done: another system, no
    torch, or mlx already loaded.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return None
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    paths = [Path(torch.origin).parent / "lib" / name for name in _LIBRARIES]
    if not all(path.is_file() for path in paths):
        return None
    for path in paths:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return str(paths[-1])
