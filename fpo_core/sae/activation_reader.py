"""What a backend provides to read a frozen model: `ActivationReader`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fpo_core.arrays.ops import Array, Ops

Splice = Callable[[Array], Array]
"""Puts other activations in the place of those at a hook: (n, t, d_in) -> (n, t, d_in)."""


class ActivationReader(Protocol):
    """A frozen model whose activations at one or several hooks can be read, in some framework.

    One that is not `whole` ends at the last of its hooks and has no logits.
    """

    ops: Ops

    def read(self, tokens: np.ndarray) -> tuple[Array, ...]:
        """Activations at each hook of right-padded ids: (n, t) int32 -> (n, t, d_in) each."""
        ...

    def logits(self, tokens: np.ndarray, splice: Splice | None = None) -> Array:
        """Predictions of the whole model, (n, t) -> (n, t, v), with the first hook spliced."""
        ...

    def numpy(self, array: Array) -> np.ndarray:
        """An array of the framework as float32 NumPy."""
        ...
