"""Devices and precisions of the MLX backend."""

import weakref

import mlx.core as mx

from fpo_core.config import BackendConfig, StepConfig
from fpo_core.errors import BackendError
from fpo_core.io.memory import physical_memory


def select_device(config: BackendConfig) -> str:
    """Make the device of the settings MLX's default, or the GPU where there is one; its name."""
    if config.device in ("cuda", "mps"):
        raise BackendError(f"device is {config.device}, which belongs to torch: use gpu for mlx")
    has_gpu = mx.is_available(mx.gpu)
    if config.device == "gpu" and not has_gpu:
        raise BackendError(
            "device is gpu, but MLX sees none: use cpu, or install MLX for Metal (Apple Silicon) "
            "or CUDA (the mlx-cuda extra)"
        )
    on_gpu = has_gpu and config.device != "cpu"
    mx.set_default_device(mx.gpu if on_gpu else mx.cpu)
    return "gpu" if on_gpu else "cpu"


def memory_limit(device: str) -> int | None:
    """Bytes of a GPU's recommended working set, or of the machine's memory."""
    if device == "gpu":
        limit = mx.device_info(mx.gpu).get("max_recommended_working_set_size")
        return int(limit) if limit else None
    return physical_memory()


def select_dtype(config: BackendConfig, device: str) -> mx.Dtype:
    """The precision of the settings, or bfloat16 on a GPU, float32 on a CPU."""
    if config.dtype == "auto":
        return mx.bfloat16 if device == "gpu" else mx.float32
    return mx.bfloat16 if config.dtype == "bfloat16" else mx.float32


def configure(owner: object, device: str, step: StepConfig) -> None:
    """Wire memory and limit the cache while `owner` lives; BackendError where `step.compile`."""
    wire_memory(owner, device)
    limit_cache(owner, step.cache_limit)
    if step.compile:
        raise BackendError(
            "compile is set but belongs to CUDA devices: leave it out, or use the torch backend"
        )


def wire_memory(owner: object, device: str) -> None:
    """Keep arrays resident on Metal while `owner` lives; the earlier limit holds after it."""
    limit = memory_limit(device) if device == "gpu" and mx.metal.is_available() else None
    if limit is not None:
        weakref.finalize(owner, mx.set_wired_limit, mx.set_wired_limit(limit))


def limit_cache(owner: object, mib: int | None) -> None:
    """Let freed memory that MLX keeps for reuse take so many MiB, while `owner` lives."""
    if mib is not None:
        weakref.finalize(owner, mx.set_cache_limit, mx.set_cache_limit(mib * 2**20))


def seed(number: int) -> None:
    """Set MLX's random state."""
    mx.random.seed(number)


def reset_peak_memory(device: str) -> None:
    """Give freed memory back to the system, and count the peak from here."""
    del device  # MLX counts all devices together, here and below
    mx.clear_cache()
    mx.reset_peak_memory()


def peak_memory(device: str) -> int:
    """Most bytes that arrays held."""
    del device
    return mx.get_peak_memory()


def memory_in_use(device: str) -> dict[str, int]:
    """Bytes that arrays hold, and that MLX keeps for reuse."""
    del device
    return {"active_memory": mx.get_active_memory(), "cache_memory": mx.get_cache_memory()}
