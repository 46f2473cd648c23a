"""torch.compile where it pays: functions that a CUDA device then runs as one or two kernels."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def compiling_devices() -> frozenset[str]:
    """Device types where torch.compile pays: CUDA with Triton, which Windows wheels lack."""
    return frozenset({"cuda"} if importlib.util.find_spec("triton") is not None else ())


def compiles_on(device: torch.device) -> bool:
    """Whether functions are compiled for this device."""
    return device.type in compiling_devices()


def any_length(x: Tensor, *axes: int) -> Tensor:
    """Mark axes of x as dynamic: consumers are compiled once for all lengths, not for this one.

    Without the mark dynamo takes the first length for a constant and compiles again at the second.
    """
    for axis in axes:
        torch._dynamo.maybe_mark_dynamic(x, axis)
    return x


def compiled_on_gpu(function: F) -> F:
    """`function` of a tensor and more, compiled where that tensor is on a GPU, else as it is.

    A CPU gains nothing and would wait for a C++ compiler.
    """
    # Compiled at the first call: a decorator that compiles would import inductor with the module.
    fast = functools.cache(lambda: torch.compile(function))

    @functools.wraps(function)
    def call(first: Tensor, *others: Any) -> Any:
        return (fast() if compiles_on(first.device) else function)(first, *others)

    return call  # pyright: ignore[reportReturnType]
