"""Exponentials for MLX's CPU build outside macOS, which computes them one number at a time.

There a polynomial over whole arrays takes a fifth of the time, at the same precision; everywhere
else, and in other precisions than float32, these are MLX's own.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

PER_OCTAVE = 1.4426950408889634
"""Octaves in a factor of e: 1 / ln 2."""
_POWERS = (1.3400432e-3, 9.6760370e-3, 5.5503272e-2, 2.4022107e-1, 6.9314721e-1, 1.0000000755)
"""Of 2^f on [-½, ½] by degree, highest first: within 1e-7 (a fit at Chebyshev's points)."""
_EXPONENT, _BIAS = 23, 127
"""Where a float32 keeps its exponent, and what that is for numbers around 1."""
_ROUND = 1.5 * 2**_EXPONENT + _BIAS
"""A float32 of this size has no fraction: adding it rounds, and leaves the exponent in low bits."""


def by_hand(x: mx.array) -> bool:
    """Whether MLX would be slow at exponentials of this array."""
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    return x.dtype == mx.float32 and on_cpu and not mx.metal.is_available()


def exp(x: mx.array) -> mx.array:
    """e^x, elementwise; by hand at most 2^127, and 0 below 2^−126.5."""
    return _joined(*_split_natural(x)) if by_hand(x) else mx.exp(x)


def exp2(x: mx.array) -> mx.array:
    """2^x by hand, elementwise, for float32 up to 127; 0 below −126.5."""
    return _joined(*_split(x))


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + e^−x), elementwise."""
    return _share(exp(x)) if by_hand(x) else mx.sigmoid(x)


def tanh(x: mx.array) -> mx.array:
    """Hyperbolic tangent, elementwise; by hand within 1e-7, not relative to small values."""
    return 2 * sigmoid(2 * x) - 1 if by_hand(x) else mx.tanh(x)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled for all shapes, or as it is where its exponentials are by hand, whose
    bits MLX cannot compile so.
    """
    fast: Any = mx.compile(function, shapeless=True)
    return lambda x, *rest: (function if by_hand(x) else fast)(x, *rest)


def _split_octaves(octaves: mx.array) -> list[mx.array]:
    """A float32 with the exponent of 2^x in its low bits, and 2 to the rest of an octave."""
    octaves = mx.maximum(octaves, -_BIAS)  # an exponent of 0 stands for 0
    rounded = octaves + _ROUND
    rest = octaves - (rounded - _ROUND)
    power: Any = _POWERS[0]
    for coefficient in _POWERS[1:]:
        power = power * rest + coefficient
    return [rounded, power]


def _joined(rounded: mx.array, power: mx.array) -> mx.array:
    return power * (rounded.view(mx.int32) << _EXPONENT).view(mx.float32)


_split: Any = mx.compile(_split_octaves, shapeless=True)
_split_natural: Any = mx.compile(
    lambda x: _split_octaves(mx.minimum(x * PER_OCTAVE, _BIAS)), shapeless=True
)
_share: Any = mx.compile(lambda power: power / (1 + power), shapeless=True)
