"""AdamW on the trained weights, its state under canonical names."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np
from mlx import optimizers

from fpo_core.config import OptimiserConfig
from fpo_mlx.trained import Trained, Weights

_MOMENTS = ("m", "v")


class Optimiser:
    """Holds the accumulated gradient and takes steps with it."""

    def __init__(self, trained: Trained, config: OptimiserConfig) -> None:
        self._trained = trained
        self._gradients: Weights | None = None
        # Bias correction is off in MLX by default, on in torch.
        self._adam = optimizers.AdamW(0.0, weight_decay=config.weight_decay, bias_correction=True)
        self._adam.init(trained.get())

    def add_gradients(self, gradients: Weights) -> None:
        """Add the gradient of one batch."""
        if self._gradients is not None:
            gradients = {name: self._gradients[name] + grad for name, grad in gradients.items()}
        self._gradients = gradients
        mx.eval(gradients)

    def step(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.policy.Policy.apply_gradients`."""
        if self._gradients is None:
            raise RuntimeError("no gradient was accumulated")
        clipped, total = optimizers.clip_grad_norm(self._gradients, max_norm)
        norm = float(np.asarray(total))
        if np.isfinite(norm):
            self._adam.learning_rate = learning_rate
            updated = self._adam.apply_gradients(clipped, self._trained.get())
            self._trained.put(updated)
            mx.eval(updated, self._adam.state)
        self.drop_gradients()
        return norm

    def drop_gradients(self) -> None:
        """Forget the accumulated gradient."""
        self._gradients = None

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.policy.Policy.optimiser_state`."""
        state = self._adam.state
        arrays = {"step": np.array(state["step"].item(), np.int64)}
        for moment in _MOMENTS:
            values = {name: state[name][moment] for name in self._trained.get()}
            canonical = self._trained.to_canonical(values)
            arrays |= {f"{name}.{moment}": value for name, value in canonical.items()}
        return arrays

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.policy.Policy.load_optimiser_state`."""
        self._adam.state["step"] = mx.array(int(state["step"]), mx.uint64)
        for moment in _MOMENTS:
            values = {name: state[f"{name}.{moment}"] for name in self._trained.get()}
            for name, value in self._trained.to_mlx(values).items():
                self._adam.state[name][moment] = value
