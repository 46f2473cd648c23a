"""A linear layer and its adapter as one function, with fewer passes over what is wide."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.tuner.lora import LoRALinear

from fpo_mlx.hooks import Switch, intercept


def fuse_lora(model: nn.Module, switch: Switch) -> None:
    """Stand in for mlx-lm's adapters without dropout, while the switch is on."""

    def call(inner: Callable[..., mx.array], layer: Any, x: mx.array) -> mx.array:
        if not switch.on or x.dtype != layer.lora_a.dtype:
            return inner(layer, x)
        rows = x.reshape(-1, x.shape[-1])
        y = _fused(layer.linear, layer.scale, rows, layer.lora_a, layer.lora_b)
        return y.reshape(*x.shape[:-1], -1)

    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            intercept(layer, call)


def _fused(
    linear: Callable[..., Any], scale: float, x: mx.array, a: mx.array, b: mx.array
) -> mx.array:
    """linear(x) + s (x A) B: (n, d), (d, r), (r, m) -> (n, m)."""

    def forward(x: mx.array, low: mx.array, a: mx.array, b: mx.array) -> mx.array:
        del a
        return mx.addmm(linear(x), low, b, alpha=scale)

    def backward(primals: Any, outer: mx.array, output: mx.array) -> tuple[mx.array, ...]:
        del output
        x, low, a, b = primals
        to_low = outer @ b.T * scale
        # Of the frozen layer only what its gradient needs is evaluated.
        direct = mx.vjp(linear, [x], [outer])[1][0]
        # Of products across tokens, those that turn round the thin side are cheap.
        to_a, to_b = (to_low.T @ x).T, (low * scale).T @ outer
        return mx.addmm(direct, to_low, a.T), mx.zeros_like(low), to_a, to_b

    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    # Given, x A is kept without the output, which a checkpoint would repeat with it.
    return function(x, mx.stop_gradient(x @ a), a, b)
