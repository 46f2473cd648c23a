"""Gated MLPs, down(act(gate(x)) · up(x)), that save their two factors for backward and no product.

Shapes: x (1, t, d); the factors gate(x) and up(x), their product and all gradients of these
(1, t, f), f the intermediate size; result (1, t, d).

Saved: gate(x) and up(x). Autograd by itself saves act(gate(x)) too, and the product for the adapter
of down_proj: twice as much, in the widest arrays of a block. Backward computes both again, which
costs two elementwise passes next to its matrix products.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from fpo_torch.compiled import compiled_on_gpu
from fpo_torch.forward_patch import is_patched, patched
from fpo_torch.sharded.model import modules_with_weights


@dataclass(frozen=True)
class Gate:
    """The product act(x) · up, elementwise, and its gradients."""

    act: Callable[[Tensor], Tensor]
    act_gradient: Callable[[Tensor, Tensor], Tensor]
    """(gradient, x) -> gradient · act'(x)."""

    def product(self, x: Tensor, up: Tensor) -> Tensor:
        """act(x) · up, all of one shape."""
        return _product(x, up, self.act)

    def gradients(
        self, gradient: Tensor, x: Tensor, up: Tensor, activation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The product's gradient as those of x and up. Overwrites it, and activation = act(x)."""
        return _gradients(gradient, x, up, activation, self.act_gradient)


@compiled_on_gpu
def _product(x: Tensor, up: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    return act(x).mul_(up)


@compiled_on_gpu
def _gradients(
    gradient: Tensor,
    x: Tensor,
    up: Tensor,
    activation: Tensor,
    act_gradient: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    # In this order: `gradient` is overwritten by the second line.
    to_up = activation.mul_(gradient)
    to_x = act_gradient(gradient.mul_(up), x)
    return to_x, to_up


GATES = (
    Gate(silu, torch.ops.aten.silu_backward),
    Gate(
        lambda x: gelu(x, approximate="tanh"),
        lambda gradient, x: torch.ops.aten.gelu_backward(gradient, x, approximate="tanh"),
    ),
)
"""SwiGLU of Llama, Qwen and Mistral; GeGLU of Gemma."""


class MlpKernel:
    """Replaces the forward of gated MLPs whose activation is among `GATES`; no others."""

    def __init__(self, model: nn.Module) -> None:
        gates = ((module, _recognise(module)) for module in modules_with_weights(model))
        self._forwards = [(module, _forward(module, gate)) for module, gate in gates if gate]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these layers use the kernel."""
        return patched(self._forwards)


def _forward(module: Any, gate: Gate) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return type(module).forward(module, x)
        factors = module.gate_proj(x), module.up_proj(x)
        if is_patched(module.down_proj):
            # By `kernels.lora`, which needs the product for A's gradient: it takes the factors, and
            # recomputes the product, rather than have it saved.
            return module.down_proj(*factors, gate)
        return module.down_proj(gated(*factors, gate))

    return forward


def gated(x: Tensor, up: Tensor, gate: Gate) -> Tensor:
    """`Gate.product`, differentiable."""
    return _Gated.apply(x, up, gate)


class _Gated(torch.autograd.Function):
    """act(x) · up; saves x and up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, gate: Gate) -> Tensor:
        ctx.save_for_backward(x, up)
        ctx.gate = gate
        return gate.product(x, up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, up; none of gate."""
        x, up = ctx.saved_tensors
        # Cloned because autograd may hand the same tensor to others, and `gradients` overwrites it.
        return *ctx.gate.gradients(grad_outputs[0].clone(), x, up, ctx.gate.act(x)), None


@torch.no_grad()
def _recognise(module: Any) -> Gate | None:
    """The gate with which the kernel equals this module on random inputs; None where none does.

    Names alone do not tell: families share the names of layers and differ in what joins them.
    """
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
