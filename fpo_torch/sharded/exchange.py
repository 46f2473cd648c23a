"""Exchanges of arrays among processes that a gradient passes through, and the most of a count.

The loss is the sum of what each process returns. Each exchange is linear, so its gradient is the
transposed exchange: gather and scatter are each other's, the two others their own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from fpo_core.backend.process_group import Group

Exchange = Callable[[Tensor], Tensor]


def most(group: Group, count: int) -> int:
    """The largest count of all processes; by way of the host, which knows it."""
    counts = np.zeros(group.size, np.float32)
    counts[group.rank] = count
    return int(group.sum(counts).max())


def padded(x: Tensor, rows: int) -> Tensor:
    """Zeros behind (n, …) -> (rows, …)."""
    return pad(x, (0, 0) * (x.ndim - 1) + (0, rows - len(x)))


def gathered(x: Tensor) -> Tensor:
    """(n, …) of each process, in their order -> (processes · n, …)."""
    return _Linear.apply(x, _gather, _scatter)


def scattered(x: Tensor) -> Tensor:
    """(processes · n, …), summed over processes -> the (n, …) of this one."""
    return _Linear.apply(x, _scatter, _gather)


def swapped(x: Tensor) -> Tensor:
    """(processes · n, …), the n-th part for the n-th process -> the parts for this one."""
    return _Linear.apply(x, _swap, _swap)


def summed(x: Tensor) -> Tensor:
    """The sum over processes, in all of them."""
    return _Linear.apply(x, _sum, _sum)


def largest(x: Tensor) -> Tensor:
    """The largest over processes, through which no gradient flows."""
    out = x.detach().clone()
    dist.all_reduce(out, op=dist.ReduceOp.MAX)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange, transpose: Exchange) -> Tensor:
        ctx.transpose = transpose
        return exchange(x.contiguous())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x, summed over what all processes make of it."""
        return ctx.transpose(grad_outputs[0].contiguous()), None, None


def _gather(x: Tensor) -> Tensor:
    out = x.new_empty(dist.get_world_size() * len(x), *x.shape[1:])
    dist.all_gather_single(out, x)
    return out


def _scatter(x: Tensor) -> Tensor:
    out = x.new_empty(len(x) // dist.get_world_size(), *x.shape[1:])
    dist.reduce_scatter_single(out, x)
    return out


def _swap(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x)
    return out


def _sum(x: Tensor) -> Tensor:
    out = x.clone()
    dist.all_reduce(out)
    return out
