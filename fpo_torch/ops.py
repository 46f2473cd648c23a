"""The operations of `fpo_core.arrays.ops.Ops` on torch tensors."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LOG_2 = math.log(2)


def as_float(x: Tensor) -> Tensor:
    """`x` as float32, or float64 where it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def asarray(x: np.ndarray, like: Tensor) -> Tensor:
    """A numpy array on the device of `like`."""
    return on_device(x, like.device)


def on_device(x: np.ndarray, device: torch.device) -> Tensor:
    """A numpy array on a device; a CUDA device is not waited for."""
    # Copied first: torch would take a read-only memory map as writable.
    tensor = torch.from_numpy(np.array(x))
    if device.type != "cuda":
        return tensor.to(device)
    # From memory that may be paged out the copy would wait for all work before it.
    return tensor.pin_memory().to(device, non_blocking=True)


def where(condition: Tensor, x: Tensor, y: Tensor | float) -> Tensor:
    """`x` where `condition`, else `y`."""
    return torch.where(condition, x, y)


def exp(x: Tensor) -> Tensor:
    """Elementwise exponential."""
    return torch.exp(x)


def sqrt(x: Tensor) -> Tensor:
    """Elementwise square root."""
    return torch.sqrt(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), elementwise."""
    return torch.relu(x)


def concatenate(arrays: Sequence[Tensor], axis: int) -> Tensor:
    """Join along an existing axis."""
    return torch.cat(list(arrays), dim=axis)


def logsumexp(x: Tensor, axis: int) -> Tensor:
    """log Σ exp x along `axis`."""
    return torch.logsumexp(x, dim=axis)


def log_sigmoid(x: Tensor) -> Tensor:
    """log σ(x)."""
    return torch.nn.functional.logsigmoid(x)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − eˣ) for x < 0."""
    # Each branch sees arguments of its own range alone: the other's gradient would be 0 · inf.
    near = x > -_LOG_2
    small, large = torch.where(near, x, -_LOG_2), torch.where(near, -_LOG_2, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))


def take_along_axis(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Gather along `axis`; torch wants int64 indices."""
    return torch.gather(x, axis, indices.long())


def put_along_axis(x: Tensor, indices: Tensor, values: Tensor, axis: int) -> Tensor:
    """A copy with `values` in the places that `take_along_axis` reads."""
    return x.scatter(axis, indices.long(), values)


def kth_largest(x: Tensor, k: int) -> Tensor:
    """The k-th largest value along the last axis, which is kept with length 1."""
    return torch.topk(x, k, dim=-1).values[..., -1:]


def top_indices(x: Tensor, k: int) -> Tensor:
    """Indices of the k largest values along the last axis."""
    return torch.topk(x.detach(), k, dim=-1, sorted=False).indices


def largest(x: Tensor, axis: int) -> Tensor:
    """The largest value along `axis`."""
    return x.amax(dim=axis)


def stop_gradient(x: Tensor) -> Tensor:
    """`x`, through which no gradient flows."""
    return x.detach()
