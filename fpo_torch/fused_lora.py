"""A linear layer and its adapter as one function: the wide input is kept for backward once."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear


class FusedLora:
    """Swaps PEFT's forward of plain adapters for the fused one, while it is on."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, LoraLinear) and _is_plain(m)]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within, forward and backward passes of these layers are fused."""
        for layer in self._layers:
            vars(layer)["forward"] = _fused(layer)
        try:
            yield
        finally:
            for layer in self._layers:
                del vars(layer)["forward"]


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


def _fused(layer: LoraLinear) -> Callable[[Tensor], Tensor]:
    base, dropout = layer.get_base_layer(), layer.lora_dropout["default"]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    scale = layer.scaling["default"]

    def forward(x: Tensor) -> Tensor:
        if layer.disable_adapters or layer.merged or not isinstance(dropout, nn.Identity):
            return type(layer).forward(layer, x)
        return _Lora.apply(x, base.weight, base.bias, a, b, scale)

    return forward


class _Lora(torch.autograd.Function):
    """y = x Wᵀ + bias + s (x Aᵀ) Bᵀ, all products in the precision of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        low = _flat(x) @ a.to(x.dtype).T
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        y = linear(x, weight, bias)
        _flat(y).addmm_(low, b.to(x.dtype).T, alpha=scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        x, weight, a, b, low = ctx.saved_tensors
        rows, outer = _flat(x), _flat(gradient)
        to_low = outer @ b.to(x.dtype) * ctx.scale
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (outer @ weight).addmm_(to_low, a.to(x.dtype)).view_as(x)
        to_a = to_low.T @ rows
        to_b = ((low * ctx.scale).T @ outer).T  # twice as fast as the product turned round
        return to_x, None, None, to_a.to(a.dtype), to_b.to(b.dtype), None


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
