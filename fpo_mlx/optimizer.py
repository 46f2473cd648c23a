"""MLX's optimizers on the trained weights, their state under canonical names."""

from collections.abc import Iterator, Mapping

import mlx.core as mx
import numpy as np
from mlx import optimizers

from fpo_core.backend.optimizer_state import check_state, state_parts
from fpo_core.backend.process_group import Group
from fpo_core.config import OptimiserConfig
from fpo_mlx.trainable import Trainable, Weights

_KEYS = {
    "adamw": {"m": "m", "v": "v"},
    "adafactor": {"row": "exp_avg_sq_row", "col": "exp_avg_sq_col", "v": "exp_avg_sq"},
    "lion": {"m": "m"},
}
"""MLX's own names of the parts of a state."""
_TRANSPOSED = {"row": "col", "col": "row"}
"""MLX holds LoRA matrices transposed, and with them the means over their rows and columns."""


class Optimizer:
    """Holds the accumulated gradient and takes steps with it."""

    def __init__(self, trainable: Trainable, config: OptimiserConfig, group: Group) -> None:
        self._trainable, self._group = trainable, group
        self._gradients: Weights | None = None
        self._norm: mx.array | None = None
        self._steps = 0
        self._name = config.optimizer
        self._optimizer = _make(config)
        self._optimizer.init(trainable.get())

    def add_gradients(self, gradients: Weights) -> Weights:
        """Add the gradient of one batch; return the sum, not evaluated yet."""
        if self._gradients is not None:
            gradients = {name: self._gradients[name] + grad for name, grad in gradients.items()}
        self._gradients = gradients
        return gradients

    def norm(self) -> mx.array:
        """See `fpo_core.backend.parts.Optimizer`."""
        if self._norm is None:
            if self._group.size > 1:
                self._gradients = self._summed()
            squares = (mx.square(gradient).sum() for gradient in (self._gradients or {}).values())
            self._norm = mx.sqrt(sum(squares, mx.array(0.0)))
        return self._norm

    def step(self, learning_rate: float, max_norm: float, norm: float) -> None:
        """See `fpo_core.backend.parts.Optimizer`."""
        if self._gradients is None:
            raise RuntimeError("no gradient was accumulated")
        if np.isfinite(norm):
            # As MLX's clip_grad_norm, whose norm nobody could read before the step.
            factor = mx.minimum(max_norm / (self.norm() + 1e-6), 1.0)
            clipped = {name: gradient * factor for name, gradient in self._gradients.items()}
            self._steps += 1
            self._optimizer.learning_rate = self._bounded(learning_rate)
            updated = self._optimizer.apply_gradients(clipped, self._trainable.get())
            self._trainable.put(updated)
            mx.async_eval(updated, self._optimizer.state)
        self.drop_gradients()

    def _summed(self) -> Weights:
        """The gradients of all processes added up; one that saw no rows has none."""
        weights = self._trainable.get()
        local = self._gradients or {name: mx.zeros_like(w) for name, w in weights.items()}
        # One message for all weights: a ring's latency counts per message.
        flat = self._group.sum_native(mx.concatenate([local[name].flatten() for name in weights]))
        ends = np.cumsum([weight.size for weight in weights.values()])[:-1]
        parts = mx.split(flat, ends.tolist())
        return {
            name: part.reshape(weight.shape)
            for (name, weight), part in zip(weights.items(), parts, strict=True)
        }

    def drop_gradients(self) -> None:
        """Forget the accumulated gradient."""
        self._gradients = self._norm = None

    def _bounded(self, learning_rate: float) -> float:
        """Adafactor's rate is at most 1/√step (1804.04235), which torch's applies by itself."""
        if self._name != "adafactor":
            return learning_rate
        # Counted here as well: reading MLX's count would wait for the device.
        return min(learning_rate, self._steps**-0.5)

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy.optimizer_state`."""
        state = self._optimizer.state
        arrays = {"step": np.array(state["step"].item(), np.int64)}
        for name, part, key in self._parts():
            value = self._trainable.to_canonical({name: state[name][key]})[name]
            arrays[f"{name}.{part}"] = value
        return arrays

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.backend.policy.Policy.load_optimizer_state`."""
        check_state(state, self._name, self._trainable.shapes())
        self._steps = int(state["step"])
        self._optimizer.state["step"] = mx.array(self._steps, mx.uint64)
        for name, part, key in self._parts():
            value = self._trainable.to_mlx({name: state[f"{name}.{part}"]})[name]
            self._optimizer.state[name][key] = value

    def _parts(self) -> Iterator[tuple[str, str, str]]:
        """Each weight with each part of its state: their canonical names, and MLX's key."""
        for name, shape in self._trainable.shapes().items():
            for part in state_parts(self._name, shape):
                stored = _TRANSPOSED.get(part, part) if self._trainable.adapters else part
                yield name, part, _KEYS[self._name][stored]


def _make(config: OptimiserConfig) -> optimizers.Optimizer:
    if config.optimizer == "adafactor":
        return optimizers.Adafactor(0.0, relative_step=False)
    if config.optimizer == "lion":
        return optimizers.Lion(0.0, weight_decay=config.weight_decay)
    # Bias correction is off in MLX by default, on in torch.
    return optimizers.AdamW(0.0, weight_decay=config.weight_decay, bias_correction=True)
