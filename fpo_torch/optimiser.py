"""AdamW on the trained weights, its state under canonical names."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from fpo_core.config import OptimiserConfig
from fpo_torch.trained import Trained, to_numpy

_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}
"""Suffix of the canonical name, and torch's own key."""


class Optimiser:
    """Takes steps with the gradients that lie on the trained weights."""

    def __init__(self, trained: Trained, config: OptimiserConfig) -> None:
        self._weights = trained.parameters
        self._adam = torch.optim.AdamW(
            self._weights.values(), lr=0.0, weight_decay=config.weight_decay
        )

    def step(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.policy.Policy.apply_gradients`."""
        norm = float(nn.utils.clip_grad_norm_(list(self._weights.values()), max_norm))
        if np.isfinite(norm):
            for group in self._adam.param_groups:
                group["lr"] = learning_rate
            self._adam.step()
        self.drop_gradients()
        return norm

    def drop_gradients(self) -> None:
        """Forget what lies on the weights."""
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.policy.Policy.optimiser_state`."""
        arrays: dict[str, np.ndarray] = {"step": np.array(0, np.int64)}
        for name, weight in self._weights.items():
            of_weight = self._adam.state.get(weight, {})  # empty before the first step
            for suffix, key in _MOMENTS.items():
                moment = of_weight.get(key, torch.zeros_like(weight))
                arrays[f"{name}.{suffix}"] = to_numpy(moment)
            arrays["step"] = np.array(int(of_weight.get("step", 0)), np.int64)
        return arrays

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.policy.Policy.load_optimiser_state`."""
        for name, weight in self._weights.items():
            moments = {
                key: torch.from_numpy(np.array(state[f"{name}.{suffix}"])).to(weight.device)
                for suffix, key in _MOMENTS.items()
            }
            step = torch.tensor(float(state["step"]))
            self._adam.state[weight] = {"step": step, **moments}
