"""Evaluating and differentiating functions of arrays on a torch device."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fpo_core.backend.selftest import Function
from fpo_torch import ops
from fpo_torch.trainable import to_numpy


class TorchCalculator:
    """`fpo_core.backend.selftest.Calculator` on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def evaluate(
        self, function: Function, arrays: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.selftest.Calculator`."""
        with torch.no_grad():
            results = function(ops, self._moved(arrays))
        return {name: to_numpy(value) for name, value in results.items()}

    def gradients(
        self, function: Function, arrays: Mapping[str, np.ndarray], names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.selftest.Calculator`."""
        moved = self._moved(arrays)
        for name in names:
            moved[name].requires_grad_()
        gradients = torch.autograd.grad(
            function(ops, moved)["losses"].sum(), [moved[name] for name in names]
        )
        return {name: to_numpy(value) for name, value in zip(names, gradients, strict=True)}

    def _moved(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(value.copy()).to(self._device) for name, value in arrays.items()
        }
