"""torch's optimisers on the trained weights, their state under canonical names."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fpo_core.backend.optimiser_state import check_optimizer, check_state, state_parts
from fpo_core.backend.process_group import Group
from fpo_core.config import OptimiserConfig
from fpo_torch.trainable import Trained, to_numpy

_KEYS = {
    "adamw": {"m": "exp_avg", "v": "exp_avg_sq"},
    "adafactor": {"row": "row_var", "col": "col_var", "v": "variance"},
}
"""torch's own names of the parts of a state."""
_ADAFACTOR_EPS = (1e-18, 1e-3)
"""torch's default for the first, 1.2e-7, would bound the mean of the squared gradient."""


class Optimiser:
    """Takes steps with the gradients that lie on the trained weights."""

    def __init__(self, trained: Trained, config: OptimiserConfig, group: Group) -> None:
        check_optimizer(config.optimizer, "torch")
        self._weights, self._name, self._group = trained.parameters, config.optimizer, group
        self._kept = _kept_gradients(trained)
        self._optimizer = _make(list(self._weights.values()), config)

    def step(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.backend.policy.Policy.apply_gradients`."""
        if self._group.size > 1:
            self._sum_gradients()
        norm = float(nn.utils.clip_grad_norm_(list(self._weights.values()), max_norm))
        if np.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self.drop_gradients()
        return norm

    def _sum_gradients(self) -> None:
        """Add up the gradients of all processes; one that saw no rows has none."""
        if self._kept is not None:
            self._group.sum_native(self._kept)
            return
        weights = list(self._weights.values())
        mine = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        flat = self._group.sum_native(torch.cat([gradient.reshape(-1) for gradient in mine]))
        _share_out(flat, weights)

    def drop_gradients(self) -> None:
        """Forget what lies on the weights."""
        if self._kept is not None:
            self._kept.zero_()
            return
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy.optimiser_state`."""
        arrays: dict[str, np.ndarray] = {"step": np.array(0, np.int64)}
        for name, weight in self._weights.items():
            of_weight = self._optimizer.state.get(weight, {})  # empty before the first step
            for part, shape in state_parts(self._name, tuple(weight.shape)).items():
                held = of_weight.get(_KEYS[self._name][part])
                arrays[f"{name}.{part}"] = (
                    np.zeros(shape, np.float32) if held is None else to_numpy(held).reshape(shape)
                )
            arrays["step"] = np.array(int(of_weight.get("step", 0)), np.int64)
        return arrays

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.backend.policy.Policy.load_optimiser_state`."""
        shapes = {name: tuple(weight.shape) for name, weight in self._weights.items()}
        check_state(state, self._name, shapes)
        for name, weight in self._weights.items():
            parts = {
                _KEYS[self._name][part]: _as_torch(part, state[f"{name}.{part}"], weight)
                for part in state_parts(self._name, shapes[name])
            }
            step = torch.tensor(float(state["step"]))
            step = step.to(weight.device) if _fused(weight) else step
            self._optimizer.state[weight] = {"step": step, **parts}


def _kept_gradients(trained: Trained) -> Tensor | None:
    """One array that holds the gradients of adapters on the CPU for good; None for others.

    Small arrays that came and went among a backward pass's large ones would leave the memory in
    pieces that nothing large fits in. CUDA's allocator keeps small arrays apart by itself.
    """
    weights = list(trained.parameters.values())
    if not trained.adapters or weights[0].device.type != "cpu":
        return None
    flat = torch.zeros(sum(weight.numel() for weight in weights))
    _share_out(flat, weights)
    return flat


def _share_out(flat: Tensor, weights: list[nn.Parameter]) -> None:
    """Have each weight's gradient be its part of one array."""
    for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)


def _make(weights: list[nn.Parameter], config: OptimiserConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(weights, lr=0.0, eps=_ADAFACTOR_EPS)
    fused = _fused(weights[0])
    return torch.optim.AdamW(weights, lr=0.0, weight_decay=config.weight_decay, fused=fused)


def _fused(weight: Tensor) -> bool:
    """Whether Adam runs as one kernel, which keeps its step beside the weights."""
    return weight.device.type == "cuda"


def _as_torch(part: str, array: np.ndarray, weight: nn.Parameter) -> Tensor:
    """A part of a state as torch shapes it: means keep the axis that they were taken over."""
    tensor = torch.from_numpy(np.array(array)).to(weight.device)
    axis = {"row": -1, "col": -2}.get(part)
    return tensor if axis is None else tensor.unsqueeze(axis)
