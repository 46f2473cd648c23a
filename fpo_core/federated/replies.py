"""Checking what a client sent before anything is made of it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fpo_core.io.foreign_text import one_line


def fault(
    arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], pairs: float, steps: float
) -> str | None:
    """What is wrong with a client's arrays and counts, in words; None where nothing is.

    Expected are float32 arrays of these canonical names and shapes, all finite.
    """
    return next(_faults(arrays, expected, {"pairs": pairs, "steps": steps}), None)


def _faults(
    arrays: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    counts: Mapping[str, float],
) -> Iterator[str]:
    yield from (f"{name} is missing" for name in expected if name not in arrays)
    for name, array in arrays.items():
        if name not in expected:
            yield f"{one_line(str(name))[:80]} was not asked for"
        elif tuple(array.shape) != tuple(expected[name]):
            yield f"{name} has shape {tuple(array.shape)}, expected {tuple(expected[name])}"
        elif array.dtype != np.float32:
            yield f"{name} is {array.dtype}, expected float32"
        elif not np.isfinite(array).all():
            yield f"{name} holds a number that is not finite"
    for label, count in counts.items():
        if not (np.isfinite(count) and count > 0 and count == int(count)):
            yield f"{label} is {count}, expected a whole number above 0"
