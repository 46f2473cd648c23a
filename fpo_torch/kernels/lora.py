"""A frozen linear layer with its LoRA adapter as one function: y = x Wᵀ + bias + s (x Aᵀ) Bᵀ.

Shapes: x (1, t, d_in), W (d_out, d_in), A (r, d_in), B (d_out, r), y (1, t, d_out).

Saved: x, and s x Aᵀ (t, r). PEFT's modules write the low-rank product, scale it and add it to y,
three arrays of y's size where here one product accumulates into y; and backward the same for x.
After a gated MLP (`kernels.mlp`) x is itself a product of two factors, and those are saved in its
place, which other layers save anyway.

The function is split in two for gradient checkpointing, which repeats a block in backward and
stops at the last tensor that was saved. `_Inputs` saves everything and owns the gradients, but
returns y's shape without its numbers; `_Output` saves nothing and does the large product, so the
repetition leaves out the product of a block's last layer.

    x ──► _Inputs ──► placeholder, x, s x Aᵀ ──► _Output ──► y
    ◄── gradients of x, A, B ◄── gradient of the placeholder = gradient of y ◄──
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear

from fpo_torch.forward_patch import patched
from fpo_torch.kernels.mlp import Gate, gated


class LoraKernel:
    """Replaces PEFT's forward of plain adapters. DoRA, dropout, several adapters are left to it."""

    def __init__(self, model: nn.Module) -> None:
        layers = (m for m in model.modules() if isinstance(m, LoraLinear) and _is_plain(m))
        self._forwards = [(layer, _forward(layer)) for layer in layers]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these layers use the kernel."""
        return patched(self._forwards)


def _is_plain(layer: LoraLinear) -> bool:
    """A plain LoRA on a frozen nn.Linear without forward hooks, which would not be called."""
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


def _forward(layer: LoraLinear) -> Callable[..., Tensor]:
    base: Any = layer.get_base_layer()
    dropout = layer.lora_dropout["default"]
    down: Any = layer.lora_A["default"]
    up_again: Any = layer.lora_B["default"]
    scale = layer.scaling["default"]

    def forward(x: Tensor, up: Tensor | None = None, gate: Gate | None = None) -> Tensor:
        """Of x; with a gate, of gate.product(x, up)."""
        if layer.disable_adapters or layer.merged or not isinstance(dropout, nn.Identity):
            product = x if gate is None or up is None else gated(x, up, gate)
            return type(layer).forward(layer, product)
        # Read here: a sharded model has other tensors there while its weights are gathered.
        weight, bias, a, b = base.weight, base.bias, down.weight, up_again.weight
        if torch.compiler.is_compiling():  # inductor finds by itself what the functions below do
            low = linear(x, a.to(x.dtype))
            return linear(x, weight, bias) + linear(low, b.to(x.dtype)) * scale
        narrow = a.detach().to(x.dtype), b.detach().to(x.dtype)
        placeholder, product, low = _Inputs.apply(x, up, gate, weight, a, b, *narrow, scale)
        return _Output.apply(placeholder, product, low, weight, bias, narrow[1])

    return forward


class _Inputs(torch.autograd.Function):
    """The half of the layer that saves for backward and computes every gradient.

    x, up, gate: the layer's input is x, or gate.product(x, up) where there is a gate.
    weight: frozen, in x.dtype.
    a, b: float32 parameters, only to receive gradients.
    narrow_a, narrow_b: the same cast to x.dtype, for the arithmetic.
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
        """A placeholder of y's shape, the input (t, d_in), and low = s · input Aᵀ (t, r)."""
        del b
        product = x.detach() if gate is None or up is None else gate.product(x, up)
        low = _scaled_product(_flat(product), narrow_a.T, scale)
        ctx.save_for_backward(x, up, weight, narrow_a, narrow_b, low)
        ctx.gate, ctx.scale, ctx.parameter_dtype = gate, scale, a.dtype
        # The placeholder alone is differentiable: y's gradient arrives through it, and autograd
        # makes no zeros for the other two.
        ctx.mark_non_differentiable(product, low)
        ctx.set_materialize_grads(False)
        return x.new_empty(1).expand(*x.shape[:-1], weight.shape[0]), product, low

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, up, a and b, from that of y (1, t, d_out)."""
        x, up, weight, a, b, low = ctx.saved_tensors
        gradient = _flat(grad_outputs[0])
        to_low = _scaled_product(gradient, b, ctx.scale)
        to_b = (low.T @ gradient).T  # twice as fast as gradient.T @ low
        to_x = to_up = None
        if ctx.needs_input_grad[0]:  # not where x is the embeddings
            to_x = (gradient @ weight).addmm_(to_low, a).view_as(x)
        if ctx.gate is None:
            to_a = to_low.T @ _flat(x)
        else:
            # to_x is the product's gradient so far. The product is computed again, as act(x) · up;
            # act(x) goes on to the gate's gradients, which overwrite it.
            activation = ctx.gate.act(x)
            to_a = to_low.T @ _flat(activation * up)
            if to_x is not None:
                to_x, to_up = ctx.gate.gradients(to_x, x, up, activation)
        to_a, to_b = to_a.to(ctx.parameter_dtype), to_b.to(ctx.parameter_dtype)
        return to_x, to_up, None, None, to_a, to_b, None, None, None


class _Output(torch.autograd.Function):
    """The half that computes y (1, t, d_out), saves nothing, and passes y's gradient on."""

    @staticmethod
    def forward(
        ctx: Any,
        placeholder: Tensor,
        product: Tensor,
        low: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        narrow_b: Tensor,
    ) -> Tensor:
        """product Wᵀ + bias + low Bᵀ; low has the scale in it."""
        del ctx, placeholder
        y = linear(product, weight, bias)
        _flat(y).addmm_(low, narrow_b.T)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """To the placeholder, and so to `_Inputs.backward`."""
        return grad_outputs[0], None, None, None, None, None


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """scale · left @ right, in one kernel."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
