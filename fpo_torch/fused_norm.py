"""Root-mean-square norms as one function each: half the passes over memory, one array kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fpo_torch.swapped import swapped


class FusedNorms:
    """Swaps the forward of norms that prove to be plain RMS norms, while it is on."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [
            (module, eps, offset)
            for module in model.modules()
            for eps, offset in [_recognise(module)]
            if eps is not None
        ]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these norms are fused."""
        return swapped((module, _fused(module, *how)) for module, *how in self._norms)


def _fused(module: nn.Module, eps: float, offset: float) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        weight: Any = module.weight
        return _RmsNorm.apply(x, weight + offset if offset else weight, eps)

    return forward


@torch.no_grad()
def _recognise(module: nn.Module) -> tuple[float | None, float]:
    """Its ε and what is added to its weight, where a frozen module computes x / rms(x) · weight.

    Judged by what it says of random vectors, at the scale of ε too.
    """
    weight: Any = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or weight is None or not isinstance(eps, float):
        return None, 0.0
    if weight.requires_grad or weight.dtype != torch.float32:
        return None, 0.0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, *weight.shape), generator=generator).to(weight.device)
    x[1] *= eps**0.5
    for offset in (0.0, 1.0):
        found = _RmsNorm.apply(x, weight + offset, eps)
        if torch.allclose(found, module(x), rtol=1e-5, atol=1e-6):
            return eps, offset
    return None, 0.0


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / √(mean x² + ε) · weight: (..., d), (d,) -> (..., d)."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """s·g − x·s³·⟨g, x⟩/d with g the gradient times the weight and s the scale."""
        x, weight, scale = ctx.saved_tensors
        total = grad_outputs[0] * weight
        along = torch.linalg.vecdot(total, x).unsqueeze(-1)
        along.mul_(scale**3).div_(-x.shape[-1])
        return total.mul_(scale).addcmul_(x, along), None, None
