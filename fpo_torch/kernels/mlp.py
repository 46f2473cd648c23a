"""Gated feed-forward layers that keep their two factors for backward, and no product of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from fpo_torch.compiled import compiled_on_gpu
from fpo_torch.forward_patch import is_swapped, swapped


@dataclass(frozen=True)
class Gate:
    """act(x) · up, elementwise, and its gradients."""

    act: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    """(gradient, x) -> gradient · act'(x)."""

    def product(self, x: Tensor, up: Tensor) -> Tensor:
        """act(x) · up, all of one shape."""
        return _product(x, up, self.act)

    def gradients(
        self, outer: Tensor, x: Tensor, up: Tensor, bent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of x and of up, from the product's gradient and from act(x): both are written over."""
        return _gradients(outer, x, up, bent, self.slope)


@compiled_on_gpu
def _product(x: Tensor, up: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    return act(x).mul_(up)


@compiled_on_gpu
def _gradients(
    outer: Tensor, x: Tensor, up: Tensor, bent: Tensor, slope: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    bent.mul_(outer)
    return slope(outer.mul_(up), x), bent


GATES = (
    Gate(silu, torch.ops.aten.silu_backward),
    Gate(
        lambda x: gelu(x, approximate="tanh"),
        lambda outer, x: torch.ops.aten.gelu_backward(outer, x, approximate="tanh"),
    ),
)


class FusedMlps:
    """Swaps the forward of layers that prove to be down(act(gate(x)) · up(x)), while it is on."""

    def __init__(self, model: nn.Module) -> None:
        found = ((module, _recognise(module)) for module in model.modules())
        self._forwards = [(module, _fused(module, gate)) for module, gate in found if gate]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these layers are fused."""
        return swapped(self._forwards)


def _fused(module: Any, gate: Gate) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return type(module).forward(module, x)
        factors = module.gate_proj(x), module.up_proj(x)
        if is_swapped(module.down_proj):  # a fused adapter, which multiplies them itself
            return module.down_proj(*factors, gate)
        return module.down_proj(gated(*factors, gate))

    return forward


def gated(x: Tensor, up: Tensor, gate: Gate) -> Tensor:
    """`Gate.product`, to be differentiated."""
    return _Gated.apply(x, up, gate)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, gate: Gate) -> Tensor:
        ctx.save_for_backward(x, up)
        ctx.gate = gate
        return gate.product(x, up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, up = ctx.saved_tensors
        return *ctx.gate.gradients(grad_outputs[0].clone(), x, up, ctx.gate.act(x)), None


@torch.no_grad()
def _recognise(module: Any) -> Gate | None:
    """The gate of a layer, judged by what the layer says of random vectors."""
    if not all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        return None
    weight = module.gate_proj.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, module.gate_proj.in_features), generator=generator).to(weight)
    expected = module(x)
    for gate in GATES:
        product = gate.product(module.gate_proj(x), module.up_proj(x))
        if torch.allclose(module.down_proj(product), expected, rtol=1e-5, atol=1e-6):
            return gate
    return None
