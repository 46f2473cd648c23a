"""A linear layer and its adapter as one function: the wide input is kept for backward once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear

from fpo_torch.forward_patch import swapped
from fpo_torch.kernels.mlp import Gate, gated


class FusedLora:
    """Swaps PEFT's forward of plain adapters for the fused one, while it is on."""

    def __init__(self, model: nn.Module) -> None:
        layers = (m for m in model.modules() if isinstance(m, LoraLinear) and _is_plain(m))
        self._forwards = [(layer, _fused(layer)) for layer in layers]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these layers are fused."""
        return swapped(self._forwards)


def _is_plain(layer: LoraLinear) -> bool:
    """One adapter of two matrices on a dense frozen layer, and nobody who listens at that."""
    base = layer.get_base_layer()
    return (
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.lora_bias["default"]
        and not base._forward_hooks
        and not base._forward_pre_hooks
    )


def _fused(layer: LoraLinear) -> Callable[..., Tensor]:
    base: Any = layer.get_base_layer()
    dropout = layer.lora_dropout["default"]
    a: Any = layer.lora_A["default"].weight
    b: Any = layer.lora_B["default"].weight
    scale = layer.scaling["default"]

    def forward(x: Tensor, up: Tensor | None = None, gate: Gate | None = None) -> Tensor:
        """Of x, or of the product of two factors."""
        if layer.disable_adapters or layer.merged or not isinstance(dropout, nn.Identity):
            wide = x if gate is None or up is None else gated(x, up, gate)
            return type(layer).forward(layer, wide)
        weight, bias = base.weight, base.bias
        if torch.compiler.is_compiling():  # which does by itself what the functions below do
            low = linear(x, a.to(x.dtype))
            return linear(x, weight, bias) + linear(low, b.to(x.dtype)) * scale
        narrow = a.detach().to(x.dtype), b.detach().to(x.dtype)
        sketch, wide, low = _Inputs.apply(x, up, gate, weight, a, b, *narrow, scale)
        return _Output.apply(sketch, wide, low, weight, bias, narrow[1])

    return forward


class _Inputs(torch.autograd.Function):
    """Of y = x Wᵀ + bias + s (x Aᵀ) Bᵀ, in the precision of x: what backward needs, and backward.

    A and B come twice, for their gradients as they are trained and, narrow, in x's precision.

    Of a gated product its two factors are kept, which others keep too, and not the product. The
    output is for `_Output`, which keeps nothing: a checkpoint that repeats a block ends before its
    last product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        up: Tensor | None,
        gate: Gate | None,
        weight: Tensor,
        a: Tensor,
        b: Tensor,
        narrow_a: Tensor,
        narrow_b: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """An empty tensor of y's shape, x or the product, and s x Aᵀ."""
        del b
        wide = x.detach() if gate is None or up is None else gate.product(x, up)
        low = _scaled_product(_flat(wide), narrow_a.T, scale)
        ctx.save_for_backward(x, up, weight, narrow_a, narrow_b, low)
        ctx.gate, ctx.scale, ctx.trained = gate, scale, a.dtype
        ctx.mark_non_differentiable(wide, low)
        ctx.set_materialize_grads(False)
        return x.new_empty(1).expand(*x.shape[:-1], weight.shape[0]), wide, low

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient = grad_outputs[0]
        x, up, weight, a, b, low = ctx.saved_tensors
        outer = _flat(gradient)
        to_low = _scaled_product(outer, b, ctx.scale)
        to_b = (low.T @ outer).T  # twice as fast as the product turned round
        to_x = to_up = None
        if ctx.needs_input_grad[0]:
            to_x = (outer @ weight).addmm_(to_low, a).view_as(x)
        if ctx.gate is None:
            to_a = to_low.T @ _flat(x)
        else:
            bent = ctx.gate.act(x)
            to_a = to_low.T @ _flat(bent * up)
            if to_x is not None:
                to_x, to_up = ctx.gate.gradients(to_x, x, up, bent)
        to_a, to_b = to_a.to(ctx.trained), to_b.to(ctx.trained)
        return to_x, to_up, None, None, to_a, to_b, None, None, None


class _Output(torch.autograd.Function):
    """y from x or the product, and s x Aᵀ; its gradient goes to `_Inputs` as it comes."""

    @staticmethod
    def forward(
        ctx: Any,
        sketch: Tensor,
        wide: Tensor,
        low: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        narrow_b: Tensor,
    ) -> Tensor:
        del ctx, sketch
        y = linear(wide, weight, bias)
        _flat(y).addmm_(low, narrow_b.T)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return grad_outputs[0], None, None, None, None, None


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """scale · left @ right, in one kernel."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
