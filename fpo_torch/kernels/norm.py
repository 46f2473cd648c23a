"""Root-mean-square norms as one function each: half the passes over memory, one array kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fpo_torch import ops
from fpo_torch.compiled import compiled_on_gpu, compiles_on
from fpo_torch.forward_patch import swapped


class FusedNorms:
    """Swaps the forward of norms that prove to be plain RMS norms, while it is on."""

    def __init__(self, model: nn.Module) -> None:
        self._forwards = [
            (module, _fused(module, eps, offset))
            for module in model.modules()
            for eps, offset in [_recognise(module)]
            if eps is not None
        ]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these norms are fused."""
        return swapped(self._forwards)


def _fused(module: nn.Module, eps: float, offset: float) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return type(module).forward(module, x)
        return _RmsNorm.apply(x, module.weight, eps, offset)

    return forward


@torch.no_grad()
def _recognise(module: nn.Module) -> tuple[float | None, float]:
    """Its ε and what is added to its weight, where a frozen module computes x / rms(x) · weight.

    Judged by what it says of random vectors in float32, at the scale of ε too.
    """
    weight: Any = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or weight is None or not isinstance(eps, float):
        return None, 0.0
    cheap = weight.dtype == torch.float32 or compiles_on(weight.device)  # elsewhere casts cost more
    if weight.requires_grad or not cheap:
        return None, 0.0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, *weight.shape), generator=generator).to(weight.device)
    x[1] *= eps**0.5
    for offset in (0.0, 1.0):
        found, _ = _normalise(x, weight, eps, offset)
        if torch.allclose(found, module(x), rtol=1e-5, atol=1e-6):
            return eps, offset
    return None, 0.0


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        y, scale = _normalise(x, weight, eps, offset)
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        return _gradient(grad_outputs[0], x, weight, scale, ctx.offset), None, None, None


@compiled_on_gpu
def _normalise(x: Tensor, weight: Tensor, eps: float, offset: float) -> tuple[Tensor, Tensor]:
    """s = 1 / √(mean x² + ε) and x · s · (weight + offset): (..., d), (d,) -> (..., d), (..., 1).

    In float32, like its gradient; s stays so, the rest has the precision of x.
    """
    wide = ops.as_float(x)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (wide * scale).mul_(_whole(weight, offset)).to(x.dtype), scale


@compiled_on_gpu
def _gradient(outer: Tensor, x: Tensor, weight: Tensor, scale: Tensor, offset: float) -> Tensor:
    """s·g − x·s³·⟨g, x⟩/d with g the gradient times the whole weight and s the scale."""
    wide = ops.as_float(x)
    total = ops.as_float(outer) * _whole(weight, offset)
    along = torch.linalg.vecdot(total, wide).unsqueeze(-1)
    along = along * scale**3 / -x.shape[-1]
    return total.mul_(scale).addcmul_(wide, along).to(x.dtype)


def _whole(weight: Tensor, offset: float) -> Tensor:
    weight = ops.as_float(weight)
    return weight + offset if offset else weight
