"""torch's optimizers on the trained weights, their state under canonical names."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fpo_core.backend.optimizer_state import check_optimizer, check_state, state_parts
from fpo_core.backend.process_group import Group
from fpo_core.config import OptimiserConfig
from fpo_torch.trainable import Trainable, to_numpy

_KEYS = {
    "adamw": {"m": "exp_avg", "v": "exp_avg_sq"},
    "adafactor": {"row": "row_var", "col": "col_var", "v": "variance"},
}
"""torch's own names of the parts of a state."""
_NORM_EPS = 1e-6
"""Added to a norm that torch's clipping divides by."""
_ADAFACTOR_EPS = (1e-18, 1e-3)
"""torch's default for the first, 1.2e-7, would bound the mean of the squared gradient."""


class Optimizer:
    """Takes steps with the gradients that lie on the trained weights."""

    _flattens = True

    def __init__(self, trainable: Trainable, config: OptimiserConfig, group: Group) -> None:
        check_optimizer(config.optimizer, "torch")
        self._trainable, self._weights = trainable, trainable.parameters
        self._name, self._group = config.optimizer, group
        self._norm: Tensor | None = None
        self._flat = _flat_gradients(trainable) if self._flattens else None
        self._optimizer = _make(list(self._weights.values()), config)
        self._is_fused = bool(self._optimizer.defaults.get("fused"))
        if self._is_fused:
            for weight in self._weights.values():
                moments = {key: torch.zeros_like(weight) for key in _KEYS["adamw"].values()}
                step = torch.zeros((), device=weight.device)
                self._optimizer.state[weight] = {"step": step, **moments}

    def norm(self) -> Tensor:
        """See `fpo_core.backend.parts.Optimizer`."""
        if self._norm is None:
            if self._group.size > 1:
                self._sum_gradients()
            self._norm = self._local_norm()
        return self._norm

    def _local_norm(self) -> Tensor:
        gradients = [w.grad for w in self._weights.values() if w.grad is not None]
        if self._is_fused and gradients:
            # All of one type on one device, for which torch's own way asks each of them.
            norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
            return torch.linalg.vector_norm(torch.stack(norms).float())
        return nn.utils.get_total_norm(gradients)

    def step(self, learning_rate: float, max_norm: float, norm: float) -> None:
        """See `fpo_core.backend.parts.Optimizer`."""
        if np.isfinite(norm):
            if self._is_fused:
                self._fused_step(learning_rate, max_norm)
            else:
                weights = list(self._weights.values())
                nn.utils.clip_grads_with_norm_(weights, max_norm, self.norm())
                for group in self._optimizer.param_groups:
                    group["lr"] = learning_rate
                self._optimizer.step()
        self.drop_gradients()

    @torch.no_grad()
    def _fused_step(self, learning_rate: float, max_norm: float) -> None:
        """A step without the optimizer's search of its state, which a fast GPU waits for.

        The kernel clips too: it divides gradients as it does those of a scaled loss.
        """
        graded = [(w, w.grad) for w in self._weights.values() if w.grad is not None]
        states = [self._optimizer.state[weight] for weight, _ in graded]
        options = self._optimizer.defaults
        adamw(
            params=[weight for weight, _ in graded],
            grads=[gradient for _, gradient in graded],
            exp_avgs=[state["exp_avg"] for state in states],
            exp_avg_sqs=[state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            grad_scale=((self.norm() + _NORM_EPS) / max_norm).clamp(min=1.0),
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=learning_rate,
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            weight_decay=options["weight_decay"],
            eps=options["eps"],
        )

    def _sum_gradients(self) -> None:
        """Add up the gradients of all processes; one that saw no rows has none."""
        if self._flat is not None:
            self._group.sum_native(self._flat)
            return
        weights = list(self._weights.values())
        local = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        # One message for all weights: latency counts per message.
        flat = self._group.sum_native(torch.cat([gradient.reshape(-1) for gradient in local]))
        _split_into_gradients(flat, weights)

    def drop_gradients(self) -> None:
        """Forget what lies on the weights."""
        self._norm = None
        if self._flat is not None:
            self._flat.zero_()
            return
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy.optimizer_state`."""
        arrays: dict[str, np.ndarray] = {"step": np.array(0, np.int64)}
        for name, weight in self._weights.items():
            of_weight = self._optimizer.state.get(weight, {})  # empty before the first step
            for part, shape in state_parts(self._name, tuple(weight.shape)).items():
                value = of_weight.get(_KEYS[self._name][part])
                arrays[f"{name}.{part}"] = (
                    np.zeros(shape, np.float32) if value is None else to_numpy(value).reshape(shape)
                )
            arrays["step"] = np.array(int(of_weight.get("step", 0)), np.int64)
        return arrays

    def _of_weight(self, name: str, array: np.ndarray) -> np.ndarray:
        """What of a part of a state belongs to a weight here: all of it."""
        del name
        return array

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.backend.policy.Policy.load_optimizer_state`."""
        shapes = self._trainable.shapes()
        check_state(state, self._name, shapes)
        for name, weight in self._weights.items():
            parts = {
                _KEYS[self._name][part]: _as_torch(
                    part, self._of_weight(name, state[f"{name}.{part}"]), weight
                )
                for part in state_parts(self._name, shapes[name])
            }
            step = torch.tensor(float(np.asarray(state["step"])))
            step = step.to(weight.device) if _fused(weight) else step
            self._optimizer.state[weight] = {"step": step, **parts}


def _flat_gradients(trainable: Trainable) -> Tensor | None:
    """One array that holds the gradients of adapters on the CPU for good; None for others.

    Allocating these small arrays anew among a backward pass's large ones fragments the heap: a
    quarter of a checkpointed step's memory. CUDA's allocator pools small arrays separately.
    """
    weights = list(trainable.parameters.values())
    if not trainable.adapters or weights[0].device.type != "cpu":
        return None
    flat = torch.zeros(sum(weight.numel() for weight in weights))
    _split_into_gradients(flat, weights)
    return flat


def _split_into_gradients(flat: Tensor, weights: list[nn.Parameter]) -> None:
    """Make each weight's gradient a view of its part of one array."""
    for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)


def _make(weights: list[nn.Parameter], config: OptimiserConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(weights, lr=0.0, eps=_ADAFACTOR_EPS)
    fused = _fused(weights[0])
    return torch.optim.AdamW(weights, lr=0.0, weight_decay=config.weight_decay, fused=fused)


def _fused(weight: Tensor) -> bool:
    """Whether Adam runs as one kernel, which wants its step count on the weights' device."""
    return weight.device.type == "cuda"


def _as_torch(part: str, array: np.ndarray, weight: nn.Parameter) -> Tensor:
    """A part of a state in torch's shape: Adafactor's means keep the reduced axis as 1."""
    tensor = torch.from_numpy(np.array(array)).to(weight.device)
    axis = {"row": -1, "col": -2}.get(part)
    return tensor if axis is None else tensor.unsqueeze(axis)
