"""Gated feed-forward layers whose product, and its gradient, are one pass over memory each."""

import functools
from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear

from fpo_mlx.hooks import Switch, intercept

Gate = Callable[[mx.array, mx.array], mx.array]
"""act(x) · up, elementwise."""


_LINEAR = (nn.Linear, nn.QuantizedLinear, LoRALinear, DoRALinear)
_PARTS = ("gate_proj", "up_proj", "down_proj")


def fuse_mlps(model: nn.Module, width: int, switch: Switch) -> None:
    """Stand in for layers that prove to be down(act(gate(x)) · up(x)), while the switch is on.

    `width` is that of the residual stream, which they read.
    """

    def call(gate: Gate, inner: Callable[..., mx.array], module: Any, x: mx.array) -> mx.array:
        if not switch.on:
            return inner(module, x)
        return module.down_proj(gate(module.gate_proj(x), module.up_proj(x)))

    for module in model.modules():
        found = _recognise(module, width)
        if found is not None:
            intercept(module, functools.partial(call, found))


def _gate(act: Callable[[mx.array], mx.array]) -> Gate:
    def product(x: mx.array, up: mx.array) -> mx.array:
        return act(x) * up

    def gradients(x: mx.array, up: mx.array, outer: mx.array) -> list[mx.array]:
        return mx.vjp(product, [x, up], [outer])[1]

    backward: Any = mx.compile(gradients, shapeless=True)
    fused: Any = mx.custom_function(mx.compile(product, shapeless=True))
    fused.vjp(lambda primals, outer, output: backward(*primals, outer))
    return fused


def _gelu(x: mx.array) -> mx.array:
    """By tanh."""
    return 0.5 * x * (1 + mx.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


_GATES = (_gate(lambda x: x * mx.sigmoid(x)), _gate(_gelu))


def _recognise(module: Any, width: int) -> Gate | None:
    """The gate of a layer, judged by what the layer says of random vectors in float32."""
    if not all(isinstance(module.get(name), _LINEAR) for name in _PARTS):
        return None
    x = mx.random.normal((2, width), key=mx.random.key(0))
    expected = module(x)
    for gate in _GATES:
        found = module.down_proj(gate(module.gate_proj(x), module.up_proj(x)))
        if mx.allclose(found, expected, rtol=1e-5, atol=1e-6):
            return gate
    return None
