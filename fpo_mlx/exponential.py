"""Exponentials for MLX's CPU build outside macOS, which computes them one number at a time.

There a polynomial over whole arrays takes a fifth of the time, at the same precision; everywhere
else, and in other precisions than float32, these are MLX's own.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

_PER_OCTAVE = 1.4426950408889634
"""1 / ln 2."""
_POWERS = (1.3400432e-3, 9.6760370e-3, 5.5503272e-2, 2.4022107e-1, 6.9314721e-1, 1.0000000755)
"""Of 2^f on [-½, ½] by degree, highest first: within 1e-7 (a fit at Chebyshev's points)."""
_ROUND = 1.5 * 2**23
"""A float32 of this size has no fraction: adding it rounds, and leaves the whole in low bits."""
_EXPONENT = 23
"""Where a float32 keeps its exponent, which is 127 for numbers around 1."""
_LARGEST, _LEAST = 87.0, -88.1
"""e to the one is still a normal number; e to the other is 2^−127, whose bits here are those of 0.
"""


def by_hand(x: mx.array) -> bool:
    """Whether MLX would be slow at exponentials of this array."""
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    return x.dtype == mx.float32 and on_cpu and not mx.metal.is_available()


def exp(x: mx.array) -> mx.array:
    """e^x, elementwise; by hand at most e^87, and 0 below e^−88."""
    if not by_hand(x):
        return mx.exp(x)
    rest, whole = _parts(x)
    return rest * whole


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + e^−x), elementwise."""
    return _share(*_parts(x)) if by_hand(x) else mx.sigmoid(x)


def tanh(x: mx.array) -> mx.array:
    """Hyperbolic tangent, elementwise; by hand within 1e-7, not relative to small values."""
    return 2 * sigmoid(2 * x) - 1 if by_hand(x) else mx.tanh(x)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled for all shapes, or as it is where its exponentials are by hand, whose
    bits MLX cannot compile so.
    """
    fast: Any = mx.compile(function, shapeless=True)
    return lambda x, *rest: (function if by_hand(x) else fast)(x, *rest)


def _parts(x: mx.array) -> tuple[mx.array, mx.array]:
    """Two factors of e^x."""
    rounded, power = _split(x)
    return power, _power(rounded.view(mx.int32)).view(mx.float32)


def _split_octaves(x: mx.array) -> list[mx.array]:
    """Whole octaves of e^x in the low bits of a float32, and 2 to the rest of an octave."""
    octaves = mx.minimum(mx.maximum(x, _LEAST), _LARGEST) * _PER_OCTAVE
    rounded = octaves + _ROUND
    rest = octaves - (rounded - _ROUND)
    power: Any = _POWERS[0]
    for coefficient in _POWERS[1:]:
        power = power * rest + coefficient
    return [rounded, power]


def _power_of_two(whole: mx.array) -> mx.array:
    """The bits of 2^n from the bits that hold n."""
    return (whole << _EXPONENT) + (127 << _EXPONENT)


_split: Any = mx.compile(_split_octaves, shapeless=True)
_share: Any = mx.compile(lambda a, b: a * b / (1 + a * b), shapeless=True)
_power: Any = mx.compile(_power_of_two, shapeless=True)
