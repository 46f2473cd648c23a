"""Gated feed-forward layers whose elementwise product is one kernel each way.

Computes act(x) · up, (..., m), (..., m) -> (..., m), between the projections of an MLP.
Saves x and up for backward, and nothing else: MLX's autodiff would save every step of the
activation, five arrays of the widest size a block has, or six for GELU.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from math import pi, sqrt
from typing import Any

import mlx.core as mx
from mlx import nn

from fpo_mlx.hooks import intercept
from fpo_mlx.lora import LINEAR

Elementwise = Callable[[mx.array], mx.array]
Gate = Callable[[mx.array, mx.array], mx.array]
"""act(x) · up, elementwise."""
_PARTS = ("gate_proj", "up_proj", "down_proj")


class FusedMlps:
    """The layers of a model that prove to be down(act(gate(x)) · up(x)), fused while it is on."""

    def __init__(self, model: nn.Module, width: int) -> None:
        """`width` is that of the residual stream, which the layers read."""
        self._active = False
        for module in model.modules():
            gate = _recognise(module, width)
            if gate is not None:
                intercept(module, functools.partial(self._call, gate))

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within, forward and backward passes of these layers are fused."""
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def _call(
        self, gate: Gate, inner: Callable[..., mx.array], module: Any, x: mx.array
    ) -> mx.array:
        if not self._active:
            return inner(module, x)
        return module.down_proj(gate(module.gate_proj(x), module.up_proj(x)))


def _gate(act: Elementwise, derivative: Elementwise) -> Gate:
    """act(x) · up as a function with a gradient of its own, from act and act'."""

    def gradients(x: mx.array, up: mx.array, gradient: mx.array) -> list[mx.array]:
        """By x, then by up."""
        return [gradient * up * derivative(x), gradient * act(x)]

    product: Any = mx.compile(lambda x, up: act(x) * up, shapeless=True)
    backward: Any = mx.compile(gradients, shapeless=True)
    fused: Any = mx.custom_function(product)
    # Recomputing the activation is one pass of a kernel that reads x and up anyway.
    fused.vjp(lambda inputs, gradient, _output: tuple(backward(*inputs, gradient)))
    return fused


def _silu_derivative(x: mx.array) -> mx.array:
    s = mx.sigmoid(x)
    return s + x * s * (1 - s)


_ROOT, _CUBIC = sqrt(2 / pi), 0.044715


def _gelu_tanh(x: mx.array) -> mx.array:
    return mx.tanh(_ROOT * (x + _CUBIC * x * x * x))


_GATES = (
    _gate(lambda x: x * mx.sigmoid(x), _silu_derivative),
    _gate(  # GELU by tanh: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
        lambda x: 0.5 * x * (1 + _gelu_tanh(x)),
        lambda x: (
            0.5 * (1 + _gelu_tanh(x))
            + 0.5 * x * (1 - mx.square(_gelu_tanh(x))) * _ROOT * (1 + 3 * _CUBIC * x * x)
        ),
    ),
)


def _recognise(module: Any, width: int) -> Gate | None:
    """The gate of a layer, judged by its output on random vectors in float32."""
    if not all(isinstance(module.get(name), LINEAR) for name in _PARTS):
        return None
    x = mx.random.normal((2, width), key=mx.random.key(0))
    expected = module(x)
    for gate in _GATES:
        fused = module.down_proj(gate(module.gate_proj(x), module.up_proj(x)))
        if mx.allclose(fused, expected, rtol=1e-5, atol=1e-6):
            return gate
    return None
