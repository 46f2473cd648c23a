"""Devices and precisions of the MLX backend."""

import weakref

import mlx.core as mx

from fpo_core.config import BackendConfig
from fpo_core.errors import BackendError
from fpo_core.io.memory import physical_memory


def select_device(config: BackendConfig) -> str:
    """Make the device that was asked for the default, or the GPU where there is one; its name."""
    if config.device in ("cuda", "mps"):
        raise BackendError(f"--device {config.device} belongs to --backend torch: say gpu for mlx")
    has_gpu = mx.is_available(mx.gpu)
    if config.device == "gpu" and not has_gpu:
        raise BackendError(
            "--device gpu was asked for but MLX sees no GPU: use --device cpu, or install MLX for "
            "Metal (Apple Silicon) or CUDA (the mlx-cuda extra)"
        )
    on_gpu = has_gpu and config.device != "cpu"
    mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
    return "gpu" if on_gpu else "cpu"


def memory_limit(device: str) -> int | None:
    """Bytes that a GPU works with at ease, or of the machine's memory."""
    if device == "gpu":
        limit = mx.device_info(mx.gpu).get("max_recommended_working_set_size")
        return int(limit) if limit else None
    return physical_memory()


def select_dtype(config: BackendConfig, device: str) -> mx.Dtype:
    """The precision that was asked for, or bfloat16 on a GPU, float32 on a CPU."""
    if config.dtype == "auto":
        return mx.bfloat16 if device == "gpu" else mx.float32
    return mx.bfloat16 if config.dtype == "bfloat16" else mx.float32


def wire_memory(owner: object, device: str) -> None:
    """Keep arrays resident on Metal while `owner` lives; the limit of before holds after it."""
    limit = memory_limit(device) if device == "gpu" and mx.metal.is_available() else None
    if limit is not None:
        weakref.finalize(owner, mx.set_wired_limit, mx.set_wired_limit(limit))


def limit_cache(owner: object, mib: int | None) -> None:
    """Let freed memory that MLX keeps for reuse take so many MiB, while `owner` lives."""
    if mib is not None:
        weakref.finalize(owner, mx.set_cache_limit, mx.set_cache_limit(mib * 2**20))


def refuse_compiling() -> None:
    """torch's compiler is torch's alone, and what is set must take part."""
    raise BackendError(
        "--compile was asked for but belongs to CUDA devices: leave it out, or use --backend torch"
    )
