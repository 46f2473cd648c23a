"""Evaluating and differentiating functions of arrays with MLX."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from fpo_core.backend.selftest import Function
from fpo_mlx import ops


class MlxCalculator:
    """`fpo_core.backend.selftest.Calculator` on MLX's default device."""

    def evaluate(
        self, function: Function, arrays: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.selftest.Calculator`."""
        return _to_numpy(function(ops, _moved(arrays)))

    def gradients(
        self, function: Function, arrays: Mapping[str, np.ndarray], names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.selftest.Calculator`."""
        fixed = _moved(arrays)

        def total(moving: dict[str, mx.array]) -> mx.array:
            return function(ops, fixed | moving)["losses"].sum()

        return _to_numpy(mx.grad(total)({name: fixed[name] for name in names}))


def _moved(arrays: Mapping[str, np.ndarray]) -> dict[str, mx.array]:
    return {name: mx.array(value) for name, value in arrays.items()}


def _to_numpy(arrays: Mapping[str, mx.array]) -> dict[str, np.ndarray]:
    mx.eval(*arrays.values())
    return {name: np.array(value.astype(mx.float32)) for name, value in arrays.items()}
