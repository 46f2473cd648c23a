"""Gated feed-forward layers that keep three arrays for backward, and bend each number once."""

import functools
from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import mlx.core as mx
from mlx import nn

from fpo_mlx.exponential import compiled, sigmoid, tanh
from fpo_mlx.hooks import Switch, intercept
from fpo_mlx.lora import LINEAR

Gate = Callable[[mx.array, mx.array], mx.array]
"""act(x) · up, elementwise."""
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


def _gate(
    bend: Callable[[mx.array], mx.array],
    act: Callable[[mx.array, mx.array], mx.array],
    slope: Callable[[mx.array, mx.array], mx.array],
) -> Gate:
    """From the dear part of an activation, kept for backward, and from act(x) and act'(x) by it."""

    def gradients(x: mx.array, up: mx.array, bent: mx.array, outer: mx.array) -> list[mx.array]:
        return [outer * up * slope(x, bent), outer * act(x, bent)]

    product: Any = mx.compile(lambda x, up, bent: act(x, bent) * up, shapeless=True)
    backward: Any = mx.compile(gradients, shapeless=True)

    def forward(x: mx.array, up: mx.array) -> list[mx.array]:
        bent = bend(x)
        return [product(x, up, bent), bent]

    fused: Any = mx.custom_function(compiled(forward))
    fused.vjp(lambda primals, outer, outputs: backward(*primals, outputs[1], outer[0]))
    return lambda x, up: fused(x, up)[0]


_SQUARE, _CUBE = sqrt(2 / pi), 0.044715
_GATES = (
    _gate(sigmoid, lambda x, s: x * s, lambda x, s: s + x * s * (1 - s)),
    _gate(  # GELU by tanh
        lambda x: tanh(_SQUARE * (x + _CUBE * x * x * x)),
        lambda x, t: 0.5 * x * (1 + t),
        lambda x, t: 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _SQUARE * (1 + 3 * _CUBE * x * x),
    ),
)


def _recognise(module: Any, width: int) -> Gate | None:
    """The gate of a layer, judged by what the layer says of random vectors in float32."""
    if not all(isinstance(module.get(name), LINEAR) for name in _PARTS):
        return None
    x = mx.random.normal((2, width), key=mx.random.key(0))
    expected = module(x)
    for gate in _GATES:
        found = module.down_proj(gate(module.gate_proj(x), module.up_proj(x)))
        if mx.allclose(found, expected, rtol=1e-5, atol=1e-6):
            return gate
    return None
