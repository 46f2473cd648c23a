"""Rotary positions as one function each way: half the passes over memory."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

NAME = "apply_rotary_pos_emb"
"""What transformers' families call their own function by, each in its own module."""

Rotation = Callable[..., tuple[Tensor, Tensor]]


class FusedRotations:
    """Swaps the rotation of queries and keys where a family's proves to be x cos + x' sin.

    x' is x with its halves exchanged and the second negated.
    """

    def __init__(self, model: nn.Module) -> None:
        names = {type(module).__module__ for module in model.modules()}
        found = [sys.modules[name] for name in names if hasattr(sys.modules.get(name), NAME)]
        self._modules = [module for module in found if _recognise(getattr(module, NAME))]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within, forward and backward passes of these rotations are fused."""
        own = [(module, getattr(module, NAME)) for module in self._modules]
        try:
            for module, rotation in own:
                setattr(module, NAME, _fused(rotation))
            yield
        finally:
            for module, rotation in own:
                setattr(module, NAME, rotation)


def _fused(own: Rotation) -> Rotation:
    def rotate(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **others: Any
    ) -> tuple[Tensor, Tensor]:
        """(1, heads, t, d) twice, and (1, t, d) twice."""
        whole = q.shape[-1] == cos.shape[-1] == k.shape[-1] and q.dtype == cos.dtype
        if args or others or not whole or torch.compiler.is_compiling():
            return own(q, k, cos, sin, *args, **others)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return _Rotation.apply(q, cos, sin), _Rotation.apply(k, cos, sin)

    return rotate


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Back by the same angles."""
        cos, sin = ctx.saved_tensors
        return _rotated(grad_outputs[0], cos, sin, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Each number with the one half a head further: both halves of cos and of sin are alike."""
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return y


@torch.no_grad()
def _recognise(rotation: Rotation) -> bool:
    """Whether it turns random vectors by random angles as `_rotated` does."""
    if list(inspect.signature(rotation).parameters)[:4] != ["q", "k", "cos", "sin"]:
        return False
    generator = torch.Generator().manual_seed(0)
    q = torch.randn((1, 2, 3, 8), generator=generator)
    k = torch.randn((1, 1, 3, 8), generator=generator)
    angles = torch.randn((1, 3, 4), generator=generator).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    expected = [_rotated(x, cos[:, None], sin[:, None], 1) for x in (q, k)]
    found = rotation(q, k, cos, sin)
    return all(
        torch.allclose(*pair, rtol=1e-5, atol=1e-6) for pair in zip(found, expected, strict=True)
    )
