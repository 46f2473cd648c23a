"""Devices and precisions of the torch backend."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

from fpo_core.config import BackendConfig, StepConfig
from fpo_core.errors import BackendError
from fpo_core.io.memory import physical_memory
from fpo_torch.compiled import compiles_on


def select_device(config: BackendConfig) -> torch.device:
    """The device of the settings, or CUDA where there is one, or the CPU; MPS only when named."""
    if config.device == "auto":
        return _rank_cuda() if torch.cuda.is_available() else torch.device("cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "device is cuda, but torch sees none: install a CUDA build of torch, or use cpu"
        )
    if config.device == "mps" and not torch.backends.mps.is_available():
        raise BackendError("device is mps, but torch sees no Metal: use cpu")
    if config.device == "gpu":
        raise BackendError("device is gpu, which belongs to mlx: use cuda or mps for torch")
    return _rank_cuda() if config.device == "cuda" else torch.device(config.device)


def _rank_cuda() -> torch.device:
    """The device of this process among those that torchrun started on this machine."""
    number = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if number is None else f"cuda:{number}")


def select_dtype(config: BackendConfig, device: torch.device) -> torch.dtype:
    """The precision of the settings, or bfloat16 on a GPU that has it, else float32."""
    if config.dtype != "auto":
        return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def memory_limit(device: torch.device) -> int | None:
    """Bytes of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return physical_memory()


def reset_peak_memory(device: torch.device) -> None:
    """Count from now on: on CUDA, and for resident memory on Linux; elsewhere peaks only grow.

    Memory that is free but still resident goes back to the system first.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # neither macOS nor musl has them
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Most bytes allocated on a GPU so far, or most resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_in_use(device: torch.device) -> dict[str, int]:
    """Bytes that tensors on a GPU hold and that are kept for reuse; a CPU says neither."""
    if device.type != "cuda":
        return {}
    active = torch.cuda.memory_allocated(device)
    return {
        "active_memory": active,
        "cache_memory": torch.cuda.memory_reserved(device) - active,
    }


def configure(owner: object, device: torch.device, step: StepConfig) -> None:
    """Raise BackendError where a setting of the step has no effect here; nothing else is to do."""
    del owner
    if step.cache_limit is not None:
        raise BackendError(
            f"cache_limit is {step.cache_limit}, but torch has no such limit: leave it out, or use "
            "the mlx backend"
        )
    if step.compile and not compiles_on(device):
        raise BackendError(
            f"compile is set on {device.type}, but it needs a CUDA device and Triton: leave it out"
        )


def seed(number: int) -> None:
    """Set torch's random state, on every device."""
    torch.manual_seed(number)
